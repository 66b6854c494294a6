"""Quantiles of intervals of a series, of its differences and of its spectrum.

Shape letters: B batch, C channels, L time points, R rows, I intervals, Q quantiles.
"""

import torch
from torch import Tensor, nn

from krontime.models.kernel_ridge.features import Features, Scaling
from krontime.models.kernel_ridge.rows import Rows
from krontime.models.kernel_ridge.traced import at_intervals, for_each, spectra

_DEPTH = 6
"""Halvings of the series: intervals of its whole, halves, ..., and these shifted by half an interval."""


class IntervalQuantiles(Features):
    """Quantiles of dyadic intervals of a series, its first and second difference and its spectrum.

    After QUANT (Dempster, Schmidt, Webb 2024, arXiv 2308.00928), with at most `max_quantiles` of an interval, and with
    intervals that are fractions of each series' own length. From every second quantile the interval's mean is taken
    away. Each channel has its own.

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
        self.depth = max(1, min(_DEPTH, length.bit_length() - 1))
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
            alike = ends == end
            if end:
                seen = None if rows.observed is None else rows.observed[alike, :end]
                if seen is not None and bool(seen.all()):
                    seen = None
                out[alike] = self._of_one_length(Rows(rows.x[alike, :end], seen, rows.channel[alike]))
        return out

    def _of_one_length(self, rows: Rows) -> Tensor:
        """Features of rows of one length, which is their number of columns."""
        first = _smooth(rows.difference())
        parts = []
        for view in (rows, first, rows.difference().difference()):
            parts += self._quantiles(view)
        spectrum = torch.fft.rfft(rows.x, norm="ortho").abs()
        parts += self._quantiles(Rows(spectrum, None, rows.channel))
        return torch.cat(parts, dim=1)

    def traced(self, rows: Rows) -> Tensor:
        """Features `(R, P / C)` of rows, without any operation or shape that depends on where they end."""

        def of_one(row: Tensor) -> Tensor:
            x, seen, channel = (part.index_select(0, row) for part in (rows.x, rows.seen, rows.channel))
            return self._of_any_length(Rows(x, seen, channel))[0]

        return for_each(of_one, torch.arange(rows.x.shape[0]))

    def _of_any_length(self, rows: Rows) -> Tensor:
        end = rows.ends.clamp(min=1)
        first = rows.difference()
        spectrum = spectra(rows.x, end)
        views = (
            (rows.x, rows.seen, end),
            (_smooth(first).x, first.seen, (end - 1).clamp(min=1)),
            (first.difference().x, first.difference().seen, (end - 2).clamp(min=1)),
            (spectrum, torch.ones_like(spectrum, dtype=torch.bool), end // 2 + 1),
        )
        parts = []
        for x, seen, lengths in views:
            for level in range(self.depth):
                values, inside = at_intervals(x, seen, lengths, level)
                parts.append(_interval_quantiles(values, inside, self._num_quantiles(level)).flatten(1))
        return torch.cat(parts, dim=1)

    def _quantiles(self, rows: Rows) -> list[Tensor]:
        """Quantiles `(R, Q)` of each interval, in order; intervals of one level and width are sorted together."""
        bounds: dict[tuple[int, int], list[tuple[int, int]]] = {}
        intervals = _intervals(self.depth)
        for number, (level, start, width) in enumerate(intervals):
            low, high = _bounds(start, width, rows.x.shape[1])
            bounds.setdefault((level, high - low), []).append((number, low))
        parts = [rows.x] * len(intervals)
        for (level, width), places in bounds.items():
            numbers, lows = zip(*places, strict=True)
            points = torch.tensor(lows, device=rows.x.device)[:, None] + torch.arange(width, device=rows.x.device)
            seen = None if rows.observed is None else rows.observed[:, points]
            values = _interval_quantiles(rows.x[:, points], seen, self._num_quantiles(level))
            for number, of_interval in zip(numbers, values.unbind(1), strict=True):
                parts[number] = of_interval
        return parts

    def _num_quantiles(self, level: int) -> int:
        """Of an interval of that level."""
        return max(1, min(self.max_quantiles, 1 + (max(1, self.length >> level) - 1) // 4))

    def _num_row_features(self) -> int:
        """Features of a channel: of the series, its two differences and its spectrum."""
        return 4 * sum(self._num_quantiles(level) for level, _, _ in _intervals(self.depth))


def _intervals(depth: int) -> list[tuple[int, float, float]]:
    """Level, start and width of each interval, as fractions of the length."""
    intervals = []
    for level in range(depth):
        width = 2.0**-level
        intervals += [(level, i * width, width) for i in range(2**level)]
        if level:
            intervals += [(level, (i + 0.5) * width, width) for i in range(2**level - 1)]
    return intervals


def _smooth(rows: Rows) -> Rows:
    """The moving mean over five observed points."""
    kernel = rows.x.new_ones(1, 1, 5)
    seen = rows.seen.to(rows.x.dtype)
    total = nn.functional.conv1d(rows.x[:, None], kernel, padding=2)[:, 0]
    count = nn.functional.conv1d(seen[:, None], kernel, padding=2)[:, 0]
    return rows._replace(x=total / count.clamp(min=1) * seen)


def _interval_quantiles(x: Tensor, seen: Tensor | None, num_quantiles: int) -> Tensor:
    """Evenly spaced quantiles `(..., Q)` of the seen points of `(..., L)`; every second less the mean.

    What is not seen is 0 in `x`, and so are the quantiles where nothing is seen.
    """
    if seen is None:
        count = torch.full((*x.shape[:-1], 1), x.shape[-1], device=x.device)
    else:
        count = seen.sum(dim=-1, keepdim=True)
    ordered = (x if seen is None else torch.where(seen, x, torch.inf)).sort(dim=-1).values
    at = (
        torch.linspace(0, 1, num_quantiles, device=x.device)
        if num_quantiles > 1
        else torch.full((1,), 0.5, device=x.device)
    )
    position = (count - 1).clamp(min=0) * at
    low = position.floor().long()
    high = torch.minimum(low + 1, (count - 1).clamp(min=0))
    lower, upper = ordered.gather(-1, low), ordered.gather(-1, high)
    values = torch.where(count > 0, lower + (upper - lower) * (position - low), 0.0)
    mean = x.sum(dim=-1, keepdim=True) / count.clamp(min=1)
    is_second = torch.arange(num_quantiles, device=x.device) % 2 == 1
    return torch.where(is_second, values - mean, values)


def _bounds(start: float, width: float, length: int) -> tuple[int, int]:
    """First point and the one after the last of an interval of at least one point."""
    low = round(start * length)
    high = max(low + 1, round((start + width) * length))
    return (low, high) if high <= length else (length - 1, length)
