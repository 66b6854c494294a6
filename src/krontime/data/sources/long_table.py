"""Long tables: one row for each time point, with a column for each channel, and others for time, recording and label.

CSV, TSV and Parquet files are read by pyarrow a block at a time. Rows of several recordings may come in any order; each
recording's are gathered on disk, put in the order of time, and looked at one recording at a time.

Shape letters: C channels, L time points.
"""

import csv
import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from krontime.data.recordings import Recording, Span
from krontime.data.rounding import Variation
from krontime.data.sources.arrow_columns import as_numbers, as_text, is_exact, is_number, nanoseconds, stripped
from krontime.data.sources.columns import column_names, looks_like
from krontime.data.sources.recording_files import RecordingFiles
from krontime.data.sources.time_grid import TimeGrid
from krontime.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa

TIMES = ("time", "timestamp", "time_stamp", "datetime", "date", "t")
RECORDINGS = ("recording", "machine", "machine_id", "device", "unit", "id", "patient", "subject", "record", "series")
LABELS = ("label", "class", "state", "status", "activity")
"""Names of columns that are taken for what they say, in any case, where no option names one; the first of these."""

KNOWN_AS = {"time": TIMES, "recording": RECORDINGS, "label": LABELS}

BLOCK_BYTES = 1 << 24
BLOCK_ROWS = 1 << 18
MAX_SHOWN = 10
MAX_RECORDINGS = 100_000
"""Most recordings of a table; more are a column that is none of recordings."""


class _Roles(NamedTuple):
    """Columns by what they are."""

    time: str | None
    recording: str | None
    group: str | None
    label: str | None
    channels: tuple[str, ...]


class LongTableSource(RecordingFiles):
    """Reads long tables; see `RecordingFiles` for `path` and what is tested on.

    Args:
        path, test, test_groups, test_fraction, annotations, group_name: see `RecordingFiles`.
        time: column of the time, as time stamps or numbers in seconds; None for one named so, or evenly spaced rows.
        recording: column that says which recording a row is of; None for one named so, or all rows of a file.
        group: column of what must not straddle a split, where it is not the recording.
        label: column of the class at each time; None for one named so.
        channels: columns of the values; None for all others.
        ignore: columns to leave out.
        separator: between fields; None for a comma, a tab in `.tsv`.
        decimal: what stands before the fraction of a number.
        time_format: of time stamps that are not ISO 8601, as `%d.%m.%Y %H:%M:%S`.
        sampling_rate_hz: points per second of the even grid that rows are brought to by straight lines; without a
            column of time, that of the rows. None where rows are evenly spaced already.
        gaps: what to do where rows are missing: `refuse`, `split` (the parts are recordings of their own) or `missing`
            (missing values).
    """

    kind = "long_table"
    suffixes = (".csv", ".tsv", ".txt", ".parquet")

    def __init__(
        self,
        path: str,
        test: str | None = None,
        test_groups: list[str | int] | None = None,
        test_fraction: float | None = None,
        annotations: str | None = None,
        group_name: str = "recording",
        time: str | None = None,
        recording: str | None = None,
        group: str | None = None,
        label: str | None = None,
        channels: list[str] | None = None,
        ignore: list[str] | None = None,
        separator: str | None = None,
        decimal: Literal[".", ","] = ".",
        time_format: str | None = None,
        sampling_rate_hz: float | None = None,
        gaps: Literal["refuse", "split", "missing"] = "refuse",
    ) -> None:
        super().__init__(path, test, test_groups, test_fraction, annotations, group_name=group_name)
        self.columns = {"time": time, "recording": recording, "group": group, "label": label}
        self.channels = None if channels is None else [str(name) for name in channels]
        self.ignore = [str(name) for name in ignore or ()]
        self.separator = {"tab": "\t", "semicolon": ";", "comma": ","}.get(str(separator), separator)
        self.decimal = decimal
        self.time_format = time_format
        self.grid = TimeGrid(sampling_rate_hz=sampling_rate_hz, gaps=gaps)
        if self.separator is not None and len(self.separator) != 1:
            raise ValueError(f"separator={separator!r}: expected one character, or tab")
        if decimal == "," == self.separator:
            raise ValueError("decimal=',': expected another separator than ','")

    def options(self) -> dict[str, Any]:
        """See `RecordingFiles`."""
        return {
            "columns": self.columns,
            "channels": self.channels,
            "ignore": self.ignore,
            "separator": self.separator,
            "decimal": self.decimal,
            "time_format": self.time_format,
            "grid": list(self.grid),
        }

    def read(self, file: Path, scratch: Path) -> Iterator[Recording]:
        """See `RecordingFiles`."""
        return self._read(file, scratch, is_new=False)

    def read_new(self, file: Path, scratch: Path) -> Iterator[Recording]:
        """See `RecordingFiles`; what is left out need not be there either."""
        return self._read(file, scratch, is_new=True)

    def _read(self, file: Path, scratch: Path, *, is_new: bool) -> Iterator[Recording]:
        import pyarrow as pa

        try:
            schema, batches = self._open(file)
            roles = self._roles(schema, is_new=is_new)
            spool = _Spool(scratch, file, roles)
            try:
                for batch in batches:
                    spool.add(batch)
                yield from spool.recordings(self.grid)
            finally:
                spool.clear()
        except (pa.ArrowException, OSError) as error:
            raise UserError(f"{file}: cannot be read as a table ({_told(error)}){self._hint(error)}") from error

    def _open(self, file: Path) -> "tuple[pa.Schema, Iterable[pa.RecordBatch]]":
        """The columns of a table, and its rows in blocks."""
        if file.suffix.lower() == ".parquet":
            from pyarrow import parquet

            table = parquet.ParquetFile(file)
            return stripped(table.schema_arrow, table.iter_batches(batch_size=BLOCK_ROWS))
        import pyarrow as pa

        texts = {name for key, name in self.columns.items() if name is not None and key != "time"}
        names = _header(file, self._separator(file))
        called = dict(zip(names, column_names(names), strict=True))
        kinds = {
            name: pa.string()
            for name in names
            if called[name] in texts or called[name].casefold() in (*RECORDINGS, *LABELS)
        }
        reader = self._open_text(file, kinds)
        if self.time_format is not None:  # which digits alone may be written in, as %Y%m%d is
            time = self._role("time", list(called.values()))
            digits = [
                field.name for field in reader.schema if called.get(field.name, "") == time and is_number(field.type)
            ]
            if digits:
                reader = self._open_text(file, {**kinds, digits[0]: pa.timestamp("ns")})
        return stripped(reader.schema, reader)

    def _open_text(self, file: Path, kinds: "dict[str, pa.DataType]") -> "pa.csv.CSVStreamingReader":
        from pyarrow import csv as arrow_csv

        return arrow_csv.open_csv(
            file,
            read_options=arrow_csv.ReadOptions(block_size=BLOCK_BYTES),
            parse_options=arrow_csv.ParseOptions(delimiter=self._separator(file)),
            convert_options=arrow_csv.ConvertOptions(
                column_types=kinds,
                decimal_point=self.decimal,
                null_values=["", "NA", "N/A", "nan", "NaN", "NAN", "null", "NULL", "?"],
                strings_can_be_null=True,
                timestamp_parsers=[self.time_format] if self.time_format else None,
            ),
        )

    def _separator(self, file: Path) -> str:
        return self.separator or ("\t" if file.suffix.lower() == ".tsv" else ",")

    def _roles(self, schema: "pa.Schema", *, is_new: bool) -> _Roles:
        """Which column is what; in a new file those of labels and groups, and those to leave out, may be absent.

        Raises:
            UserError: a column is named that is not there, or values are no numbers.
        """
        import pyarrow as pa

        names = schema.names
        asked = [*self.columns.items(), *(("ignore", name) for name in self.ignore)]
        problems = [
            f"data.source.{key}={name!r}: there is no such column; expected one of {', '.join(names[:20])}"
            for key, name in asked
            if name is not None and name not in names and not (is_new and key in ("label", "group", "ignore"))
        ]
        chosen: dict[str, str | None] = {}
        for key in self.columns:
            chosen[key] = self._role(key, names)
        left_out = {
            *self.ignore,
            *(name for name in names if name.startswith("__index_level_")),
            *(name for name in chosen.values() if name is not None),
        }
        channels = tuple(self.channels or (name for name in names if name not in left_out))
        problems += [f"data.source.channels: there is no column {name!r}" for name in channels if name not in names]
        if not channels:
            problems.append(f"no column is left for values, of {', '.join(names[:20])}")
        problems += [
            f"column {name!r} holds {schema.field(name).type} and no numbers: expected data.source.ignore=[{name}], "
            "or data.source.decimal=',' and data.source.separator=';' where numbers are written so"
            for name in channels
            if name in names and not is_number(schema.field(name).type)
        ]
        if self.channels is None and not is_new:
            problems += [
                f"column {name!r} {what}; expected data.source.ignore=[{name}] to leave it out, "
                f"data.source.group={name} (or recording, time, label) where it is that, or "
                "data.source.channels=[NAME,...] where it holds values"
                for name in channels
                if is_number(schema.field(name).type) and name.casefold() != "y" and (what := looks_like(name))
            ]
        time = chosen["time"]
        if time is not None and not (
            is_number(schema.field(time).type) or pa.types.is_temporal(schema.field(time).type)
        ):
            problems.append(
                f"column {time!r} holds no time stamps that are known: expected ISO 8601, numbers in seconds, or "
                "data.source.time_format=FORMAT as '%d.%m.%Y %H:%M:%S'"
            )
        if problems:
            raise UserError(problems)
        return _Roles(time, chosen["recording"], chosen["group"], chosen["label"], channels)

    def _role(self, key: str, names: Sequence[str]) -> str | None:
        """The column that is asked for, or else the first that is called so."""
        given = self.columns[key]
        folded = {name.casefold(): name for name in names}
        guessed = next((folded[name] for name in KNOWN_AS.get(key, ()) if name in folded), None)
        return guessed if given is None else given if given in names else None

    @staticmethod
    def _hint(error: Exception) -> str:
        return "; expected numbers of one form in each column" if "conversion error" in str(error) else ""


def _header(file: Path, separator: str) -> list[str]:
    try:
        with open(file, encoding="utf-8-sig") as lines:
            return next(csv.reader(lines, delimiter=separator), [])
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{file}: cannot be read as text ({error})") from error


def _told(error: Exception) -> str:
    return str(error).splitlines()[0][:300]


class _Spool:
    """Rows of a table gathered on disk, a file for each recording."""

    def __init__(self, folder: Path, file: Path, roles: _Roles) -> None:
        self.folder = folder
        self.file = file
        self.roles = roles
        self.row = np.dtype([("time", "<i8"), ("label", "<i4"), ("values", "<f4", (len(roles.channels),))])
        self.labels: dict[str, int] = {}
        self.keys: dict[tuple[str, str | None], int] = {}
        self.variations: dict[int, Variation] = {}

    def add(self, batch: "pa.RecordBatch") -> None:
        """Put the rows of a block where those of their recordings are."""
        roles = self.roles
        rows = np.empty(batch.num_rows, self.row)
        columns = [batch.column(name) for name in roles.channels]
        for position, column in enumerate(columns):
            rows["values"][:, position] = as_numbers(column)
        is_rounded = not all(is_exact(column.type) for column in columns)
        exact = np.stack([as_numbers(column, exact=True) for column in columns]) if is_rounded else None
        rows["time"] = 0 if roles.time is None else nanoseconds(batch.column(roles.time), roles.time)
        rows["label"] = -1 if roles.label is None else self._codes(batch.column(roles.label))
        names = self._texts(batch, roles.recording, self.file.stem)
        groups = self._texts(batch, roles.group, None)
        order, borders = _runs(names if groups is None else np.char.add(np.char.add(names, "\0"), groups))
        for first, last in itertools.pairwise(borders):
            mine = order[first:last]
            key = (str(names[mine[0]]), None if groups is None else str(groups[mine[0]]))
            number = self.keys.setdefault(key, len(self.keys))
            if len(self.keys) > MAX_RECORDINGS:
                raise UserError(
                    f"column {roles.recording!r} has over {MAX_RECORDINGS:,} different values: expected one that says "
                    "which recording a row is of (data.source.recording=NAME)"
                )
            if exact is not None and (here := Variation.of(exact[:, mine])) is not None:
                before = self.variations.get(number)
                self.variations[number] = here if before is None else before | here
            with open(self._path(number), "ab") as out:
                out.write(rows[mine].tobytes())

    def recordings(self, grid: TimeGrid) -> Iterator[Recording]:
        """Yield each recording; raises `UserError` after the last with what is wrong with the times of any."""
        problems: list[str] = []
        texts = list(self.labels)
        for (name, group), number in self.keys.items():
            rows = np.memmap(self._path(number), self.row, mode="r")
            where = f"{self.file}: {name}" if self.roles.recording is not None else str(self.file)
            try:
                parts = grid.parts(rows["time"] if self.roles.time is not None else None, len(rows))
                for position, part in enumerate(parts):
                    values, labels = part.of(rows["values"], rows["label"])
                    yield Recording(
                        name=name if len(parts) == 1 else f"{name} part {position + 1}",
                        values=values,
                        spans=spans_of(labels, texts),
                        group=name if group is None else group,
                        sampling_rate_hz=part.sampling_rate_hz,
                        channels=self.roles.channels,
                        variation=self.variations.get(number),
                    )
            except UserError as error:
                problems += [f"{where}: {problem}" for problem in error.problems]
        if problems:
            more = [f"... ({len(problems)} in all)"] if len(problems) > MAX_SHOWN else []
            raise UserError([*problems[:MAX_SHOWN], *more])

    def clear(self) -> None:
        """Remove the files."""
        for number in self.keys.values():
            self._path(number).unlink(missing_ok=True)

    def _path(self, number: int) -> Path:
        return self.folder / f"{number}.rows"

    def _texts(self, batch: "pa.RecordBatch", column: str | None, otherwise: str | None) -> Any:
        """`(rows,)` text of a column; a single text for all where there is no column."""
        if column is None:
            return None if otherwise is None else np.full(batch.num_rows, otherwise)
        texts = as_text(batch.column(column))
        if texts.null_count:
            raise UserError(
                f"column {column!r}: {texts.null_count:,} rows of a block have no value; expected one in each"
            )
        return np.asarray(texts.to_numpy(zero_copy_only=False), dtype=np.str_)

    def _codes(self, column: "pa.Array") -> np.ndarray:
        """int32 `(rows,)`: numbers of the labels, -1 where there is none."""
        encoded = as_text(column).dictionary_encode()
        known = [self.labels.setdefault(text, len(self.labels)) for text in encoded.dictionary.to_pylist()]
        if len(self.labels) > MAX_RECORDINGS:
            raise UserError(
                f"column {self.roles.label!r} has over {MAX_RECORDINGS:,} different values: expected classes; a number "
                "to predict (regression) is not supported"
            )
        positions = encoded.indices.fill_null(len(known)).to_numpy(zero_copy_only=False)
        return np.array([*known, -1], np.int32)[positions]


def _runs(keys: np.ndarray) -> tuple[np.ndarray, list[int]]:
    """An order that puts equal keys together and keeps theirs, and where each begins in it, and the end."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    first = np.flatnonzero(ordered[1:] != ordered[:-1]) + 1
    return order, [0, *first.tolist(), len(keys)]


def spans_of(labels: np.ndarray, names: Sequence[str]) -> list[Span]:
    """Stretches of one label, from labels at each point `(L,)`, negative where there is none."""
    borders = np.concatenate([[0], np.flatnonzero(labels[1:] != labels[:-1]) + 1, [len(labels)]]).tolist()
    return [
        Span(start, stop, names[int(labels[start])])
        for start, stop in itertools.pairwise(borders)
        if stop > start and labels[start] >= 0
    ]
