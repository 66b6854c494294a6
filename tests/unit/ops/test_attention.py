import math
import random

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from krontime.ops.attention import axial_attention, kronecker_attention, level_factors
from krontime.ops.levels import LevelPlan
from krontime.ops.reference import dense_axial_attention, dense_factors, dense_kronecker_attention

KINDS = ["kronecker", "pooled", "axial"]
ORDERS = ["bottom_up", "top_down", "parallel"]
MASKS = ["none", "random", "trailing", "sparse", "one_series_empty"]


def fast(kind: str, q: Tensor, k: Tensor, v: Tensor, plan: LevelPlan, order: str, mask: Tensor | None) -> Tensor:
    """The fast operator on `(B, H, N, E)`, as the dense twins take it."""
    if kind == "axial":
        q, k, v = (t.transpose(1, 2) for t in (q, k, v))
        return axial_attention(q, k, v, plan, order=order, mask=mask).transpose(1, 2)
    q, k, v = (t.mT for t in (q, k, v))
    return kronecker_attention(q, k, v, plan, order=order, pooled=kind == "pooled", mask=mask).mT


def dense(kind: str, q: Tensor, k: Tensor, v: Tensor, plan: LevelPlan, order: str, mask: Tensor | None) -> Tensor:
    if kind == "axial":
        return dense_axial_attention(q, k, v, plan, order=order, mask=mask)
    return dense_kronecker_attention(q, k, v, plan, order=order, pooled=kind == "pooled", mask=mask)


def random_plan(rng: random.Random, depth: int) -> LevelPlan:
    limit = {1: 23, 2: 7, 3: 4, 4: 3, 5: 3}[depth]
    sizes = tuple(rng.randint(1, limit) for _ in range(depth))
    return LevelPlan(sizes, math.prod(sizes))


def random_mask(rng: random.Random, how: str, batch: int, num_tokens: int) -> Tensor | None:
    if how == "none":
        return None
    generator = torch.Generator().manual_seed(rng.randrange(2**31))
    mask = torch.rand(batch, num_tokens, generator=generator) < (0.15 if how == "sparse" else 0.7)
    if how == "trailing":
        mask = torch.arange(num_tokens) < torch.randint(1, num_tokens + 1, (batch, 1), generator=generator)
    if how == "one_series_empty":
        mask[0] = False
    return mask


def random_qkv(
    rng: random.Random, batch: int, heads: int, num_tokens: int, width: int, mask: Tensor | None
) -> list[Tensor]:
    generator = torch.Generator().manual_seed(rng.randrange(2**31))
    qkv = torch.randn(3, batch, heads, num_tokens, width, dtype=torch.float64, generator=generator)
    if mask is not None:
        qkv = qkv * mask[:, None, :, None]
    return list(qkv)


@pytest.mark.parametrize("how", MASKS)
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("depth", [1, 2, 3, 4, 5])
def test_values_and_gradients_equal_the_dense_twin(kind: str, order: str, how: str, depth: int) -> None:
    rng = random.Random(f"{kind} {order} {how} {depth}")
    plan = random_plan(rng, depth)
    # Batches of fewer tokens than planned are trimmed, and padded to whole slices.
    num_tokens = math.prod(plan.trim(rng.randint(1, plan.padded_tokens)))
    mask = random_mask(rng, how, 2, num_tokens)
    inputs = [t.requires_grad_() for t in random_qkv(rng, 2, 2, num_tokens, 3, mask)]
    results = []
    for operator in (fast, dense):
        zeroed = inputs if mask is None else [t * mask[:, None, :, None] for t in inputs]
        out = operator(kind, *zeroed, plan, order, mask)
        probe = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view(out.shape).cos()
        results.append([out, *torch.autograd.grad((out * probe).sum(), inputs)])
    for got, expected in zip(*results, strict=True):
        assert torch.isfinite(got).all()
        torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("depth", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("pooled", [False, True])
def test_factors_equal_the_dense_twin_and_are_row_stochastic(pooled: bool, depth: int) -> None:
    rng = random.Random(f"{pooled} {depth}")
    plan = random_plan(rng, depth)
    mask = random_mask(rng, "random", 2, plan.padded_tokens)
    q, k, _ = random_qkv(rng, 2, 3, plan.padded_tokens, 4, mask)
    factors = level_factors(q.mT, k.mT, plan, pooled=pooled, mask=mask)
    for got, expected in zip(factors, dense_factors(q, k, plan, pooled=pooled, mask=mask), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(got.sum(-1), torch.ones_like(got.sum(-1)))


@pytest.mark.parametrize("kind", ["kronecker", "pooled"])
def test_bottom_up_equals_top_down_since_mode_products_commute(kind: str) -> None:
    rng = random.Random(0)
    plan = LevelPlan((4, 3, 5), 60)
    q, k, v = random_qkv(rng, 2, 2, 60, 4, None)
    up, down, parallel = (fast(kind, q, k, v, plan, order, None) for order in ORDERS)
    torch.testing.assert_close(up, down, rtol=1e-12, atol=1e-12)
    assert not torch.allclose(up, parallel)


def test_order_matters_for_axial() -> None:
    q, k, v = random_qkv(random.Random(0), 2, 2, 12, 4, None)
    results = [fast("axial", q, k, v, LevelPlan((4, 3), 12), order, None) for order in ORDERS]
    assert not torch.allclose(results[0], results[1])
    assert not torch.allclose(results[0], results[2])


@pytest.mark.parametrize("kind", ["kronecker", "axial"])
def test_one_level_is_full_attention(kind: str) -> None:
    q, k, v = random_qkv(random.Random(1), 2, 2, 17, 4, None)
    expected = F.scaled_dot_product_attention(q, k, v)
    got = fast(kind, q, k, v, LevelPlan((17,), 17), "bottom_up", None)
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("kind", KINDS)
def test_output_is_a_weighted_mean_of_valid_values(kind: str, order: str) -> None:
    rng = random.Random(2)
    mask = random_mask(rng, "random", 3, 24)
    q, k, _ = random_qkv(rng, 3, 2, 24, 4, mask)
    ones = mask[:, None, :, None].double().expand(q.shape)
    torch.testing.assert_close(fast(kind, q, k, ones, LevelPlan((4, 3, 2), 24), order, mask), ones.contiguous())


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sizes", [(30,), (4, 5), (3, 2, 5), (4, 3, 2, 2)])
def test_trimmed_equals_untrimmed(kind: str, order: str, sizes: tuple[int, ...]) -> None:
    plan = LevelPlan(sizes, math.prod(sizes))
    for num_tokens in (1, 2, 5, 7, 13, 17, plan.padded_tokens - 1):
        rng = random.Random(num_tokens)
        valid = (torch.arange(plan.padded_tokens) < num_tokens).expand(2, -1)
        q, k, v = random_qkv(rng, 2, 2, plan.padded_tokens, 3, valid)
        untrimmed = fast(kind, q, k, v, plan, order, valid)[:, :, :num_tokens]
        padded = math.prod(plan.trim(num_tokens))
        q, k, v = (t[:, :, :padded] for t in (q, k, v))
        # The mask of static padding is one row for the whole batch, and none where nothing is padded.
        mask = valid[:1, :padded] if padded > num_tokens else None
        trimmed = fast(kind, q, k, v, plan, order, mask)[:, :, :num_tokens]
        torch.testing.assert_close(trimmed, untrimmed, rtol=1e-10, atol=1e-10)


def test_leaving_out_empty_slices_is_the_plain_formula_for_kronecker() -> None:
    """Slices without a valid token change a factor's rows by a constant, which the renormalisation cancels."""
    rng = random.Random(3)
    plan = LevelPlan((4, 5), 20)
    mask = (torch.arange(20) < 9).expand(2, -1)
    q, k, v = random_qkv(rng, 2, 2, 20, 3, mask)
    factors = []
    for level, (size, eq) in enumerate([(4, "bhxie,bhxje->bhij"), (5, "bhixe,bhjxe->bhij")]):
        q_i, k_i = (t.view(2, 2, 5, 4, 3) for t in (q, k))
        assert size == plan.sizes[level]
        factors.append((torch.einsum(eq, q_i, k_i) / math.sqrt(3 * 20 / size)).softmax(-1))
    attention = torch.einsum("bhij,bhkl->bhikjl", factors[1], factors[0]).reshape(2, 2, 20, 20)
    expected = attention @ v / (attention @ mask[:, None, :, None].double())
    got = fast("kronecker", q, k, v, plan, "bottom_up", mask)
    torch.testing.assert_close(got[:, :, :9], expected[:, :, :9], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("kind", KINDS)
def test_extreme_scores_and_missing_series_stay_finite_in_float32(kind: str, order: str) -> None:
    rng = random.Random(4)
    plan = LevelPlan((4, 3, 2), 24)
    for how in MASKS:
        mask = random_mask(rng, how, 3, 24)
        inputs = [(30 * t).float().requires_grad_() for t in random_qkv(rng, 3, 2, 24, 4, mask)]
        zeroed = inputs if mask is None else [t * mask[:, None, :, None] for t in inputs]
        out = fast(kind, *zeroed, plan, order, mask)
        for t in (out, *torch.autograd.grad(out.square().sum(), inputs)):
            assert torch.isfinite(t).all()
        if mask is not None:
            assert (out[~mask[:, None, :, None].expand_as(out)] == 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_bfloat16_is_close_and_keeps_its_dtype(kind: str) -> None:
    rng = random.Random(5)
    mask = random_mask(rng, "random", 2, 64)
    q, k, v = random_qkv(rng, 2, 2, 64, 8, mask)
    plan = LevelPlan((8, 8), 64)
    exact = fast(kind, q, k, v, plan, "bottom_up", mask)
    half = fast(kind, *(t.bfloat16() for t in (q, k, v)), plan, "bottom_up", mask)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.double(), exact, rtol=0, atol=0.05)


def test_gradcheck() -> None:
    rng = random.Random(6)
    mask = random_mask(rng, "random", 1, 12)
    q, k, v = (t.mT.contiguous().requires_grad_() for t in random_qkv(rng, 1, 2, 12, 2, mask))
    for order in ORDERS:
        assert torch.autograd.gradcheck(
            lambda q, k, v, order=order: kronecker_attention(
                *(t * mask[:, None, None] for t in (q, k, v)), LevelPlan((3, 2, 2), 12), order=order, mask=mask
            ),
            (q, k, v),
        )


def test_no_intermediate_grows_with_the_square_of_the_tokens() -> None:
    """The largest tensor of a forward and backward pass at depth 2 is an activation, not a map."""
    largest = 0

    class Largest(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            nonlocal largest
            out = func(*args, **(kwargs or {}))
            if isinstance(out, Tensor) and not func.is_view:
                largest = max(largest, out.numel())
            return out

    q, k, v = (torch.randn(1, 1, 4, 1024, requires_grad=True) for _ in range(3))
    with Largest():
        kronecker_attention(q, k, v, LevelPlan((32, 32), 1024)).sum().backward()
    assert largest == q.numel()
