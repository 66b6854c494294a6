import math
import random

import pytest
import torch
from torch import Tensor

from krontime.ops import chunking
from krontime.ops.attention import apply_factors, level_factors, validity_scale
from krontime.ops.levels import LevelPlan
from krontime.ops.projections import channels_first, mix_and_project

ORDERS = ["bottom_up", "top_down", "parallel"]


def test_channels_first_is_a_product_with_gradients() -> None:
    x = torch.randn(3, 5, 4, dtype=torch.float64, requires_grad=True)
    weights = [torch.randn(rows, 4, dtype=torch.float64, requires_grad=True) for rows in (6, 2)]
    for product, weight in zip(channels_first(x, *weights), weights, strict=True):
        torch.testing.assert_close(product, torch.nn.functional.linear(x, weight).mT)
    assert torch.autograd.gradcheck(channels_first, (x, *weights))


def mixed(num_levels: int, masked: bool) -> tuple[Tensor, list[Tensor], Tensor, Tensor | None]:
    rng = random.Random(num_levels)
    sizes = tuple(rng.randint(2, 4) for _ in range(num_levels))
    plan, num_tokens = LevelPlan(sizes, math.prod(sizes)), math.prod(sizes)
    generator = torch.Generator().manual_seed(num_levels)
    mask = torch.rand(2, num_tokens, generator=generator) < 0.6 if masked else None
    q, k, v = torch.randn(3, 2, 2, 3, num_tokens, dtype=torch.float64, generator=generator)
    if mask is not None:
        q, k, v = (t * mask[:, None, None] for t in (q, k, v))
    factors = [factor.requires_grad_() for factor in level_factors(q, k, plan, mask=mask)]
    weight = torch.randn(5, 6, dtype=torch.float64, generator=generator, requires_grad=True)
    return v.requires_grad_(), factors, weight, mask


@pytest.mark.parametrize("tokens_at_once", [1, 1000])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("num_levels", [1, 2, 3, 4])
def test_mixing_equals_the_plain_formula_in_values_and_gradients(
    monkeypatch: pytest.MonkeyPatch, num_levels: int, order: str, masked: bool, tokens_at_once: int
) -> None:
    monkeypatch.setattr(chunking, "CHUNK_TOKENS", tokens_at_once)
    v, factors, weight, mask = mixed(num_levels, masked)
    plain = torch.nn.functional.linear(apply_factors(v, factors, order=order, mask=mask).flatten(1, 2).mT, weight)
    got = mix_and_project(v, factors, weight, order=order, mask=mask)
    torch.testing.assert_close(got, plain, rtol=1e-12, atol=1e-12)
    probe = torch.linspace(-1, 1, got.numel(), dtype=got.dtype).view(got.shape).cos()
    for one, other in zip(
        torch.autograd.grad(got, (v, weight, *factors), probe),
        torch.autograd.grad(plain, (v, weight, *factors), probe),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


def test_mixing_keeps_the_values_alone() -> None:
    v, factors, weight, _ = mixed(4, masked=False)
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        mix_and_project(v, factors, weight)
    assert sum(t.numel() for t in kept) == v.numel() + weight.numel() + sum(f.numel() for f in factors)


def test_gradients_come_out_in_the_layout_of_their_inputs() -> None:
    x = torch.randn(2, 24, 8, requires_grad=True)
    weight = torch.randn(8, 8, requires_grad=True)
    values = channels_first(x, weight)[0].unflatten(1, (2, 4))
    values.retain_grad()
    factors = [torch.rand(2, 2, 6, 6).softmax(-1), torch.rand(2, 2, 4, 4).softmax(-1)]
    seen: list[bool] = []
    values.register_hook(lambda grad: seen.append(grad.is_contiguous()))
    x.register_hook(lambda grad: seen.append(grad.is_contiguous()))
    mix_and_project(values, factors, weight).square().sum().backward()
    assert seen == [True, True]


def test_products_are_in_half_precision_under_autocast() -> None:
    v, factors, weight, _ = mixed(2, masked=False)
    v, weight, *factors = (t.detach().float().requires_grad_() for t in (v, weight, *factors))
    x = torch.randn(2, 8, 6, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        (first,) = channels_first(x, weight)
        out = mix_and_project(v, factors, weight)
    assert first.dtype == out.dtype == torch.bfloat16
    (first.float().sum() + out.float().sum()).backward()
    assert all(t.grad is not None and t.grad.dtype == torch.float32 for t in (x, v, weight, *factors))
    torch.testing.assert_close(out.float(), mix_and_project(v, factors, weight), rtol=0.05, atol=0.05)


def test_the_share_of_valid_tokens_is_not_rounded_under_autocast() -> None:
    _, factors, _, mask = mixed(2, masked=True)
    factors = [factor.detach().float() for factor in factors]
    with torch.autocast("cpu", torch.bfloat16):
        result = validity_scale(factors, mask, "bottom_up")
    assert result.dtype == torch.float32
    assert torch.equal(result, validity_scale(factors, mask, "bottom_up"))


def test_takes_a_batch_of_nothing() -> None:
    v, factors, weight, _ = mixed(2, masked=False)
    v, *factors = (t.detach()[:0].requires_grad_() for t in (v, *factors))
    out = mix_and_project(v, factors, weight)
    out.sum().backward()
    assert len(out) == 0
    assert v.grad is not None
    assert v.grad.shape == v.shape
