"""Reads the series of new files, for prediction: every format that training reads, one file or many."""

import glob
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from krontime.data.assemble import any_missing, class_texts, composed, flatten, value_problems
from krontime.data.decoding import Decoding
from krontime.data.read_ahead import read_ahead
from krontime.data.rounding import Rounding
from krontime.data.series import UNKNOWN_LABEL, SeriesData, SeriesSpec
from krontime.data.sources import audio
from krontime.data.sources.arrays import Layout, channels_first, read_npy, shape_notes
from krontime.data.sources.columns import TableOptions
from krontime.data.sources.files import file_identity, files_below
from krontime.data.sources.labelled import Labelled, aligned, header_names
from krontime.data.sources.npz import read_container
from krontime.data.sources.recording_files import RecordingFiles
from krontime.data.sources.table import read_table, trimmed
from krontime.data.sources.text import is_number, is_value
from krontime.data.sources.ts import read_ts
from krontime.errors import UserError

log = logging.getLogger(__name__)

TABLES = (".csv", ".tsv", ".txt")
SUFFIXES = (".npz", ".npy", ".ts", *TABLES, *audio.SUFFIXES)
SPLITS = ("all", "train", "test")
MAX_TOLD = 5
_OPTIONS = {
    "table": ("label", "group", "ignore", "keep", "header", "separator", "decimal", "wide"),
    "recording": ("mono",),
    ".npy": ("layout",),
    ".npz": ("layout",),
}
"""Of each kind of file, the options that have an effect on how it is read."""


@dataclass(frozen=True)
class Reading(Decoding):
    """How new files are read, and what their numbers stand for where the files do not say so.

    Attributes:
        split: which series of an `.npz` container to take: `all`, `train` or `test`.
        sampling_rate_hz: for files that do not state it.
        table: what is known of tables.
        label_first: whether a table has no header and the label first, as in the UCR archive's own text files.
        label_stated: whether the user says where the labels of these files are.
        layout: where the channels of arrays are; see `NpzSource`.
        mono: whether the channels of recordings are averaged.
        trained: what the series are compared with, where their columns have names; None for nothing.
    """

    split: str = "all"
    sampling_rate_hz: float | None = None
    table: TableOptions = field(default_factory=lambda: TableOptions(prefix="source"))
    label_first: bool = False
    label_stated: bool = False
    layout: Layout | None = None
    mono: bool = True
    trained: SeriesSpec | None = None


@dataclass(frozen=True)
class NewSeries:
    """The series of several files.

    Attributes:
        data: all series, in the order of the files.
        names: the file of each series.
        broken: why a file gave no series, for each that did not, and how many series came before it.
        notes: what was left out of a folder.
    """

    data: SeriesData
    names: list[str]
    broken: dict[str, tuple[str, int]]


def input_files(given: Path, source: RecordingFiles | None = None) -> tuple[list[tuple[Path, str]], str | None]:
    """The files that an input stands for, with the name of each, and a note on what is left out.

    Args:
        given: a file, a folder (all files below it; recordings, where there are any), or a pattern such as `rec/*.wav`.
        source: which files of a folder are recordings; None for files of series.

    Raises:
        UserError: there are none, or a folder has files of several kinds.
    """
    is_whole = Path.is_file if source is None else source.is_whole
    if is_whole(given):
        return [(given, given.name)], None
    if given.is_dir() and source is not None:
        chosen = source.files(given, "input")
        return [(file, str(file.relative_to(given))) for file in chosen], None
    if given.is_dir():
        every = sorted(files_below(given))
        visible = [f for f in every if not any(part.startswith(".") for part in f.relative_to(given).parts)]
        kinds = Counter(_kind(file) for file in visible if file.suffix.lower() in SUFFIXES)
        if not kinds:
            raise UserError(f"input={str(given)!r}: the folder has no file of type {', '.join(SUFFIXES)}")
        if len(kinds) > 1 and "recording" not in kinds:
            listed = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
            raise UserError(
                f"input={str(given)!r}: expected files of one kind, found {listed}; input='{given}/*.csv' names some"
            )
        kind = "recording" if "recording" in kinds else next(iter(kinds))
        files = [file for file in visible if file.suffix.lower() in SUFFIXES and _kind(file) == kind]
        left = len(every) - len(files)
        note = f"{left} other file{'s' * (left != 1)} in {given} left out" if left else None
        return [(file, str(file.relative_to(given))) for file in files], note
    matched = (
        [Path(name) for name in sorted(glob.glob(str(given), recursive=True))] if glob.has_magic(str(given)) else []
    )
    files = [file for file in matched if is_whole(file)]
    if not files:
        if glob.has_magic(str(given)):
            raise UserError(
                f"input={str(given)!r}: no file matches; expected a file, a folder or a pattern such as '*.wav'"
            )
        file_identity(given, "input")
    return [(file, str(file)) for file in files], None


def options_for(files: Iterable[Path]) -> set[str]:
    """The options `source` of `configs/base/new_series.yaml` that have an effect on any of these files."""
    return set().union(*(_OPTIONS.get(_kind(file), ()) for file in files))


def _kind(file: Path) -> str:
    suffix = file.suffix.lower()
    return "recording" if suffix in audio.SUFFIXES else "table" if suffix in TABLES else suffix


def read_files(
    files: Sequence[tuple[Path, str]],
    reading: Reading,
    class_names: Sequence[str],
    scratch: Path,
    *,
    skip: bool,
    way: str = "",
) -> NewSeries:
    """Read several files, all of them before any problem is reported, with few of them in memory at a time.

    Args:
        files: each with its name.
        reading: how.
        class_names: the model's classes; a label that is none of them counts as unknown.
        scratch: folder for the values of several files.
        skip: leave files out that cannot be read.
        way: what to say to do about them where there are several.

    Raises:
        UserError: a file cannot be read and is not to be skipped, none can, or their channels differ.
    """
    broken: dict[str, tuple[str, int]] = {}
    parts: list[SeriesData] = []
    names: list[str] = []
    problems: list[str] = []
    firsts: dict[int, str] = {}
    rounding = Rounding()

    def read(file: tuple[Path, str]) -> tuple[SeriesData, Rounding]:
        lost = Rounding(of=file[1] if len(files) > 1 else None)
        return read_new(file[0], reading, class_names, lost), lost

    def in_order() -> Iterator[SeriesData]:
        paths = [path for path, _ in files]
        is_audio = all(path.suffix.lower() in audio.SUFFIXES for path in paths)
        num_bytes = audio.decoding_bytes(paths) if is_audio else None
        for (path, name), held in read_ahead("reading files", files, read, num_bytes=num_bytes):
            try:
                part, lost = held()
            except UserError as error:
                broken[name] = ("; ".join(p.removeprefix(f"{path}: ") for p in error.problems), len(names))
                problems.extend(error.problems)
                continue
            firsts.setdefault(part.num_channels, name)
            rounding.include(lost)
            names.extend([name] * len(part))
            parts.append(replace(part, values=part.values if len(files) == 1 else part.values[:0].copy()))
            yield part

    if len(files) == 1:
        list(in_order())
    else:
        values, offsets = flatten((part.series(i) for part in in_order() for i in range(len(part))), scratch)
    if broken and (not skip or not parts):
        if len(files) > 1:
            problems.append(f"{len(broken)} of {len(files)} files cannot be read{way}")
        raise UserError(problems)
    if problem := channels_problem(firsts):
        raise UserError(problem)
    rounding.warn("input")
    return NewSeries(parts[0] if len(files) == 1 else _joined(parts, values, offsets), names, broken)


def channels_problem(firsts: Mapping[int, str]) -> str | None:
    """A line where files differ in their number of channels, given the first file of each number."""
    if len(firsts) < 2:
        return None
    listed = ", ".join(f"{count} (such as {name})" for count, name in firsts.items())
    return f"input: expected files of the same number of channels, found {listed}"


def _joined(parts: Sequence[SeriesData], values: np.ndarray, offsets: np.ndarray) -> SeriesData:
    """The series of several files, given their values together and what else is known of those of each file."""
    rates = np.concatenate(
        [np.full(len(part), np.nan if part.sampling_rate_hz is None else part.sampling_rate_hz) for part in parts]
    )
    known = np.unique(rates[~np.isnan(rates)])
    return replace(
        parts[0],
        values=values,
        offsets=offsets,
        labels=np.concatenate([part.labels for part in parts]),
        is_test=np.ones(len(offsets) - 1, bool),
        has_missing=any(part.has_missing for part in parts),
        sampling_rate_hz=float(known[0]) if len(known) == 1 and not np.isnan(rates).any() else None,
        rates_hz=rates if len(known) > 1 else None,
        notes=tuple(dict.fromkeys(note for part in parts for note in part.notes)),
    )


def read_new(path: Path, reading: Reading, class_names: Sequence[str], rounding: Rounding | None = None) -> SeriesData:
    """Read a file of series, with or without labels.

    Formats, by the file's ending:

    - `.npz`: the container of `krontime.data.sources.npz`, where only the values are needed.
    - `.npy`: one array, `(n, L)` for one channel or `(n, C, L)`; NaN is missing.
    - `.ts`: aeon's text format, with or without class labels.
    - `.csv`, `.tsv`, `.txt`: the tables of `krontime.data.sources.table`, with or without labels.
    - recordings, such as `.wav` and `.flac`: one series.

    Args:
        path: the file.
        reading: how.
        class_names: the model's classes.
        rounding: takes note of what is lost of the series; None for nothing of the kind.

    Returns:
        The series in the order of the file, with `UNKNOWN_LABEL` where there is no label.

    Raises:
        UserError: names all problems of the file.
    """
    split = reading.split
    suffix = path.suffix.lower()
    problems: list[str] = []
    if suffix not in SUFFIXES:
        problems.append(f"input={str(path)!r}: expected a file of type {', '.join(SUFFIXES)}")
    if split not in SPLITS:
        problems.append(f"split={split!r}: expected {', '.join(SPLITS)}")
    elif split != "all" and suffix != ".npz":
        problems.append(f"split={split!r}: expected all, since only an .npz container has a split")
    if problems:
        raise UserError(problems)
    file_identity(path, "input")
    rate = reading.sampling_rate_hz
    header: str | None = None
    notes: tuple[str, ...] = ()
    labels: np.ndarray | None = None
    lost = Rounding() if rounding is None else rounding
    if suffix == ".npz":
        values, offsets, num_channels, labels, own_rate, notes = _read_container(path, reading, lost)
        rate = _rate(own_rate, reading, path)
    else:
        if suffix in audio.SUFFIXES:
            try:
                recording = audio.read_recording(path, mono=reading.mono)
            except UserError:
                raise
            except ValueError as error:
                raise UserError(f"{path}: {error}") from error
            lost.add(recording.variation)
            read, rate = Labelled([recording.values], None), _rate(recording.sampling_rate_hz, reading, path)
        elif suffix == ".npy":
            read = _read_npy(path, reading.layout)
        elif suffix == ".ts":
            read = read_ts(path)
        else:
            read = _read_table(path, reading)
            header = reading.trained.header if read.header is not None and reading.trained is not None else None
        series, labels, notes = read.series, read.labels, read.notes
        num_channels = series[0].shape[0] if series else 1
        decoded = reading.without_codes if suffix in audio.SUFFIXES else reading.decoded  # recordings are scaled
        values, offsets = flatten([decoded(one) for one in series], rounding=lost)

    if problems := value_problems(values, offsets, num_channels):
        raise UserError(f"{path}: {p}" for p in problems)
    return SeriesData(
        values=values,
        offsets=offsets,
        labels=_positions(labels, len(offsets) - 1, class_names, path),
        is_test=np.ones(len(offsets) - 1, bool),
        class_names=tuple(class_names),
        num_channels=num_channels,
        has_missing=any_missing(values),
        sampling_rate_hz=rate,
        header=header,
        notes=notes,
    )


def _rate(stated: float | None, reading: Reading, path: Path) -> float | None:
    """The sampling rate that a file states, else that which the user does.

    Raises:
        UserError: both do, and differ.
    """
    given = reading.sampling_rate_hz
    if stated and given and abs(stated - given) > 1e-6 * stated:
        raise UserError(f"sampling_rate_hz={given:g}: expected null, or the {stated:g} Hz that {path} states")
    return float(stated) if stated else given


def _read_container(
    path: Path, reading: Reading, rounding: Rounding
) -> tuple[np.ndarray, np.ndarray, int, np.ndarray | None, float | None, tuple[str, ...]]:
    """Values, offsets, channels, labels, rate and notes of an `.npz` container."""
    raw = read_container(
        path,
        rounding,
        missing_value=reading.missing_value,
        missing_channels=reading.missing_channels,
        required=() if reading.split == "all" else ("split",),
        layout=reading.layout,
        layout_key="source.layout",
    )
    values, offsets, num_channels = raw.values, raw.offsets, raw.num_channels
    if not raw.states_scale:
        values = reading.scaled(values)
    labels = None
    try:
        labels = None if raw.y is None else class_texts(raw.y, raw.classes)
    except UserError as error:
        log.warning("%s: its labels are left aside (%s)", path, error)
    if reading.split != "all":
        assert raw.is_test is not None
        chosen = np.flatnonzero(raw.is_test == (reading.split == "test"))
        blocks = [values[offsets[i] * num_channels : offsets[i + 1] * num_channels] for i in chosen]
        values, offsets = flatten([block.reshape(num_channels, -1) for block in blocks])
        labels = None if labels is None else labels[chosen]
    return values, offsets, num_channels, labels, raw.sampling_rate_hz, raw.notes


def _read_table(path: Path, reading: Reading) -> Labelled:
    """A table, its columns in the order of training where both have names."""
    spec, options = reading.trained, reading.table
    names = None if spec is None or spec.header is None else header_names(spec.header)
    if reading.label_first:
        options = replace(options, header=False, label=options.label or "0", wide=True)
    read = read_table(path, options, points=names)
    if names is not None and options.header is not False:
        return aligned(read, names, ragged=spec is not None and spec.min_length != spec.length, where=str(path))
    read = trimmed(read) if reading.label_first else read
    is_by_number = options.header is False and not (options.group or options.ignore or options.keep)
    if is_by_number and not reading.label_stated and spec is not None and _is_unlabelled(read, spec, options, path):
        read = read_table(path, replace(options, label="none"))
        read = trimmed(read) if reading.label_first else read
    return read


def _is_unlabelled(read: Labelled, spec: SeriesSpec, options: TableOptions, path: Path) -> bool:
    """Whether what was read as labels are points: series of equal length are one short, and points may be fractions.

    Raises:
        UserError: it can't be known.
    """
    if read.labels is None:
        return False
    shortest, longest = spec.given_lengths or (spec.min_length, spec.length)
    lengths = {series.shape[1] for series in read.series}
    if shortest == longest and lengths in ({longest}, {longest - 1}):
        return lengths == {longest - 1}
    stated = {label for label in read.labels.tolist() if is_number(label) or not is_value(label)}
    strangers = stated - set(_known(stated, spec.class_names))
    if not stated or not all(map(is_number, stated)):
        return False
    if any(float(label) % 1 for label in strangers):
        return True
    if not strangers and len(stated) > 1 and any((series % 1 > 0).any() for series in read.series):
        return False
    shown = ", ".join(sorted(stated)[:MAX_TOLD])
    raise UserError(
        f"{path}: the values of column {options.label} ({shown}) may be labels or points: expected "
        f"source.label={options.label} where they are labels, or source.label=none where the rows have none"
    )


def _positions(labels: np.ndarray | None, num_series: int, class_names: Sequence[str], path: Path) -> np.ndarray:
    """Positions of labels in the class names; `1.0` and `1` are the same class."""
    if labels is None:
        return np.full(num_series, UNKNOWN_LABEL, np.int64)
    labels = composed(labels)
    position = _known(labels.tolist(), class_names)
    if strangers := sorted(set(labels.tolist()) - set(position) - {""}):
        log.warning("%s: labels %s are not among the model's classes and count as unknown", path, strangers[:5])
    return np.array([position.get(label, UNKNOWN_LABEL) for label in labels.tolist()], np.int64)


def _known(labels: Iterable[str], class_names: Sequence[str]) -> dict[str, int]:
    """The position in the class names of each label that is one of them."""
    position = {name: i for i, name in enumerate(class_names)}
    numbers = {float(name): i for name, i in position.items() if is_number(name)}
    for label in set(labels) - set(position):
        if is_number(label) and float(label) in numbers:
            position[label] = numbers[float(label)]
    return position


def _read_npy(path: Path, layout: Layout | None) -> Labelled:
    try:
        array = read_npy(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as a .npy array of numbers ({error})") from error
    if array.dtype.kind not in "iufb" or array.ndim not in (2, 3):
        held = f"shape {array.shape}, type {array.dtype}"
        raise UserError(f"{path}: found {held}, expected numbers (series, points) or (series, channels, points)")
    try:
        values = channels_first(array, layout, "source.layout")
    except ValueError as error:
        raise UserError(f"{path}: it {error}") from error
    return Labelled(list(values), None, notes=shape_notes(values, layout))
