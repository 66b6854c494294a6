"""Products that change the layout: from tokens first, `(B, N, D)`, to channels first, `(B, D, N)`, and back.

The product itself writes the new layout. PyTorch's own gradients of such products come out transposed, and the next
operator would copy them; here each gradient is a product too, in the layout that its reader wants. A compiler plans
layouts itself and is given the plain formulas.

Shape letters: B batch, H heads, E head width, N tokens, D model width, R rows of a weight, k_i size of level i.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from krontime.ops.attention import Order, apply_factors, mode_product, slice_products, unfold, validity_scale


def channels_first(x: Tensor, *weights: Tensor) -> tuple[Tensor, ...]:
    """`weight @ x^T` for each weight: tokens `(B, N, D)` and weights `(R, D)` to `(B, R, N)` each."""
    if torch.compiler.is_compiling():
        return tuple(torch.bmm(_for_each(x, weight), x.mT) for weight in weights)
    return _ChannelsFirst.apply(*_autocast(x, *weights))


def mixed_tokens_first(
    v: Tensor, factors: Sequence[Tensor], weight: Tensor, *, order: Order = "bottom_up", mask: Tensor | None = None
) -> Tensor:
    """Values mixed by the factors of the levels (see `apply_factors`), then a linear map back to tokens first.

    Of the activations, the backward pass keeps the values and what the first level makes of them; those of the other
    levels are computed again, which costs one product each.

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
    v, weight = _autocast(v, weight)
    scale = None if mask is None else validity_scale(factors, mask, order).to(v.dtype)
    return _MixedTokensFirst.apply(v, weight, scale, order, *(factor.to(v.dtype) for factor in factors))


def _for_each(x: Tensor, weight: Tensor) -> Tensor:
    """The weight once for each series of a batch, as a view."""
    return weight.expand(len(x), -1, -1)


def _autocast(*operands: Tensor) -> tuple[Tensor, ...]:
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
        ctx.levels = range(len(factors)) if order != "top_down" else range(len(factors))[::-1]
        ctx.is_parallel = order == "parallel"
        first = None if ctx.is_parallel or len(factors) == 1 else _level_product(v, factors, ctx.levels[0])
        ctx.save_for_backward(v, weight, scale, first, *factors)
        mixed = _mixed(ctx, v, first, factors)[-1]
        if scale is not None:
            mixed = mixed * scale
        return torch.bmm(mixed.flatten(1, 2).mT, _for_each(mixed, weight.mT))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        v, weight, scale, first, *factors = ctx.saved_tensors
        steps = _mixed(ctx, v, first, factors)
        mixed = steps.pop()
        scaled = mixed if scale is None else mixed * scale
        grad_weight = torch.bmm(scaled.flatten(1, 2), grad).sum(dim=0).mT
        grad = torch.bmm(_for_each(grad, weight.mT), grad.mT).view(v.shape)
        grad_scale = None
        if scale is not None:
            grad_scale = (grad * mixed).sum(dim=2, keepdim=True)
            grad = grad * scale
        del mixed, scaled
        grad_factors: list[Tensor | None] = [None] * len(factors)
        if ctx.is_parallel:
            grad = grad / len(factors)
            for level in ctx.levels:
                grad_factors[level] = _grad_factor(grad, v, factors, level)
            grad_v = torch.stack([_level_product(grad, factors, level, transpose=True) for level in ctx.levels])
            return grad_v.sum(dim=0), grad_weight, grad_scale, None, *grad_factors
        for level in reversed(ctx.levels):
            grad_factors[level] = _grad_factor(grad, steps.pop(), factors, level)
            grad = _level_product(grad, factors, level, transpose=True)
        return grad, grad_weight, grad_scale, None, *grad_factors


def _mixed(ctx: Any, v: Tensor, first: Tensor | None, factors: Sequence[Tensor]) -> list[Tensor]:
    """The values, what each level in turn makes of them, and at the end what all of them make of them."""
    if ctx.is_parallel:
        return [torch.stack([_level_product(v, factors, level) for level in ctx.levels]).mean(dim=0)]
    steps = [v] if first is None else [v, first]
    for level in ctx.levels[len(steps) - 1 :]:
        steps.append(_level_product(steps[-1], factors, level))
    return steps


def _sizes(factors: Sequence[Tensor]) -> list[int]:
    return [factor.shape[-1] for factor in factors]


def _level_product(x: Tensor, factors: Sequence[Tensor], level: int, *, transpose: bool = False) -> Tensor:
    factor = factors[level].flatten(0, 1)
    return mode_product(factor.mT if transpose else factor, unfold(x, _sizes(factors), level)).view(x.shape)


def _grad_factor(grad: Tensor, x: Tensor, factors: Sequence[Tensor], level: int) -> Tensor:
    """The gradient of a factor from that of its product with `x`."""
    sizes = _sizes(factors)
    return slice_products(unfold(grad, sizes, level), unfold(x, sizes, level)).view(factors[level].shape)
