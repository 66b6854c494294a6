"""The lean feed-forward product against the plain formula."""

import torch
from torch import Tensor
from torch.nn import functional as F

from krontime.ops.feed_forward import gelu_linear


def operands(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(2, 5, 6, dtype=dtype, generator=generator, requires_grad=True)
    return hidden, torch.randn(4, 6, dtype=dtype, generator=generator, requires_grad=True)


def test_equals_the_plain_formula_in_values_and_gradients() -> None:
    hidden, weight = operands()
    torch.testing.assert_close(gelu_linear(hidden, weight), F.linear(F.gelu(hidden), weight))
    assert torch.autograd.gradcheck(gelu_linear, (hidden, weight))


def test_keeps_the_hidden_layer_alone() -> None:
    hidden, weight = operands()
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        gelu_linear(hidden, weight)
    assert [t.data_ptr() for t in kept] == [hidden.data_ptr(), weight.data_ptr()]


def test_works_in_half_precision_under_autocast() -> None:
    hidden, weight = operands(torch.float32)
    half = hidden.detach().bfloat16().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        out = gelu_linear(half, weight)
    assert out.dtype == torch.bfloat16
    grads = torch.autograd.grad(out.float().square().sum(), (half, weight))
    expected = torch.autograd.grad(gelu_linear(hidden, weight).square().sum(), (hidden, weight))
    assert [grad.dtype for grad in grads] == [torch.bfloat16, torch.float32]
    for grad, other in zip(grads, expected, strict=True):
        torch.testing.assert_close(grad.float(), other, rtol=0.1, atol=0.3)


def test_a_compiler_gets_the_plain_formula() -> None:
    hidden, weight = operands()
    compiled = torch.compile(gelu_linear, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(hidden, weight), gelu_linear(hidden, weight))
