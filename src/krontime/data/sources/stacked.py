"""Series of equal length in one large NumPy array, which need not fit in memory: a folder with `X.npy` and `y.npy`.

`X (n, channels, points)` or `(n, points)` of any real or integer type, or `(n, points, channels)` where `layout` says
so; `y (n,)` labels; optional `split (n,)`, 0 train and 1 test, and `group (n,)`. None holds Python objects.

Shape letters: n series, C channels, L time points.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from krontime.data.assemble import group_texts, label_texts, several_labels
from krontime.data.recordings import Recording
from krontime.data.series import Pages, SeriesData
from krontime.data.sources.arrays import Layout, channels_first
from krontime.data.sources.files import file_identity
from krontime.errors import UserError

OPTIONAL = ("split", "group")


class StackedSource:
    """Reads a folder of arrays; see the module's text for their names.

    Args:
        path: the folder.
        scale: number that integers are multiplied by.
        sampling_rate_hz: points per second, where known.
        group_name: what a group is, for the record.
        layout: which axis has the channels; see `NpzSource`.
    """

    by_time = False

    def __init__(
        self,
        path: str,
        scale: float = 1.0,
        sampling_rate_hz: float | None = None,
        group_name: str = "group",
        layout: Layout | None = None,
    ) -> None:
        self.path = Path(path).expanduser()
        self.scale = scale
        self.sampling_rate_hz = sampling_rate_hz
        self.group_name = group_name
        self.layout = layout

    def describe(self) -> dict[str, Any]:
        """Identity of the files; raises `UserError` where one is missing."""
        if not self.path.is_dir():
            raise UserError(f"data.path={str(self.path)!r}: there is no such folder; expected one with X.npy and y.npy")
        names = ["X", "y", *(name for name in OPTIONAL if (self.path / f"{name}.npy").is_file())]
        return {
            "name": self.path.name,
            "kind": "stacked",
            "files": {name: file_identity(self.path / f"{name}.npy", "data.path") for name in names},
            "scale": self.scale,
            "sampling_rate_hz": self.sampling_rate_hz,
            "group_name": self.group_name,
            **({} if self.layout is None else {"layout": self.layout}),
        }

    def test_series(self, data: SeriesData) -> None:
        """Those that `split` says."""

    def stream(self, scratch: Path) -> Iterator[Recording]:
        """Yield each series, with its label.

        Raises:
            UserError: an array can't be read, or does not fit the others.
        """
        X, arrays = self._array("X"), {"y": self._array("y")}
        arrays |= {name: self._array(name) for name in OPTIONAL if (self.path / f"{name}.npy").is_file()}
        problems = [
            f"{name}.npy has shape {array.shape}: expected ({len(X)},), one for each series of X.npy"
            + (several_labels(array.shape, len(X)) if name == "y" else "")
            for name, array in arrays.items()
            if array.shape != (len(X),)
        ]
        if X.ndim not in (2, 3) or X.dtype.kind not in "iufb":
            problems.append(f"X.npy has shape {X.shape}, type {X.dtype}: expected numbers (series, channels, points)")
        if "split" in arrays and not np.isin(arrays["split"], (0, 1)).all():
            problems.append("split.npy holds other values than 0 (train) and 1 (test)")
        try:
            series = channels_first(X, self.layout, "data.source.layout")
        except ValueError as error:
            problems.append(f"X.npy {error}")
        if problems:
            raise UserError(f"{self.path}: {problem}" for problem in problems)
        labels = label_texts(np.asarray(arrays["y"]))
        is_test = np.asarray(arrays["split"]) == 1 if "split" in arrays else np.zeros(len(X), bool)
        groups = group_texts(np.asarray(arrays["group"])) if "group" in arrays else None
        pages = Pages()
        for number in range(len(X)):
            values = series[number]
            pages.read(X, values.nbytes)
            yield Recording(
                name=str(number),
                values=values,
                label=str(labels[number]),
                group=None if groups is None else str(groups[number]),
                part="test" if is_test[number] else "train",
                sampling_rate_hz=self.sampling_rate_hz,
                scale=None if self.scale == 1.0 else np.tile([self.scale, 0.0], (len(values), 1)),
            )

    def _array(self, name: str) -> np.ndarray:
        path = self.path / f"{name}.npy"
        try:
            return np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise UserError(f"{path}: cannot be read as a .npy array of numbers ({error})") from error
