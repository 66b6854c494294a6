"""Data sets of Hugging Face's `datasets` as `save_to_disk` leaves them: Arrow files, a recording in each row.

Shape letters: C channels, L time points.
"""

import io
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from krontime.data.recordings import Recording
from krontime.data.sources import audio
from krontime.data.sources.arrays import Layout
from krontime.data.sources.recording_files import RecordingFiles
from krontime.errors import UserError

LABELS = ("label", "labels", "class", "target", "y")
"""Columns that hold labels where nobody says which."""


class _Columns(NamedTuple):
    """What is read of a file.

    Attributes:
        values: name of the column of values.
        is_audio: whether it holds encoded audio.
        label: name of the column of labels; None without one.
        group: name of the column of groups; None without one.
        class_names: what its numbers stand for; None where it holds the labels themselves.
    """

    values: str
    is_audio: bool
    label: str | None
    group: str | None
    class_names: list[str] | None


class ArrowDatasetSource(RecordingFiles):
    """Reads the rows of Arrow files; see `RecordingFiles` for `path` and what is tested on.

    Args:
        path, test, test_groups, test_fraction, annotations, group_name: see `RecordingFiles`.
        values: column of lists of numbers, of lists of such for several channels, or of audio; None for the only one.
        label: column of labels; None for the first of `LABELS` that is there.
        group: column of what must not straddle a split; None for none.
        layout: of lists of lists: `channels_first`, `channels_last`; None for the one with more points than channels.
        mono: whether the channels of audio are averaged.
        sampling_rate_hz: points per second, where known; of audio its own.
    """

    kind = "huggingface"
    suffixes = (".arrow",)

    def __init__(
        self,
        path: str,
        test: str | None = None,
        test_groups: list[str | int] | None = None,
        test_fraction: float | None = None,
        annotations: str | None = None,
        group_name: str = "recording",
        values: str | None = None,
        label: str | None = None,
        group: str | None = None,
        layout: Layout | None = None,
        mono: bool = True,
        sampling_rate_hz: float | None = None,
    ) -> None:
        super().__init__(path, test, test_groups, test_fraction, annotations, group_name=group_name)
        self.values = values
        self.label = label
        self.group = group
        self.layout = layout
        self.mono = mono
        self.sampling_rate_hz = sampling_rate_hz

    def options(self) -> dict[str, Any]:
        """See `RecordingFiles`."""
        return {key: getattr(self, key) for key in ("values", "label", "group", "layout", "mono", "sampling_rate_hz")}

    def files(self, path: Path, key: str) -> list[Path]:
        """See `RecordingFiles`; a folder of several splits is refused.

        Beside the files that `save_to_disk` wrote, and listed, `datasets` keeps what it computed from them since.
        """
        if (path / "dataset_dict.json").is_file():
            splits = ", ".join(sorted(inner.name for inner in path.iterdir() if inner.is_dir()))
            raise UserError(
                f"{key}={str(path)!r}: it holds the splits {splits}; expected one of them, as {key}={path}/NAME"
            )
        files, listed = super().files(path, key), _listed(path / "state.json")
        if listed is None:
            return files
        chosen = [file for file in files if file.parent == path and file.name in listed]
        if absent := listed - {file.name for file in chosen}:
            raise UserError(f"{key}={str(path)!r}: its {min(absent)} is not there, which its state.json lists")
        return chosen

    def read(self, file: Path, scratch: Path) -> Iterator[Recording]:
        """See `RecordingFiles`."""
        return self._read(file, is_new=False)

    def read_new(self, file: Path, scratch: Path) -> Iterator[Recording]:
        """See `RecordingFiles`."""
        return self._read(file, is_new=True)

    def _read(self, file: Path, *, is_new: bool) -> Iterator[Recording]:
        import pyarrow as pa

        number = 0
        try:
            with pa.memory_map(str(file)) as mapped, pa.ipc.open_stream(mapped) as rows:
                columns = self._columns(rows.schema, is_new=is_new)
                for batch in rows:
                    batch.validate(full=True)  # what is damaged could be read from anywhere else
                    for row in range(batch.num_rows):
                        yield self._recording(file, number, batch.slice(row, 1), columns)
                        number += 1
        except (OSError, pa.ArrowException) as error:
            raise UserError(f"{file}: cannot be read as Arrow ({error})") from error
        except UserError:
            raise
        except ValueError as error:
            raise UserError(f"{file}: row {number}: {error}") from error

    def _columns(self, schema: Any, *, is_new: bool) -> _Columns:
        """Find what is read, of a new file without absent labels and groups; raises `UserError` where unclear."""
        features = _features(schema)
        kinds = {
            name: kind for name in schema.names if (kind := _kind(schema.field(name).type, features.get(name, {})))
        }
        values = self.values or (next(iter(kinds)) if len(kinds) == 1 else None)
        if values is None or values not in kinds:
            said = "" if self.values is None else f"data.source.values={self.values!r}: "
            raise UserError(
                f"{said}it has the columns {', '.join(schema.names)}, of numbers or audio "
                f"{', '.join(kinds) or 'none'}; expected data.source.values=NAME"
            )
        asked = {"label": self.label, "group": self.group}
        for key, name in asked.items():
            if name is not None and name not in schema.names:
                if is_new:
                    asked[key] = None
                    continue
                raise UserError(
                    f"data.source.{key}={name!r}: there is no such column; expected one of {', '.join(schema.names)}"
                )
        label = asked["label"] or next((name for name in LABELS if name in schema.names and name != values), None)
        class_names = None if label is None else features.get(label, {}).get("names")
        if label is not None and "list" in str(schema.field(label).type):
            raise UserError(
                f"the column {label} has a list in each row: several labels (multi-label) are not supported; expected "
                "one label"
            )
        class_names = class_names if isinstance(class_names, list) else None
        return _Columns(values, kinds[values] == "audio", label, asked["group"], class_names)

    def _recording(self, file: Path, number: int, row: Any, columns: _Columns) -> Recording:
        """Make a recording of a table of one row; raises `ValueError` with what is wrong with it."""
        value, rate = row.column(columns.values)[0], self.sampling_rate_hz
        variation = None
        if not value.is_valid:
            raise ValueError(f"the column {columns.values} is empty")
        if columns.is_audio:
            if value["bytes"].as_py() is None:
                raise ValueError("the audio is not in the file, only its path; expected a data set that holds it")
            decoded = audio.read_recording(io.BytesIO(value["bytes"].as_py()), mono=self.mono)
            values, rate, variation = decoded.values, float(decoded.sampling_rate_hz), decoded.variation
        else:
            values = self._channels_first(value.values)
        label = None if columns.label is None else row.column(columns.label)[0].as_py()
        if columns.class_names is not None and label is not None:
            if not isinstance(label, int) or label >= len(columns.class_names):
                raise ValueError(f"the label {label!r} is none of its {len(columns.class_names)} classes")
            label = None if label < 0 else columns.class_names[label]
        elif isinstance(label, float):  # as pandas makes of whole numbers where one is missing
            label = None if math.isnan(label) else int(label) if label.is_integer() else label
        group = None if columns.group is None else row.column(columns.group)[0].as_py()
        if columns.group is not None and group is None:
            raise ValueError(f"the column {columns.group} is empty")
        return Recording(
            name=f"{file.parent.name}/{file.stem} row {number}",
            values=values,
            label=None if label is None else str(label),
            group=None if group is None else str(group).strip(),
            sampling_rate_hz=rate,
            variation=variation,
        )

    def _channels_first(self, values: Any) -> np.ndarray:
        """Return a list of numbers, or of lists of them, as `(C, L)`."""
        import pyarrow as pa

        if not pa.types.is_nested(values.type):
            return np.asarray(values.to_numpy(zero_copy_only=False))[None]
        lists = [inner.values.to_numpy(zero_copy_only=False) for inner in values if inner.is_valid]
        if len({len(inner) for inner in lists}) != 1 or len(lists) < len(values):
            raise ValueError("its lists are of different lengths")
        array = np.stack(lists)
        first = array.shape[0] <= array.shape[1] if self.layout is None else self.layout == "channels_first"
        return array if first else array.T


def _listed(state: Path) -> set[str] | None:
    """Read the names of a split's files; None where nothing lists them."""
    if not state.is_file():
        return None
    try:
        files = json.loads(state.read_bytes()).get("_data_files")
        return {str(file["filename"]) for file in files} if files else None
    except (ValueError, AttributeError, TypeError, KeyError) as error:
        raise UserError(f"{state}: expected what save_to_disk writes ({error!r})") from error


def _features(schema: Any) -> dict[str, dict[str, Any]]:
    """Read what `datasets` wrote of columns of one value beside the schema: audio, and names of classes."""
    try:
        about = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        features = about.get("info", {}).get("features", {})
        return {name: feature for name, feature in features.items() if isinstance(feature, dict)}
    except (ValueError, AttributeError) as error:
        raise UserError(f"what it says of its columns can't be read ({error})") from error


def _kind(kind: Any, feature: dict[str, Any]) -> str | None:
    """Say whether a column can hold values: `audio`, `numbers`, or None for neither."""
    import pyarrow as pa

    if feature.get("_type") == "Audio" and pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        return "audio"
    depth = 0
    while pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        kind, depth = kind.value_type, depth + 1
    is_number = pa.types.is_floating(kind) or pa.types.is_integer(kind)
    return "numbers" if depth in (1, 2) and is_number else None
