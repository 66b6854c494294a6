"""Times of the rows of a recording: put in order, held to be even, and brought to an even grid where asked.

Shape letters: C channels, L time points, n rows.
"""

import itertools
from typing import Literal, NamedTuple

import numpy as np

from krontime.errors import UserError

GAP = 1.5
"""Times the usual interval between rows; more is a gap."""

JITTER = 0.1
"""Largest difference of an interval from the usual one that counts as even, as a fraction of it."""

UNEVEN = 0.01
"""Fraction of the intervals that may differ by more."""


class Part(NamedTuple):
    """A stretch of rows that becomes one recording.

    Attributes:
        order: int64 `(n,)`, the rows of it, in the order of time.
        place: float64 `(n,)`, the place of each on the even grid, in points; None where row i is point i.
        length: L.
        sampling_rate_hz: points per second; None where it is not known.
        reach: points on the grid that two rows may be apart for a line between them.
    """

    order: np.ndarray
    place: np.ndarray | None
    length: int
    sampling_rate_hz: float | None
    reach: float = GAP

    def of(self, values: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Values `(C, L)` float32 and labels `(L,)` on the grid, from rows `(n, C)` and `(n,)`.

        A point between two rows has a value on the straight line between them, and the label of the nearer; where they
        are more than a gap apart it is missing.
        """
        rows, label = values[self.order], labels[self.order]
        if self.place is None:
            return np.ascontiguousarray(rows.T), label
        points = np.arange(self.length)
        after = np.clip(np.searchsorted(self.place, points, side="left"), 0, len(self.place) - 1)
        before = np.where(self.place[after] > points, np.maximum(after - 1, 0), after)
        wide = self.place[after] - self.place[before] > self.reach
        wide &= (np.abs(self.place[after] - points) > 0.5) & (np.abs(self.place[before] - points) > 0.5)
        out = np.empty((rows.shape[1], self.length), np.float32)
        for channel in range(len(out)):
            out[channel] = np.interp(points, self.place, rows[:, channel])
            out[channel, wide] = np.nan
        nearest = np.where(self.place[after] - points < points - self.place[before], after, before)
        return out, np.where(wide, -1, label[nearest])


class TimeGrid(NamedTuple):
    """How rows become evenly spaced points.

    Attributes:
        sampling_rate_hz: of the grid that rows are brought to; None for that of the rows, which has to be even.
        gaps: what to do where rows are missing: see `LongTableSource`.
    """

    sampling_rate_hz: float | None = None
    gaps: Literal["refuse", "split", "missing"] = "refuse"

    def parts(self, times: np.ndarray | None, num_rows: int) -> list[Part]:
        """The recordings that rows make, by their times `(n,)` in nanoseconds; None where row i is point i.

        Raises:
            UserError: two rows have one time, or rows are uneven or missing and it is not said what to do.
        """
        if times is None or num_rows < 2:
            return [Part(np.arange(num_rows), None, num_rows, self.sampling_rate_hz)]
        order = np.argsort(times, kind="stable")
        times = np.asarray(times)[order]
        intervals = np.diff(times)
        if (same := np.flatnonzero(intervals == 0)).size:
            raise UserError(
                f"{same.size:,} of {num_rows:,} rows have the time of another one; expected one row for each time, and "
                "a column that says which recording a row is of (data.source.recording=NAME)"
            )
        usual = float(np.median(intervals)) if self.sampling_rate_hz is None else 1e9 / self.sampling_rate_hz
        is_gap = intervals > GAP * max(usual, float(np.median(intervals)))
        gaps = np.flatnonzero(is_gap)
        if gaps.size and self.gaps == "refuse":
            longest = int(gaps[intervals[gaps].argmax()])
            raise UserError(
                f"{gaps.size:,} gaps in {num_rows:,} rows, the longest of {intervals[longest] / 1e9:,.6g} s after row "
                f"{int(order[longest]):,}, where rows are {usual / 1e9:,.6g} s apart; expected data.source.gaps=split "
                "(parts are recordings of their own) or missing (missing values)"
            )
        even = intervals[~is_gap]
        uneven = float((np.abs(even - usual) > JITTER * usual).mean()) if even.size else 0.0
        if uneven > UNEVEN and self.sampling_rate_hz is None:
            raise UserError(
                f"{uneven:.1%} of its rows are not evenly spaced: {even.min() / 1e9:,.6g} to {even.max() / 1e9:,.6g} s "
                f"apart, usually {usual / 1e9:,.6g}; expected data.source.sampling_rate_hz={1e9 / usual:,.6g}, which "
                "brings them to an even grid by straight lines"
            )
        near = even[np.abs(even - usual) <= JITTER * usual]
        if near.size and self.sampling_rate_hz is None:
            usual = float(near.mean())  # time stamps may be rounded, as 60 a second are to 16 and 17 milliseconds
        borders = [0, *(gaps + 1).tolist(), num_rows] if self.gaps == "split" else [0, num_rows]
        on_grid = self.sampling_rate_hz is not None or (gaps.size > 0 and self.gaps == "missing")
        return [self._part(order, times, start, stop, usual, on_grid) for start, stop in itertools.pairwise(borders)]

    def _part(self, order: np.ndarray, times: np.ndarray, start: int, stop: int, usual: float, on_grid: bool) -> Part:
        rate = float(f"{1e9 / usual:.6g}")  # as it is likely to be meant: intervals are known to the nanosecond
        if not on_grid:
            return Part(order[start:stop], None, stop - start, rate)
        place = (times[start:stop] - times[start]) / usual
        median = float(np.median(np.diff(times)))
        reach = GAP * max(usual, median) / usual
        return Part(order[start:stop], place, int(np.floor(place[-1] + 0.5)) + 1, rate, reach)
