"""Reads the series of one new file, for prediction: `.npz`, `.npy`, `.ts`, `.csv` or `.tsv`."""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from krontime.data.assemble import class_texts, flatten, value_problems
from krontime.data.series import UNKNOWN_LABEL, SeriesData
from krontime.data.sources.arrays import read_npy
from krontime.data.sources.files import file_identity
from krontime.data.sources.labelled import Labelled
from krontime.data.sources.npz import read_container
from krontime.data.sources.table import read_table
from krontime.data.sources.ts import read_ts
from krontime.errors import UserError

log = logging.getLogger(__name__)

SUFFIXES = (".npz", ".npy", ".ts", ".csv", ".tsv")
SPLITS = ("all", "train", "test")


def read_series(
    path: str | Path,
    *,
    class_names: Sequence[str],
    split: str = "all",
    sampling_rate_hz: float | None = None,
    missing_value: float | None = None,
    missing_channels: list[int] | None = None,
) -> SeriesData:
    """Read a file of series, with or without labels.

    Formats, by the file's ending:

    - `.npz`: the container of `krontime.data.sources.npz`, where only the values are needed.
    - `.npy`: one array, `(n, L)` for one channel or `(n, C, L)`; NaN is missing.
    - `.ts`: aeon's text format, with or without class labels.
    - `.csv`, `.tsv`: the tables of `krontime.data.sources.table`, with or without labels.

    Args:
        path: the file.
        class_names: the model's classes; a label that is none of them counts as unknown.
        split: which series of an `.npz` container to take: `all`, `train` or `test`.
        sampling_rate_hz: for files that do not state it.
        missing_value: code of a missing value besides NaN, as the training data had it.
        missing_channels: channels that use the code; None for all.

    Returns:
        The series in the order of the file, with `UNKNOWN_LABEL` where there is no label.

    Raises:
        UserError: names all problems of the file.
    """
    path = Path(path).expanduser()
    problems: list[str] = []
    if path.suffix.lower() not in SUFFIXES:
        problems.append(f"input={str(path)!r}: expected a file of type {', '.join(SUFFIXES)}")
    if split not in SPLITS:
        problems.append(f"split={split!r}: expected {', '.join(SPLITS)}")
    elif split != "all" and path.suffix.lower() != ".npz":
        problems.append(f"split={split!r}: expected all, since only an .npz container has a split")
    if problems:
        raise UserError(problems)
    file_identity(path, "input")

    labels: np.ndarray | None = None
    if path.suffix.lower() == ".npz":
        required = () if split == "all" else ("split",)
        raw = read_container(path, missing_value=missing_value, missing_channels=missing_channels, required=required)
        values, offsets, num_channels = raw.values, raw.offsets, raw.num_channels
        sampling_rate_hz = raw.sampling_rate_hz or sampling_rate_hz
        try:
            labels = None if raw.y is None else class_texts(raw.y, raw.classes)
        except UserError as error:
            log.warning("%s: its labels are left aside (%s)", path, error)
        if split != "all":
            assert raw.is_test is not None
            chosen = np.flatnonzero(raw.is_test == (split == "test"))
            blocks = [values[offsets[i] * num_channels : offsets[i + 1] * num_channels] for i in chosen]
            values, offsets = flatten([block.reshape(num_channels, -1) for block in blocks])
            labels = None if labels is None else labels[chosen]
    else:
        reader = {".npy": _read_npy, ".ts": read_ts}.get(path.suffix.lower(), read_table)
        series, labels = reader(path)
        num_channels = series[0].shape[0] if series else 1
        if missing_value is not None:
            channels = range(num_channels) if missing_channels is None else missing_channels
            coded = np.isin(np.arange(num_channels), channels)[:, None]
            series = [np.where(coded & (one == missing_value), np.nan, one) for one in series]
        values, offsets = flatten(series)

    if problems := value_problems(values, offsets, num_channels):
        raise UserError(f"{path}: {p}" for p in problems)
    return SeriesData(
        values=values,
        offsets=offsets,
        labels=_positions(labels, len(offsets) - 1, class_names, path),
        is_test=np.ones(len(offsets) - 1, bool),
        class_names=tuple(class_names),
        num_channels=num_channels,
        has_missing=bool(np.isnan(values).any()),
        sampling_rate_hz=sampling_rate_hz,
    )


def _positions(labels: np.ndarray | None, num_series: int, class_names: Sequence[str], path: Path) -> np.ndarray:
    if labels is None:
        return np.full(num_series, UNKNOWN_LABEL, np.int64)
    position = {name: i for i, name in enumerate(class_names)}
    if strangers := sorted(set(labels.tolist()) - set(position) - {""}):
        log.warning("%s: labels %s are not among the model's classes and count as unknown", path, strangers[:5])
    return np.array([position.get(label, UNKNOWN_LABEL) for label in labels.tolist()], np.int64)


def _read_npy(path: Path) -> Labelled:
    try:
        array = read_npy(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as a .npy array of numbers ({error})") from error
    if array.dtype.kind not in "iufb" or array.ndim not in (2, 3):
        found = f"shape {array.shape}, type {array.dtype}"
        raise UserError(f"{path}: found {found}, expected numbers (series, points) or (series, channels, points)")
    return Labelled(list(array[:, None, :] if array.ndim == 2 else array), None)
