"""Features of how the energy in bands of frequency changes along a series.

Shape letters: R rows, L time points, W points of a window, T windows, B bands, V views, I intervals, Q quantiles.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional as F

from krontime.models.kernel_ridge.features import Features, Scaling
from krontime.models.kernel_ridge.intervals import interval_quantiles
from krontime.models.kernel_ridge.rows import Rows
from krontime.models.kernel_ridge.traced import interval_points

_MAX_BANDS = 24
"""Number of bands of a window at most, as wide as each other on a logarithmic scale."""

_NUM_QUANTILES = 8
"""Number of quantiles over all windows of a series."""

_DEPTH = 3
"""Number of levels of intervals whose means are features: the whole, its halves, its quarters, shifted by half too."""

_FLOOR = 1e-6
"""Energy that is added to that of a band before its logarithm is taken; a scaled series has an energy of about 1."""

_LARGEST = 1e12
"""Values of a scaled series are cut here, so that squares of sums stay within float32."""

_SHORTEST, _LONGEST = 4, 4096
"""Points of a window: fewer have no bands, and more take too large a matrix."""

_MAX_WINDOWS = 8
"""Number of lengths of windows at most, since each has its own matrix."""

_WINDOWS_AT_LEAST = 4
"""Number of windows that have to fit into the longest training series, one beside the other, to be of use."""


class BandEnergies(Features):
    """Features of the logarithms of a series' energy in bands of frequency, in overlapping windows of several lengths.

    The short-time spectrum that sounds are told apart by, on logarithmic scales of frequency and energy as in mel
    spectrograms (Davis, Mermelstein 1980), for series of any kind: bands are multiples of a window's own lowest
    frequency. Of each window's bands, less their mean, of that mean, and of how both change from a window to the next:
    means over dyadic intervals, which say when; deviation and quantiles over all windows, which say what, whenever;
    and covariances of bands, which say what comes together. Each channel has its own features.

    Windows are as long for every series. One shorter than a window is extended by zeros, and points beyond the last
    whole window are not seen. A missing point counts as 0, the mean of what was scaled.

    Args:
        num_channels: C.
        length: of the longest training series.
        scaling: see `Features`.
        num_features: features at most, as far as one band of each window allows; fewer bands are taken where there
            would be more.
        windows: up to eight lengths in points, each once; those of which four fit into the longest series are used.
        min_length: points of the longest series below which there are no features.
        seed: not used, nothing is drawn.

    Raises:
        ValueError: names `windows` and `min_length` where they cannot work.
    """

    def __init__(
        self,
        *,
        num_channels: int,
        length: int,
        scaling: Scaling,
        num_features: int,
        windows: Sequence[int] = (64, 256, 1024),
        min_length: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(num_channels=num_channels, scaling=scaling)
        del seed
        problems = []
        is_right_count = 0 < len(windows) <= _MAX_WINDOWS and len(set(windows)) == len(windows)
        if not is_right_count or not _SHORTEST <= min(windows) <= max(windows) <= _LONGEST:
            problems.append(
                f"windows={list(windows)}: expected 1 to {_MAX_WINDOWS} lengths, each once, of {_SHORTEST} to "
                f"{_LONGEST} points"
            )
        if min_length < 0:
            problems.append(f"min_length={min_length}: expected at least 0")
        if problems:
            raise ValueError("\n".join(problems))
        fitting = [window for window in windows if _WINDOWS_AT_LEAST * window <= length]
        self.windows = fitting if length >= min_length else []
        num_bands = _MAX_BANDS
        while num_bands > 1 and num_channels * self._num_row_features(num_bands) > num_features:
            num_bands -= 1
        self.num_features = num_channels * self._num_row_features(num_bands)
        for window in self.windows:
            self.register_buffer(f"waves_{window}", _waves(window), persistent=False)
            self.register_buffer(f"bands_{window}", _band_means(window, num_bands), persistent=False)

    def _features(self, rows: Rows) -> Tensor:
        if not self.windows:
            return rows.x.new_zeros(len(rows.x), 0)
        return torch.cat([self._window_features(rows, window) for window in self.windows], dim=1)

    def _window_features(self, rows: Rows, window: int) -> Tensor:
        """Return the features `(R, P / C)` of windows of one length."""
        hop = window // 2
        # By a whole window, whatever the length is: one number for all lengths of a graph.
        x_RL = F.pad(rows.x.clamp(-_LARGEST, _LARGEST), (0, window))
        waves_RTF = x_RL.unfold(1, window, hop) @ self.get_buffer(f"waves_{window}")
        energy_RTB = waves_RTF.square() @ self.get_buffer(f"bands_{window}")
        log_energy_RTB = (energy_RTB + _FLOOR).log()
        level_RT1 = log_energy_RTB.mean(dim=-1, keepdim=True)
        views_RVT = torch.cat([log_energy_RTB - level_RT1, level_RT1], dim=-1).transpose(1, 2)
        num_windows = ((rows.ends - window) // hop + 1).clamp(min=1)
        # A series of one window has no change: nothing of it is seen.
        change_RVT = F.pad(views_RVT[..., 1:] - views_RVT[..., :-1], (0, 1))
        return torch.cat(
            [
                *_course(views_RVT, num_windows),
                *_course(change_RVT, num_windows - 1),
                _covariances(views_RVT, num_windows),
            ],
            dim=1,
        )

    def _num_row_features(self, num_bands: int) -> int:
        """Count the features of a channel with so many bands of each window, where it has so many."""
        num_means = sum(2 ** (level + 1) - 1 for level in range(_DEPTH))
        total = 0
        for window in self.windows:
            num_views = len(_borders(window, num_bands))  # one for each band, and one for their mean
            total += 2 * num_views * (num_means + 1 + _NUM_QUANTILES) + num_views * (num_views - 1) // 2
        return total


def _course(views: Tensor, num_windows: Tensor) -> list[Tensor]:
    """List features `(R, ...)` of how each view goes along a series.

    Args:
        views: `(R, V, T)`.
        num_windows: `(R,)` int64, how many of T are of the series.
    """
    num_rows, num_views, num_columns = views.shape
    flat = views.flatten(0, 1)
    lengths = num_windows.repeat_interleave(num_views)
    seen = torch.arange(num_columns, device=views.device) < lengths[:, None]
    count = lengths.clamp(min=1)
    features = []
    for level in range(_DEPTH):
        values, inside = interval_points(flat, seen, count, level)
        features.append(values.sum(dim=-1) / inside.sum(dim=-1).clamp(min=1))
    deviation = torch.where(seen, flat - features[0], 0.0)  # from the mean of the whole
    features.append((deviation.square().sum(dim=-1, keepdim=True) / count[:, None]).sqrt())
    features.append(interval_quantiles(torch.where(seen, flat, 0.0), seen, _NUM_QUANTILES))
    return [feature.reshape(num_rows, -1) for feature in features]


def _covariances(views: Tensor, num_windows: Tensor) -> Tensor:
    """Return the covariance of each two views over a series' windows; the arguments are those of `_course`."""
    count = num_windows[:, None, None]
    seen = torch.arange(views.shape[-1], device=views.device) < count
    mean = torch.where(seen, views, 0.0).sum(dim=-1, keepdim=True) / count
    deviation = torch.where(seen, views - mean, 0.0)
    covariance = deviation @ deviation.transpose(1, 2) / count
    first, second = torch.triu_indices(views.shape[1], views.shape[1], offset=1, device=views.device)
    return covariance[:, first, second]


def _waves(window: int) -> Tensor:
    """Return cosines and sines `(W, 2 * (W // 2))` of all frequencies but 0 of a window, under Hann's taper.

    Products with them are the discrete Fourier transform, divided by the root of the taper's energy; of a window of
    noise of variance 1 each has an energy of 1/2.
    """
    point = torch.arange(window, dtype=torch.float64)
    taper = torch.hann_window(window, dtype=torch.float64)
    angle = 2 * math.pi / window * (point[:, None] * torch.arange(1, window // 2 + 1) % window)
    waves = torch.cat([angle.cos(), angle.sin()], dim=1)
    return (taper[:, None] / taper.square().sum().sqrt() * waves).float()


def _band_means(window: int, num_bands: int) -> Tensor:
    """Return what makes mean energies of bands from those of cosines and sines: `(2 * (W // 2), B)`."""
    borders = _borders(window, num_bands)
    bands = torch.zeros(window // 2, len(borders) - 1)
    for band, (low, high) in enumerate(pairwise(borders)):
        bands[low - 1 : high - 1, band] = 1 / (high - low)
    return bands.repeat(2, 1)


def _borders(window: int, num_bands: int) -> list[int]:
    """List the borders of the bands of a window, multiples of its lowest frequency, evenly on a logarithmic scale.

    Where bands would be narrower than that frequency there are fewer.
    """
    highest = window // 2 + 1
    return sorted({round(highest ** (i / num_bands)) for i in range(num_bands + 1)})
