"""The command `explain`: which parts of new series decided how a finished run classifies them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from omegaconf import DictConfig

from krontime.commands.options import folder_of
from krontime.config import resolve
from krontime.console import show
from krontime.data.datamodule import SeriesDataset
from krontime.data.new_series import read_series
from krontime.data.series import UNKNOWN_LABEL, SeriesData
from krontime.errors import Problems, UserError
from krontime.reports.page.explanation_page import Explained, write_explanation
from krontime.reports.page.render import check_installed
from krontime.runs.trained_model import TrainedModel
from krontime.storage import replacing, writing_problem
from krontime.training.attribution import attribution

MAX_SERIES = 20


def explain(config: DictConfig) -> Path:
    """Write a page on some series of a file, and a CSV file of the numbers beside it.

    Raises:
        UserError: the run or the file can't be read, the series do not fit the model, there is no such series or
            class, or the extra is not installed.
    """
    options = resolve.plain(config)
    given, output = folder_of(options["input"]), folder_of(options["output"])
    table = output.with_suffix(".csv")
    problems = Problems()
    for path in (output, table):
        if path.exists() and not options["force"]:
            problems.add("output", str(output), f"a new name, or force=true to overwrite; {path} exists")
    if problem := writing_problem(output):
        problems.add("output", str(output), f"a place that can be written to ({problem})")
    if output.suffix != ".html":
        problems.add("output", str(output), "a file name that ends in .html")
    chosen = options["series"]
    if not isinstance(chosen, list) or not chosen or not all(type(place) is int and place >= 0 for place in chosen):
        problems.add("series", chosen, "positions of series, such as [0,3]")
    elif len(chosen) > MAX_SERIES:
        problems.add("series", f"{len(chosen)} of them", f"at most {MAX_SERIES}")
    problems.raise_if_any()
    check_installed("explain", "captum")
    model = TrainedModel.load(folder_of(options["run"]))
    data = _read(model, given, options)
    names = model.run.spec.class_names
    if options["target"] is not None and str(options["target"]) not in names:
        problems.add("target", options["target"], f"one of the classes {', '.join(names[:20])}, or null")
    if wrong := [place for place in chosen if place >= len(data)]:
        problems.add("series", wrong, f"positions from 0 to {len(data) - 1}, of the {len(data)} series of {given}")
    problems.raise_if_any()
    target = None if options["target"] is None else names.index(str(options["target"]))
    explained = [_explained(model, data, place, target) for place in chosen]
    write_explanation(explained, names, data.sampling_rate_hz, given.name, output)
    _write_table(explained, names, data.sampling_rate_hz, table)
    show(f"written: {output} (open it in a browser) and {table}")
    return output


def _read(model: TrainedModel, given: Path, options: dict[str, Any]) -> SeriesData:
    """The series of a file, prepared as for training.

    Raises:
        UserError: they can't be read, or do not fit the model.
    """
    source = model.run.config["data"]["source"]
    series = read_series(
        given,
        class_names=model.run.spec.class_names,
        sampling_rate_hz=options["sampling_rate_hz"],
        missing_value=source.get("missing_value"),
        missing_channels=source.get("missing_channels"),
    )
    try:
        return model.prepared(series)
    except ValueError as error:
        raise UserError(f"input={str(given)!r}: {error}") from error


def _explained(model: TrainedModel, data: SeriesData, place: int, target: int | None) -> Explained:
    batch = SeriesDataset(data).__getitems__([place])
    module = model.run.module
    mask = None if batch.mask is None else batch.mask[0]
    with torch.no_grad():
        probability = module(batch.x, batch.mask).softmax(dim=-1)[0].numpy()
    tokenizer = getattr(module.network, "tokenizer", None)
    label = int(data.labels[place])
    return Explained(
        index=place,
        label=None if label == UNKNOWN_LABEL else model.run.spec.class_names[label],
        values=np.asarray(data.series(place)),
        probability=probability,
        attribution=attribution(module, batch.x[0], mask, target),
        num_tokens=None if tokenizer is None else tokenizer.num_tokens(int(data.lengths[place])),
    )


def _write_table(explained: Sequence[Explained], names: Sequence[str], rate: float | None, path: Path) -> None:
    """One row a point: series, time, class, occlusion, gradient."""
    parts = []
    for each in explained:
        ours = each.attribution
        points = np.arange(len(ours.occlusion))
        columns: dict[str, Any] = {"series": each.index, "point": points}
        if rate:
            columns["time_s"] = points / rate
        columns |= {
            "class": names[ours.target],
            "occlusion": ours.occlusion.numpy(),
            "gradient": ours.gradients.numpy(),
        }
        parts.append(pd.DataFrame(columns))
    with replacing(path) as temporary:
        pd.concat(parts).to_csv(temporary, index=False)
