"""Sources of labelled files, one to train on and one to test on; how one file is read is up to the format."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from krontime.data.assemble import labelled_data
from krontime.data.series import SeriesData
from krontime.data.sources.files import file_identity
from krontime.errors import UserError

MAX_LABEL = 1_000
"""Longest label in characters: NumPy gives every label of a file the room of the longest."""


class Labelled(NamedTuple):
    """One file as read: `(C, L_i)` float arrays, and text labels where it has any."""

    series: list[np.ndarray]
    labels: np.ndarray | None


Read = Callable[[Path], Labelled]


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
        self.train = Path(train).expanduser()
        self.test = None if test is None else Path(test).expanduser()

    @abstractmethod
    def read(self, path: Path) -> Labelled:
        """Read one file; raises `UserError` with what is wrong with it."""

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
            part = read(path)
        except UserError as error:
            problems += error.problems
            continue
        parts.append(part)
        if not part.series:
            problems.append(f"{path}: there is no series")
        elif part.labels is None:
            problems.append(f"{path}: it has no class labels; expected {labels_hint}")
    if not problems and len({part.series[0].shape[0] for part in parts}) > 1:
        counts = " and ".join(str(part.series[0].shape[0]) for part in parts)
        problems.append(f"{train} and {test}: they have {counts} channels; expected the same number")
    if problems:
        raise UserError(problems)

    return labelled_data(
        [s for part in parts for s in part.series],
        np.concatenate([part.labels for part in parts if part.labels is not None]),
        np.repeat(np.arange(len(parts)) == 1, [len(part.series) for part in parts]),
        where=str(train) if test is None else f"{train} and {test.name}",
    )
