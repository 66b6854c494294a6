"""The verbs `evaluate` and `predict`: what a finished run says of its test split, or of new files."""

import logging
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig

from krontime.config import resolve
from krontime.config.schema import accelerator_problem
from krontime.config.signatures import type_problem
from krontime.console import show
from krontime.data.new_series import read_series
from krontime.data.prepare import Prepare
from krontime.data.sources.files import file_identity
from krontime.errors import Problems, UserError
from krontime.runs import bundle, prepare
from krontime.runs.load import LoadedRun
from krontime.runs.predictions import check_output, write_predictions
from krontime.runs.record import MetricName, Record, Status
from krontime.runs.screen import evaluation
from krontime.storage import RECORD
from krontime.training.predict import Scorer, named, scores

log = logging.getLogger(__name__)


def evaluate(config: DictConfig) -> dict[MetricName, float | None]:
    """Score the selected checkpoint of a run on its test split again.

    Raises:
        UserError: the run or its data cannot be read, the data has changed since, or it has no test split.
    """
    options = resolve.plain(config)
    _check(options)
    run_dir = _path(options["run"])
    run = bundle.load(run_dir)
    record = Record.read(run_dir / RECORD)
    if record.status is not Status.COMPLETED:
        raise UserError(
            f"run={str(run_dir)!r}: expected a completed run; this one is {record.status.replace('_', ' ')}, and its "
            "test split stays unread until the training command has been run to its end"
        )
    source = run.config["data"]["source"]
    if bundle.is_bundle(run_dir) and options["paths"]["data"] is None and "<data>" in str(source):
        raise UserError(
            f"run={str(run_dir)!r}: a bundle knows no folder of the machine that it was made on; expected "
            "paths.data=FOLDER, where its data lies"
        )
    job = prepare.prepare(_moved(run.config, options["paths"]))
    if record.protocol is not None and job.protocol.data_sha256 != record.protocol.data_sha256:
        raise UserError(
            f"run={str(run_dir)!r}: the data set {record.data!r} has changed since the run was trained; "
            "expected the data of then (paths.data=FOLDER where it has moved)"
        )
    if not len(job.split.test):
        raise UserError(f"run={str(run_dir)!r}: the data set {record.data!r} has no test split to score")
    scorer = Scorer.of(run.config, options["accelerator"])
    found = scores(scorer.probabilities(run.module, job.data, job.split.test), job.data.labels[job.split.test])
    show(evaluation(record, run_dir, found))
    return found


def _check(options: Mapping[str, Any]) -> None:
    """Refuse values of the wrong type or range, and a device that is not there."""
    problems = [
        type_problem(key, options[key], annotation)
        for key, annotation in (("accelerator", str | None), ("force", bool), ("sampling_rate_hz", float | None))
        if key in options
    ]
    problems.append(accelerator_problem("accelerator", options["accelerator"]))
    rate = options.get("sampling_rate_hz")
    if isinstance(rate, int | float) and not rate > 0:
        problems.append(f"sampling_rate_hz={rate}: expected a rate above 0, or null")
    if found := [problem for problem in problems if problem]:
        raise UserError(found)


def _path(value: Any) -> Path:
    return Path(str(value)).expanduser()


def _moved(config: dict[str, Any], paths: Mapping[str, str | None]) -> dict[str, Any]:
    """A run's config with its cache, and its data files where `paths.data` is given, found elsewhere."""
    given = {key: value for key, value in paths.items() if value is not None}
    moved = {**config, "paths": {**config["paths"], **given}}
    if "data" in given:
        old, new = Path(config["paths"]["data"]), Path(given["data"])

        def found(value: Any) -> Any:
            if not isinstance(value, str):
                return value
            path = Path(value)
            if path.is_relative_to(old):
                return str(new / path.relative_to(old))
            return str(new / path.name) if (new / path.name).is_file() else value

        source = {key: value if key == "_target_" else found(value) for key, value in config["data"]["source"].items()}
        moved["data"] = {**config["data"], "source": source}
    return moved


def predict(config: DictConfig) -> Path:
    """Classify the series of a file with the selected checkpoint of a run.

    Raises:
        UserError: the run or the file cannot be read, or the series do not fit the model.
    """
    options = resolve.plain(config)
    _check(options)
    given, output = _path(options["input"]), _path(options["output"])
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
        run = bundle.load(_path(options["run"]))
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
