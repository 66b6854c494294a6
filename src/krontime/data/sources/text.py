"""Rows of numbers in text, for the formats that are text: parsed at the speed of NumPy, and a wrong field is named."""

import re
import string
import warnings
from collections.abc import Iterator

import numpy as np

MISSING = ("", "nan", "na", "?", "null", "none")
"""How text files write a missing value, in lower case."""

MAX_SHOWN = 40
"""Characters of a wrong field that are shown."""

BLOCK = 1 << 16
"""Characters of a row that are taken apart at once: a field takes up to ten times the memory of its number as text."""

_BEFORE_SEPARATOR = tuple(f"{space}," for space in string.whitespace)
_NAMED = "|".join(re.escape(name) for name in MISSING if name)
_MISSING_FIELD = re.compile(rf"(?<![^,])\s*+(?:{_NAMED}|)\s*+(?![^,])", re.IGNORECASE)


def blocks_of(row: str, separator: str) -> Iterator[str]:
    """Cut a row into blocks of whole fields, each of `BLOCK` characters and the rest of a field.

    Of quoted fields, which begin with a quote, a block has as many as `BLOCK` characters hold, or one that is longer.
    """
    start = 0
    while (stop := _end_of_block(row, start, separator)) is not None:
        yield row[start:stop]
        start = stop + 1
    yield row[start:]


def _end_of_block(row: str, start: int, separator: str) -> int | None:
    """Position of the separator that ends a block; None where the row's end does."""
    stop = row.find(separator, start + BLOCK)
    if stop < 0 or row.find('"', start, stop) < 0:
        return stop if stop >= 0 else None
    others = f"[^{re.escape(separator)}]*+"
    fields = re.compile(rf'(?:(?:"(?:[^"]++|"")*+"|(?!")){others}{re.escape(separator)})*+')
    size = BLOCK
    while start + size < len(row):
        match = fields.match(row, start, start + size)
        if match is not None and match.end() > start:
            return match.end() - 1
        size *= 2
    return None


def numbers(text: str, separator: str = ",") -> np.ndarray:
    """The fields of a row as float64, NaN where one is missing; no fields where the text is blank.

    Raises:
        ValueError: a field is neither a number nor missing; names it and its position.
    """
    if not text.strip():
        return np.empty(0)
    values = np.empty(text.count(separator) + 1)
    position = 0
    for block in blocks_of(text, separator):
        some = _numbers(block, separator, position)
        values[position : position + len(some)] = some
        position += len(some)
    return values


def _numbers(text: str, separator: str, first: int) -> np.ndarray:
    """The fields of a block, which begins with that of position `first`; see `numbers`."""
    if separator != "," and "," not in text:
        text = text.replace(separator, ",")
        separator = ","
    if separator == ",":
        values = None if _may_have_blank(text) else _all_numbers(text)
        if values is None:
            values = _all_numbers(_MISSING_FIELD.sub("nan", text))
        if values is not None:
            return values
    return np.array([_number(position, field) for position, field in enumerate(text.split(separator), first)])


def _may_have_blank(text: str) -> bool:
    """Whether a field may be white space alone, which NumPy's parser reads as -1."""
    return text[-1:].strip() == "" or any(blank in text for blank in _BEFORE_SEPARATOR)


def _all_numbers(text: str) -> np.ndarray | None:
    """Values separated by commas; None where anything is out of the ordinary."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            values = np.fromstring(text, sep=",")
        except (ValueError, DeprecationWarning):
            return None
    return values if len(values) == text.count(",") + 1 else None


def is_value(field: str) -> bool:
    """Whether a field is a number or missing."""
    return _value(field) is not None


def is_number(field: str) -> bool:
    """Whether a field is a number that is there, infinite or not."""
    value = _value(field)
    return value is not None and value == value


def _number(position: int, field: str) -> float:
    value = _value(field)
    if value is None:
        shown = field if len(field) <= MAX_SHOWN else f"{field[:MAX_SHOWN]}..."
        raise ValueError(f"value {position} is {shown!r}: expected a number")
    return value


def _value(field: str) -> float | None:
    if field.strip().lower() in MISSING:
        return float("nan")
    try:
        return None if "_" in field else float(field)  # Python takes _ between digits
    except ValueError:
        return None
