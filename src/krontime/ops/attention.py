"""Attention over tokens that are viewed as a tensor with one axis per level.

Shape letters: B batch, H heads, E head width, N padded tokens, k_i size of level i (level 1 is the lowest, its tokens
are neighbours). Tokens lie in row-major order with level 1 fastest, so that N unfolds to `(k_h, ..., k_1)`.

Layout is what makes this fast. The Kronecker kinds take channels first, `(B, H, E, N)`: with `above` the channels and
the levels above level i, and `below` the levels under it, every contraction of level i is a plain batched matrix
product over a view `(above, k_i, below)`. Level 1 (`below` = 1) needs no intermediate at all; a higher level sums
`above` small `k_i x k_i` maps for its scores, and repeats its factor as often where it is applied. The axial kind takes
tokens first, `(B, N, H, E)`: the levels above join the batch and the levels below join the heads, again as views, which
is what fused attention wants.

Sources: KronTime (arXiv 2403.04882) for the Kronecker-decomposed attention, Higher-Order Transformers
(arXiv 2412.02919) for the pooled scores, axial attention (arXiv 1912.12180).
"""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from krontime.ops.levels import LevelPlan

Order = Literal["bottom_up", "top_down", "parallel"]

# Minimum sum of attention weights on valid tokens that is divided by. The gradient holds its inverse squared, which has
# to stay finite in float32; a query that puts less than this on valid tokens gets an output that fades to zero.
_TINY = 1e-15


def unfold(x_BHEN: Tensor, sizes: Sequence[int], level: int) -> Tensor:
    """`(B * H, above, k_i, below)`, a view of a contiguous `(B, H, E, N)`; `level` counts from 0."""
    batch, heads, channels, _ = x_BHEN.shape
    above, below = channels * math.prod(sizes[level + 1 :]), math.prod(sizes[:level])
    return x_BHEN.reshape(batch * heads, above, sizes[level], below)


def slice_products(q: Tensor, k: Tensor) -> Tensor:
    """Inner products of the slices of two unfolded `(G, above, k_i, below)` tensors: `(G, k_i, k_i)`."""
    groups, above, size, below = q.shape
    if below == 1:
        return torch.bmm(q.view(groups, above, size).mT, k.view(groups, above, size))
    if above == 1:
        return torch.bmm(q.view(groups, size, below), k.view(groups, size, below).mT)
    maps = torch.bmm(q.reshape(-1, size, below), k.reshape(-1, size, below).mT)
    return maps.view(groups, above, size, size).sum(dim=1)


def mode_product(factor: Tensor, v: Tensor) -> Tensor:
    """Mode product of an unfolded `(G, above, k_i, below)` with a factor `(G, k_i, k_i)`: the shape of `v`."""
    groups, above, size, below = v.shape
    if below == 1:
        return torch.bmm(v.view(groups, above, size), factor.mT).view(v.shape)
    # The factor is small, so that repeating it for each slice is cheaper than moving the values; and transposing it
    # once is cheaper than for each slice.
    repeated = factor.contiguous().unsqueeze(1).expand(-1, above, -1, -1).reshape(-1, size, size)
    return torch.bmm(repeated, v.reshape(-1, size, below)).view(v.shape)


def level_factors(
    q: Tensor,
    k: Tensor,
    plan: LevelPlan,
    *,
    pooled: bool = False,
    mask: Tensor | None = None,
) -> list[Tensor]:
    """The factors A_i of Kronecker-decomposed attention, also what an attention plot shows.

    `A_i = softmax(Q_(i) K_(i)^T / sqrt(E * N / k_i))`, where `Q_(i)` is `k_i x (N / k_i * E)`. With `pooled`, queries
    and keys are first summed over all other levels and the scale is `sqrt(E) * N / k_i`; both scales make the score
    of independent features of unit variance one of unit variance.

    Slices of a level without any valid token are left out of that level's softmax.

    Args:
        q: queries `(B, H, E, N)`, zero at invalid tokens.
        k: keys, likewise.
        plan: the level sizes; trimmed to `plan.trim(N)` where the batch has fewer tokens. The scale is the plan's.
        pooled: sum queries and keys over the other levels.
        mask: bool `(B, N)` or `(1, N)`, true where a token is valid; None where all are.

    Returns:
        One factor `(B, H, k_i, k_i)` per level, lowest first; float32 at least; rows sum to 1.
    """
    batch, heads, width, num_tokens = q.shape
    sizes = plan.trim(num_tokens)
    factors = []
    for level, size in enumerate(sizes):
        q_i, k_i = unfold(q, sizes, level), unfold(k, sizes, level)
        others = plan.padded_tokens / plan.sizes[level]
        if pooled:
            # Sums over the other levels: `above` still holds E, which must not be summed.
            pool = [t.view(batch * heads, width, -1, size, t.shape[3]).sum(dim=(2, 4)) for t in (q_i, k_i)]
            scores, scale = torch.bmm(pool[0].mT, pool[1]), math.sqrt(width) * others
        else:
            scores, scale = slice_products(q_i, k_i), math.sqrt(width * others)
        scores = scores.view(batch, heads, size, size)
        # Softmax in float32 under half precision, in float64 for float64.
        scores = scores.to(torch.promote_types(scores.dtype, torch.float32)) / scale
        if mask is not None:
            empty = ~unfold(mask[:, None, None], sizes, level).any(dim=3).any(dim=1)
            scores = scores.masked_fill(empty[:, None, None], torch.finfo(scores.dtype).min)
        factors.append(scores.softmax(dim=-1))
    return factors


def mode_products(v: Tensor, factors: Sequence[Tensor], order: Order) -> Tensor:
    """`v x_1 A_1 ... x_h A_h`, or for `parallel` the mean of the h single products `v x_i A_i`.

    Mode products along different levels commute, so `bottom_up` and `top_down` give the same answer.

    Args:
        v: `(B, H, E, N)` with any E.
        factors: one `(B, H, k_i, k_i)` per level, lowest first.
        order: `bottom_up`, `top_down` or `parallel`.

    Returns:
        The shape and dtype of `v`.
    """
    batch, heads = factors[0].shape[:2]
    sizes = [factor.shape[-1] for factor in factors]
    v = v.expand(batch, heads, -1, -1)

    def product(x: Tensor, level: int) -> Tensor:
        return mode_product(factors[level].to(v.dtype).flatten(0, 1), unfold(x, sizes, level)).view(v.shape)

    levels = range(len(sizes))
    if order == "parallel":
        return torch.stack([product(v, level) for level in levels]).mean(dim=0)
    for level in levels if order == "bottom_up" else reversed(levels):
        v = product(v, level)
    return v


def validity_scale(factors: Sequence[Tensor], mask: Tensor, order: Order) -> Tensor:
    """What mixed values are multiplied by so that they are means over the valid tokens: `m / (A m)`.

    Args:
        factors: one `(B, H, k_i, k_i)` per level, lowest first.
        mask: bool `(B, N)` or `(1, N)`, true where a token is valid.
        order: see `mode_products`.

    Returns:
        `(B, H, 1, N)` in float32 at least; zero at invalid tokens, and everywhere for a series without a valid token.
    """
    with torch.autocast(mask.device.type, enabled=False):
        factors = [factor.to(torch.promote_types(factor.dtype, torch.float32)) for factor in factors]
        valid = mask[:, None, None].to(factors[0].dtype)
        return valid / mode_products(valid, factors, order).clamp_min(_TINY)


def apply_factors(
    v: Tensor, factors: Sequence[Tensor], *, order: Order = "bottom_up", mask: Tensor | None = None
) -> Tensor:
    """Values mixed by the factors, renormalised over the valid tokens: `(A (m V)) / (A m)`.

    Args:
        v: values `(B, H, E, N)`, zero at invalid tokens.
        factors: one `(B, H, k_i, k_i)` per level, lowest first.
        order: `bottom_up`, `top_down` or `parallel`; see `mode_products`.
        mask: bool `(B, N)` or `(1, N)`, true where a token is valid; None where all are.

    Returns:
        `(B, H, E, N)`; zero at invalid tokens, and everywhere for a series without a valid token.
    """
    out = mode_products(v, factors, order)
    return out if mask is None else out * validity_scale(factors, mask, order).to(out.dtype)


def kronecker_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    plan: LevelPlan,
    *,
    order: Order = "bottom_up",
    pooled: bool = False,
    mask: Tensor | None = None,
) -> Tensor:
    """Full attention whose `N x N` matrix is `A_h kron ... kron A_1` (or, for `parallel`, the mean of the h modes).

    Costs about `2 N E sum(k_i)` multiply-adds a head. With a mask every output is a weighted mean of valid values.
    The answer for a token depends neither on padding nor on how far the plan was trimmed.

    Args:
        q: queries `(B, H, E', N)`, zero at invalid tokens (as a projection without bias of zeroed tokens is).
        k: keys, likewise; E' need not be E.
        v: values `(B, H, E, N)`, likewise.
        plan: the level sizes; trimmed to `plan.trim(N)` where the batch has fewer tokens.
        order: in which order the levels are applied. `bottom_up` and `top_down` are equal here, since mode
            products commute.
        pooled: sum queries and keys over the other levels before their product.
        mask: bool `(B, N)` or `(1, N)`, true where a token is valid; None where all are.

    Returns:
        `(B, H, E, N)`; zero at invalid tokens, and everywhere for a series without a valid token.
    """
    factors = level_factors(q, k, plan, pooled=pooled, mask=mask)
    return apply_factors(v, factors, order=order, mask=mask)


def axial_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    plan: LevelPlan,
    *,
    order: Order = "bottom_up",
    mask: Tensor | None = None,
) -> Tensor:
    """Attention along one level after the other, with a separate softmax for each group of tokens along the level.

    Order matters here, since a group's map depends on where the group lies. With a plan of one level this is ordinary
    full attention.

    Args:
        q: queries `(B, N, H, E)`.
        k: keys, likewise.
        v: values, likewise; zero at invalid tokens.
        plan: the level sizes; trimmed to `plan.trim(N)` where the batch has fewer tokens.
        order: in which order the levels are applied; `parallel` is the mean of the h single levels.
        mask: bool `(B, N)` or `(1, N)`, true where a token is valid; None where all are.

    Returns:
        `(B, N, H, E)`; zero at invalid tokens, and everywhere for a series without a valid token.
    """
    batch, num_tokens, heads, _ = v.shape
    sizes = plan.trim(num_tokens)

    def attend(x: Tensor, level: int) -> Tensor:
        size, below = sizes[level], math.prod(sizes[:level])
        # (B * above, below * H, k_i, E): as views, since `below` and H are neighbours in memory.
        qs, ks, vs = (t.reshape(-1, size, below * heads, t.shape[3]).transpose(1, 2) for t in (q, k, x))
        keys = None
        if mask is not None:
            keys = mask.expand(batch, -1).reshape(-1, size, below).transpose(1, 2)
            keys = keys | ~keys.any(dim=2, keepdim=True)  # a softmax over nothing would be NaN
            keys = keys.repeat_interleave(heads, dim=1).unsqueeze(2)
        return F.scaled_dot_product_attention(qs, ks, vs, attn_mask=keys).transpose(1, 2).reshape(x.shape)

    levels = range(plan.depth)
    if order == "parallel":
        out = torch.stack([attend(v, level) for level in levels]).mean(dim=0)
    else:
        out = v
        for level in levels if order == "bottom_up" else reversed(levels):
            out = attend(out, level)
    return out if mask is None else out * mask[:, :, None, None]
