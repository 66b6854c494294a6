"""Series that a program has in memory: an array, or a list of arrays of unequal length.

Shape letters: C channels, L time points, n series, K classes.
"""

import logging
from collections.abc import Sequence
from numbers import Real
from typing import Any

import numpy as np

from krontime.data.assemble import any_missing, class_order, flatten, label_texts, several_labels, value_problems
from krontime.data.cache import with_checksum
from krontime.data.decoding import Decoding
from krontime.data.rounding import Rounding
from krontime.data.series import UNKNOWN_LABEL, SeriesData
from krontime.data.sources.arrays import MIN_SUSPICIOUS

log = logging.getLogger(__name__)


def as_series(X: Any) -> list[np.ndarray]:
    """Each series as `(C, L_i)`.

    Args:
        X: an array `(n, L)` of one channel or `(n, C, L)`, or a sequence of arrays `(L_i,)` or `(C, L_i)`. NaN is a
            missing value, as is what a masked array masks.

    Raises:
        ValueError: it is none of these, or the series differ in their channels.
    """
    if isinstance(X, np.ndarray) and X.dtype != object and X.ndim not in (2, 3):
        raise ValueError(f"X has shape {X.shape}: expected (series, points) or (series, channels, points)")
    if not isinstance(X, np.ndarray | Sequence) or isinstance(X, str | bytes):
        raise ValueError(f"X is of type {type(X).__name__}: expected an array, or a list of arrays")
    series = []
    for position, values in enumerate(X):
        array = np.asarray(unmasked(values))
        if array.dtype.kind not in "iufb" or array.ndim not in (1, 2):
            raise ValueError(
                f"X[{position}] has shape {array.shape}, type {array.dtype}: expected numbers, (points,) or "
                "(channels, points)"
            )
        series.append(array[None] if array.ndim == 1 else array)
    if len(channels := sorted({len(array) for array in series})) > 1:
        raise ValueError(f"X holds series of {' and '.join(map(str, channels))} channels: expected the same number")
    return series


def unmasked(values: Any) -> Any:
    """A masked array of numbers as one that has NaN where it is masked; anything else as it is."""
    if not isinstance(values, np.ma.MaskedArray) or values.dtype.kind not in "iufb":
        return values
    return np.ma.filled(values.astype(np.result_type(values.dtype, np.float32)), np.nan)


def refuse_masked_labels(y: Any) -> None:
    """Refuse labels of which some are masked; raises `ValueError`."""
    if np.ma.is_masked(y):
        raise ValueError(f"y is masked at {np.ma.count_masked(y)} of its places: expected a class for each series")


def labelled_series(X: Any, y: Any, sampling_rate_hz: float | None = None) -> SeriesData:
    """Training series from memory, with their checksum, in the order that a file of them would have.

    Args:
        X: see `as_series`.
        y: `(n,)` classes: text or whole numbers.
        sampling_rate_hz: points per second, where known.

    Raises:
        ValueError: X, y or the rate can't be used, or the numbers of X and y differ; there is one class alone.
    """
    refuse_masked_labels(y)
    series, labels = as_series(X), np.asarray(y)
    if labels.shape != (len(series),):
        several = several_labels(labels.shape, len(series))
        raise ValueError(
            f"y has shape {labels.shape}: expected ({len(series)},), a class for each series of X{several}"
        )
    texts = label_texts(labels)
    names = class_order(texts)
    if len(names) < 2:
        raise ValueError(f"y holds {len(names)} class: expected at least two classes")
    num_channels, num_points = len(series[0]), max(one.shape[1] for one in series)
    if num_channels > num_points and num_channels >= MIN_SUSPICIOUS:
        log.warning(
            "X: read as (series, channels, points), it has %d channels of %d points; where they are points and "
            "channels, as in (series, points, channels), expected X.transpose(0, 2, 1)",
            *(num_channels, num_points),
        )
    codes = {name: code for code, name in enumerate(names)}
    rounding = Rounding()
    labels = np.array([codes[text] for text in texts.tolist()], np.int64)
    data = _data(series, labels, tuple(names), rounding, sampling_rate_hz)
    if problems := rounding.problems():
        raise ValueError(f"X: {'; '.join(problems)}")
    return with_checksum(data)


def unlabelled_series(
    X: Any, class_names: Sequence[str], decoding: Decoding | None = None, sampling_rate_hz: float | None = None
) -> SeriesData:
    """New series from memory, to be classified.

    Args:
        X: see `as_series`.
        class_names: the model's classes.
        decoding: what the numbers of X stand for; None for what they are.
        sampling_rate_hz: points per second, where known.

    Raises:
        ValueError: X or the rate can't be used.
    """
    series = as_series(X)
    if decoding is not None:
        series = [decoding.decoded(one) for one in series]
    rounding = Rounding()
    data = _data(series, np.full(len(series), UNKNOWN_LABEL, np.int64), tuple(class_names), rounding, sampling_rate_hz)
    rounding.warn("X")
    return data


def _data(
    series: Sequence[np.ndarray],
    labels: np.ndarray,
    class_names: tuple[str, ...],
    rounding: Rounding,
    sampling_rate_hz: float | None,
) -> SeriesData:
    if sampling_rate_hz is not None and not (isinstance(sampling_rate_hz, Real) and 0 < sampling_rate_hz < np.inf):
        raise ValueError(f"sampling_rate_hz={sampling_rate_hz!r}: expected points per second above 0, or None")
    values, offsets = flatten(series, rounding=rounding)
    num_channels = len(series[0]) if series else 0
    if problems := value_problems(values, offsets, num_channels):
        raise ValueError(f"X: {'; '.join(problems)}")
    return SeriesData(
        values=values,
        offsets=offsets,
        labels=labels,
        is_test=np.zeros(len(labels), bool),
        class_names=class_names,
        num_channels=num_channels,
        has_missing=any_missing(values),
        sampling_rate_hz=None if sampling_rate_hz is None else float(sampling_rate_hz),
    )
