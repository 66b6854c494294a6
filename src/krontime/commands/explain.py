"""The command `explain`: which parts of new series decided how a finished run classifies them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from omegaconf import DictConfig

from krontime.commands.new_input import new_input
from krontime.commands.options import check_options, folder_of, output_problems
from krontime.config import resolve
from krontime.console import show
from krontime.data.datamodule import SeriesDataset
from krontime.data.series import UNKNOWN_LABEL, SeriesData
from krontime.errors import Problems, UserError
from krontime.metrics import decide
from krontime.reports.page.explanation_page import Explained, write_explanation
from krontime.reports.page.render import check_installed
from krontime.runs import prepare
from krontime.runs.load import LoadedRun
from krontime.runs.neighbours import Neighbour, nearest
from krontime.runs.record import Record
from krontime.storage import RECORD, replacing
from krontime.training.attribution import attribution
from krontime.training.verdicts import verdicts

MAX_SERIES = 20


def explain(config: DictConfig) -> Path:
    """Write a page on some series of a file, and a CSV file of the numbers beside it.

    Raises:
        UserError: the run or the files can't be read, the series differ from those of training, there is no such
            series or class, or the extra is not installed.
    """
    options = resolve.plain(config)
    check_options(options)
    given, output = folder_of(options["input"]), folder_of(options["output"])
    problems = Problems()
    if output.suffix != ".html":
        problems.add("output", str(output), "a file name that ends in .html")
    table = output.parent / f"{output.stem}.csv"
    for path in (output, table):
        problems.lines = problems.lines or output_problems(
            "output", path, is_folder=False, force=options["force"], given=given
        )
    chosen = options["series"]
    if not isinstance(chosen, list) or not chosen or not all(type(place) is int and place >= 0 for place in chosen):
        problems.add("series", chosen, "positions of series, such as [0,3]")
    elif len(chosen) > MAX_SERIES:
        problems.add("series", f"{len(chosen)} of them", f"at most {MAX_SERIES}")
    if type(number := options["neighbours"]) is not int or not 0 <= number <= MAX_SERIES:
        problems.add("neighbours", number, f"0 to {MAX_SERIES}")
    check_installed("explain", "captum")
    with new_input(options, problems, written=[("output", output), ("output", table)]) as (
        run,
        new,
        data,
        _,
        names_matter,
    ):
        names = run.spec.class_names
        if options["target"] is not None and str(options["target"]) not in names:
            problems.add("target", options["target"], f"one of the classes {', '.join(names[:20])}, or null")
        if wrong := [place for place in chosen if place >= len(data)]:
            problems.add("series", wrong, f"positions from 0 to {len(data) - 1}, of the {len(data)} series of {given}")
        elif empty := [place for place in chosen if np.isnan(data.series(place)).all()]:
            problems.add("series", empty, f"positions of series that have a value; these of {given} have none")
        problems.raise_if_any()
        target = None if options["target"] is None else names.index(str(options["target"]))
        data = replace(data, recording_names=tuple(new.names) if names_matter else None)
        neighbours, missing = _neighbours(run, data, chosen, options)
        explained = [_explained(run, data, place, target, near) for place, near in zip(chosen, neighbours, strict=True)]
    write_explanation(explained, names, data.sampling_rate_hz, given.name, output, missing=missing)
    _write_table(explained, names, data.sampling_rate_hz, table)
    show(f"written: {output} (open it in a browser) and {table}")
    return output


def _explained(
    run: LoadedRun,
    data: SeriesData,
    place: int,
    target: int | None,
    neighbours: Sequence[Neighbour],
) -> Explained:
    batch = SeriesDataset(data).__getitems__([place])
    module = run.module
    mask = None if batch.mask is None else batch.mask[0]
    with torch.no_grad():
        probability = module(batch.x, batch.mask).softmax(dim=-1).numpy()
    tokenizer = getattr(module.network, "tokenizer", None)
    label = int(data.labels[place])
    if target is None:
        target = int(decide(probability, module.prior.cpu().numpy())[0])
    return Explained(
        index=place,
        file=data.name_of(place),
        label=None if label == UNKNOWN_LABEL else run.spec.class_names[label],
        values=np.asarray(data.series(place)),
        probability=probability[0],
        attribution=attribution(module, batch.x[0], mask, target),
        verdicts=verdicts(module, batch.x[0], mask, target),
        neighbours=neighbours,
        num_tokens=None if tokenizer is None else tokenizer.num_tokens(int(data.lengths[place])),
    )


def _neighbours(
    run: LoadedRun, data: SeriesData, places: Sequence[int], options: Mapping[str, Any]
) -> tuple[list[list[Neighbour]], str | None]:
    """The nearest training series of each series, and why there are none where the training data can't be read."""
    none: list[list[Neighbour]] = [[] for _ in places]
    if not options["neighbours"]:
        return none, None
    if run.module.mixture is None:
        return none, "a run without a closed form has no such distance"
    try:
        record = Record.read(folder_of(options["run"]) / RECORD)
        job = prepare.prepare(prepare.moved(run.config, options["paths"]))
    except UserError as error:
        return none, str(error).splitlines()[0]
    if record.protocol is not None and job.protocol.data_sha256 != record.protocol.data_sha256:
        return none, "the data set has changed since the run"
    closed_form = run.module.mixture.closed_form
    return nearest(closed_form, job, data, places, num_nearest=options["neighbours"]), None


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
