"""Features that are quantiles of intervals of a series, of its differences and of its spectrum (QUANT).

Shape letters: B batch, C channels, L time points, R rows, I intervals, Q quantiles.
"""

import numpy as np
import torch
from torch import Tensor, nn

from krontime.models.kernel_ridge.features import Features, Scaling
from krontime.models.kernel_ridge.rows import Rows
from krontime.models.kernel_ridge.traced import for_each, interval_points, spectra

_MAX_DEPTH = 6
"""Number of levels at most: the whole series, its halves, its quarters, ..., each also shifted by half an interval."""


class IntervalQuantiles(Features):
    """Features that are quantiles of dyadic intervals of a series, its first two differences and its spectrum.

    After QUANT (Dempster, Schmidt, Webb 2024, arXiv 2308.00928), with at most `max_quantiles` of an interval, and with
    intervals that are fractions of each series' own length. From every second quantile the interval's mean is
    subtracted. Each channel has its own features.

    Args:
        num_channels: C.
        length: of the longest training series.
        scaling: see `Features`.
        max_quantiles: quantiles of an interval at most; one for every four points of it otherwise.
        num_features: features at most; fewer quantiles are taken where there would be more.
        seed: not used, nothing is drawn.
    """

    def __init__(
        self,
        *,
        num_channels: int,
        length: int,
        scaling: Scaling,
        num_features: int,
        max_quantiles: int = 16,
        seed: int = 0,
    ) -> None:
        super().__init__(num_channels=num_channels, scaling=scaling)
        del seed
        self.depth = max(1, min(_MAX_DEPTH, length.bit_length() - 1))
        self.length = length
        self.max_quantiles = max_quantiles
        while self.max_quantiles > 1 and num_channels * self._num_row_features() > num_features:
            self.max_quantiles -= 1
        self.num_features = num_channels * self._num_row_features()

    def _features(self, rows: Rows) -> Tensor:
        if torch.compiler.is_compiling():
            return self.traced(rows)
        out = rows.x.new_zeros(len(rows.x), self._num_row_features())
        ends = rows.ends
        for end in ends.unique().tolist():
            same_end = ends == end
            if end:
                seen = None if rows.observed is None else rows.observed[same_end, :end]
                if seen is not None and bool(seen.all()):
                    seen = None
                out[same_end] = self._equal_length_features(Rows(rows.x[same_end, :end], seen, rows.channel[same_end]))
        return out

    def _equal_length_features(self, rows: Rows) -> Tensor:
        """Return the features `(R, P / C)` of rows that all end at the last column."""
        difference = rows.difference()
        quantiles = []
        for view in (rows, _smooth(difference), difference.difference()):
            quantiles += self._quantiles(view)
        spectrum = torch.fft.rfft(rows.x, norm="ortho").abs()
        quantiles += self._quantiles(Rows(spectrum, None, rows.channel))
        return torch.cat(quantiles, dim=1)

    def traced(self, rows: Rows) -> Tensor:
        """Return the features `(R, P / C)` of rows, without an operation or shape that depends on where they end.

        A graph is made from this; the values are those of `_features`.
        """

        def row_features(row: Tensor) -> Tensor:
            x, seen, channel = (column.index_select(0, row) for column in (rows.x, rows.seen, rows.channel))
            return self._any_length_features(Rows(x, seen, channel))[0]

        return for_each(row_features, torch.arange(rows.x.shape[0]))

    def _any_length_features(self, rows: Rows) -> Tensor:
        """Return the features `(R, P / C)` of rows, each up to its own end."""
        end = rows.ends.clamp(min=1)
        difference = rows.difference()
        smoothed, second = _smooth(difference), difference.difference()
        spectrum = spectra(rows.x, end)
        views = (
            (rows.x, rows.seen, end),
            (smoothed.x, difference.seen, (end - 1).clamp(min=1)),
            (second.x, second.seen, (end - 2).clamp(min=1)),
            (spectrum, torch.ones_like(spectrum, dtype=torch.bool), end // 2 + 1),
        )
        quantiles = []
        for x, seen, lengths in views:
            for level in range(self.depth):
                values, inside = interval_points(x, seen, lengths, level)
                quantiles.append(interval_quantiles(values, inside, self._num_quantiles(level)).flatten(1))
        return torch.cat(quantiles, dim=1)

    def _quantiles(self, rows: Rows) -> list[Tensor]:
        """List the quantiles `(R, Q)` of each interval, in the order of `_intervals`.

        Intervals of one level and width are gathered, and their values sorted, in one operation.
        """
        same_width: dict[tuple[int, int], list[tuple[int, int]]] = {}
        intervals = _intervals(self.depth)
        for position, (level, start, width) in enumerate(intervals):
            low, high = _bounds(start, width, rows.x.shape[1])
            same_width.setdefault((level, high - low), []).append((position, low))
        quantiles = [rows.x] * len(intervals)  # all are replaced
        for (level, width), members in same_width.items():
            positions, lows = zip(*members, strict=True)
            points = torch.tensor(lows, device=rows.x.device)[:, None] + torch.arange(width, device=rows.x.device)
            seen = None if rows.observed is None else rows.observed[:, points]
            values = interval_quantiles(rows.x[:, points], seen, self._num_quantiles(level))
            for position, interval_values in zip(positions, values.unbind(1), strict=True):
                quantiles[position] = interval_values
        return quantiles

    def _num_quantiles(self, level: int) -> int:
        """Count the quantiles of an interval of that level: one for every four points of the longest series."""
        return max(1, min(self.max_quantiles, 1 + (max(1, self.length >> level) - 1) // 4))

    def _num_row_features(self) -> int:
        """Count the features of a channel: of the series, its two differences and its spectrum."""
        return 4 * sum(self._num_quantiles(level) for level, _, _ in _intervals(self.depth))


def _intervals(depth: int) -> list[tuple[int, float, float]]:
    """List level, start and width of each interval, the latter two as fractions of the length."""
    intervals = []
    for level in range(depth):
        width = 2.0**-level
        intervals += [(level, i * width, width) for i in range(2**level)]
        if level:
            intervals += [(level, (i + 0.5) * width, width) for i in range(2**level - 1)]
    return intervals


def _smooth(rows: Rows) -> Rows:
    """Replace each observed point by the mean of the observed ones among the five around it."""
    kernel = rows.x.new_ones(1, 1, 5)
    seen = rows.seen.to(rows.x.dtype)
    total = nn.functional.conv1d(rows.x[:, None], kernel, padding=2)[:, 0]
    count = nn.functional.conv1d(seen[:, None], kernel, padding=2)[:, 0]
    return rows._replace(x=total / count.clamp(min=1) * seen)


def interval_quantiles(x: Tensor, seen: Tensor | None, num_quantiles: int) -> Tensor:
    """Return evenly spaced quantiles `(..., Q)` of the seen points of `(..., L)`, every second less the mean.

    What is not seen is 0 in `x`, and so are the quantiles where nothing is seen.
    """
    if seen is None:
        count = torch.full((*x.shape[:-1], 1), x.shape[-1], device=x.device)
    else:
        count = seen.sum(dim=-1, keepdim=True)
    ordered = _sorted(x if seen is None else torch.where(seen, x, torch.inf))
    fraction = (
        torch.linspace(0, 1, num_quantiles, device=x.device)
        if num_quantiles > 1
        else torch.full((1,), 0.5, device=x.device)
    )
    position = (count - 1).clamp(min=0) * fraction
    low = position.floor().long()
    high = torch.minimum(low + 1, (count - 1).clamp(min=0))
    lower, upper = ordered.gather(-1, low), ordered.gather(-1, high)
    values = torch.where(count > 0, lower + (upper - lower) * (position - low), 0.0)
    mean = x.sum(dim=-1, keepdim=True) / count.clamp(min=1)
    is_second = torch.arange(num_quantiles, device=x.device) % 2 == 1
    return torch.where(is_second, values - mean, values)


def _sorted(x: Tensor) -> Tensor:
    """Sort the last axis; on the CPU NumPy needs a tenth of torch's time."""
    if x.device.type != "cpu" or x.requires_grad or torch.compiler.is_compiling():
        return x.sort(dim=-1).values
    return torch.from_numpy(np.sort(x.numpy(), axis=-1))


def _bounds(start: float, width: float, length: int) -> tuple[int, int]:
    """Return the first point of an interval and the one after its last; it has at least one point."""
    low = round(start * length)
    high = max(low + 1, round((start + width) * length))
    return (low, high) if high <= length else (length - 1, length)
