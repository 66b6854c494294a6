"""From many tokens to one vector."""

from torch import Tensor


def masked_mean(x: Tensor, mask: Tensor | None) -> Tensor:
    """Mean over the tokens that count, zero where none does.

    Args:
        x: `(..., N, D)`.
        mask: bool `(..., N)`; None where all count.

    Returns:
        `(..., D)`.
    """
    if mask is None:
        return x.mean(dim=-2)
    weight = mask[..., None].to(x.dtype)
    return (x * weight).sum(dim=-2) / weight.sum(dim=-2).clamp(min=1)
