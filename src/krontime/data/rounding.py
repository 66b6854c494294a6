"""What is lost of values when they become float32, which all are read as: nothing that matters, but on a large offset.

float32 holds 24 bits of a value. Of 101,325.12 Pa that varies by 0.01 it keeps little, and of 1e9 that varies by 1
nothing: a model would be trained on steps, or on a constant. So the variation within each series is compared with that
of the rounding errors, and a channel that loses too much is refused in training. New series, of which a quiet one may
be all there is, give a warning. Values that are constant lose nothing, nor do those whose last digit flickers.

Shape letters: C channels, L time points.
"""

import logging
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from krontime.data.series import unscaled

log = logging.getLogger(__name__)

MAX_LOST = 0.1
"""Largest standard deviation of the rounding errors that is accepted, as a fraction of that of the values."""

CONSTANT = 1e-12
"""Values whose deviation is a smaller fraction of their mean are a constant that was computed in float64."""

NEARLY_ALL = 0.85
"""A channel is refused where at least this fraction of its series that vary lose too much, whatever the others vary by:
these may have dropouts, while fewer may be the quiet ones of a sensor that seldom moves."""

FLICKER = 4
"""Number of different values up to which a series that loses too much is a constant whose last digit flickers."""

EXACT = tuple(np.dtype(kind) for kind in ("f2", "f4", "i1", "i2", "u1", "u2", "?"))
"""Types that float32 holds to the last bit."""

LOOKED_AT = 1 << 14
"""Values of a series that are looked at, spread evenly over its points."""

MIN_POINTS = 64
MAX_NAMED = 5


class Variation(NamedTuple):
    """Moments of the values of one series and of their rounding errors, by channel; each float64 `(C,)`.

    Attributes:
        num_values: those that are there.
        mean: of the values.
        squares: sum of the squared deviations of the values from their mean.
        error: mean of the rounding errors.
        error_squares: sum of the squared deviations of the rounding errors from their mean.
        flickers: whether they are a constant whose last digit flickers, bool.
        is_whole: whether the values are integers, any difference of which is one.
    """

    num_values: np.ndarray
    mean: np.ndarray
    squares: np.ndarray
    error: np.ndarray
    error_squares: np.ndarray
    flickers: np.ndarray
    is_whole: bool = False

    @classmethod
    def of(cls, values: np.ndarray, missing: np.ndarray | None = None) -> "Variation | None":
        """Of values `(C, L)` of any type; None where float32 holds them exactly.

        Args:
            values: NaN is missing.
            missing: bool `(C, L)`, where more are.
        """
        if values.dtype in EXACT or not values.size:
            return None
        values = _some(values)
        with np.errstate(over="ignore", invalid="ignore"):  # beyond float32: infinite, which is reported elsewhere
            read = values.astype(np.float32).astype(np.float64)
        if missing is not None:
            read[_some(missing)] = np.nan
        if values.dtype.kind in "iu":  # of 64 bits float64 holds the differences, and not the values themselves
            first, values = values[:, :1].astype(np.float64), values.astype(np.int64)
            return cls._of((values - values[:, :1]).astype(np.float64), read, first)._replace(is_whole=True)
        return cls._of(values.astype(np.float64), read, np.zeros((len(values), 1)))

    @classmethod
    def of_scaled(cls, stored: np.ndarray, scale: np.ndarray, missing_code: int | None) -> "Variation | None":
        """Of integers `(C, L)` and their factors and summands `(C, 2)`; None where no summand takes their place."""
        if not scale[:, 1].any() and stored.dtype in EXACT:
            return None
        stored = _some(stored)
        read = unscaled(stored, scale, missing_code).astype(np.float64)
        return cls._of(stored * scale[:, :1] + scale[:, 1:], read, np.zeros((len(stored), 1)))

    @classmethod
    def _of(cls, values: np.ndarray, read: np.ndarray, first: np.ndarray) -> "Variation":
        """Of values less `first`, which is `(C, 1)`, and what was read of them."""
        with np.errstate(invalid="ignore"):
            errors = (read - first) - values
        is_there = np.isfinite(errors)
        count = is_there.sum(axis=1).astype(np.float64)
        if not is_there.all():
            values, errors = np.where(is_there, values, 0.0), np.where(is_there, errors, 0.0)
        means, squares = [], []
        for part in (values, errors):
            mean = part.sum(axis=1) / np.maximum(count, 1)
            deviations = part - mean[:, None]
            deviations *= is_there
            means.append(mean)
            squares.append(np.einsum("cl,cl->c", deviations, deviations))
        made = cls(count, means[0] + first[:, 0], squares[0], means[1], squares[1], np.zeros(len(count), bool))
        for channel in np.flatnonzero(made.is_lost):
            there = values[channel][is_there[channel]]
            made.flickers[channel] = len(np.unique(there)) <= min(FLICKER, len(there) // FLICKER)
        return made

    def of_channels(self, order: list[int]) -> "Variation":
        """That of some channels, in an order."""
        return self._replace(**{name: getattr(self, name)[order] for name in self._fields[:-1]})

    def __or__(self, other: "Variation") -> "Variation":
        """Of both together, which are stretches of one series."""
        count = self.num_values + other.num_values
        weight = other.num_values / np.maximum(count, 1)
        step, error_step = other.mean - self.mean, other.error - self.error
        return Variation(
            count,
            self.mean + weight * step,
            self.squares + other.squares + step**2 * self.num_values * weight,
            self.error + weight * error_step,
            self.error_squares + other.error_squares + error_step**2 * self.num_values * weight,
            self.flickers & other.flickers,
            self.is_whole and other.is_whole,
        )

    @property
    def varies(self) -> np.ndarray:
        """Bool `(C,)`: whether the values are no constant."""
        smallest = 0.0 if self.is_whole else self.num_values * (CONSTANT * self.mean) ** 2
        return ~self.flickers & (self.squares > smallest)

    @property
    def is_lost(self) -> np.ndarray:
        """Bool `(C,)`: whether the values vary, and too little of it is left."""
        return self.varies & (self.error_squares > MAX_LOST**2 * self.squares)


class Rounding:
    """The variation of all series of a data set, and what is lost of it.

    Args:
        of: file that the series are of, for messages where there are several.
    """

    def __init__(self, of: str | None = None) -> None:
        self.of = of
        self._sums: np.ndarray | None = None  # (4, C): squares, squared errors, series that vary, those that lose
        self._examples: dict[int, tuple[str, float, float, float]] = {}
        self._num_series = 0

    def add(self, series: "Variation | np.ndarray | None", name: str | None = None) -> None:
        """Add a series.

        Args:
            series: its variation, or its values `(C, L)`; None where nothing is lost.
            name: of the series, for messages; None for its number.
        """
        number, self._num_series = self._num_series, self._num_series + 1
        if isinstance(series, np.ndarray):
            series = Variation.of(series)
        if series is None:
            return
        varies, is_lost = series.varies, series.is_lost
        counted = [np.where(varies, squares, 0) for squares in (series.squares, series.error_squares)]
        sums = np.stack([*counted, varies, is_lost])
        if self._sums is None:
            self._sums = sums
        elif self._sums.shape == sums.shape:  # else it has other channels, which is reported elsewhere
            self._sums += sums
        for channel in np.flatnonzero(is_lost):
            deviation, error = (
                float(np.sqrt(squares[channel] / series.num_values[channel]))
                for squares in (series.squares, series.error_squares)
            )
            shown = name or f"series {number}" + ("" if self.of is None else f" of {self.of}")
            self._examples.setdefault(int(channel), (shown, float(series.mean[channel]), deviation, error))

    def include(self, other: "Rounding") -> None:
        """Add the series of another one."""
        if self._sums is None:
            self._sums = other._sums
        elif other._sums is not None and self._sums.shape == other._sums.shape:
            self._sums = self._sums + other._sums
        self._examples = {**other._examples, **self._examples}

    def problems(self, channels: Sequence[str] | None = None) -> list[str]:
        """A line for each channel that loses too much, up to a few.

        Args:
            channels: their names; None for their numbers.
        """
        if self._sums is None:
            return []
        squares, errors, num_varying, num_lost = self._sums
        channels = channels if channels is not None and len(channels) == len(squares) else None
        is_nearly_all = (num_lost > 0) & (num_lost >= NEARLY_ALL * num_varying)
        refused = np.flatnonzero((errors > MAX_LOST**2 * squares) | is_nearly_all).tolist()
        lines = []
        for channel in refused[:MAX_NAMED]:
            name, mean, deviation, error = self._examples[channel]
            which = f"channel {channel}: " if len(squares) > 1 else ""
            which = which if channels is None else f"channel {channels[channel]!r}: "
            expected = (
                f"values less a constant, such as {mean:.6g}, wherever the model is used, or rounded to float32 "
                "before, where the rest does not matter; a channel that dates or numbers the rows is left out"
                if abs(mean) > deviation
                else "values in another unit"
            )
            lines.append(
                f"{which}values that vary by {deviation:.2g} about {mean:.12g}, as in {name}, are rounded by "
                f"{error:.2g} when they are read, as float32: expected {expected}"
            )
        more = [f"... ({len(refused)} channels in all)"] if len(refused) > MAX_NAMED else []
        return lines + more

    def warn(self, where: str, channels: Sequence[str] | None = None) -> None:
        """Log the problems of new series, each beginning with where these are from."""
        for problem in self.problems(channels):
            log.warning("%s: %s", where, problem)


def _some(values: np.ndarray) -> np.ndarray:
    """Values `(C, L)` at some of the points, by an odd step, so that no even period is hit at one place alone."""
    points = max(MIN_POINTS, LOOKED_AT // max(1, len(values)))
    step = -(-values.shape[1] // points)
    return values if step < 2 else values[:, :: step | 1]
