"""The verbs `evaluate` and `predict`: what a finished run says of its test split, or of new files."""

from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig

from krontime import build, experiment
from krontime.data.newfiles import read_series
from krontime.data.prepare import Prepare
from krontime.errors import Problems, UserError
from krontime.results.console import show
from krontime.results.files import RECORD
from krontime.results.predictions import check_output, write_predictions
from krontime.results.record import MetricName, Record
from krontime.results.report import evaluation
from krontime.score import Scorer, named, scores


def evaluate(config: DictConfig) -> dict[MetricName, float | None]:
    """Score the selected checkpoint of a run on its test split again.

    Raises:
        UserError: the run or its data cannot be read, the data has changed since, or it has no test split.
    """
    options = build.plain(config)
    run_dir = Path(options["run"])
    module, trained, _ = experiment.load_run(run_dir)
    paths = {key: value for key, value in options["paths"].items() if value is not None}
    job = experiment.prepare(_moved(trained, paths))
    record = Record.read(run_dir / RECORD)
    if record.protocol is not None and job.protocol.data_sha256 != record.protocol.data_sha256:
        raise UserError(
            f"run={str(run_dir)!r}: the data set {record.data!r} is not the one that the run was trained on"
        )
    if not len(job.split.test):
        raise UserError(f"run={str(run_dir)!r}: the data set {record.data!r} has no test split to score")
    scorer = Scorer.of(trained, options["accelerator"])
    found = scores(scorer.probabilities(module, job.data, job.split.test), job.data.labels[job.split.test])
    show(evaluation(record, run_dir, found))
    return found


def _moved(config: dict[str, Any], paths: dict[str, str]) -> dict[str, Any]:
    """A run's config with its data folder found elsewhere."""
    old = config["paths"].get("data")
    moved = {**config, "paths": {**config["paths"], **paths}}
    if "data" in paths and old:
        source = {
            key: paths["data"] + value.removeprefix(old) if isinstance(value, str) and value.startswith(old) else value
            for key, value in config["data"]["source"].items()
        }
        moved["data"] = {**config["data"], "source": source}
    return moved


def predict(config: DictConfig) -> Path:
    """Classify the series of a file with the selected checkpoint of a run.

    Raises:
        UserError: the run or the file cannot be read, or the series do not fit the model.
    """
    options = build.plain(config)
    output = Path(options["output"])
    check_output(output)
    if output.exists() and not options["force"]:
        raise UserError(f"output={str(output)!r}: the file exists; expected a new name, or force=true to overwrite it")
    module, trained, spec = experiment.load_run(Path(options["run"]))
    series = read_series(Path(options["input"]), split=options["split"], class_names=spec.class_names)
    data = Prepare(**trained["data"]["prepare"]).apply(series)
    problems = Problems()
    if data.num_channels != spec.num_channels:
        problems.add("input", options["input"], f"{spec.num_channels} channels, found {data.num_channels}")
    longest = int(data.lengths.max())
    if longest > spec.length:
        problems.add(
            "input",
            options["input"],
            f"series of at most {spec.length} points, as in training (series {data.lengths.argmax()} has {longest})",
        )
    problems.raise_if_any()
    indices = np.arange(len(data))
    scorer = Scorer.of(trained, options["accelerator"])
    probability = scorer.probabilities(module, data, indices)
    predictions = named(probability, data, indices)
    write_predictions(predictions, output)
    show(f"{len(data)} series of {options['input']} classified: {output}")
    return output
