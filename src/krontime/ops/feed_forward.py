"""The second half of a feed-forward network, whose backward pass computes the activation again."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F


def gelu_linear(hidden: Tensor, weight: Tensor) -> Tensor:
    """`weight @ gelu(hidden)` for each token: `(B, N, F)` and a weight `(D, F)` to `(B, N, D)`.

    The backward pass keeps `hidden` and not its activation, the widest tensors of a block: computing one again costs
    less than a hundredth of a step. A compiler chooses by itself what to keep, and is given the plain formula.
    """
    if torch.compiler.is_compiling():
        return F.linear(F.gelu(hidden), weight)
    return _GeluLinear.apply(hidden, weight)


class _GeluLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(hidden, weight)
        return F.linear(F.gelu(hidden), weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        hidden, weight = ctx.saved_tensors
        with torch.enable_grad():
            hidden = hidden.detach().requires_grad_()
            active = F.gelu(hidden)
        grad = grad.to(hidden.dtype)
        grad_weight = grad.flatten(0, 1).mT @ active.detach().flatten(0, 1)
        (grad_hidden,) = torch.autograd.grad(active, hidden, grad @ weight.to(hidden.dtype))
        return grad_hidden, grad_weight.to(weight.dtype)
