"""Series of one channel in a text table, `.csv`, `.tsv` or `.txt`: one series in each row, one value in each field.

An empty field, NaN or ? is missing, and empty fields at a row's end are not part of the series. The first row names the
columns; one of them holds the labels. What may be wrong with columns is in `krontime.data.sources.columns`.
"""

import csv
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from krontime.data.assemble import group_texts, whole_spelled
from krontime.data.sources.columns import (
    LABEL_COLUMNS,
    Numbered,
    TableOptions,
    column_names,
    is_even,
    label_twins,
    long_problem,
    looks_like_header,
    name_problems,
    roles,
    unnumbered_problems,
)
from krontime.data.sources.files import lines_of
from krontime.data.sources.labelled import Labelled, LabelledFiles, label_array
from krontime.data.sources.table_body import LOOKED_AT, Body, fields_of
from krontime.data.sources.text import is_number, is_value
from krontime.errors import UserError

SEPARATORS = {"tab": "\t", "\\t": "\t", "space": " ", "comma": ",", "semicolon": ";"}


class TableSource(LabelledFiles):
    """Reads tables with a column of labels; see `LabelledFiles` and `TableOptions`."""

    kind = "table"
    labels_hint = (
        f"a first row that names the columns, one of them {', '.join(LABEL_COLUMNS)}, or data.source.label=COLUMN "
        "(without a first row of names data.source.header=false data.source.label=NUMBER, from 0)"
    )

    def __init__(
        self,
        train: str,
        test: str | None = None,
        label: str | int | None = None,
        group: str | int | None = None,
        ignore: list[str | int] | str | None = None,
        keep: list[str | int] | str | None = None,
        header: bool | None = None,
        separator: str | None = None,
        decimal: str = ".",
        wide: bool = False,
    ) -> None:
        super().__init__(train, test)
        self.options = table_options(
            label=label,
            group=group,
            ignore=ignore,
            keep=keep,
            header=header,
            separator=separator,
            decimal=decimal,
            wide=wide,
        )

    def describe(self) -> dict[str, Any]:
        """Identity of the files and of what was said of them; raises `UserError` where one is missing."""
        return {**super().describe(), "options": repr(self.options)}

    def read(self, path: Path, trained: Labelled | None = None) -> Labelled:
        """Read one file; raises `UserError` with what is wrong with it."""
        read = read_table(path, self.options, points=None if trained is None else trained.header)
        try:
            return read if read.groups is None else read._replace(groups=group_texts(read.groups))
        except UserError as error:
            raise UserError(f"{path}: column {self.options.group!r}: {p}" for p in error.problems) from error


class UcrTextSource(TableSource):
    """Reads the UCR archive's own text files, `NAME_TRAIN.tsv` or `.txt`: no header, the label first, NaN at the end.

    Args:
        train: file of the training series.
        test: file of the test series; None for a data set without a test split.
        separator: between fields; None for that of the file's ending (`.txt`: what the first row has).
    """

    kind = "ucr_text"
    labels_hint = "the label first in each row"

    def __init__(self, train: str, test: str | None = None, separator: str | None = None) -> None:
        super().__init__(train, test, label="0", header=False, separator=separator, wide=True)

    def read(self, path: Path, trained: Labelled | None = None) -> Labelled:
        """Read one file; raises `UserError` with what is wrong with it."""
        read = trimmed(read_table(path, self.options))
        rows = (np.append(float(label), one[0]) for one, label in _labelled(read))
        first = next(rows, np.empty(0))
        if is_even(first) and looks_like_header(first, list(rows)):
            raise UserError(
                f"{path}: the first row ({', '.join(f'{value:g}' for value in first[:4])}, ...) rises evenly, as "
                "numbers for names do, and the archive's text has no such row; data=csv data.source.header=true "
                "data.source.label=NAME reads it"
            )
        return read


def _labelled(read: Labelled) -> list[tuple[np.ndarray, str]]:
    """The first series with their labels, where these are numbers."""
    labels = [] if read.labels is None else read.labels[:LOOKED_AT].tolist()
    return list(zip(read.series, labels, strict=False)) if all(map(is_number, labels)) else []


def trimmed(read: Labelled) -> Labelled:
    """The series without the missing values at their end, which fill up shorter ones there."""

    def trim(series: np.ndarray) -> np.ndarray:
        observed = np.flatnonzero(~np.isnan(series[0]))
        return series[:, : observed[-1] + 1] if len(observed) else series

    return read._replace(series=[trim(series) for series in read.series])


def table_options(**given: Any) -> TableOptions:
    """Options from a config, where numbers may stand for names.

    Raises:
        UserError: names every option that cannot work.
    """
    options = TableOptions()
    for key, value in given.items():
        if value is None:
            continue
        if key in ("ignore", "keep"):
            value = tuple(str(name) for name in (value if isinstance(value, list) else [value]))
        elif key in ("label", "group"):
            value = str(value)
        elif key == "separator":
            value = SEPARATORS.get(str(value), str(value))
        options = replace(options, **{key: value})
    problems = []
    if options.separator is not None and len(options.separator) != 1:
        problems.append(f"{options.prefix}.separator={options.separator!r}: expected one character, tab or space")
    if options.decimal not in (".", ","):
        problems.append(f"{options.prefix}.decimal={options.decimal!r}: expected '.' or ','")
    elif options.decimal == "," == options.separator:
        problems.append(f"{options.prefix}.decimal=',': expected another separator than ','")
    if problems:
        raise UserError(problems)
    return options


def read_table(path: Path, options: TableOptions | None = None, *, points: tuple[str, ...] | None = None) -> Labelled:
    """Read a table.

    Args:
        path: the file.
        options: what is known of it.
        points: names of the points that were trained on, for new files and test files; None for others.

    Returns:
        `(1, L_i)` float64 arrays, labels where there is a column of them (empty where a row has none), groups, the
        names of the points where the first row has names, and what was left out.

    Raises:
        UserError: names the file and everything that is wrong with it.
    """
    options = options or TableOptions()
    try:
        with lines_of(path) as lines:
            return _read(path, _lines(lines), options, points)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: cannot be read as text with one series in each row ({error})") from error
    except UserError as error:
        raise UserError(p if str(path) in p else f"{path}: {p}" for p in error.problems) from error
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error


def _read(path: Path, lines: Iterator[str], options: TableOptions, points: tuple[str, ...] | None) -> Labelled:
    head = list(itertools.islice(lines, LOOKED_AT))
    if not head:
        return Labelled([], None)
    separator = _separator(path, head, options)
    has_header = _has_header(head[0], separator, options, points)
    rows = itertools.chain(head[has_header:], lines)
    names = _names(head[0], separator) if has_header else Numbered(sum(1 for _ in fields_of(head[0], separator)))
    if points is not None:  # what is known from training need not be there again
        options = _present(options, names)
    role = roles(names, has_header, options)
    body = Body(names, role, separator, options, has_header=has_header)
    for row in rows:
        body.add(row)
    problems = body.problems()
    looked_at = (fields_of(row, separator) for row in head[has_header:])
    num_rows = len(body.series) + body.num_wrong
    if not options.wide and (long := long_problem(names, role.points, looked_at, num_rows, options)):
        raise UserError(long)
    if has_header:
        untold = (i for i in role.points if not any(repr(names[i]) in problem for problem in problems))
        problems += name_problems(names, untold, options)
    if problems:
        raise UserError(problems)
    if not has_header and options.header is None and body.series:
        _refuse_unnamed_header(fields_of(head[0], separator), body.series, options)
    if counting := body.counting_problems():
        raise UserError(counting)
    if points is None and role.label is not None and has_header:
        values = [one[0] for one in body.series]
        if twins := label_twins(values, body.labels, names, role.points, options):
            raise UserError(twins)
    if points is None and has_header and (unnumbered := unnumbered_problems(names, role.points, options)):
        raise UserError(unnumbered)
    notes = [f"label column {names[role.label]!r}"] if role.label is not None else []
    if role.group is not None:
        notes.append(f"groups from column {names[role.group]!r}")
    if options.ignore:
        notes.append(f"left out: {', '.join(options.ignore)}")
    return Labelled(
        body.series,
        None if role.label is None else label_array(whole_spelled(body.labels)),
        groups=None if role.group is None else np.array(body.groups, dtype=np.str_),
        header=tuple(names[i] for i in role.points) if has_header else None,
        notes=tuple(notes),
    )


def _present(options: TableOptions, names: Sequence[str]) -> TableOptions:
    """Options without the columns that a table does not have."""
    there = {name.casefold() for name in names}

    def present(name: str | None) -> bool:
        return name is not None and (name.casefold() in there or is_number(name) or name == "none")

    return replace(
        options,
        label=options.label if present(options.label) else None,
        group=options.group if present(options.group) else None,
        ignore=tuple(filter(present, options.ignore)),
        keep=tuple(filter(present, options.keep)),
    )


def _refuse_unnamed_header(first: Iterable[str], series: Sequence[np.ndarray], options: TableOptions) -> None:
    """Refuse a first row that was read as a series and looks like names that are numbers.

    Raises:
        UserError: it does.
    """
    if looks_like_header(series[0][0], [one[0] for one in series[1:LOOKED_AT]]):
        shown = ", ".join(field.strip() for field in itertools.islice(first, 4))
        raise UserError(
            f"the first row ({shown}, ...) rises evenly, as numbers for names do; expected "
            f"{options.prefix}.header=true where it names the columns, or {options.prefix}.header=false where it is a "
            "series"
        )


def _names(row: str, separator: str) -> list[str]:
    """The names of the columns in a first row, without those of separators at the end of each row."""
    first = list(fields_of(row, separator))
    while len(first) > 1 and not first[-1].strip():
        first.pop()
    return list(column_names(first))


def _has_header(row: str, separator: str, options: TableOptions, points: tuple[str, ...] | None) -> bool:
    if options.header is not None:
        return options.header
    trained = set(points or ())
    asked = {name.casefold() for name in (options.label, options.group, *options.ignore, *options.keep) if name}
    known = {*asked, *LABEL_COLUMNS}
    names = {name for name in column_names(fields_of(row, separator)) if name in trained or name.casefold() in known}
    folded = {name.casefold() for name in names}
    if points is not None and names >= trained:
        return True
    are_numbers = {is_number(field) for field in fields_of(row, separator) if not is_value(field) or is_number(field)}
    words = False in are_numbers
    if folded & set(LABEL_COLUMNS) or any(name in folded for name in asked if words or not is_number(name)):
        return True
    return are_numbers == {False}


def _separator(path: Path, head: Sequence[str], options: TableOptions) -> str:
    """What stands between the fields.

    Raises:
        UserError: it is another than the file's ending says.
    """
    if options.separator is not None:
        return options.separator
    if path.suffix.lower() == ".txt":
        return next((mark for mark in "\t,;" if mark in head[0] and mark != options.decimal), " ")
    expected = "\t" if path.suffix.lower() == ".tsv" else ","
    for mark, typed in ((";", "';'"), ("\t", "tab"), ("|", "'|'"), (",", "','"), (" ", "space")):
        if mark == expected or (mark in ", " and expected in head[0]):
            continue
        widths = {sum(1 for _ in fields_of(row, mark)) if mark == " " else row.count(mark) + 1 for row in head}
        if min(widths) > (2 if mark == " " else 1):
            decimal = any(re.search(r"\d,\d", row) for row in head) and mark != ","
            raise UserError(
                f"its fields seem to be separated by {typed}, not by {'tabs' if expected != ',' else 'commas'}: "
                f"expected a number in each field, or {options.prefix}.separator={typed}"
                + (f" {options.prefix}.decimal=','" if decimal else "")
            )
    if expected == options.decimal:
        raise UserError(
            f"{options.prefix}.decimal=',': expected {options.prefix}.separator=MARK beside it, another than the comma "
            "between fields"
        )
    return expected


def _lines(file: Iterable[str]) -> Iterator[str]:
    for line in file:
        if row := line.rstrip("\n"):
            yield row
