"""A block's feed-forward network, computed a few tokens at a time.

Shape letters: B batch, N tokens, D model width, F hidden width.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from krontime.ops.chunking import chunks, write_chunk
from krontime.ops.projections import autocast


def norm_gelu_linear(x: Tensor, norm: torch.nn.LayerNorm, expand: torch.nn.Linear, contract: torch.nn.Linear) -> Tensor:
    """`contract(gelu(expand(norm(x))))` for each token: `(B, N, D)` to `(B, N, D)`; the linear layers have no bias.

    The backward pass keeps the input and what `expand` makes of it. Norm and activation, next to the widest tensors of
    a block, are computed again and never whole in memory on a CPU, see `krontime.ops.chunking`. A compiler chooses by
    itself what to keep, and is given the plain formula.
    """
    if torch.compiler.is_compiling():
        return contract(F.gelu(expand(norm(x))))
    weights = autocast(expand.weight, contract.weight)
    return _NormGeluLinear.apply(x, norm.weight, norm.bias, *weights, norm.eps, torch.is_grad_enabled())


class _NormGeluLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, gain: Tensor, shift: Tensor, expand: Tensor, contract: Tensor, eps: float, keeps: bool
    ) -> Tensor:
        tokens = x.flatten(0, -2)
        hidden = tokens.new_empty(len(tokens) if keeps else 0, len(expand), dtype=expand.dtype)
        out = tokens.new_empty(len(tokens), len(contract), dtype=contract.dtype)
        for part in chunks(len(tokens), device=tokens.device):
            normed, *_ = torch.native_layer_norm(tokens[part].to(gain.dtype), gain.shape, gain, shift, eps)
            wide = torch.mm(normed.to(expand.dtype), expand.mT, out=hidden[part] if keeps else None)
            torch.mm(F.gelu(wide), contract.mT, out=out[part])
        ctx.eps = eps
        ctx.save_for_backward(x, gain, shift, expand, contract, hidden)
        return out.view(*x.shape[:-1], len(contract))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, *weights, hidden = ctx.saved_tensors
        gain, shift, expand, contract = weights
        tokens, grad = x.flatten(0, -2), grad.flatten(0, -2)
        grad_x = None
        # Sums over the parts are in float32 at least.
        sums = [torch.zeros_like(w, dtype=torch.promote_types(w.dtype, torch.float32)) for w in weights]
        for part in chunks(len(tokens), device=tokens.device):
            before = tokens[part].to(gain.dtype)
            normed, *statistics = torch.native_layer_norm(before, gain.shape, gain, shift, ctx.eps)
            grad_contract = grad[part].mT @ F.gelu(hidden[part])
            grad_hidden = torch.ops.aten.gelu_backward(grad[part] @ contract, hidden[part])
            grad_expand = grad_hidden.mT @ normed.to(expand.dtype)
            grad_before, grad_gain, grad_shift = torch.ops.aten.native_layer_norm_backward(
                (grad_hidden @ expand).to(gain.dtype), before, gain.shape, *statistics, gain, shift, [True, True, True]
            )
            grad_x = write_chunk(grad_before, part, grad_x, like=tokens)
            for total, term in zip(sums, (grad_gain, grad_shift, grad_expand, grad_contract), strict=True):
                total += term
        assert grad_x is not None
        return grad_x.view_as(x), *sums, None, None
