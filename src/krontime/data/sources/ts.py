"""A user's own series in the `.ts` text format of aeon: one file to train on, one to test on."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from krontime.data.sources.files import lines_of
from krontime.data.sources.labelled import Labelled, LabelledFiles, label_array
from krontime.data.sources.text import numbers
from krontime.errors import UserError

TAG = "data"
"""The header's last tag, after which each line is a series."""


class TsSource(LabelledFiles):
    """Reads `.ts` files with class labels; see `LabelledFiles`."""

    kind = "ts"
    labels_hint = "a header line such as @classLabel true a b"

    def read(self, path: Path, trained: Labelled | None = None) -> Labelled:
        """Read one file; raises `UserError` with what is wrong with it."""
        return read_ts(path)


def read_ts(path: Path) -> Labelled:
    """Read one `.ts` file: in each line after `@data` the channels of a series and its label, with colons between.

    aeon's own reader is not used: it takes minus signs away where there are time stamps, which are refused here, and
    makes one class of labels that differ in case.

    Raises:
        UserError: names the file and what is wrong with it.
    """
    try:
        with lines_of(path) as lines:
            header = _header(lines)
            if problem := _header_problem(header):
                raise UserError(f"{path}: {problem}")
            return _body(lines, header)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as text ({error})") from error
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"{path}: cannot be read as a .ts file ({error})") from error


def _header(lines: Iterator[str]) -> dict[str, str]:
    """Tags before the data, names in lower case, values as written."""
    header = {}
    for line in lines:
        if line.lstrip().startswith("@"):
            tag, _, value = line.strip()[1:].replace("\t", " ").partition(" ")
            header[tag.lower()] = value.strip()
            if tag.lower() == TAG:
                break
    return header


def _header_problem(header: dict[str, str]) -> str | None:
    if TAG not in header:
        return "not a .ts file: it has no line @data"
    if _is(header, "timestamps"):
        return (
            "files with time stamps are not supported; expected @timestamps false and evenly spaced values, "
            "with NaN or ? where one is missing"
        )
    if _is(header, "targetlabel"):
        return "it holds numbers to predict (@targetLabel true); expected classes (@classLabel true)"
    return None


def _is(header: dict[str, str], tag: str, value: str = "true") -> bool:
    return header.get(tag, "").lower().split()[:1] == [value]


def _body(lines: Iterator[str], header: dict[str, str]) -> Labelled:
    """The series after the header; raises `ValueError` that names the first that is wrong, counted from 0."""
    labelled = not _is(header, "classlabel", "false")
    series: list[np.ndarray] = []
    labels: list[str] = []
    for line in lines:
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        number = len(series)
        channels = text.split(":")
        if labelled:
            labels.append(channels.pop().strip())
        if not channels:
            raise ValueError(f"series {number}: expected values, then a colon and the label")
        try:
            rows = [numbers(channel) for channel in channels]
        except ValueError as error:
            raise ValueError(f"series {number}: {error}") from error
        lengths = sorted({len(row) for row in rows})
        if len(lengths) > 1:
            raise ValueError(f"series {number}: its channels have {lengths[0]} to {lengths[-1]} points: expected one")
        if series and len(rows) != len(series[0]):
            raise ValueError(f"series {number}: {len(rows)} channels: expected {len(series[0])}, as in the first")
        if len(rows) > 1 and _is(header, "univariate"):
            raise ValueError(f"series {number}: {len(rows)} channels: expected 1, since @univariate is true")
        if series and lengths[0] != series[0].shape[1] and _is(header, "equallength"):
            raise ValueError(
                f"series {number}: {lengths[0]} points: expected {series[0].shape[1]}, since @equalLength is true"
            )
        series.append(np.stack(rows))
    if not series:
        raise ValueError("there is no series after the line @data")
    return Labelled(series, label_array(_spelled(labels, header)) if labelled else None)


def _spelled(labels: list[str], header: dict[str, str]) -> list[str]:
    """Labels as the header spells them; one that is not in the header stays as it is unless only its case differs."""
    stated = header.get("classlabel", "").split()[1:]
    by_case: dict[str, str] = {}
    for name in reversed(stated):
        by_case[name.lower()] = name
    spelled = {label: label if label in stated else by_case.get(label.lower(), label) for label in set(labels)}
    return [spelled[label] for label in labels]
