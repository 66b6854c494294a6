"""Products that change the layout: from tokens first, `(B, N, D)`, to channels first, `(B, D, N)`, and back.

The product itself writes the new layout. PyTorch's own gradients of such products come out transposed, and the next
operator would copy them; here each gradient is a product too, in the layout that its reader wants. A compiler plans
layouts itself and is given the plain formulas.

Shape letters: B batch, H heads, E head width, N tokens, D model width, R rows of a weight, k_i size of level i.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from krontime.ops.attention import Order, apply_factors, mode_product, slice_products, unfold, validity_scale
from krontime.ops.chunking import chunks, write_chunk


def channels_first(x: Tensor, *weights: Tensor) -> tuple[Tensor, ...]:
    """`weight @ x^T` for each weight: tokens `(B, N, D)` and weights `(R, D)` to `(B, R, N)` each."""
    if torch.compiler.is_compiling():
        return tuple(torch.bmm(_for_each(x, weight), x.mT) for weight in weights)
    return _ChannelsFirst.apply(*autocast(x, *weights))


def mix_and_project(
    v: Tensor, factors: Sequence[Tensor], weight: Tensor, *, order: Order = "bottom_up", mask: Tensor | None = None
) -> Tensor:
    """Values mixed by the factors of the levels (see `apply_factors`), then a linear map back to tokens first.

    A few series are mixed at a time, see `krontime.ops.chunking`. Of the activations, the backward pass keeps the
    values; what the levels make of them is computed again, which costs one product each.

    Args:
        v: values `(B, H, E, N)`, zero at invalid tokens.
        factors: one `(B, H, k_i, k_i)` per level, lowest first.
        weight: `(D, H * E)`.
        order: `bottom_up`, `top_down` or `parallel`.
        mask: bool `(B, N)` or `(1, N)`, true where a token is valid; None where all are.

    Returns:
        `(B, N, D)`.
    """
    if torch.compiler.is_compiling():
        mixed = apply_factors(v, factors, order=order, mask=mask).flatten(1, 2)
        return torch.bmm(mixed.mT, _for_each(mixed, weight.mT))
    v, weight = autocast(v, weight)
    scale = None if mask is None else validity_scale(factors, mask, order).to(v.dtype)
    return _MixedTokensFirst.apply(v, weight, scale, order, *(factor.to(v.dtype) for factor in factors))


def _for_each(x: Tensor, weight: Tensor) -> Tensor:
    """The weight once for each series of a batch, as a view."""
    return weight.expand(x.shape[0], -1, -1)


def autocast(*operands: Tensor) -> tuple[Tensor, ...]:
    """The operands of a product as autocast would give them; functions with gradients of their own have to ask."""
    kind = operands[0].device.type
    if not torch.is_autocast_enabled(kind):
        return operands
    return tuple(operand.to(torch.get_autocast_dtype(kind)) for operand in operands)


class _ChannelsFirst(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, *weights: Tensor) -> tuple[Tensor, ...]:
        ctx.save_for_backward(x, *weights)
        return tuple(torch.bmm(_for_each(x, weight), x.mT) for weight in weights)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, ...]:
        x, *weights = ctx.saved_tensors
        grad_x = torch.bmm(grads[0].mT, _for_each(x, weights[0]))
        for grad, weight in zip(grads[1:], weights[1:], strict=True):
            grad_x.baddbmm_(grad.mT, _for_each(x, weight))
        return grad_x, *(torch.bmm(grad, x).sum(dim=0) for grad in grads)


class _MixedTokensFirst(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, v: Tensor, weight: Tensor, scale: Tensor | None, order: Order, *factors: Tensor) -> Tensor:
        ctx.order = order
        ctx.save_for_backward(v, weight, scale, *factors)
        out = v.new_empty(len(v), v.shape[3], len(weight))
        for rows in _rows(v):
            mixed = _mixed(v[rows], [factor[rows] for factor in factors], order)[-1]
            if scale is not None:
                mixed = mixed * scale[rows]
            torch.bmm(mixed.flatten(1, 2).mT, _for_each(mixed, weight.mT), out=out[rows])
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        v, weight, scale, *factors = ctx.saved_tensors
        grad_v, grad_scales = None, []
        grad_factors: list[Tensor | None] = [None] * len(factors)
        grad_weight = torch.zeros_like(weight, dtype=torch.promote_types(weight.dtype, torch.float32))
        for rows in _rows(v):
            some = [factor[rows] for factor in factors]
            steps = _mixed(v[rows], some, ctx.order)
            mixed = steps.pop()
            scaled = mixed if scale is None else mixed * scale[rows]
            grad_weight += torch.bmm(scaled.flatten(1, 2), grad[rows]).sum(dim=0).mT
            step = torch.bmm(_for_each(grad[rows], weight.mT), grad[rows].mT).view(mixed.shape)
            if scale is not None:
                grad_scales.append((step * mixed).sum(dim=2, keepdim=True))
                step = step * scale[rows]
            del mixed, scaled
            of_v, of_factors = _mixed_backward(step, steps, some, ctx.order)
            grad_v = write_chunk(of_v, rows, grad_v, like=v)
            grad_factors = [
                write_chunk(part, rows, whole, like=factor)
                for part, whole, factor in zip(of_factors, grad_factors, factors, strict=True)
            ]
        grad_scale = torch.cat(grad_scales) if grad_scales else None
        return grad_v, grad_weight, grad_scale, None, *grad_factors


def _rows(x: Tensor) -> Iterator[slice]:
    """Series of a `(B, H, E, N)` that are mixed at once."""
    return chunks(len(x), tokens_each=x.shape[3], device=x.device)


def _levels(factors: Sequence[Tensor], order: Order) -> range:
    return range(len(factors)) if order != "top_down" else range(len(factors))[::-1]


def _mixed(v: Tensor, factors: Sequence[Tensor], order: Order) -> list[Tensor]:
    """The values, what each level in turn makes of them, and at the end what all of them make of them."""
    if order == "parallel":
        return [v, torch.stack([_level_product(v, factors, level) for level in range(len(factors))]).mean(dim=0)]
    steps = [v]
    for level in _levels(factors, order):
        steps.append(_level_product(steps[-1], factors, level))
    return steps


def _mixed_backward(
    grad: Tensor, steps: list[Tensor], factors: Sequence[Tensor], order: Order
) -> tuple[Tensor, list[Tensor]]:
    """The gradients of the values and of each factor, from that of what `_mixed` ends with; takes all before it."""
    if order == "parallel":
        grad, (v,) = grad / len(factors), steps
        each = [_level_product(grad, factors, level, transpose=True) for level in range(len(factors))]
        return torch.stack(each).sum(dim=0), [_grad_factor(grad, v, factors, level) for level in range(len(factors))]
    of_level: dict[int, Tensor] = {}
    for level in reversed(_levels(factors, order)):
        of_level[level] = _grad_factor(grad, steps.pop(), factors, level)
        grad = _level_product(grad, factors, level, transpose=True)
    return grad, [of_level[level] for level in range(len(factors))]


def _sizes(factors: Sequence[Tensor]) -> list[int]:
    return [factor.shape[-1] for factor in factors]


def _level_product(x: Tensor, factors: Sequence[Tensor], level: int, *, transpose: bool = False) -> Tensor:
    factor = factors[level].flatten(0, 1)
    return mode_product(factor.mT if transpose else factor, unfold(x, _sizes(factors), level)).view(x.shape)


def _grad_factor(grad: Tensor, x: Tensor, factors: Sequence[Tensor], level: int) -> Tensor:
    """The gradient of a factor from that of its product with `x`."""
    sizes = _sizes(factors)
    return slice_products(unfold(grad, sizes, level), unfold(x, sizes, level)).view(factors[level].shape)
