"""Classify series with a `model.onnx` that krontime exported; needs numpy and onnxruntime, and nothing else.

In Python:

    from predict import Classifier
    model = Classifier("model.onnx")
    model.predict(X)        # X: (series, points), (series, channels, points), or a list of such series of any lengths
    model.predict_proba(X)  # raw numbers, as they were stored for training; NaN marks what is not observed

On the command line, one line of CSV for each series of a .npy file, or of a .csv file with a series a line (and a first
line of the names of its columns, where that of training had one); the exit code is 2 where it can't be used:

    python predict.py series.npy
"""

import csv
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

SHORTEST = 16
"""Points that the graph is given at least."""

MISSING = ("", "nan", "na", "?", "null", "none")
"""How a table writes a missing value, in lower case."""


def padded(x: np.ndarray, length: int) -> np.ndarray:
    """Series `(B, C, L)` of at least `length` points, NaN after their end."""
    missing = max(0, length - x.shape[2])
    return np.pad(x, ((0, 0), (0, 0), (0, missing)), constant_values=np.nan) if missing else x


class Classifier:
    """A trained model: scaling, network, closed form and calibration in one graph.

    Args:
        path: the .onnx file.
        num_threads: that compute; None for all cores.

    Attributes:
        classes_: class names, in the order of the columns of `predict_proba`.
        about: what the file says of itself: sizes, sampling rate, code and scale of raw numbers, preparation.
    """

    def __init__(self, path: "str | Path", num_threads: "int | None" = None) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        if num_threads is not None:
            options.intra_op_num_threads = num_threads
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.about = json.loads(self._session.get_modelmeta().custom_metadata_map["krontime"])
        self.classes_ = np.array(self.about["class_names"])

    def probabilities(self, x: np.ndarray) -> np.ndarray:
        """Class probabilities `(B, K)` of a batch `(B, C, L)` float32, NaN where not observed."""
        shortest = min(SHORTEST, self.about["length"])
        return self._session.run(["probabilities"], {"x": padded(x, shortest)})[0]

    def predict_proba(self, X: "np.ndarray | Sequence[Any]", batch_size: int = 8) -> np.ndarray:
        """Class probabilities `(n, K)`.

        Args:
            X: `(n, points)`, `(n, channels, points)`, or a sequence of series `(points,)` or `(channels, points)`.
            batch_size: series that are computed at once; memory grows with it.

        Raises:
            ValueError: a series has other channels, or more points, than those of training, no value, or infinite ones.
        """
        series = [self._checked(number, values) for number, values in enumerate(X)]
        batches = (series[start : start + batch_size] for start in range(0, len(series), batch_size))
        answers = [self.probabilities(_together(batch)) for batch in batches]
        return np.concatenate(answers) if answers else np.empty((0, len(self.classes_)), np.float32)

    def predict(self, X: "np.ndarray | Sequence[Any]") -> np.ndarray:
        """The class `(n,)` of each series, as krontime decides it; arguments and errors of `predict_proba`."""
        return self.decided(self.predict_proba(X))

    def decided(self, probabilities: np.ndarray) -> np.ndarray:
        """The class `(n,)` that krontime decides for at each row of probabilities `(n, K)`."""
        return self.classes_[(probabilities / np.array(self.about["prior"])).argmax(axis=1)]

    def _checked(self, number: int, values: Any) -> np.ndarray:
        raw = np.atleast_2d(np.asarray(values))
        if raw.dtype.kind not in "iufb":
            raise ValueError(f"series {number} is of type {raw.dtype}: expected numbers")
        channels, length = self.about["num_channels"], self.about["length"]
        if raw.ndim != 2 or raw.shape[0] != channels:
            raise ValueError(f"series {number} has shape {raw.shape}: expected {channels} channels of points")
        if not 1 <= raw.shape[1] <= length:
            raise ValueError(f"series {number} has {raw.shape[1]} points: expected 1 to {length}, as in training")
        series = self._decoded(raw)
        if np.isinf(series).any():
            raise ValueError(f"series {number} holds infinite values (or larger than float32 can hold)")
        if np.isnan(series).all():
            raise ValueError(f"series {number} has no value: expected one that is not NaN")
        return series

    def _decoded(self, raw: np.ndarray) -> np.ndarray:
        """Raw numbers `(C, L)` as the values that they stand for, float32, NaN where missing."""
        decoding = self.about["decoding"]
        with np.errstate(over="ignore"):  # beyond float32: infinite, which is refused
            series = raw.astype(np.float32)
        if decoding["missing_value"] is not None:
            channels = decoding["missing_channels"]
            chosen = np.ones(len(raw), bool) if channels is None else np.isin(np.arange(len(raw)), channels)
            series[chosen[:, None] & (raw == decoding["missing_value"])] = np.nan
        with np.errstate(over="ignore"):
            return series if decoding["scale"] == 1 else series * np.float32(decoding["scale"])


def _together(batch: "list[np.ndarray]") -> np.ndarray:
    """Series `(C, L_i)` as one `(B, C, L)`, NaN after each one's end."""
    longest = max(series.shape[1] for series in batch)
    return np.concatenate([padded(series[None], longest) for series in batch])


def _read(path: Path, columns: "list[str] | None") -> "list[np.ndarray]":
    """The series of a file.

    Args:
        path: the file.
        columns: names of the points in training; None where they had none.

    Raises:
        ValueError: it is damaged, or holds something else.
    """
    if path.suffix != ".npy":
        with open(path, encoding="utf-8-sig", newline="") as file:
            return _read_table(file, columns)
    array = np.load(path)
    if array.ndim not in (2, 3):
        raise ValueError(f"it has shape {array.shape}: expected (series, points) or (series, channels, points)")
    return list(array)


def _read_table(file: "Iterable[str]", columns: "list[str] | None") -> "list[np.ndarray]":
    reader = csv.reader(file)
    rows = [(reader.line_num, row) for row in reader if row]
    names = [field.strip() for field in rows[0][1]] if rows else []
    if columns is None:
        has_names = any(_value(name) is None for name in names) and not any(_is_number(name) for name in names)
        series = [_numbers(line, row) for line, row in rows[has_names:]]
        if not has_names and len(series) > 1 and _rises(series[0]) and not _mostly_rise(series[1:]):
            shown = ", ".join(names[:3])
            raise ValueError(
                f"line 1 ({shown}, ...) rises, as numbers for names do: expected series alone, or a .npy file where it "
                "is one"
            )
        return series
    if missing := [name for name in columns if name not in names]:
        raise ValueError(f"line 1 does not name the column {missing[0]!r}: expected those of training, in any order")
    order = [names.index(name) for name in columns]
    for line, row in rows:
        if any(field.strip() for field in row[len(names) :]):
            raise ValueError(f"line {line} has {len(row)} fields: expected at most {len(names)}, as line 1 has names")
    return [_numbers(line, [row[i] if i < len(row) else "" for i in order]) for line, row in rows[1:]]


def _numbers(line: int, fields: "list[str]") -> np.ndarray:
    """The fields of a line as numbers, NaN where one is missing."""
    values = [_value(field) for field in fields]
    if None in values:
        position = values.index(None)
        raise ValueError(f"line {line}: value {position} is {fields[position][:40]!r}: expected a number")
    return np.array(values, np.float64)


def _value(field: str) -> "float | None":
    """The number that a field holds, NaN where it says that there is none; None for other text."""
    if field.strip().lower() in MISSING:
        return float("nan")
    try:
        return None if "_" in field else float(field)  # Python takes _ between digits
    except ValueError:
        return None


def _is_number(field: str) -> bool:
    value = _value(field)
    return value is not None and not np.isnan(value)


def _rises(values: np.ndarray) -> bool:
    """Whether a series rises from each point to the next; a short one by the same step."""
    steps = np.diff(values[~np.isnan(values)])
    return len(steps) > 1 and bool((steps > 0).all()) and (len(steps) > 6 or np.allclose(steps, steps[0]))


def _mostly_rise(series: "list[np.ndarray]") -> bool:
    return 2 * sum(map(_rises, series)) > len(series)


def main(arguments: "list[str]") -> None:
    """Print the class and the probabilities of each series of a file."""
    if len(arguments) != 1:
        sys.exit(f"usage: python {Path(__file__).name} SERIES.npy|SERIES.csv")
    model = Classifier(Path(__file__).with_name("model.onnx"))
    try:
        probabilities = model.predict_proba(_read(Path(arguments[0]), model.about["columns"]))
    except (OSError, EOFError, ValueError, csv.Error) as error:
        sys.stderr.write(f"{arguments[0]}: {error}\n")
        sys.exit(2)
    out = csv.writer(sys.stdout, lineterminator="\n")
    out.writerow(["predicted", *model.classes_])
    for name, row in zip(model.decided(probabilities), probabilities, strict=True):
        out.writerow([name, *(f"{value:.6f}" for value in row)])


if __name__ == "__main__":
    main(sys.argv[1:])
