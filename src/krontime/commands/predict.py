"""The command `predict`: classify the series of new files with a finished run."""

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
from omegaconf import DictConfig

from krontime.commands.options import check_options, folder_of
from krontime.config import resolve
from krontime.console import show
from krontime.data.new_series import read_series
from krontime.data.prepare import Prepare
from krontime.data.sources.files import file_identity
from krontime.errors import Problems, UserError
from krontime.runs import bundle
from krontime.runs.load import LoadedRun
from krontime.runs.predictions import check_output, named, write_predictions
from krontime.training.predict import Scorer

log = logging.getLogger(__name__)


def predict(config: DictConfig) -> Path:
    """Classify the series of a file with the selected checkpoint of a run.

    Raises:
        UserError: the run or the file cannot be read, or the series do not fit the model.
    """
    options = resolve.plain(config)
    check_options(options)
    given, output = folder_of(options["input"]), folder_of(options["output"])
    problems = Problems()
    with _collecting(problems):
        check_output(output)
    if output.is_dir():
        problems.add("output", str(output), "a file; this is a folder")
    elif output.exists() and output.resolve() == given.resolve():
        problems.add("output", str(output), "another file than input")
    elif output.exists() and not options["force"]:
        problems.add("output", str(output), "a new name, or force=true to overwrite; the file exists")
    with _collecting(problems):
        file_identity(given, "input")
    run: LoadedRun | None = None
    with _collecting(problems):
        run = bundle.load(folder_of(options["run"]))
    problems.raise_if_any()
    assert run is not None

    source = run.config["data"]["source"]
    series = read_series(
        given,
        split=options["split"],
        class_names=run.spec.class_names,
        sampling_rate_hz=options["sampling_rate_hz"],
        missing_value=source.get("missing_value"),
        missing_channels=source.get("missing_channels"),
    )
    prepare = Prepare(**run.config["data"]["prepare"])
    if prepare.resample_hz is not None and series.sampling_rate_hz is None:
        raise UserError(
            f"sampling_rate_hz=None: expected the points per second of {given}, which does not state them, since the "
            f"run was trained on series resampled to {prepare.resample_hz:g} Hz"
        )
    data = prepare.apply(series)
    trained_hz, found_hz = run.spec.sampling_rate_hz, data.sampling_rate_hz
    if trained_hz is not None and found_hz is not None and not math.isclose(trained_hz, found_hz, rel_tol=1e-3):
        log.warning("%s has %g points per second; the run was trained on %g", given, found_hz, trained_hz)
    if data.num_channels != run.spec.num_channels:
        problems.add("input", str(given), f"{run.spec.num_channels} channels, found {data.num_channels}")
    longest = int(data.lengths.max())
    if longest > run.spec.length:
        problems.add(
            "input",
            str(given),
            f"at most {run.spec.length} points, as in training; series {data.lengths.argmax()} has {longest}",
        )
    problems.raise_if_any()
    indices = np.arange(len(data))
    # With a mask wherever training had one, so that the same series give the same numbers to the last bit.
    data = replace(data, has_missing=data.has_missing or run.masked)
    scorer = Scorer.of(run.config, options["accelerator"])
    probability = scorer.probabilities(run.module, data, indices)
    write_predictions(named(probability, data, indices), output)
    show(f"{len(data)} series of {given} classified: {output}")
    return output


@contextmanager
def _collecting(problems: Problems) -> Iterator[None]:
    """Add what is wrong to the other problems instead of stopping at it."""
    try:
        yield
    except UserError as error:
        problems.found += error.problems
