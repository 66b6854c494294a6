"""What the raw numbers of new series stand for, as a run's source was told it of those of training.

Shape letters: C channels, L time points.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Decoding:
    """Makes values of raw numbers.

    Attributes:
        missing_value: code of a missing value besides NaN, as the training data had it.
        missing_channels: channels that use the code; None for all.
        scale: number that the others are multiplied by.
    """

    missing_value: float | None = None
    missing_channels: Sequence[int] | None = None
    scale: float = 1.0

    @classmethod
    def of(cls, source: Mapping[str, Any]) -> "Decoding":
        """From the options of a run's source, of which some sources have none of these."""
        return cls(**{it.name: source[it.name] for it in fields(Decoding) if it.name in source})

    def options(self) -> dict[str, Any]:
        """What differs from numbers as they are, as plain values."""
        plain = asdict(Decoding())
        return {key: value for key, value in asdict(self).items() if value != plain[key]}

    def decoded(self, series: np.ndarray) -> np.ndarray:
        """A series `(C, L)` of raw numbers as the values that they stand for, NaN where missing."""
        return self.scaled(self.without_codes(series))

    def without_codes(self, series: np.ndarray) -> np.ndarray:
        """A series `(C, L)` with NaN in place of the code of a missing value."""
        if self.missing_value is None:
            return series
        channels = range(len(series)) if self.missing_channels is None else self.missing_channels
        coded = np.isin(np.arange(len(series)), channels)[:, None]
        return np.where(coded & (series == self.missing_value), np.nan, series)

    def scaled(self, series: np.ndarray) -> np.ndarray:
        """Numbers of any shape times `scale`, float32, as `krontime.data.series.unscaled` has those of training."""
        if self.scale == 1.0:
            return series
        with np.errstate(over="ignore"):  # beyond float32: infinite, which is reported
            return series.astype(np.float32) * np.float32(self.scale)
