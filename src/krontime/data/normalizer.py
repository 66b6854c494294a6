"""Scaling of series, as part of the model, so that a checkpoint carries the statistics of its training split."""

from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from krontime.data.series import SeriesData

Scaling = Literal["series", "channel", "none"]


class Normalizer(nn.Module):
    """Shifts and scales observed values; what is not observed becomes 0, the mean.

    Args:
        scaling: `series`: each channel of each series to mean 0 and standard deviation 1 over its observed points;
            `channel`: each channel by the mean and deviation of the training split; `none`: values as they are.
        num_channels: C.

    A channel that does not vary is shifted but not scaled.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, *, scaling: Scaling, num_channels: int) -> None:
        super().__init__()
        if scaling not in ("series", "channel", "none"):
            raise ValueError(f"scaling={scaling!r}: expected series, channel or none")
        self.scaling = scaling
        self.register_buffer("mean", torch.zeros(num_channels, 1))
        self.register_buffer("scale", torch.ones(num_channels, 1))

    def fit(self, data: SeriesData, indices: np.ndarray) -> None:
        """Take the mean and deviation of each channel over the series at `indices`, all of the training split."""
        if self.scaling != "channel":
            return
        count = np.zeros(data.num_channels)
        total = np.zeros(data.num_channels)
        squares = np.zeros(data.num_channels)
        for index in indices:
            values = data.series(index).astype(np.float64)
            observed = ~np.isnan(values)
            count += observed.sum(axis=1)
            total += np.nansum(values, axis=1)
            squares += np.nansum(values**2, axis=1)
        mean = total / np.maximum(count, 1)
        deviation = np.sqrt(np.maximum(squares / np.maximum(count, 1) - mean**2, 0))
        self.mean.copy_(torch.from_numpy(mean)[:, None])
        self.scale.copy_(torch.from_numpy(_safe(deviation, np.abs(mean)))[:, None])

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Scaled series `(B, C, L)`, zero where the mask `(B, C, L)` is false."""
        if self.scaling == "none":
            return x
        if self.scaling == "channel":
            smaller = _smaller(torch.maximum(self.mean.abs(), self.scale))
            scaled = (x * smaller - self.mean * smaller) / (self.scale * smaller)
            return scaled if mask is None else scaled * mask
        x = x * _smaller(x.abs().amax(dim=-1, keepdim=True))
        count = x.shape[-1] if mask is None else mask.sum(dim=-1, keepdim=True).clamp(min=1)
        mean = x.sum(dim=-1, keepdim=True) / count
        centred = x - mean if mask is None else (x - mean) * mask
        peak = centred.abs().amax(dim=-1, keepdim=True)
        varies = peak > _RELATIVE * mean.abs()
        centred = centred / torch.where(varies, peak, 1.0)  # else the squares of very small units would be 0
        deviation = (centred.square().sum(dim=-1, keepdim=True) / count).sqrt()
        return centred / torch.where(varies, deviation, 1.0)


def _smaller(size: Tensor) -> Tensor:
    """A factor that sums and differences of very large values need so as to stay finite; 1 for all others.

    It is a power of two, so that what is computed with it is the same to the last bit.
    """
    return torch.where(size > _LARGE, 2.0**-40, 1.0).to(size.dtype)


_LARGE = 2.0**80
"""Sums of 2**40 smaller values are finite in float32."""

_RELATIVE = 1e-6
"""A deviation below this fraction of the mean is rounding, not signal."""


def _safe(deviation: np.ndarray, mean: np.ndarray) -> np.ndarray:
    return np.where(deviation > _RELATIVE * mean, deviation, 1.0)
