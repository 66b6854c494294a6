"""The rows of a text table below its names: read one by one, with what is wrong with them."""

import csv
import re
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from krontime.data.series import chunks
from krontime.data.sources.columns import (
    Numbered,
    Roles,
    TableOptions,
    counting_problems,
    roles,
    text_column,
)
from krontime.data.sources.text import blocks_of, is_value, numbers

MOSTLY = 0.8
"""A column of text has it in more than this fraction of the rows; in fewer it is a mistake in these."""

LOOKED_AT = 50
"""Rows that a first row of numbers is compared with."""

MAX_SHOWN = 10
"""Maximum number of wrong rows that are named."""


def fields_of(row: str, separator: str) -> Iterator[str]:
    """The fields of a row, quoted ones whole; a long row is not taken apart at once."""
    for block in blocks_of(row, separator):
        yield from _fields(block, separator)


def _fields(block: str, separator: str) -> list[str]:
    if separator == " ":
        return block.split()
    return next(csv.reader([block], delimiter=separator)) if '"' in block else block.split(separator)


def _with_points(text: str, separator: str) -> str:
    """Numbers with a decimal comma as Python writes them.

    Raises:
        ValueError: one has a point, which may stand between thousands.
    """
    if "." in text:
        position, field = next(it for it in enumerate(text.split(separator)) if "." in it[1])
        raise ValueError(f"value {position} is {field.strip()[:40]!r}: expected a decimal comma and no point")
    return text.replace(",", ".")


class Body:
    """The rows of a table below its header."""

    def __init__(
        self, names: Sequence[str], role: Roles, separator: str, options: TableOptions, *, has_header: bool
    ) -> None:
        self.names = names
        self.role = role
        self.separator = separator
        self.options = options
        self.has_header = has_header
        numbered = () if has_header else (options.label, options.group, *options.ignore)
        self._from_end = any(name is not None and name.startswith("-") for name in numbered)
        self.series: list[np.ndarray] = []
        self.labels: list[str] = []
        self.groups: list[str] = []
        self.num_wrong = 0
        self._wrong: list[str] = []
        self._text: Counter[int] = Counter()
        self._examples: dict[int, str] = {}
        self._wide: list[int] = []
        self._num_shifted = 0

    def add(self, row: str) -> None:
        """Parse one row."""
        position = len(self.series) + self.num_wrong
        try:
            text, label, group = self._without(row)
            self.labels.append(label)
            self.groups.append(group)
            if self.options.decimal == ",":
                text = _with_points(text, self.separator)
            values = numbers(text.rstrip(f"{self.separator} \t"), self.separator)
            self.series.append(values[None, :])
        except ValueError as error:
            self.num_wrong += 1
            self._wrong.append(f"series {position}: {error}")
            self._count_text(row)
            return
        if self.has_header and len(values) > len(self.role.points):
            self._wide.append(position)

    def _role(self, row: str) -> Roles:
        """Which column of a row is what; those counted from the end, from the end of this row."""
        if self._from_end and (width := sum(1 for _ in fields_of(row, self.separator))) != len(self.names):
            return roles(Numbered(width), False, self.options)
        return self.role

    def _without(self, row: str) -> tuple[str, str, str]:
        """The points of a row as text, its label and its group, which are empty where it has none."""
        points: list[str] = []
        others: dict[int | None, str] = {}
        first, role = 0, self._role(row)
        for block in blocks_of(row, self.separator):
            fields = _fields(block, self.separator)
            last = first + len(fields)
            for i in reversed(role.others):
                if first <= i < last:
                    others[i] = fields.pop(i - first).strip()
            if '"' in block and (broken := [field for field in fields if self.separator in field]):
                decimal = f" ({self.options.prefix}.decimal=',' reads a decimal comma)" if "," in broken[0] else ""
                raise ValueError(f"{broken[0][:40]!r} is in quotes: expected a number{decimal}")
            if fields:
                points.append(self.separator.join(fields))
            first = last
        return self.separator.join(points), others.get(role.label, ""), others.get(role.group, "")

    def _count_text(self, row: str) -> None:
        num_fields, others = 0, set(self.role.others)
        for i, field in enumerate(fields_of(row.rstrip(f"{self.separator} \t"), self.separator)):
            num_fields += 1
            if i >= len(self.names) or i in others:
                continue
            if self.options.decimal == ",":
                field = field.replace(",", ".")
            if not is_value(field):
                self._text[i] += 1
                self._examples.setdefault(i, field.strip()[:40])
        self._num_shifted += num_fields > len(self.names)

    def problems(self) -> list[str]:
        """What is wrong with the rows: columns of text, and else each wrong row, up to a few."""
        num_rows = len(self.series) + self.num_wrong
        if self.has_header and len(self._wide) + self._num_shifted > MOSTLY * num_rows:
            return [
                f"the first row names {len(self.names)} columns, and the rows below have more fields, as where row "
                "names have no name themselves; expected a name for each column, or "
                f"{self.options.prefix}.header=false where the first row is a series"
            ]
        columns = [i for i, count in self._text.items() if count > MOSTLY * num_rows]
        if columns:
            return [
                text_column(self.names[i], self._examples[i], self.options, has_header=self.has_header)
                for i in sorted(columns)[:MAX_SHOWN]
            ]
        wrong = self._wrong + [
            f"series {i}: it has more values than the first row has names for points" for i in self._wide
        ]
        more = [f"... ({len(wrong)} in all)"] if len(wrong) > MAX_SHOWN else []
        hint = [*self._decimal_hint(), *self._header_hint()] if wrong else []
        return [*wrong[:MAX_SHOWN], *more, *hint]

    def _header_hint(self) -> list[str]:
        is_first_alone = self.num_wrong == 1 and self._wrong[0].startswith("series 0:") and len(self.series) > 1
        if self.has_header or self.options.header is not None or not is_first_alone:
            return []
        return [f"{self.options.prefix}.header=true reads the first row as names of the columns"]

    def _decimal_hint(self) -> list[str]:
        commas = [text for text in self._examples.values() if re.fullmatch(r"-?\d+,\d+", text)]
        return [f"{commas[0]!r}: {self.options.prefix}.decimal=',' reads a decimal comma"] if commas else []

    def counting_problems(self) -> list[str]:
        """A line for each of the outer columns that only numbers the rows."""
        points = self.role.points
        if len(points) < 2 or not self.series:
            return []
        lengths = {series.shape[1] for series in self.series}
        edges = {0, 1} | ({len(points) - 1} if len(lengths) == 1 else set())
        columns = {
            points[j]: np.array([series[0, j] if series.shape[1] > j else np.nan for series in self.series])
            for j in sorted(edges)
            if j < len(points)
        }
        return counting_problems(columns, self.names, self._are_whole(), self.options, named=self.has_header)

    def _are_whole(self) -> bool:
        """Whether most of the values between the edges of the first rows are whole numbers, or there are none."""
        num_whole = num_values = 0
        for series in self.series[:LOOKED_AT]:
            for chunk in chunks(series[0, 2:-1]):
                num_whole += int(np.count_nonzero(np.isfinite(chunk) & (chunk == np.floor(chunk))))
                num_values += int(np.count_nonzero(np.isfinite(chunk)))
        return num_whole > num_values / 2 or num_values == 0
