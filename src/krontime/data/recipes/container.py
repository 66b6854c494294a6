"""What a recipe makes: the arrays of a container, and what the whole data set is known to hold."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from krontime.console import each
from krontime.errors import Problems, UserError
from krontime.storage import replacing

T = TypeVar("T")


@dataclass(frozen=True)
class Container:
    """The series of a data set, as they are stored.

    Attributes:
        series: `(C, L_i)` int16 each.
        y: `(n,)` classes.
        classes: their names.
        is_test: `(n,)` bool.
        group: `(n,)` what must not straddle a split, or None.
        sampling_rate_hz: points per second.
        scale: what the integers are multiplied by.
        others: further arrays of n rows, by name.
    """

    series: Sequence[np.ndarray]
    y: np.ndarray
    classes: Sequence[str]
    is_test: np.ndarray
    sampling_rate_hz: float
    group: np.ndarray | None = None
    scale: float = 1.0
    others: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def lengths(self) -> np.ndarray:
        """The time points of each series, `(n,)`."""
        return np.array([one.shape[1] for one in self.series])

    def counts(self, *, is_test: bool) -> tuple[int, ...]:
        """Count the series of each class in one part of the split."""
        return tuple(np.bincount(self.y[self.is_test == is_test], minlength=len(self.classes)).tolist())

    def write(self, path: Path) -> None:
        """Write the `.npz` file; see `krontime.data.sources.npz` for its keys."""
        values: dict[str, Any]
        if len(set(self.lengths.tolist())) == 1:
            values = {"X": np.stack(self.series)}
        else:
            values = {"X_flat": np.concatenate(self.series, axis=1), "offsets": np.cumsum([0, *self.lengths])}
        values |= {
            "y": self.y,
            "classes": np.array(self.classes),
            "split": self.is_test.astype(np.uint8),
            **self.others,
        }
        if self.group is not None:
            values["group"] = self.group
        with replacing(path) as temporary, open(temporary, "wb") as file:
            np.savez(file, **values, fs=self.sampling_rate_hz, scale=self.scale)


class Recipe(NamedTuple):
    """How a data set is made, and what the whole of it holds.

    Attributes:
        make: reads a folder; raises `UserError` with what is wrong with its files.
        file: name of the container.
        train: series of each class to train on; None where nobody has counted.
        test: the same of those to test on.
        lengths: time points of the shortest and of the longest series.
    """

    make: Callable[[Path], Container]
    file: str
    train: tuple[int, ...] | None
    test: tuple[int, ...] | None
    lengths: tuple[int, int]

    def problems(self, made: Container) -> list[str]:
        """A line for each thing that is not as in the whole data set."""
        problems = Problems()
        for name, expected, is_test in (("train", self.train, False), ("test", self.test, True)):
            if expected is not None and (counts := made.counts(is_test=is_test)) != expected:
                problems.add(f"series of each class, {name}", counts, str(expected))
        shortest, longest = int(made.lengths.min()), int(made.lengths.max())
        if (shortest, longest) != self.lengths:
            problems.add("points of the shortest and the longest series", (shortest, longest), str(self.lengths))
        return problems.lines


def one_file(folder: Path, name: str) -> Path:
    """The only file of a name below a folder.

    Raises:
        UserError: there is none, or there are several.
    """
    files = sorted(folder.rglob(name))
    if len(files) != 1:
        many = f"{len(files)} of them, such as {files[0]}" if files else "none"
        raise UserError(f"from={str(folder)!r}: expected one file {name} below it; there is {many}")
    return files[0]


def read_each(title: str, items: Sequence[T], read: Callable[[T], np.ndarray]) -> list[np.ndarray]:
    """Read every item.

    Raises:
        UserError: with what is wrong with any of them.
    """
    problems, arrays = Problems(), []
    for item in each(title, items):
        with problems.collecting():
            arrays.append(read(item))
    problems.raise_if_any()
    return arrays
