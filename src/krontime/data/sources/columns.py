"""What the columns of a table are: points of the series, labels, groups, or something that only looks like a point.

A table is read as one series in each row. Columns that identify a row, order it or say which split it belongs to would
be points like any other, and a model would learn from them; they are refused, with the option that says what they are.
"""

import itertools
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from krontime.data.sources.text import is_number
from krontime.errors import UserError

LABEL_COLUMNS = ("label", "class", "y")
"""Names that a column of labels is known by."""

LABEL_LIKE = (*LABEL_COLUMNS, "labels", "classes", "target", "targets", "category")
SPLIT_LIKE = ("split", "fold", "set", "subset", "partition", "is_test", "is_train", "dataset")
TIME_LIKE = ("timestamp", "time", "date", "datetime", "t", "ts")
_ID_LAST = (
    *(
        "id",
        "ids",
        "uuid",
        "guid",
        "index",
        "idx",
        "key",
        "row",
        "no",
        "nr",
        "number",
        "name",
        "file",
        "filename",
        "path",
    ),
    *("subject", "patient", "speaker", "person", "participant", "user", "device", "machine", "record", "recording"),
    *("timestamp", "time", "date", "datetime", "group", "session", "sample", "case"),
)
"""A column whose name is one of these words, or ends in one, names its series."""

_STAMP = re.compile(r"\s*\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}([T ]\d|\s*$)|\s*\d{1,2}:\d{2}(:\d{2})?")
MAX_STAMPED_POINTS = 8
MAX_LONG_POINTS = 16
MIN_LONG_ROWS = 200
LONG_RATIO = 20
"""A table of so few columns and so many rows for each of them has a row for each time point, not for each series."""

MIN_ROWS = 3
"""Fewest rows in which a column that counts them is told from one that does not."""

MIN_TWIN_ROWS = 12
"""Fewest series in which a column that goes with the class does so by more than chance."""

MIN_NUMBERED_POINTS = 8
MIN_NUMBERED_FRACTION = 0.75
"""Where so many of the columns have numbers in their names, one that has none is no point like the others."""

MAX_SHOWN = 10


@dataclass(frozen=True)
class TableOptions:
    """What a user says of a table.

    Attributes:
        label: column of the labels, by name, or by number (from 0, or from the end of each row if negative) without a
            header; None for one named `label`, `class` or `y`, and `none` for none.
        group: column of what must not straddle a split.
        ignore: columns to leave out.
        keep: columns that are points, whatever they look like.
        header: whether the first row names the columns; None to find out.
        separator: between fields, one character, a space for any white space; None for that of the file's ending.
        decimal: what stands before the fraction of a number.
        wide: each row is a series, however short.
        prefix: of the config keys in messages.
    """

    label: str | None = None
    group: str | None = None
    ignore: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    header: bool | None = None
    separator: str | None = None
    decimal: str = "."
    wide: bool = False
    prefix: str = "data.source"


class Roles(NamedTuple):
    """Positions of the columns in a row.

    Attributes:
        label: that of the labels.
        group: that of the groups.
        points: int64, those that are points, in order.
        others: all that are no points, in order.
    """

    label: int | None
    group: int | None
    points: np.ndarray
    others: list[int]


class Numbered(Sequence[str]):
    """Names of columns in a table that has none, which are their numbers from 0; a long row has too many to keep."""

    def __init__(self, num_columns: int) -> None:
        self._numbers = range(num_columns)

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, i: Any) -> Any:
        return [str(number) for number in self._numbers[i]] if isinstance(i, slice) else str(self._numbers[i])


def column_names(fields: Iterable[str]) -> Iterator[str]:
    """Names as options give them; columns without a name, as pandas writes its index, are `unnamed`."""
    unnamed = itertools.chain(["unnamed"], (f"unnamed_{number}" for number in itertools.count(1)))
    for field in fields:
        name = unicodedata.normalize("NFC", field.strip())
        is_blank = not name or re.fullmatch(r"unnamed: \d+", name, re.IGNORECASE)
        yield next(unnamed) if is_blank else name


def roles(names: Sequence[str], has_header: bool, options: TableOptions) -> Roles:
    """Which column is what.

    Raises:
        UserError: an option names no column, or several columns look like labels.
    """
    problems: list[str] = []

    def position(key: str, name: str) -> int | None:
        if has_header and name in names:
            return names.index(name)
        if has_header and (folded := [i for i, known in enumerate(names) if known.casefold() == name.casefold()]):
            return folded[0]
        if not has_header and re.fullmatch(r"-?\d+", name) and -len(names) <= int(name) < len(names):
            return int(name) % len(names)
        shown = ", ".join(names[:MAX_SHOWN]) + (", ..." if len(names) > MAX_SHOWN else "")
        problems.append(f"{options.prefix}.{key}={name!r}: expected a column of the table: {shown}")
        return None

    label = None
    if options.label is not None and options.label != "none":
        label = position("label", options.label)
    elif options.label is None and has_header:
        named = [i for i, name in enumerate(names) if name.casefold() in LABEL_COLUMNS and name not in options.ignore]
        named = [i for i in named if names[i] not in options.keep and names[i] != options.group]
        if len(named) > 1:
            shown = [names[i].casefold() for i in named[:MAX_SHOWN]]
            problems.append(
                f"columns {shown} all look like labels; expected one of them, by {options.prefix}.label=NAME"
            )
        label = named[0] if named else None
    group = None if options.group is None else position("group", options.group)
    ignored = [position("ignore", name) for name in options.ignore]
    for name in options.keep:
        position("keep", name)
    if problems:
        raise UserError(problems)
    others = sorted({i for i in (label, group, *ignored) if i is not None})
    return Roles(label, group, np.delete(np.arange(len(names)), others), others)


def name_problems(names: Sequence[str], points: Iterable[int], options: TableOptions) -> list[str]:
    """A line for each column that would be a point and is called like something else."""
    problems = []
    for i in points:
        name = names[i]
        if name in options.keep or name.casefold() in {kept.casefold() for kept in options.keep}:
            continue
        if what := looks_like(name):
            problems.append(f"column {name!r} {what}; {_ways_out(name, options)}")
    return problems


def looks_like(name: str) -> str | None:
    """What else than values a column seems to hold by its name; None for nothing."""
    folded = name.casefold()
    if folded.startswith("unnamed"):
        return "has no name, as the index that pandas writes"
    if folded in LABEL_LIKE:
        return "looks like labels"
    if folded in SPLIT_LIKE:
        return "looks like a split"
    return "looks like what names a series, or its time" if _names_series(name) else None


def unnumbered_problems(names: Sequence[str], points: np.ndarray, options: TableOptions) -> list[str]:
    """A line for each column that would be a point and has no number in its name, where nearly all others have."""
    kept = {name.casefold() for name in options.keep}
    unnumbered = [names[i] for i in points if not any(character.isdigit() for character in names[i])]
    if len(points) - len(unnumbered) < max(MIN_NUMBERED_POINTS, MIN_NUMBERED_FRACTION * len(points)):
        return []
    return [
        f"column {name!r} has no number in its name, where the other columns are numbered; {_ways_out(name, options)}"
        for name in unnumbered
        if name.casefold() not in kept
    ]


def counting_problems(
    columns: dict[int, np.ndarray], names: Sequence[str], others_whole: bool, options: TableOptions, *, named: bool
) -> list[str]:
    """A line for each column at a row's edge whose values count or number the rows, whatever it is called.

    Args:
        columns: values of some columns, by position.
        names: of all columns.
        others_whole: whether the other columns hold whole numbers too, as sensor codes do.
        options: as given.
        named: whether the names are the file's.
    """
    problems = []
    for i, values in columns.items():
        if names[i] in options.keep or (named and _in_family(names, i)):
            continue
        if len(values) < MIN_ROWS or not np.isfinite(values).all() or (values != np.floor(values)).any():
            continue
        distinct = len(np.unique(values)) == len(values)
        counts = bool((np.diff(values) == 1).all())
        range_ = distinct and len(values) >= 8 and values.max() - values.min() == len(values) - 1
        if counts or range_ or (distinct and len(values) >= 8 and not others_whole):
            what = "counts the rows" if counts else "has another whole number in each row"
            problems.append(f"column {names[i]!r} {what}, as an index does; {_ways_out(names[i], options)}")
    return problems


def label_twins(
    rows: Sequence[np.ndarray],
    labels: Sequence[str],
    names: Sequence[str],
    points: np.ndarray,
    options: TableOptions,
) -> list[str]:
    """A line for each of a few columns that say the class in other words, whatever they are called.

    Such a column has few values, each of which stands in series of one class alone; the columns around it are not like
    that.

    Args:
        rows: the values of each series, in the order of `points`.
        labels: of each series.
        names: of all columns.
        points: positions of the columns that would be points.
        options: as given.
    """
    classes, codes = np.unique(np.asarray(labels), return_inverse=True)
    width = min((len(row) for row in rows), default=0)
    if len(rows) < MIN_TWIN_ROWS or len(classes) < 2:
        return []
    head = np.sort([row[:width] for row in rows[: 2 * MIN_TWIN_ROWS]], axis=0)
    few = np.flatnonzero((head[1:] != head[:-1]).sum(axis=0) < 2 * len(classes))
    if 2 * len(few) > width:
        return []
    problems = []
    for j in few.tolist():
        values, counts = np.unique([row[j] for row in rows], return_counts=True)
        pairs = {(row[j], code) for row, code in zip(rows, codes.tolist(), strict=True)}
        is_twin = len(pairs) == len(values) and len(classes) <= len(values) <= 2 * len(classes)
        if is_twin and counts.min() > 1 and names[points[j]] not in options.keep:
            name = names[points[j]]
            problems.append(
                f"column {name!r} has values of its own for each class, as a second label does; "
                f"{_ways_out(name, options)}"
            )
    return problems


def long_problem(
    names: Sequence[str], points: np.ndarray, rows: Iterable[Iterable[str]], num_rows: int, options: TableOptions
) -> str | None:
    """A line where a table seems to have a row for each time point.

    Args:
        names: of all columns.
        points: positions of those that would be points.
        rows: fields of the first rows.
        num_rows: of the table.
        options: as given.
    """
    if options.wide or len(points) > MAX_LONG_POINTS or num_rows < MIN_ROWS:
        return None
    kept = {name.casefold() for name in options.keep}
    looked_at = [list(row) for row in rows]

    def is_time(i: int) -> bool:
        stamps = [bool(_STAMP.match(row[i])) for row in looked_at if i < len(row)]
        return (names[i].casefold() in TIME_LIKE and names[i].casefold() not in kept) or (bool(stamps) and all(stamps))

    stamped = len(points) <= MAX_STAMPED_POINTS and any(is_time(i) for i in points) and num_rows > len(names)
    if not stamped and not (num_rows >= MIN_LONG_ROWS and num_rows >= LONG_RATIO * max(1, len(points))):
        return None
    shown = ", ".join(names[:MAX_SHOWN])
    return (
        f"{num_rows:,} rows of {len(names)} columns ({shown}) look like a long table, with a row for each time point; "
        "expected data=long_table data.path=FILE, which cuts it into windows, a row for each series (with pandas: "
        "table.pivot(index=SERIES, columns=TIME, values=VALUE)), or "
        f"{options.prefix}.wide=true where each row is a whole series"
    )


def in_order(header: Sequence[str], expected: Sequence[str], *, ragged: bool) -> list[int] | None:
    """Positions in `header` of the columns in the order that was trained on; None where they are as trained.

    Args:
        header: names of the points.
        expected: those of training.
        ragged: whether the series of training were of unequal length, so that the last columns may be missing.

    Raises:
        ValueError: the names are others.
    """
    if list(header) == list(expected):
        return None
    if ragged and list(header) == list(expected[: len(header)]):
        return None
    here, trained = set(header), set(expected)
    missing = [name for name in expected if name not in here]
    more = [name for name in header if name not in trained]
    parts = [
        f"{what} {', '.join(map(repr, names[:5]))}" + (f", ... ({len(names)} in all)" if len(names) > 5 else "")
        for what, names in (("missing are", missing), ("not trained on are", more))
        if names
    ]
    if not parts and len(here) < len(header):
        parts = ["names that stand for several columns can't be put in order"]
    if not parts and len(header) != len(expected):
        parts = [f"{len(header)} columns, and {len(expected)} in training"]
    if parts:
        raise ValueError(f"its columns are others than those that were trained on: {'; '.join(parts)}")
    place = {name: i for i, name in enumerate(header)}
    return [place[name] for name in expected]


def looks_like_header(first: np.ndarray, others: Sequence[np.ndarray]) -> bool:
    """Whether a first row of numbers rises as column numbers, times or frequencies do, and the rows below do not."""
    if len(first) and np.isnan(first[0]):  # over pandas' index
        first = first[1:]
    steps = np.diff(first)
    if len(first) < 3 or not others or not np.isfinite(first).all() or not (steps > 0).all():
        return False
    if len(first) < 8 and not is_even(first):
        return False
    rising = [len(row) > 1 and bool((np.diff(row[np.isfinite(row)]) > 0).all()) for row in others]
    return sum(rising) * 2 <= len(rising)


def is_even(first: np.ndarray) -> bool:
    """Whether numbers rise by one and the same step."""
    steps = np.diff(first)
    return len(steps) > 1 and bool(np.isfinite(first).all()) and bool(steps[0] > 0) and np.allclose(steps, steps[0])


def text_column(name: str, example: str, options: TableOptions, *, has_header: bool) -> str:
    """A line on a column of text."""
    hint = "" if has_header else f" (if the first row names the columns: {options.prefix}.header=true)"
    typed = name if has_header else str(name)
    header = "" if has_header or options.header is False else f"{options.prefix}.header=false "
    return (
        f"column {name!r} holds text such as {example!r}: expected a number, or {header}{options.prefix}.label={typed} "
        f"where it holds the labels, .group={typed} where series of one {typed} belong together, or .ignore=[{typed}] "
        f"to leave it out{hint}"
    )


def _ways_out(name: str, options: TableOptions) -> str:
    typed = name if re.fullmatch(r"[\w.-]+", name) else repr(name)
    prefix = options.prefix
    return (
        f"expected {prefix}.ignore=[{typed}] to leave it out, {prefix}.group={typed} where series that share it belong "
        f"together, {prefix}.label={typed} where it holds the labels, or {prefix}.keep=[{typed}] where it is a point"
    )


def _names_series(name: str) -> bool:
    """Whether a name, or its last word, is one for what names a series; its first where that is `id`."""
    words = [word.casefold() for word in re.findall(r"[A-Z]?[^\W\d_A-Z]+|[A-Z]+(?![a-z])|\d+", name)]
    return bool(words) and (words[-1] in _ID_LAST or words[0] in ("id", "uuid"))


def _in_family(names: Sequence[str], i: int) -> bool:
    """Whether a name continues the numbering of a neighbour, as `t0` and `t1`, or `7` and `8`."""

    def parts(name: str) -> tuple[str, float] | None:
        match = re.fullmatch(r"(.*?)(-?\d+(?:\.\d+)?)(\D*)", name)
        return (match[1] + "#" + match[3], float(match[2])) if match and is_number(match[2]) else None

    own = parts(names[i])
    near = [parts(names[j]) for j in (i - 2, i - 1, i + 1, i + 2) if 0 <= j < len(names)]
    return own is not None and any(other is not None and other[0] == own[0] for other in near)
