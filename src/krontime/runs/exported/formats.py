"""The formats of an exported model beside its bundle: what writes each, and what runs it.

All are made from one program that `torch.export` traces; its input is `x`, `(batch, channels, length)` float32, raw
series with NaN where nothing is observed, and its output `probabilities`, `(batch, classes)` float32.
"""

import json
import logging
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from krontime import __version__
from krontime.data.series import SeriesSpec
from krontime.data.sources.labelled import header_names
from krontime.models.s4d import convolved
from krontime.runs.exported import predict
from krontime.runs.exported.files import ABOUT, ONNX, PREDICT, TORCH
from krontime.runs.load import LoadedRun
from krontime.training.answer import Answer

Predict = Callable[[np.ndarray], np.ndarray]
"""A function from series `(B, C, L)` to probabilities `(B, K)`."""

SHORTEST = 16
"""Number of points that a graph is given at least, or that of the longest training series where that is less: shorter
series are padded, which changes no answer."""

_OPSET = 18
"""Version of the ONNX operators: the exporter writes Fourier transforms as this version has them."""

_EXAMPLE_LENGTH = 200
"""Number of points, at most, of the series that the program is traced with."""


def write(run: LoadedRun, names: list[str], folder: Path) -> None:
    """Write the files of some formats into a folder."""
    if not names:
        return
    program = traced(run)
    about = described(run)
    if "torch" in names:
        with _quiet():
            torch.export.save(program, folder / TORCH, extra_files={ABOUT: json.dumps(about)})
    if "onnx" in names:
        _write_onnx(program, about, folder)


def described(run: LoadedRun) -> dict[str, Any]:
    """Return what a program that runs a graph has to know, as plain values; every file carries it."""
    prepare = {key: value for key, value in run.config["data"]["prepare"].items() if value is not None}
    preparation = {key: value for key, value in prepare.items() if key != "crop_from" or len(prepare) > 1}
    return {
        "krontime": __version__,
        "class_names": list(run.spec.class_names),
        "prior": run.module.prior.cpu().double().tolist(),
        "num_channels": run.spec.num_channels,
        "length": run.spec.length,
        "sampling_rate_hz": run.spec.sampling_rate_hz,
        "decoding": asdict(run.decoding),
        "preparation": preparation,
        "columns": None if preparation else _columns(run.spec),
    }


def _columns(spec: SeriesSpec) -> list[str] | None:
    """Return the names that the points of series in a table had; None where they had none, or these are of channels."""
    names = [] if spec.header is None else list(header_names(spec.header))
    return names if spec.num_channels == 1 and len(names) >= spec.length else None


def traced(run: LoadedRun) -> torch.export.ExportedProgram:
    """Trace the answer of a run, for any number of series of any length up to that of training."""
    answer = Answer(run.module.cpu().eval(), run.spec.length).eval()
    longest = run.spec.length
    example = torch.randn(2, run.spec.num_channels, min(longest, _EXAMPLE_LENGTH))
    axes: dict[int, Any] = {0: torch.export.Dim("batch")}
    if longest > SHORTEST:
        axes[2] = torch.export.Dim("length", min=SHORTEST, max=longest)
    with _quiet(), torch.no_grad():
        program = torch.export.export(answer, (example,), dynamic_shapes={"x": axes}, strict=False)
        custom = torch.ops.krontime.long_convolution.default
        graphs = [it.graph for it in program.graph_module.modules() if isinstance(it, torch.fx.GraphModule)]
        if any(node.target is custom for graph in graphs for node in graph.nodes):  # unknown without krontime
            program = program.run_decompositions({custom: convolved})
        return program


def loaded(name: str, folder: Path, num_threads: int | None = None) -> Predict:
    """Load a format's file as a function that predicts.

    Args:
        name: of the format.
        folder: where it lies.
        num_threads: of ONNX Runtime; None for as many as torch has.
    """
    if name == "onnx":
        return predict.Classifier(folder / ONNX, num_threads or torch.get_num_threads()).probabilities
    extra_files = {ABOUT: ""}
    program = torch.export.load(folder / TORCH, extra_files=extra_files).module()
    shortest = min(SHORTEST, json.loads(extra_files[ABOUT])["length"])

    def of(x: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return program(torch.from_numpy(predict.padded(x, shortest))).numpy()

    return of


def of_run(run: LoadedRun) -> Predict:
    """Make a function that predicts with the trained module itself, as the command `predict` does."""
    module = run.module.cpu().eval()

    def of(x: np.ndarray) -> np.ndarray:
        values = torch.from_numpy(x)
        mask = ~values.isnan()
        with torch.no_grad():
            is_masked = run.masked or not bool(mask.all())
            return module(values.nan_to_num(), mask if is_masked else None).softmax(dim=-1).numpy()

    return of


def _write_onnx(program: torch.export.ExportedProgram, about: dict[str, Any], folder: Path) -> None:
    with _quiet(), torch.no_grad():
        made = torch.onnx.export(
            program, dynamo=True, verbose=False, opset_version=_OPSET, input_names=["x"], output_names=["probabilities"]
        )
    assert made is not None
    made.model.metadata_props["krontime"] = json.dumps(about)
    made.save(folder / ONNX)
    shutil.copyfile(predict.__file__, folder / PREDICT)


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide what torch warns of its own parts, and what is said of each step of making a graph smaller, in the block."""
    hidden = {"torch.onnx": logging.ERROR, "onnxscript": logging.WARNING, "onnx_ir": logging.WARNING}
    levels = {name: logging.getLogger(name).level for name in hidden}
    for name, level in hidden.items():
        logging.getLogger(name).setLevel(level)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", UserWarning)
        try:
            yield
        finally:
            for name, level in levels.items():
                logging.getLogger(name).setLevel(level)
