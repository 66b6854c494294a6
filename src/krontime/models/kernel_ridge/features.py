"""What every family of features shares: how series are scaled, and how channels become rows.

Shape letters: B batch, C channels, L time points, P features.
"""

from abc import ABC, abstractmethod
from typing import Literal

import torch
from torch import Tensor, nn

from krontime.models.kernel_ridge.rows import Rows

Scaling = Literal["series", "channel"]

_MIN_RELATIVE_SPREAD = 1e-6
"""A standard deviation below this fraction of the mean is rounding, not signal."""

_POINTS_AT_ONCE = 1 << 22
"""Points of a batch that features are computed of at once: scaled, in float64, as spectra they take many times that."""


class Features(nn.Module, ABC):
    """Base of a family of features of whole series, which depend on neither padding nor the other series of a batch.

    Args:
        num_channels: C.
        scaling: `series`: each channel of each series to mean 0 and deviation 1 over its observed points; `channel`:
            each channel by the medians, over training series, of mean and deviation, which keeps loud and quiet apart.

    Attributes:
        num_features: P.
    """

    num_features: int
    centre: Tensor
    spread: Tensor

    def __init__(self, *, num_channels: int, scaling: Scaling) -> None:
        super().__init__()
        if scaling not in ("series", "channel"):
            raise ValueError(f"scaling={scaling!r}: expected series or channel")
        self.scaling = scaling
        self.register_buffer("centre", torch.zeros(num_channels, 1))
        self.register_buffer("spread", torch.ones(num_channels, 1))

    @torch.no_grad()
    def fit(self, x: Tensor, mask: Tensor | None) -> None:
        """Fit the scaling of channels, and what the family draws from data, to a sample of training series.

        Args:
            x: raw series `(B, C, L)`, 0 where not observed.
            mask: `(B, C, L)` bool, true where observed; None where all is.
        """
        if self.scaling == "channel":
            mean, _ = _moments(x, mask)
            self.centre.copy_(mean.median(dim=0).values)
            deviations = x - self.centre
            spread = _root_mean_square(deviations if mask is None else torch.where(mask, deviations, 0.0), mask)
            spread = spread.median(dim=0).values
            self.spread.copy_(torch.where(spread > _MIN_RELATIVE_SPREAD * self.centre.abs(), spread, 1.0))
        self._fit(self._rows(x, mask))

    @torch.no_grad()
    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the features `(B, P)`, float32, of raw series `(B, C, L)` that are 0 where their mask is false."""
        # A program of torch.export can't be written with such a context around a scan, and is never run in another one.
        if torch.compiler.is_compiling():
            return self._of_some(x, mask)
        size = max(1, _POINTS_AT_ONCE // x[0].numel())
        masks = [None] * len(x) if mask is None else mask.split(size)
        with torch.autocast(x.device.type, enabled=False):
            return torch.cat(
                [self._of_some(some, its_mask) for some, its_mask in zip(x.split(size), masks, strict=False)]
            )

    def _of_some(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Return the features `(B, P)` of as many series as are held in memory several times over."""
        return self._features(self._rows(x, mask)).unflatten(0, x.shape[:2]).flatten(1)

    def _rows(self, x: Tensor, mask: Tensor | None) -> Rows:
        """Scale series `(B, C, L)` and give each channel a row of its own."""
        x = x.float()
        if self.scaling == "series":
            centre, spread = _moments(x, mask)
            spread = torch.where(spread > _MIN_RELATIVE_SPREAD * centre.abs(), spread, 1.0)
        else:
            centre, spread = self.centre, self.spread
        scaled = (x - centre) / spread
        return Rows.of(scaled if mask is None else torch.where(mask, scaled, 0.0), mask)

    def _fit(self, rows: Rows) -> None:
        """Draw constants from rows of training series; most families draw none."""

    @abstractmethod
    def _features(self, rows: Rows) -> Tensor:
        """Return the features `(R, P / C)` of rows."""


def _moments(x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation `(B, C, 1)` over observed points.

    Summed in float64, so that they are the same to the last bit in whatever order a library sums: where a series is
    constant, which kernel wins is decided by the last bits of what they are scaled with.
    """
    exact = x.double() if mask is None else torch.where(mask, x, 0.0).double()
    count = x.shape[-1] if mask is None else mask.sum(dim=-1, keepdim=True).clamp(min=1)
    centre = exact.sum(dim=-1, keepdim=True) / count
    deviations = exact - centre if mask is None else torch.where(mask, exact - centre, 0.0)
    return centre.to(x.dtype), _root_mean_square(deviations, mask).to(x.dtype)


def _root_mean_square(deviations: Tensor, mask: Tensor | None) -> Tensor:
    """Return the root mean square `(B, C, 1)` over observed points of deviations that are 0 elsewhere.

    Squared in float64, so that no unit, large or small, overflows or underflows.
    """
    count = deviations.shape[-1] if mask is None else mask.sum(dim=-1, keepdim=True).clamp(min=1)
    mean_square = deviations.double().square().sum(dim=-1, keepdim=True) / count
    return mean_square.sqrt().to(deviations.dtype)
