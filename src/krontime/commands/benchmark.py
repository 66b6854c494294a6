"""The command `benchmark`: time and memory of models against length, each cell in fresh processes.

A cell is one model variant at one length. Its memory is measured by one process, its times by one process in each
round; all cells have their turn in a round before the next begins, so that a slow hour of the machine falls on all
of them. Each process leaves a file, and what has a file is not measured again.

Whole jobs, trainings as a user starts them, come after that, and what the machine can do at best comes first.
"""

import hashlib
import json
import logging
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from krontime.commands.benchmark_jobs import Job, jobs_of
from krontime.commands.benchmark_plan import MODES, Cell, cells_of, where
from krontime.commands.benchmark_process import (
    MEMORY,
    PEAK,
    forget_what_may_end_otherwise,
    memory_limit_bytes,
    read_result,
    run_cell,
    write_result,
)
from krontime.commands.options import folder_of, output_problems
from krontime.config import resolve
from krontime.config.identity import config_hash
from krontime.errors import Problems, UserError
from krontime.reports.benchmark.jobs import JOBS_CSV
from krontime.reports.benchmark.published import published_problem
from krontime.reports.benchmark.report import CSV, ENVIRONMENT, write_report
from krontime.reports.benchmark.tables import Row, write_rows
from krontime.runs.environment import environment_json
from krontime.runs.screen import format_bytes
from krontime.storage import replacing

if TYPE_CHECKING:
    from krontime.runs.exported.latency import Latency

log = logging.getLogger(__name__)

PACKAGE = Path(__file__).parents[1]
_MEASURED_CODE = ("models", "ops", "commands/benchmark_cell.py")
_DEVICES = {"cpu": "cpu", "gpu": "cuda"}
_PRECISIONS = ("32-true", "bf16-mixed")
_WHOLE_NUMBERS = {
    "num_channels": 1,
    "num_classes": 2,
    "batch_size": 1,
    "points_per_batch": 1,
    "growth_from": 1,
    "rounds": 0,
    "warmup": 0,
    "steps": 1,
    "job_series": 20,
}
_MAY_BE_NULL = ("points_per_batch", "total_s", "memory_gib")
_NOT_SETTINGS = ("run", "same", "variants", "trainings", "output", "cells")


def benchmark(config: DictConfig) -> "list[Row] | list[Latency]":
    """Measure every cell and job that is not measured yet, and write the CSV files, the tables and the plots.

    With `run=`, measure the formats of that run instead.

    Returns:
        A row for each cell, by variant and length; or the cost of each format.

    Raises:
        UserError: an option cannot work, or a variant is no model; nothing is measured.
    """
    started_s = time.monotonic()
    options = resolve.plain(config)
    _check(options)
    if options["run"] is not None:
        from krontime.commands.benchmark_formats import benchmark_formats

        return benchmark_formats(options)
    device = _device(options["accelerator"])
    about = environment_json(device)
    about["code_sha256"] = _code_sha256()
    cells, jobs = cells_of(options, device, about), jobs_of(options, about)
    output = folder_of(options["output"])

    def left_s() -> float:
        total_s = options["total_s"]
        return (
            options["timeout_s"]
            if total_s is None
            else min(options["timeout_s"], started_s + total_s - time.monotonic())
        )

    for folder in [*(cell.folder for cell in cells), *(job.folder for job in jobs)]:
        forget_what_may_end_otherwise(folder, options["timeout_s"])
    about["peak"] = _peak(options, device, about, left_s())
    # A device's own count of its memory is the same beside the timing of steps.
    turns = [*([MEMORY] if device == "cpu" else []), *(f"round{number}" for number in range(options["rounds"]))]
    for number, turn in enumerate(turns):
        order = cells if number % 2 == 0 else cells[::-1]  # so that no cell always comes after the same one
        for position, cell in enumerate(order, start=1):
            if left_s() > 0:
                _measure(cell, turn, options, left_s(), f"{turn} {position}/{len(order)}")
        _write(cells, jobs, options, about, output)
    for position, job in enumerate(jobs, start=1):
        if left_s() > 0 and not job.path.is_file():
            job.run(left_s())
            log.info("job %d/%d  %s at %s: %s", position, len(jobs), job.name, f"{job.length:,}", _summary(job.path))
    _write(cells, jobs, options, about, output)
    _show(output)
    return [cell.row() for cell in cells]


def _check(options: Mapping[str, Any]) -> None:
    problems = Problems()
    for key in ("lengths", "job_lengths"):
        values = options[key]
        if (
            not isinstance(values, list)
            or not values
            or not all(isinstance(length, int) and length >= 1 for length in values)
            or len(set(values)) < len(values)
        ):
            problems.add(key, values, "a list of different whole numbers of at least 1")
    names, models = list(options["variants"]), options["models"]
    if models is not None and (not isinstance(models, list) or not models or not all(name in names for name in models)):
        problems.add("models", models, f"a list of {', '.join(names)}, or null for all")
    trainings, jobs = list(options["trainings"]), options["jobs"]
    if jobs is not None and (not isinstance(jobs, list) or not all(name in trainings for name in jobs)):
        problems.add("jobs", jobs, f"a list of {', '.join(trainings)}, or null for all")
    if options["reference"] is not None and options["reference"] not in names:
        problems.add("reference", options["reference"], f"one of {', '.join(names)}, or null")
    modes = options["modes"]
    if not isinstance(modes, list) or not modes or not all(mode in MODES for mode in modes):
        problems.add("modes", modes, f"a list of {', '.join(MODES)}")
    for key, minimum in _WHOLE_NUMBERS.items():
        if options[key] is None and key in _MAY_BE_NULL:
            continue
        if not isinstance(options[key], int) or options[key] < minimum:
            problems.add(key, options[key], f"a whole number of at least {minimum}")
    for key in ("measure_s", "timeout_s", "total_s", "memory_gib"):
        if options[key] is None and key in _MAY_BE_NULL:
            continue
        if not isinstance(options[key], int | float) or not options[key] > 0:
            problems.add(key, options[key], "a number above 0")
    for key, choices in {"precision": _PRECISIONS, "accelerator": (*_DEVICES, "auto")}.items():
        if options[key] not in choices:
            problems.add(key, options[key], f"one of {', '.join(choices)}")
    if problem := published_problem(options["published_steps"]):
        problems.add("published_steps", options["published_steps"], problem)
    for key in ("output", "cells"):
        problems.lines += output_problems(key, folder_of(options[key]), is_folder=True)
    problems.raise_if_any()


def _device(accelerator: str) -> str:
    import torch

    if accelerator == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if accelerator == "gpu" and not torch.cuda.is_available():
        raise UserError("accelerator='gpu': expected cpu, as torch finds no CUDA device here")
    return _DEVICES[accelerator]


def _code_sha256() -> str:
    """Of the code that a cell's numbers come from, so that numbers of different code never meet in a table."""
    digest = hashlib.sha256()
    for name in _MEASURED_CODE:
        top = PACKAGE / name
        for path in sorted(top.rglob("*.py")) if top.is_dir() else [top]:
            digest.update(path.relative_to(PACKAGE).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _peak(options: Mapping[str, Any], device: str, about: Mapping[str, Any], timeout_s: float) -> dict[str, Any] | None:
    """What this machine does at best, see `benchmark_cell.peak`; None where that could not be measured."""
    job = {"device": device, "precision": options["precision"]}
    path = Path(options["cells"]) / f"{PEAK}-{config_hash({**job, 'where': where(about)})}" / f"{PEAK}.json"
    forget_what_may_end_otherwise(path.parent, options["timeout_s"])
    if not path.is_file():
        run_cell(job, path, measure=PEAK, timeout_s=timeout_s, memory_limit_bytes=None)
    result = read_result(path) or {}
    return {key: value for key, value in result.items() if key.endswith("_per_s")} or None


def _measure(cell: Cell, turn: str, options: Mapping[str, Any], timeout_s: float, progress: str) -> None:
    """Run one process of a cell, unless its file is there or the cell is lost already."""
    path = cell.folder / f"{turn}.json"
    if path.is_file() or any(result["status"] != "ok" for result in cell.results()):
        return
    limit = memory_limit_bytes(options["memory_gib"]) if cell.job["device"] == "cpu" else None
    if limit is not None and cell.cost and cell.cost.activation_bytes > limit:
        message = (
            f"not tried: the plan states {format_bytes(cell.cost.activation_bytes)} of activations, and "
            f"{format_bytes(limit)} may be used"
        )
        write_result({"status": "out_of_memory", "message": message}, path)
    else:
        what = MEMORY if turn == MEMORY else "time"
        run_cell(cell.job, path, measure=what, timeout_s=timeout_s, memory_limit_bytes=limit)
    log.info("%s  %s at %s: %s", progress, cell.variant, f"{cell.job['length']:,}", _summary(path))


def _summary(path: Path) -> str:
    result = read_result(path)
    assert result is not None
    if result["status"] != "ok":
        return f"{result['status'].replace('_', ' ')} ({result['message']})"
    parts = []
    if "train_ms" in result:
        train, inference = (statistics.median(result[key]) for key in ("train_ms", "inference_ms"))
        parts.append(f"training step {train:.1f} ms, inference {inference:.1f} ms")
    if "fit_s" in result:
        parts.append(f"fitted in {result['fit_s']:.1f} s")
    if result.get("peak_memory_bytes") is not None:
        parts.append(f"{format_bytes(result['peak_memory_bytes'])} in training")
    return ", ".join(parts)


def _write(
    cells: Sequence[Cell], jobs: Sequence[Job], options: Mapping[str, Any], about: Mapping[str, Any], output: Path
) -> None:
    """The CSV files and the environment, from what has been measured up to now."""
    order = list(dict.fromkeys(cell.variant for cell in cells))
    results = [result for cell in cells for result in cell.results()]
    results += [result for job in jobs if (result := read_result(job.path))]
    if not results:
        return
    write_rows([cell.row() for cell in sorted(cells, key=lambda cell: order.index(cell.variant))], output / CSV)
    if rows := [
        row for job in sorted(jobs, key=lambda job: list(options["jobs"]).index(job.name)) if (row := job.row())
    ]:
        write_rows(rows, output / JOBS_CSV)
    finished = sorted(result["finished_at"] for result in results)
    settings = {key: value for key, value in options.items() if key not in _NOT_SETTINGS}
    models = {cell.variant: cell.job["model"] for cell in cells}
    content = {**about, "first_result_at": finished[0], "last_result_at": finished[-1], "settings": settings}
    with replacing(output / ENVIRONMENT) as temporary:
        temporary.write_text(json.dumps({**content, "models": models}, indent=2) + "\n", encoding="utf-8")


def _show(output: Path) -> None:
    """Make the tables and plots, and show the tables."""
    from krontime.console import show

    if not (output / CSV).is_file():
        show("Nothing was measured in the time given.")
        return
    names = write_report(output)
    for name in names:
        show((output / f"{name}.md").read_text(encoding="utf-8"))
    show(f"Written to {output}: {CSV}, {ENVIRONMENT}, and tables and plots of {', '.join(names)}")
