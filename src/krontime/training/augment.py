"""Augmentation of a training batch on its device, from one generator so that a step can be repeated.

Shape letters: B batch, C channels, L time points, K classes.
"""

import torch
from torch import Tensor, nn


class Augment(nn.Module):
    """Random changes to scaled series; each is off at 0.

    Args:
        shift: largest circular shift in time, as a fraction of the batch's length; drawn for each series. A series that
            is shorter than the batch is shifted within its own length.
        scale: standard deviation of a factor around 1 on the amplitude of each series.
        jitter: standard deviation of Gaussian noise on each observed point.
        mixup: alpha of the beta distribution of the mixing fraction (Zhang et al. 2018, arXiv 1710.09412).
    """

    def __init__(self, *, shift: float = 0.0, scale: float = 0.0, jitter: float = 0.0, mixup: float = 0.0) -> None:
        super().__init__()
        if not 0 <= shift <= 1:
            raise ValueError(f"augment.shift={shift}: expected 0 to 1")
        for name, value in (("scale", scale), ("jitter", jitter), ("mixup", mixup)):
            if value < 0:
                raise ValueError(f"augment.{name}={value}: expected 0 or more")
        self.shift = shift
        self.scale = scale
        self.jitter = jitter
        self.mixup = mixup

    def forward(self, x: Tensor, mask: Tensor | None, targets: Tensor) -> tuple[Tensor, Tensor | None, Tensor]:
        """Augmented `(B, C, L)` series, their mask, and targets `(B, K)` as class probabilities."""
        if self.shift:
            x, mask = self._shifted(x, mask)
        if self.scale:
            x = x * (1 + self.scale * torch.randn(len(x), 1, 1, device=x.device, dtype=x.dtype))
        if self.jitter:
            noise = self.jitter * torch.randn_like(x)
            x = x + (noise if mask is None else noise * mask)
        if self.mixup:
            fraction = torch.distributions.Beta(self.mixup, self.mixup).sample().to(x)
            partner = torch.randperm(len(x), device=x.device)
            x = fraction * x + (1 - fraction) * x[partner]
            targets = fraction * targets + (1 - fraction) * targets[partner]
            mask = None if mask is None else mask | mask[partner]
        return x, mask, targets

    def _shifted(self, x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        points = torch.arange(x.shape[-1], device=x.device)
        if mask is None:
            length_B1 = torch.full((len(x), 1), x.shape[-1], device=x.device)
        else:
            length_B1 = (mask.any(dim=1) * (points + 1)).amax(dim=1, keepdim=True).clamp(min=1)
        fraction_B1 = self.shift * (2 * torch.rand(len(x), 1, device=x.device) - 1)
        moved_BL = (points - (fraction_B1 * length_B1).round().long()) % length_B1
        source_BL = torch.where(points < length_B1, moved_BL, points)
        source = source_BL[:, None].expand_as(x)
        return x.gather(-1, source), None if mask is None else mask.gather(-1, source)
