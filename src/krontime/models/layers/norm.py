"""Batch norm whose statistics are those of observed tokens.

Shape letters: R rows (series, or series of one channel), N tokens, D width, M = R * N.
"""

import torch
from torch import Tensor, nn


class MaskedBatchNorm(nn.BatchNorm1d):
    """Batch norm of each feature over the tokens that count; without a mask, `nn.BatchNorm1d`."""

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Normalise.

        Args:
            x: `(R, N, D)`.
            mask: `(R, N)` bool, which tokens enter the statistics in training; None for all.

        Returns:
            `(R, N, D)`; in training, tokens that don't count become the bias.
        """
        flat_MD = x.flatten(0, 1)  # a view, a third of the time of (R, D, N) (docs/performance.md)
        # One token has no variance: nn.BatchNorm1d raises, the masked form gives it the bias.
        if not self.training or (mask is None and flat_MD.shape[0] > 1):
            return super().forward(flat_MD).view_as(x)
        weight_M1 = flat_MD.new_ones(len(flat_MD), 1) if mask is None else mask.reshape(-1, 1).to(flat_MD.dtype)
        count = weight_M1.sum()
        mean_D = (flat_MD * weight_M1).sum(dim=0) / count.clamp(min=1)
        # Zero where a token doesn't count: with few that do, a small variance would blow the others up at every layer.
        centred_MD = (flat_MD - mean_D) * weight_M1
        square_D = centred_MD.square().sum(dim=0)
        self._track(mean_D, square_D, count)
        normalised_MD = centred_MD * (square_D / count.clamp(min=1) + self.eps).rsqrt()
        return (normalised_MD * self.weight + self.bias).view_as(x)

    @torch.no_grad()
    def _track(self, mean_D: Tensor, square_D: Tensor, count: Tensor) -> None:
        """Move the running statistics, with the unbiased variance as PyTorch does; none for fewer than two tokens."""
        running_mean, running_var, batches = self.running_mean, self.running_var, self.num_batches_tracked
        assert running_mean is not None
        assert running_var is not None
        assert batches is not None
        assert self.momentum is not None
        batches.add_(1)
        momentum = (self.momentum * (count > 1)).to(running_mean)
        running_mean.lerp_(mean_D.to(running_mean), momentum)
        running_var.lerp_((square_D / (count - 1).clamp(min=1)).to(running_var), momentum)
