"""Series of one channel in a text table, `.csv` or `.tsv`: one series in each row, one value in each field.

An empty field, NaN or ? is missing, and empty fields at a row's end are not part of the series. A first row without
numbers, or with a column `label`, `class` or `y`, is a header, and that column (at most one) holds labels.
"""

import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from krontime.data.sources.labelled import Labelled, LabelledFiles, label_array
from krontime.data.sources.text import is_value, numbers
from krontime.errors import UserError

LABEL_COLUMNS = ("label", "class", "y")
MAX_SHOWN = 10
"""Most wrong rows that are told."""


class TableSource(LabelledFiles):
    """Reads tables with a column of labels; see `LabelledFiles`."""

    kind = "table"
    labels_hint = f"a first row that names the columns, one of them {', '.join(LABEL_COLUMNS)}"

    def read(self, path: Path) -> Labelled:
        """Read one file; raises `UserError` with what is wrong with it."""
        return read_table(path)


def read_table(path: Path) -> Labelled:
    """Read a table.

    Returns:
        `(1, L_i)` float64 arrays, and text labels where there is a column of them (empty where a row has none).

    Raises:
        UserError: names the file and every wrong row.
    """
    separator = "\t" if path.suffix.lower() == ".tsv" else ","
    label_column: int | None = None
    series: list[np.ndarray] = []
    labels: list[str] = []
    problems: list[str] = []
    try:
        for number, row in enumerate(_rows(path)):
            if number == 0:
                header = [field.strip().lower() for field in _fields(row, separator)]
                columns = [i for i, name in enumerate(header) if name in LABEL_COLUMNS]
                if len(columns) > 1:
                    found = [header[i] for i in columns[:MAX_SHOWN]]
                    raise UserError(f"{path}: columns {found} all look like labels; expected one of them")
                label_column = columns[0] if columns else None
                if columns or not any(map(is_value, header)):
                    continue
            try:
                text, label = _without_label(row, separator, label_column)
                labels.append(label)
                series.append(numbers(text.rstrip(f"{separator} \t"), separator)[None, :])
            except ValueError as error:
                problems.append(f"{path}: series {len(series) + len(problems)}: {error}")
        known = None if label_column is None or problems else label_array(labels)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: cannot be read as text with one series in each row ({error})") from error
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error
    if problems:
        more = [f"{path}: ... ({len(problems)} in all)"] if len(problems) > MAX_SHOWN else []
        raise UserError([*problems[:MAX_SHOWN], *more])
    return Labelled(series, known)


def _rows(path: Path) -> Iterator[str]:
    with open(path, encoding="utf-8-sig") as file:
        for line in file:
            if row := line.rstrip("\n"):
                yield row


def _fields(row: str, separator: str) -> list[str]:
    return next(csv.reader([row], delimiter=separator)) if '"' in row else row.split(separator)


def _without_label(row: str, separator: str, label_column: int | None) -> tuple[str, str]:
    """The values of a row as text, and its label, which is empty where it has none."""
    if '"' in row:
        fields = _fields(row, separator)
    elif label_column is None:
        return row, ""  # one that is long is not taken apart
    else:
        fields = row.split(separator, label_column + 1)
    label = fields.pop(label_column) if label_column is not None and label_column < len(fields) else ""
    if '"' in row and (broken := [field for field in fields if separator in field]):
        raise ValueError(f"{broken[0][:40]!r} is in quotes: expected a number")
    return separator.join(fields), label.strip()
