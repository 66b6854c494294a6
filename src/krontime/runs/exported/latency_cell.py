"""Measures one format for the latency table, in a process of its own: start, time of a prediction, and memory.

Run by its path, with a job as JSON on standard input; the result is printed. What a format does not need is not
imported: `onnx` is run by the `predict.py` beside it, with numpy and onnxruntime alone.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Predict = Callable[[Any], Any]

_MIN_TIMED = 3
_MAX_TIMED = 200
"""Least and largest number of predictions that are timed."""

_MEASURE_S = 5.0
"""Seconds after which no further prediction is begun, once there are enough, or after a first that takes longer."""


def main() -> None:
    """Measure the job on standard input: `format`, `folder`, `num_channels`, `length`, `batch_sizes`, `num_threads`."""
    job = json.load(sys.stdin)
    started_s = time.perf_counter()
    predict = _PREDICTS[job["format"]](Path(job["folder"]), job["num_threads"])
    import numpy as np

    shape = (job["num_channels"], job["length"])
    series = np.random.default_rng(0).standard_normal((max(job["batch_sizes"]), *shape)).astype(np.float32)
    predict(series[:1])
    start_s = time.perf_counter() - started_s
    latency_ms = {str(size): _milliseconds(predict, series[:size]) for size in job["batch_sizes"]}
    from krontime.data.memory import peak_resident_bytes  # after what is measured, since it imports psutil

    peak_bytes = peak_resident_bytes()
    sys.stdout.write(json.dumps({"start_s": start_s, "latency_ms": latency_ms, "peak_memory_bytes": peak_bytes}))


def _milliseconds(predict: Predict, x: Any) -> float:
    """Return the median time of some predictions, after a first; the time of the first where that takes too long."""
    first_s = _seconds(predict, x)
    if first_s > _MEASURE_S:
        return 1000 * first_s
    times: list[float] = []
    while len(times) < _MIN_TIMED or (sum(times) < _MEASURE_S and len(times) < _MAX_TIMED):
        times.append(_seconds(predict, x))
    return 1000 * statistics.median(times)


def _seconds(predict: Predict, x: Any) -> float:
    before_s = time.perf_counter()
    predict(x)
    return time.perf_counter() - before_s


def _of_onnx(folder: Path, num_threads: int) -> Predict:
    sys.path.insert(0, str(folder))
    from predict import Classifier

    classifier = Classifier(folder / "model.onnx", num_threads)
    return lambda x: classifier.probabilities(x)


def _of_torch(folder: Path, num_threads: int) -> Predict:
    import torch

    torch.set_num_threads(num_threads)
    program = torch.export.load(folder / "model.pt2").module()
    return torch.no_grad()(lambda x: program(torch.from_numpy(x)))


def _of_run(folder: Path, num_threads: int) -> Predict:
    import torch

    from krontime.runs import bundle
    from krontime.runs.exported.formats import of_run

    torch.set_num_threads(num_threads)
    return of_run(bundle.load(folder))


_PREDICTS: dict[str, Callable[[Path, int], Predict]] = {"run": _of_run, "torch": _of_torch, "onnx": _of_onnx}


if __name__ == "__main__":
    main()
