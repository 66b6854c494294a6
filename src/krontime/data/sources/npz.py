"""A user's own series in one `.npz` container.

Keys: `X (n, C, L)` (or `(n, L)` for one channel) for series of equal length, else `X_flat (C, total)` with
`offsets (n + 1)`; `y (n,)` labels (whole numbers or text); `split (n,)`, 0 train and 1 test; optional `classes`
(names, in the order of whole-number labels), `group (n,)` (what must not straddle a split), `fs` (sampling rate, Hz)
and `scale` (one number, or one for each channel, to multiply the values by). Missing values are NaN, or a code named
when reading.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from krontime.console import each
from krontime.data.assemble import (
    Labels,
    checked,
    encode_groups,
    encode_labels,
    group_text,
    group_texts,
    several_labels,
)
from krontime.data.memory import require_memory
from krontime.data.rounding import Rounding, Variation
from krontime.data.series import SeriesData
from krontime.data.sources.arrays import Layout, channels_first, read_npz, shape_notes
from krontime.data.sources.files import file_identity
from krontime.errors import UserError
from krontime.storage import expanded

BYTES_OF_A_SERIES = 512
"""Memory that a series takes besides its values while it is read: its label as text, its place, its number."""


class NpzSource:
    """Reads a container; see the module's text for its keys.

    Args:
        path: the file.
        missing_value: number that stands for a missing value in the file (before `scale`), besides NaN.
        missing_channels: channels that use `missing_value`; None for all.
        group_name: what a group is (speaker, patient), for the record.
        test_group: the group whose series are the test split, all others being trained on, whatever `split` says; None
            for the split of the file.
        layout: `channels_first` for values of `(series, channels, points)`, `channels_last` for those of `(series,
            points, channels)`; None for the former, refused where it looks like the latter.
    """

    def __init__(
        self,
        path: str,
        missing_value: float | None = None,
        missing_channels: list[int] | None = None,
        group_name: str = "group",
        test_group: str | int | None = None,
        layout: Layout | None = None,
    ) -> None:
        self.path = expanded(path)
        self.missing_value = missing_value
        self.missing_channels = None if missing_channels is None else [int(c) for c in missing_channels]
        self.group_name = group_name
        self.test_group = None if test_group is None else group_text(str(test_group))
        self.layout = layout

    def describe(self) -> dict[str, Any]:
        """Identity of the file and the options; raises `UserError` where the file is missing."""
        return {
            "name": self.path.stem,
            "kind": "npz",
            "file": file_identity(self.path, "data.path"),
            "missing_value": self.missing_value,
            "missing_channels": self.missing_channels,
            "group_name": self.group_name,
            # Which group makes no difference to what is parsed, so that all of them share it.
            **({} if self.test_group is None else {"test_group": "chosen after parsing"}),
            **({} if self.layout is None else {"layout": self.layout}),
        }

    def load(self) -> SeriesData:
        """Read the container.

        Raises:
            UserError: names all problems of the file.
        """
        data = self.load_unchosen()
        is_test = self.test_series(data)
        return data if is_test is None else checked(replace(data, is_test=is_test), str(self.path))

    def load_unchosen(self) -> SeriesData:
        """Read the container; with `test_group` no series is tested on yet.

        Raises:
            UserError: names all problems of the file.
        """
        rounding = Rounding()
        raw = read_container(
            self.path,
            rounding,
            missing_value=self.missing_value,
            missing_channels=self.missing_channels,
            required=("y", "split" if self.test_group is None else "group"),
            layout=self.layout,
        )
        if lost := rounding.problems():
            raise UserError(f"{self.path}: {problem}" for problem in lost)
        assert raw.y is not None
        is_test = raw.is_test if self.test_group is None else np.zeros(len(raw.y), bool)
        assert is_test is not None
        groups, group_names = (None, None) if raw.group is None else self._groups(raw.group)
        try:
            labels: Labels = encode_labels(raw.y, raw.classes)
        except UserError as error:
            raise UserError(f"{self.path}: {p}" for p in error.problems) from error
        data = SeriesData(
            values=raw.values,
            offsets=raw.offsets,
            labels=labels.codes,
            is_test=is_test,
            class_names=labels.class_names,
            num_channels=raw.num_channels,
            has_missing=bool(np.isnan(raw.values).any()),
            groups=groups,
            group_name=None if raw.group is None else self.group_name,
            group_names=group_names,
            sampling_rate_hz=raw.sampling_rate_hz,
            notes=raw.notes,
        )
        return checked(data, str(self.path))

    def test_series(self, data: SeriesData) -> np.ndarray | None:
        """Bool `(n,)`, which series belong to the group that is tested on; None for the split of the file.

        Raises:
            ValueError: there is no such group.
        """
        if self.test_group is None:
            return None
        assert data.groups is not None
        assert data.group_names is not None
        if self.test_group not in data.group_names:
            known = ", ".join(data.group_names[:20])
            raise ValueError(f"test_group={self.test_group!r}: expected a {self.group_name} of {self.path}: {known}")
        is_test: np.ndarray = data.groups == data.group_names.index(self.test_group)
        return is_test

    def _groups(self, group: np.ndarray) -> tuple[np.ndarray, tuple[str, ...] | None]:
        """Codes of the groups; their names too where one of them is asked for."""
        try:
            if self.test_group is None:
                return encode_groups(group), None
            names = group_texts(group)
        except UserError as error:
            raise UserError(f"{self.path}: {problem}" for problem in error.problems) from error
        return encode_groups(names), tuple(np.unique(names).tolist())


@dataclass(frozen=True)
class Container:
    """What a container holds, values scaled where it states a `scale`; fields are None where it has no such key."""

    values: np.ndarray
    offsets: np.ndarray
    num_channels: int
    y: np.ndarray | None
    is_test: np.ndarray | None
    classes: np.ndarray | None
    group: np.ndarray | None
    sampling_rate_hz: float | None
    states_scale: bool
    notes: tuple[str, ...] = ()


def read_container(
    path: Path,
    rounding: Rounding,
    *,
    missing_value: float | None,
    missing_channels: Sequence[int] | None,
    required: tuple[str, ...],
    layout: Layout | None = None,
    layout_key: str = "data.source.layout",
) -> Container:
    """Read and check a container's arrays; pickled objects are never loaded.

    Args:
        path: the file.
        rounding: takes note of what is lost of the series.
        missing_value: code of a missing value, besides NaN, before scaling.
        missing_channels: channels that use the code; None for all.
        required: keys that must be there besides the values.
        layout: where the channels are; see `NpzSource`.
        layout_key: config key of `layout`, for messages.

    Raises:
        UserError: names all problems of the file.
    """
    try:
        arrays, held, problems = read_npz(path, KEYS)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as an .npz container ({error})") from error

    if ("X" in held) == ("X_flat" in held):
        problems.append(
            f"expected one of the keys X (equal lengths) and X_flat (with offsets); it has {sorted(held)[:20]}"
        )
    if "X_flat" in held and "offsets" not in held:
        problems.append("X_flat needs the key offsets (n + 1 whole numbers from 0 to the number of time points)")
    problems += [f"the key {key} ({KEY_MEANING[key]}) is missing" for key in required if key not in held]
    if problems:
        raise UserError(f"{path}: {p}" for p in problems)

    if layout == "channels_last" and "X_flat" in arrays:
        problems.append(f"{layout_key}='channels_last': expected null, since X_flat has its channels first")
    elif "X" in arrays:
        try:
            arrays["X"] = channels_first(arrays["X"], layout, layout_key)
        except ValueError as error:
            problems.append(f"X {error}")
    values, offsets, num_channels = _shape_problems(arrays, problems)
    num_series = len(offsets) - 1
    try:
        require_memory(num_series * BYTES_OF_A_SERIES)
    except ValueError as error:
        raise UserError(f"{path}: {num_series:,} series: {error}") from error
    for key in ("y", "split", "group"):
        if key in arrays and arrays[key].shape != (num_series,):
            several = several_labels(arrays[key].shape, num_series) if key == "y" else ""
            problems.append(
                f"{key} has shape {arrays[key].shape}: expected ({num_series},), one for each series{several}"
            )
    split = arrays.get("split")
    if split is not None and split.dtype.kind not in "iufb":
        problems.append(f"split is of type {split.dtype}: expected numbers, 0 (train) or 1 (test)")
    elif split is not None and not np.isin(split, (0, 1)).all():
        problems.append(f"split holds {_first_other(split, (0, 1))!r}: expected 0 (train) or 1 (test)")
    if "classes" in arrays and (arrays["classes"].ndim != 1 or arrays["classes"].dtype.kind not in "SUiu"):
        problems.append(f"classes has shape {arrays['classes'].shape}, type {arrays['classes'].dtype}: expected names")
    if "group" in arrays and arrays["group"].dtype.kind not in "SUiub":
        problems.append(f"group is of type {arrays['group'].dtype}: expected whole numbers or text")
    scale = arrays.get("scale", np.ones(()))
    if scale.dtype.kind not in "iuf":
        problems.append(f"scale is of type {scale.dtype}: expected one finite number, or one for each channel")
    elif scale.shape not in ((), (num_channels,)) or not np.isfinite(scale).all():
        problems.append(f"scale={_shown(scale)}: expected one finite number, or one for each channel")
    rate = arrays.get("fs")
    if rate is not None and rate.dtype.kind not in "iuf":
        problems.append(f"fs is of type {rate.dtype}: expected one sampling rate above 0, in Hz")
    elif rate is not None and (rate.size != 1 or not 0 < float(rate.item()) < np.inf):
        problems.append(f"fs={_shown(rate)}: expected one sampling rate above 0, in Hz")
    if num_channels < 1:
        problems.append("the series have no channels")
    if missing_channels is not None and (wrong := [c for c in missing_channels if not 0 <= c < num_channels]):
        problems.append(f"missing_channels={wrong}: expected channels from 0 to {num_channels - 1}")
    if problems:
        raise UserError(f"{path}: {p}" for p in problems)

    return Container(
        values=_scaled(values, offsets, num_channels, scale, missing_value, missing_channels, rounding),
        offsets=offsets,
        num_channels=num_channels,
        y=arrays.get("y"),
        is_test=None if split is None else split.astype(bool),
        classes=arrays.get("classes"),
        group=arrays.get("group"),
        sampling_rate_hz=None if rate is None else float(rate.item()),
        states_scale="scale" in arrays,
        notes=shape_notes(arrays.get("X"), layout),
    )


KEYS = ("X", "X_flat", "offsets", "y", "classes", "split", "group", "fs", "scale")
KEY_MEANING = {
    "y": "labels",
    "split": "0 for each training series, 1 for each test series",
    "group": "speaker, patient or recording of each series",
}


def _shown(array: np.ndarray) -> str:
    return np.array2string(array, threshold=8)


def _first_other(array: np.ndarray, allowed: tuple[int, ...]) -> Any:
    return array[~np.isin(array, allowed)].ravel()[0].item()


def _shape_problems(arrays: dict[str, np.ndarray], problems: list[str]) -> tuple[np.ndarray, np.ndarray, int]:
    """The raw values as they lie in the file, offsets and number of channels; notes what is wrong with them."""
    key = "X" if "X" in arrays else "X_flat"
    values = arrays[key]
    if values.dtype.kind not in "iufb":
        problems.append(f"{key} is of type {values.dtype}: expected real numbers")
    if key == "X":
        if values.ndim != 3:
            problems.append(f"X has shape {values.shape}: expected (series, channels, time points)")
            return values, np.zeros(1, np.int64), 1
        num_series, num_channels, length = values.shape
        return values, np.arange(num_series + 1, dtype=np.int64) * length, num_channels
    if values.ndim == 1:
        values = values[None, :]
    raw = arrays["offsets"]
    if values.ndim != 2:
        problems.append(f"X_flat has shape {values.shape}: expected (channels, time points)")
        return values, np.zeros(1, np.int64), 1
    if raw.ndim != 1 or raw.dtype.kind not in "iu" or len(raw) < 1:
        problems.append(f"offsets has shape {raw.shape}, type {raw.dtype}: expected n + 1 whole numbers")
        return values, np.zeros(1, np.int64), len(values)
    offsets = raw.astype(np.int64)
    if offsets[0] != 0 or offsets[-1] != values.shape[-1] or (np.diff(offsets) < 0).any():
        problems.append(
            f"offsets run from {offsets[0]} to {offsets[-1]}: expected rising numbers from 0 to {values.shape[-1]}, "
            "the number of time points in X_flat"
        )
    return values, offsets, len(values)


def _scaled(
    values: np.ndarray,
    offsets: np.ndarray,
    num_channels: int,
    scale: np.ndarray,
    missing_value: float | None,
    missing_channels: Sequence[int] | None,
    rounding: Rounding,
) -> np.ndarray:
    """Values times `scale` (in float64) as flat float32, each series one `(C, L_i)` block, with NaN where missing."""
    out = np.empty(num_channels * int(offsets[-1]), np.float32)
    factors = np.broadcast_to(scale, (num_channels,)).astype(np.float64)[:, None]
    borders = list(itertools.pairwise(offsets.tolist()))
    for i, (start, stop) in enumerate(each("reading series", borders)):
        raw = values[i] if values.ndim == 3 else values[:, start:stop]
        block = out[start * num_channels : stop * num_channels].reshape(num_channels, -1)
        with np.errstate(over="ignore", invalid="ignore"):  # beyond float32: becomes infinite and is reported as such
            np.multiply(raw, factors, out=block, dtype=np.float64, casting="same_kind")
        if missing_value is not None:
            channels = slice(None) if missing_channels is None else list(missing_channels)
            block[channels] = np.where(raw[channels] == missing_value, np.nan, block[channels])
        rounding.add(Variation.of(raw, None if missing_value is None else np.isnan(block)))
    return out
