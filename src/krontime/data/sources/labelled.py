"""Sources of labelled files, one to train on and one to test on; how one file is read is up to the format."""

import csv
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from krontime.data.assemble import encode_groups, flatten, header_line, labelled_data
from krontime.data.rounding import Rounding
from krontime.data.series import SeriesData
from krontime.data.sources.columns import in_order
from krontime.data.sources.files import file_identity
from krontime.errors import UserError
from krontime.storage import expanded

MAX_LABEL = 1_000
"""Longest label in characters: NumPy gives every label of a file the room of the longest."""


MAX_FRACTIONS = 10
MAX_WHOLE = 20
"""Maximum number of different numbers that labels may be where more than half of the series have one of their own."""


class Labelled(NamedTuple):
    """One file as read.

    Attributes:
        series: `(C, L_i)` float arrays.
        labels: text labels, where it has any.
        groups: text names of what must not straddle a split, where it has any.
        header: names of the points, where they have names.
        notes: what was taken for granted or left out.
    """

    series: list[np.ndarray]
    labels: np.ndarray | None
    groups: np.ndarray | None = None
    header: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()


Read = Callable[[Path, Labelled | None], Labelled]
"""Reads a file; the second argument is the training file as read, where this is the test file."""


class LabelledFiles(ABC):
    """Reads a training file and, if there is one, a test file.

    Args:
        train: file with class labels.
        test: the same for testing; None for a data set without a test split.
    """

    kind: ClassVar[str]
    labels_hint: ClassVar[str]
    """What a file with labels looks like, for the message where there are none."""

    def __init__(self, train: str, test: str | None = None) -> None:
        self.train = expanded(train)
        self.test = None if test is None else expanded(test)

    @abstractmethod
    def read(self, path: Path, trained: Labelled | None = None) -> Labelled:
        """Read one file; raises `UserError` with what is wrong with it.

        Args:
            path: the file.
            trained: the training file as read, where this is the test file.
        """

    def describe(self) -> dict[str, Any]:
        """Identity of the files; raises `UserError` where one is missing, or both are one."""
        problems: list[str] = []
        files = {}
        for key, path in (("train", self.train), ("test", self.test)):
            try:
                files[key] = None if path is None else file_identity(path, f"data.{key}")
            except UserError as error:
                problems += error.problems
        if problems:
            raise UserError(problems)
        if self.test is not None and self.test.samefile(self.train):
            raise UserError(
                f"data.test={str(self.test)!r}: expected another file than data.train; its series would be trained on"
            )
        return {"name": self.train.stem, "kind": self.kind, **files}

    def load(self) -> SeriesData:
        """Read both files.

        Raises:
            UserError: names all problems of the files.
        """
        return series_of_files(self.train, self.test, self.read, self.labels_hint)


def label_array(labels: list[str]) -> np.ndarray:
    """Labels as an array of text.

    Raises:
        ValueError: one is far too long to be a label.
    """
    for position, label in enumerate(labels):
        if len(label) > MAX_LABEL:
            raise ValueError(f"the label of series {position}, {label[:40]!r}..., has over {MAX_LABEL:,} characters")
    return np.array(labels, dtype=np.str_)


def series_of_files(train: Path, test: Path | None, read: Read, labels_hint: str) -> SeriesData:
    """Labelled series of one or two files; raises `UserError` with the problems of both."""
    parts: list[Labelled] = []
    problems: list[str] = []
    for path in (train, test):
        if path is None:
            continue
        try:
            part = read(path, parts[0] if parts else None)
            if parts:
                part = aligned(part, parts[0].header, ragged=_ragged(parts[0]), where=str(path))
        except UserError as error:
            problems += error.problems
            continue
        if parts and (part.groups is None) != (parts[0].groups is None):
            problems.append(f"{path}: it has {'no ' * (part.groups is None)}column of groups, unlike {train}")
        parts.append(part)
        if path is train and part.labels is not None and (problem := label_problem(part.labels)):
            problems.append(f"{path}: {problem}")
        if not part.series:
            problems.append(f"{path}: there is no series")
        elif part.labels is None:
            problems.append(f"{path}: it has no class labels; expected {labels_hint}")
    if not problems and len({part.series[0].shape[0] for part in parts}) > 1:
        counts = " and ".join(str(part.series[0].shape[0]) for part in parts)
        problems.append(f"{train} and {test}: they have {counts} channels; expected the same number")
    if problems:
        raise UserError(problems)

    rounding = Rounding()
    return labelled_data(
        flatten((s for part in parts for s in part.series), rounding=rounding),
        np.concatenate([part.labels for part in parts if part.labels is not None]),
        np.repeat(np.arange(len(parts)) == 1, [len(part.series) for part in parts]),
        num_channels=parts[0].series[0].shape[0],
        where=str(train) if test is None else f"{train} and {test.name}",
        rounding=rounding,
        **_groups(parts),
        header=None if parts[0].header is None else header_line(parts[0].header),
        notes=tuple(dict.fromkeys(note for part in parts for note in part.notes)),
    )


def _groups(parts: list[Labelled]) -> dict[str, Any]:
    """Fields of `SeriesData` on the groups, where all files have them."""
    groups = [part.groups for part in parts if part.groups is not None]
    if len(groups) < len(parts):
        return {}
    return {"groups": encode_groups(np.concatenate(groups)), "group_name": "group"}


def header_names(line: str) -> tuple[str, ...]:
    """The names in a line of CSV."""
    return tuple(next(csv.reader([line])))


def label_problem(labels: np.ndarray) -> str | None:
    """A line where labels are rather numbers to predict, or names of the series; None where they are classes."""
    if not len(labels):
        return None
    distinct = np.unique(labels)
    limit = len(labels) / 2
    example = f"{distinct[0]!s:.40}"
    try:
        values = distinct.astype(float)
    except ValueError:
        if len(distinct) == len(labels) >= MAX_FRACTIONS:
            return (
                f"each of its {len(labels)} labels, such as {example!r}, stands once: expected classes of many series"
            )
        return None
    fractions = bool((np.isfinite(values) & (values != np.floor(values))).any())
    if (fractions and len(distinct) > min(limit, MAX_FRACTIONS)) or (len(distinct) > max(limit, MAX_WHOLE)):
        return (
            f"its labels are {len(distinct)} different numbers for {len(labels)} series, such as {example}: expected "
            "classes; a number to predict (regression) is not supported"
        )
    return None


def _ragged(part: Labelled) -> bool:
    return len({series.shape[1] for series in part.series}) > 1


def aligned(part: Labelled, trained: tuple[str, ...] | None, *, ragged: bool, where: str) -> Labelled:
    """Series whose points are in the order of training, by the names of their columns.

    Args:
        part: a file as read.
        trained: names of the points of training; None where they had none.
        ragged: whether the series of training were of unequal length.
        where: the file, for messages.

    Raises:
        UserError: the columns are others, or only one of the two has names.
    """
    if part.header is None or trained is None or not part.series:
        if part.series and part.header != trained:
            which = (
                "has no names of columns, and the table trained on has" if trained else "has names of columns, and the "
            )
            which += "" if trained else "table trained on has none"
            raise UserError(f"{where}: its first row {which}; expected both alike, or the option header for both")
        return part
    try:
        order = in_order(part.header, trained, ragged=ragged)
    except ValueError as error:
        raise UserError(f"{where}: {error}") from error
    if order is None:
        return part

    def ordered(series: np.ndarray) -> np.ndarray:
        whole = np.full((1, len(order)), np.nan)
        whole[:, : series.shape[1]] = series
        whole = whole[:, order]
        observed = np.flatnonzero(~np.isnan(whole[0]))
        return whole[:, : max(observed[-1] + 1 if len(observed) else 0, series.shape[1])]

    note = f"columns of {Path(where).name} put in the order of training, by their names"
    return part._replace(series=[ordered(series) for series in part.series], header=trained, notes=(*part.notes, note))
