"""The feed-forward network in chunks against the plain formula."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from krontime.ops import chunking
from krontime.ops.feed_forward import norm_gelu_linear


def layers(dtype: torch.dtype = torch.float64) -> tuple[nn.LayerNorm, nn.Linear, nn.Linear]:
    torch.manual_seed(0)
    norm = nn.LayerNorm(4, dtype=dtype)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    return norm, nn.Linear(4, 6, bias=False, dtype=dtype), nn.Linear(6, 4, bias=False, dtype=dtype)


def series(dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(2, 5, 4, dtype=dtype, generator=torch.Generator().manual_seed(1), requires_grad=True)


def plain(x: Tensor, norm: nn.LayerNorm, expand: nn.Linear, contract: nn.Linear) -> Tensor:
    return contract(F.gelu(expand(norm(x))))


def operands(x: Tensor, modules: tuple[nn.Module, ...]) -> list[Tensor]:
    return [x, *(parameter for module in modules for parameter in module.parameters())]


@pytest.mark.parametrize("tokens_at_once", [1, 3, 1000])
def test_equals_the_plain_formula_in_values_and_gradients(monkeypatch: pytest.MonkeyPatch, tokens_at_once: int) -> None:
    monkeypatch.setattr(chunking, "CHUNK_TOKENS", tokens_at_once)
    x, modules = series(), layers()
    got, expected = norm_gelu_linear(x, *modules), plain(x, *modules)
    torch.testing.assert_close(got, expected)
    probe = torch.linspace(-1, 1, got.numel(), dtype=got.dtype).view(got.shape).cos()
    for one, other in zip(
        torch.autograd.grad(got, operands(x, modules), probe),
        torch.autograd.grad(expected, operands(x, modules), probe),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("tokens_at_once", [1, 1000])
def test_without_gradients_nothing_is_kept(monkeypatch: pytest.MonkeyPatch, tokens_at_once: int) -> None:
    monkeypatch.setattr(chunking, "CHUNK_TOKENS", tokens_at_once)
    x, modules = series(), layers()
    made: list[tuple[int, ...]] = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            result = func(*args, **(kwargs or {}))
            if isinstance(result, Tensor):
                made.append(tuple(result.shape))
            return result

    with torch.no_grad(), Watch():
        got = norm_gelu_linear(x, *modules)
    torch.testing.assert_close(got, plain(x, *modules))
    assert ((10, 6) in made) == (tokens_at_once == 1000)  # the hidden layer of all tokens


def test_one_piece_is_no_copy() -> None:
    whole = torch.zeros(4, 2)
    assert chunking.write_chunk(whole, slice(0, 4), None, like=whole) is whole
    filled = None
    for part in (slice(0, 3), slice(3, 6)):
        filled = chunking.write_chunk(
            torch.full((len(range(6)[part]), 2), part.start), part, filled, like=torch.zeros(6, 2)
        )
    assert filled is not None
    assert filled[:, 0].tolist() == [0, 0, 0, 3, 3, 3]


def test_takes_a_batch_of_nothing() -> None:
    x = torch.zeros(0, 5, 4, dtype=torch.float64, requires_grad=True)
    out = norm_gelu_linear(x, *layers())
    out.sum().backward()
    assert out.shape == x.shape


def test_keeps_the_input_and_the_hidden_layer_alone() -> None:
    x, modules = series(), layers()
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        norm_gelu_linear(x, *modules)
    assert sum(t.numel() for t in kept) == 2 * 5 * 6 + sum(t.numel() for t in operands(x, modules))


def test_works_in_half_precision_under_autocast() -> None:
    x, modules = series(torch.float32), layers(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        out = norm_gelu_linear(x, *modules)
    assert out.dtype == torch.bfloat16
    grads = torch.autograd.grad(out.float().square().sum(), operands(x, modules))
    expected = torch.autograd.grad(plain(x, *modules).square().sum(), operands(x, modules))
    assert {grad.dtype for grad in grads} == {torch.float32}
    for grad, other in zip(grads, expected, strict=True):
        torch.testing.assert_close(grad, other, rtol=0.1, atol=0.1)


def test_works_in_half_precision_throughout() -> None:
    x, modules = series(torch.bfloat16), layers(torch.bfloat16)
    out = norm_gelu_linear(x, *modules)
    out.float().sum().backward()
    assert out.dtype == torch.bfloat16
    assert {t.grad.dtype for t in operands(x, modules) if t.grad is not None} == {torch.bfloat16}


def test_a_compiler_gets_the_plain_formula() -> None:
    x, modules = series(), layers()
    compiled = torch.compile(norm_gelu_linear, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x, *modules), plain(x, *modules))


def test_pieces_cover_all_items_once() -> None:
    for num_items in (0, 1, 7, 200):
        for tokens_each in (1, 100, 5000):
            parts = list(chunking.chunks(num_items, tokens_each=tokens_each, device=torch.device("cpu")))
            assert [index for part in parts for index in range(num_items)[part]] == list(range(num_items))
            assert 1 <= len(parts) <= chunking.MAX_CHUNKS
    assert list(chunking.chunks(5000, device=torch.device("cuda"))) == [slice(0, 5000)]
