"""Reference implementations of the fast operators: every one builds its `N x N` matrix. For tests and for reading.

Tokens first throughout: `(B, H, N, E)`. Plans and masks are those of `krontime.ops.attention`.
"""

import math
from functools import reduce

import torch
from torch import Tensor

from krontime.ops.levels import LevelPlan


def dense_factors(
    q: Tensor,
    k: Tensor,
    plan: LevelPlan,
    *,
    pooled: bool = False,
    mask: Tensor | None = None,
) -> list[Tensor]:
    """Reference implementation of `attention.level_factors`: one `(B, H, k_i, k_i)` per level, lowest first.

    Args:
        q: queries `(B, H, N, E)`.
        k: keys, likewise.
        plan: the level sizes, trimmed to `plan.trim(N)`; their product is N.
        pooled: sum queries and keys over the other levels.
        mask: bool `(B, N)`, true where a token is valid; None where all are.
    """
    batch, heads, num_tokens, width = q.shape
    sizes = plan.trim(num_tokens)
    tensor_shape = tuple(reversed(sizes))
    valid = torch.ones(batch, num_tokens, dtype=torch.bool) if mask is None else mask
    factors = []
    for level in range(len(sizes)):
        axis = len(sizes) - 1 - level

        def unfold(x: Tensor, axis: int = axis) -> Tensor:
            """`(B, H, k_i, N / k_i, E)`."""
            x = (x * valid[:, None, :, None]).view(batch, heads, *tensor_shape, width)
            return x.movedim(2 + axis, 2).reshape(batch, heads, sizes[-1 - axis], -1, width)

        others = plan.padded_tokens / plan.sizes[level]
        if pooled:
            scores = unfold(q).sum(3) @ unfold(k).sum(3).mT / (math.sqrt(width) * others)
        else:
            scores = unfold(q).flatten(3) @ unfold(k).flatten(3).mT / math.sqrt(width * others)
        holds_valid = valid.view(batch, *tensor_shape).movedim(1 + axis, 1).reshape(batch, sizes[level], -1).any(2)
        holds_valid |= ~valid.any(1, keepdim=True)
        scores = scores.masked_fill(~holds_valid[:, None, None, :], -math.inf)
        factors.append(scores.softmax(-1))
    return factors


def dense_kronecker_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    plan: LevelPlan,
    *,
    order: str = "bottom_up",
    pooled: bool = False,
    mask: Tensor | None = None,
) -> Tensor:
    """Reference implementation of `attention.kronecker_attention`: `(A (m V)) / (A m)`, A written out by `torch.kron`.

    Args:
        q: queries `(B, H, N, E)`.
        k: keys, likewise.
        v: values, likewise.
        plan: the level sizes, trimmed to `plan.trim(N)`; their product is N.
        order: `bottom_up`, `top_down` or `parallel`.
        pooled: sum queries and keys over the other levels.
        mask: bool `(B, N)`, true where a token is valid; None where all are.

    Returns:
        `(B, H, N, E)`, zero at invalid tokens.
    """
    factors = dense_factors(q, k, plan, pooled=pooled, mask=mask)
    batch, heads, num_tokens, _ = q.shape
    sizes = plan.trim(num_tokens)
    ones = [torch.eye(size, dtype=q.dtype) for size in sizes]

    def matrix(b: int, h: int) -> Tensor:
        # Level h is the leftmost operand: tokens are row-major with level 1 fastest.
        single = [
            reduce(torch.kron, reversed([*ones[:i], factor[b, h], *ones[i + 1 :]])) for i, factor in enumerate(factors)
        ]
        if order == "parallel":
            return torch.stack(single).mean(0)
        return reduce(torch.matmul, single if order == "top_down" else reversed(single))

    attention = torch.stack([torch.stack([matrix(b, h) for h in range(heads)]) for b in range(batch)])
    valid = torch.ones(batch, num_tokens, dtype=q.dtype) if mask is None else mask.to(q.dtype)
    weight = attention @ valid[:, None, :, None]
    out = attention @ (v * valid[:, None, :, None]) / torch.where(weight == 0, 1, weight)
    return out * valid[:, None, :, None]


def dense_axial_attention(
    q: Tensor, k: Tensor, v: Tensor, plan: LevelPlan, *, order: str = "bottom_up", mask: Tensor | None = None
) -> Tensor:
    """Reference implementation of `attention.axial_attention`: a product (or mean) of masked `N x N` softmaxes.

    Args:
        q: queries `(B, H, N, E)`.
        k: keys, likewise.
        v: values, likewise.
        plan: the level sizes, trimmed to `plan.trim(N)`; their product is N. One level is full attention.
        order: `bottom_up`, `top_down` or `parallel`.
        mask: bool `(B, N)`, true where a token is valid; None where all are.

    Returns:
        `(B, H, N, E)`, zero at invalid tokens.
    """
    batch, _, num_tokens, width = q.shape
    sizes = plan.trim(num_tokens)
    valid = torch.ones(batch, num_tokens, dtype=torch.bool) if mask is None else mask
    position = torch.cartesian_prod(*(torch.arange(size) for size in reversed(sizes))).view(num_tokens, -1)
    scores = q @ k.mT / math.sqrt(width)
    matrices = []
    for level in range(len(sizes)):
        others = [axis for axis in range(len(sizes)) if axis != len(sizes) - 1 - level]
        same_group = (position[:, None, others] == position[None, :, others]).all(-1)
        seen = same_group & valid[:, None, None, :]
        seen = seen | ~valid[:, None, :, None]  # rows of invalid tokens are zeroed below; keep them finite
        matrices.append(scores.masked_fill(~seen, -math.inf).softmax(-1))
    if order == "parallel":
        attention = torch.stack(matrices).mean(0)
    else:
        attention = reduce(torch.matmul, matrices if order == "top_down" else reversed(matrices))
    return (attention @ (v * valid[:, None, :, None])) * valid[:, None, :, None]
