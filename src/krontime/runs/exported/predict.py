"""Classify series with a `model.onnx` that krontime exported; needs numpy and onnxruntime, and nothing else.

In Python:

    from predict import Classifier
    model = Classifier("model.onnx")
    model.predict(X)        # X: (series, points), (series, channels, points), or a list of such series of any lengths
    model.predict_proba(X)  # raw numbers, as they were stored for training; NaN marks what is not observed

On the command line, one line of CSV for each series of a .npy file, or of a .csv file with a series a line:

    python predict.py series.npy
"""

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

SHORTEST = 16
"""Points that the graph is given at least."""


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
            ValueError: a series has other channels, or more points, than those of training, or no value.
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
        channels, length = self.about["num_channels"], self.about["length"]
        if raw.ndim != 2 or raw.shape[0] != channels:
            raise ValueError(f"series {number} has shape {raw.shape}: expected {channels} channels of points")
        if not 1 <= raw.shape[1] <= length:
            raise ValueError(f"series {number} has {raw.shape[1]} points: expected 1 to {length}, as in training")
        series = self._decoded(raw)
        if np.isnan(series).all():
            raise ValueError(f"series {number} has no value: expected one that is not NaN")
        return series

    def _decoded(self, raw: np.ndarray) -> np.ndarray:
        """Raw numbers `(C, L)` as the values that they stand for, float32, NaN where missing."""
        decoding = self.about["decoding"]
        series = raw.astype(np.float32)
        if decoding["missing_value"] is not None:
            channels = decoding["missing_channels"]
            chosen = np.ones(len(raw), bool) if channels is None else np.isin(np.arange(len(raw)), channels)
            series[chosen[:, None] & (raw == decoding["missing_value"])] = np.nan
        return series if decoding["scale"] == 1 else series * np.float32(decoding["scale"])


def _together(batch: "list[np.ndarray]") -> np.ndarray:
    """Series `(C, L_i)` as one `(B, C, L)`, NaN after each one's end."""
    longest = max(series.shape[1] for series in batch)
    return np.concatenate([padded(series[None], longest) for series in batch])


def _read(path: Path) -> "Iterable[Any]":
    return np.load(path) if path.suffix == ".npy" else np.genfromtxt(path, delimiter=",", ndmin=2)


def main(arguments: "list[str]") -> None:
    """Print the class and the probabilities of each series of a file."""
    if len(arguments) != 1:
        sys.exit(f"usage: python {Path(__file__).name} SERIES.npy|SERIES.csv")
    model = Classifier(Path(__file__).with_name("model.onnx"))
    probabilities = model.predict_proba(list(_read(Path(arguments[0]))))
    lines = [",".join(["predicted", *model.classes_])]
    for name, row in zip(model.decided(probabilities), probabilities, strict=True):
        lines.append(",".join([name, *(f"{value:.6f}" for value in row)]))
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
