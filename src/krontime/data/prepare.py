"""Optional resampling and cropping, applied to every series when a data set is cached and to new files alike."""

from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from krontime.data.assemble import any_missing, flatten, infinite_problems
from krontime.data.read_ahead import read_ahead
from krontime.data.series import SeriesData, kept_from
from krontime.errors import UserError

MAX_RATIO_TERM = 10_000
"""Largest numerator or denominator of a resampling ratio; finer ratios would only make the filter longer."""

MIN_SHARED = 1 << 15
"""Values of a series from which on several are resampled at once; with shorter ones there is more to hand over."""

RESAMPLING_BYTES = 40
"""Memory that a value takes while its series is resampled, about."""


@dataclass(frozen=True)
class Prepare:
    """What is done to each series before a model sees it: first resampling, then cropping.

    Attributes:
        resample_hz: new sampling rate, above 0; needs a data set whose sampling rate is known.
        resample_length: new number of time points, the same for every series.
        crop_length: keep at most this many time points (after resampling); shorter series stay whole.
        crop_from: which part to keep: `start`, `center` or `end`.
    """

    resample_hz: float | None = None
    resample_length: int | None = None
    crop_length: int | None = None
    crop_from: str = "start"

    def describe(self) -> dict[str, Any]:
        """The options as plain values, for the record and the cache key."""
        return asdict(self)

    def apply(self, data: SeriesData, scratch: Path | None = None) -> SeriesData:
        """Resample and crop every series; `data` itself where nothing is to be done.

        Args:
            data: the series.
            scratch: see `flatten`.

        Raises:
            ValueError: `resample_hz` is set and the sampling rate is not known, or values get too large by resampling.
        """
        if self.resample_hz is None and self.resample_length is None and self.crop_length is None:
            return data
        rate = data.sampling_rate_hz
        ratios: list[Fraction | None] = [None] * len(data)
        given = data.lengths
        if self.resample_hz is not None:
            old = [rate] * len(data) if data.rates_hz is None else data.rates_hz.tolist()
            ratio_of = {hz: self._ratio(hz) for hz in set(old)}
            ratios = [ratio_of[hz] for hz in old]
            points = [
                -(-n * ratio_of[hz].numerator // ratio_of[hz].denominator) for n, hz in zip(given, old, strict=True)
            ]
            given = np.array(points, np.int64)
            new = {float(hz * ratio) for hz, ratio in ratio_of.items() if hz is not None}
            rate = new.pop() if len(new) == 1 else self.resample_hz
        elif self.resample_length is not None:
            lengths = data.lengths
            equal = lengths.size > 0 and bool((lengths == lengths[0]).all())
            rate = rate * self.resample_length / int(lengths[0]) if rate is not None and equal else None
        longest = data.num_channels * int(data.lengths.max(initial=0))
        is_resampled = self.resample_hz is not None or self.resample_length is not None
        every = read_ahead(
            "resampling and cropping",
            range(len(data)),
            lambda i: self._one(data.series(i), ratios[i]),
            num_bytes=longest * RESAMPLING_BYTES if is_resampled and longest >= MIN_SHARED else None,
        )
        values, offsets = flatten((one() for _, one in every), scratch)
        if is_resampled and (problems := infinite_problems(values, offsets, data.num_channels)):
            raise UserError(f"resampled, {problem}" for problem in problems)
        changed = self.resample_length is not None or self.crop_length is not None
        return replace(
            data,
            values=values,
            offsets=offsets,
            sampling_rate_hz=rate,
            rates_hz=None,
            given_lengths=given if changed else None,
            has_missing=any_missing(values),
            sha256=None,
        )

    def one(self, x: np.ndarray, rate: float | None) -> tuple[np.ndarray, Fraction, float | None]:
        """One recording `(C, L)` of a rate, how many new points each old one became, and the new rate.

        Raises:
            UserError: `resample_hz` is set and the sampling rate is not known.
        """
        ratio = Fraction(1)
        if self.resample_hz is not None:
            ratio = self._ratio(rate)
        elif self.resample_length is not None:
            ratio = Fraction(self.resample_length, x.shape[-1])
        return self._one(x, ratio), ratio, None if rate is None else float(rate * ratio)

    def _ratio(self, rate: float | None) -> Fraction:
        """New points for each old one, of series of `rate` points per second."""
        assert self.resample_hz is not None
        if rate is None:
            raise ValueError(
                f"resample_hz={self.resample_hz}: the sampling rate of the data is not known; "
                "use resample_length=POINTS, or state the rate (sampling_rate_hz, or the key fs of an .npz container)"
            )
        ratio = Fraction(self.resample_hz / rate).limit_denominator(MAX_RATIO_TERM)
        if not ratio:
            raise ValueError(
                f"resample_hz={self.resample_hz}: expected at least {rate / MAX_RATIO_TERM:g}, for data of {rate:g} Hz"
            )
        return ratio

    def _one(self, x: np.ndarray, ratio: Fraction | None) -> np.ndarray:
        """One series `(C, L)` to `(C, L')`."""
        if self.resample_length is not None:
            ratio = Fraction(self.resample_length, x.shape[-1])
        if ratio is not None and ratio != 1:
            x = resample(x, ratio)
        if self.crop_length is None or x.shape[-1] <= self.crop_length:
            return x
        start = kept_from(self.crop_from, x.shape[-1] - self.crop_length)
        return x[:, start : start + self.crop_length]


def resample(x: np.ndarray, ratio: Fraction) -> np.ndarray:
    """Polyphase resampling of `(C, L)` to `(C, ceil(L * ratio))`, anti-aliased, missing values kept missing.

    Missing values are bridged by straight lines for the filter, and a new point is missing where the nearest old
    point was. The filter sees each channel without the line from its first to its last point, so that a constant
    offset gives no ripple at the ends.
    """
    from scipy.signal import resample_poly

    num_channels, length = x.shape
    new_length = -(-length * ratio.numerator // ratio.denominator)
    nearest = np.minimum(
        np.rint(np.arange(new_length) * (ratio.denominator / ratio.numerator)).astype(np.int64), length - 1
    )
    if length == 1:
        return x[:, nearest]
    out = np.empty((num_channels, new_length), np.float32)
    points = np.arange(length)
    for channel in range(num_channels):
        missing = np.isnan(x[channel])
        if missing.all():
            out[channel] = np.nan
            continue
        filled = x[channel].astype(np.float64)
        if missing.any():
            filled[missing] = np.interp(points[missing], points[~missing], filled[~missing])
        with np.errstate(over="ignore"):  # beyond float32: infinite, which is refused
            out[channel] = resample_poly(filled, ratio.numerator, ratio.denominator, padtype="line")
        out[channel, missing[nearest]] = np.nan
    return out
