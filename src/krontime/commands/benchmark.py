"""The command `benchmark`: time and memory of models against length, each cell in fresh processes.

A cell is one model variant at one length. Its memory is measured by one process, its times by one process in each
round; all cells have their turn in a round before the next begins, so that a slow hour of the machine falls on all
of them. Each process leaves a file, and what has a file is not measured again.
"""

import hashlib
import json
import logging
import os
import signal
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from krontime.commands.plan import Cost, cost
from krontime.config import resolve, targets
from krontime.config.identity import config_hash
from krontime.data.memory import available_memory_bytes
from krontime.data.series import SeriesSpec
from krontime.errors import Problems, UserError
from krontime.reports.benchmark.report import CSV, ENVIRONMENT, write_report
from krontime.reports.benchmark.tables import Row, write_rows
from krontime.runs.environment import environment_json
from krontime.runs.screen import format_bytes
from krontime.storage import replacing

log = logging.getLogger(__name__)

MEMORY = "memory"
GIBIBYTE = 2**30
PACKAGE = Path(__file__).parents[1]
_MEASURED_CODE = ("models", "ops", "commands/benchmark_cell.py")
_DEVICES = {"cpu": "cpu", "gpu": "cuda"}
_PRECISIONS = ("32-true", "bf16-mixed")


@dataclass(frozen=True)
class Cell:
    """One model variant at one length.

    Attributes:
        variant: its name.
        job: what `krontime.commands.benchmark_cell` needs to know, without what differs from process to process.
        cost: what the plan says of it; None where it cannot say.
        folder: where the results of its processes lie; another job has another folder.
    """

    variant: str
    job: Mapping[str, Any]
    cost: Cost | None
    folder: Path

    def results(self) -> list[dict[str, Any]]:
        """What has been measured: memory, then the rounds in order."""
        files = sorted(self.folder.glob("round*.json"), key=lambda path: int(path.stem.removeprefix("round")))
        paths = [self.folder / f"{MEMORY}.json", *files]
        return [json.loads(path.read_text(encoding="utf-8")) for path in paths if path.is_file()]

    def row(self) -> Row:
        """The cell's row of the CSV file."""
        results = self.results()
        model, batch_size = self.job["model"], self.job["batch_size"]
        bad = next((result for result in results if result["status"] != "ok"), None)
        memory = next((result for result in results if "peak_memory_bytes" in result), {})
        rounds = [result for result in results if "train_ms" in result]
        train, inference = (_times(rounds, key) for key in ("train_ms", "inference_ms"))
        train_ms, inference_ms = (statistics.median(times) if times else None for times in (train, inference))
        levels = self.cost.levels if self.cost else None
        counted = next((result["num_parameters"] for result in results if "num_parameters" in result), None)
        return Row(
            model=model["name"],
            attention=model.get("attention"),
            depth=levels.depth if levels else None,
            length=self.job["length"],
            num_tokens=self.cost.num_tokens if self.cost else None,
            batch_size=batch_size,
            train_step_ms=train_ms,
            inference_ms=inference_ms,
            peak_memory_bytes=memory.get("peak_memory_bytes"),
            num_parameters=self.cost.num_parameters if self.cost else counted,
            status=bad["status"] if bad else "ok",
            variant=self.variant,
            train_step_ms_min=train[0] if train else None,
            train_step_ms_max=train[-1] if train else None,
            inference_ms_min=inference[0] if inference else None,
            inference_ms_max=inference[-1] if inference else None,
            train_ms_per_series=train_ms / batch_size if train_ms else None,
            train_series_per_s=1000 * batch_size / train_ms if train_ms else None,
            inference_ms_per_series=inference_ms / batch_size if inference_ms else None,
            inference_series_per_s=1000 * batch_size / inference_ms if inference_ms else None,
            inference_peak_memory_bytes=memory.get("inference_peak_memory_bytes"),
            estimated_memory_bytes=self.cost.activation_bytes if self.cost and self.job["device"] == "cpu" else None,
            forward_flops=self.cost.forward_flops if self.cost else None,
            num_rounds=len(rounds),
            message=bad["message"] if bad else None,
        )


def _times(rounds: Sequence[Mapping[str, Any]], key: str) -> list[float]:
    """The rounds' medians, ascending; the steps of a round that is alone."""
    if len(rounds) == 1:
        return sorted(rounds[0][key])
    return sorted(statistics.median(result[key]) for result in rounds)


def benchmark(config: DictConfig) -> list[Row]:
    """Measure every cell that is not measured yet, and write the CSV file, the tables and the plots.

    Returns:
        A row for each cell, by variant and length.

    Raises:
        UserError: an option cannot work, or a variant is no model; nothing is measured.
    """
    options = resolve.plain(config)
    _check(options)
    device = _device(options["accelerator"])
    about = environment_json(device)
    about["code_sha256"] = _code_sha256()
    cells = _cells(options, device, about)
    output = Path(options["output"])

    for cell in cells:
        for path in cell.folder.glob("*.json"):
            if _may_end_otherwise(json.loads(path.read_text(encoding="utf-8")), options["timeout_s"]):
                path.unlink()
    turns = [MEMORY, *(f"round{number}" for number in range(options["rounds"]))]
    for number, turn in enumerate(turns):
        order = cells if number % 2 == 0 else cells[::-1]  # so that no cell always comes after the same one
        for position, cell in enumerate(order, start=1):
            _measure(cell, turn, options, f"{turn} {position}/{len(order)}")
        _write(cells, options, about, output, is_last=turn == turns[-1])
    return [cell.row() for cell in cells]


def _check(options: Mapping[str, Any]) -> None:
    problems = Problems()
    lengths = options["lengths"]
    if (
        not isinstance(lengths, list)
        or not lengths
        or not all(isinstance(length, int) and length >= 1 for length in lengths)
        or len(set(lengths)) < len(lengths)
    ):
        problems.add("lengths", lengths, "a list of different whole numbers of at least 1")
    names, models = list(options["variants"]), options["models"]
    if models is not None and (not isinstance(models, list) or not models or not set(models) <= set(names)):
        problems.add("models", models, f"a list of {', '.join(names)}, or null for all")
    if options["reference"] is not None and options["reference"] not in names:
        problems.add("reference", options["reference"], f"one of {', '.join(names)}, or null")
    for key, minimum in {
        "num_channels": 1,
        "num_classes": 2,
        "batch_size": 1,
        "growth_from": 1,
        "rounds": 0,
        "warmup": 0,
        "steps": 1,
    }.items():
        if not isinstance(options[key], int) or options[key] < minimum:
            problems.add(key, options[key], f"a whole number of at least {minimum}")
    for key in ("measure_s", "timeout_s", "memory_gib"):
        if options[key] is None and key == "memory_gib":
            continue
        if not isinstance(options[key], int | float) or not options[key] > 0:
            problems.add(key, options[key], "a number above 0")
    for key, choices in {"precision": _PRECISIONS, "accelerator": (*_DEVICES, "auto")}.items():
        if options[key] not in choices:
            problems.add(key, options[key], f"one of {', '.join(choices)}")
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


def _cells(options: Mapping[str, Any], device: str, about: Mapping[str, Any]) -> list[Cell]:
    """Every cell, the shortest length first, so that variants at one length are measured close to each other.

    Raises:
        UserError: with every variant that is no model or cannot take a length.
    """
    problems: list[str] = []
    models: dict[str, dict[str, Any]] = {}
    for variant in options["models"] or options["variants"]:
        try:
            models[variant] = _model(options["variants"][variant])
        except UserError as error:
            problems += [f"variants.{variant}: {problem}" for problem in error.problems]
    shared = {key: options[key] for key in ("num_channels", "num_classes", "batch_size", "precision")}
    shared |= {key: options[key] for key in ("warmup", "steps", "measure_s")}
    where = {"device": about["device"], "torch": about["versions"]["torch"], "code_sha256": about["code_sha256"]}
    cells: list[Cell] = []
    refused: dict[str, int] = {}
    for length in sorted(options["lengths"]):
        for variant, model in models.items():
            job = {"model": model, "length": length, "device": device, **shared}
            try:
                planned = _planned(model, length, options)
            except UserError as error:
                for problem in error.problems:
                    refused.setdefault(f"variants.{variant}: {problem}", length)
                continue
            folder = Path(options["cells"]) / f"{variant}-{length}-{config_hash({**job, 'where': where})}"
            cells.append(Cell(variant, job, planned, folder))
    problems += [f"{problem} (at length {length})" for problem, length in refused.items()]
    if problems:
        raise UserError(problems)
    return cells


def _model(overrides: Any) -> dict[str, Any]:
    """The plain config of the network that overrides of the command `plan` name."""
    from hydra import compose
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    if not isinstance(overrides, list):
        raise UserError(f"{overrides!r}: expected a list of overrides, such as [model=tcn]")
    flat = [part for item in overrides for part in (item if isinstance(item, list) else [item])]
    try:
        config = resolve.plain(compose("plan", [str(override) for override in flat]))
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(str(error).splitlines()[0]) from error
    if problems := targets.target_problems({"model": config["model"]}):
        raise UserError(problems)
    return config["model"]


def _planned(model: Mapping[str, Any], length: int, options: Mapping[str, Any]) -> Cost | None:
    import torch

    names = tuple(str(label) for label in range(options["num_classes"]))
    spec = SeriesSpec(options["num_channels"], length, len(names), names)
    try:
        with torch.autocast("cpu", torch.bfloat16, enabled=options["precision"] == "bf16-mixed"):
            return cost({"model": model}, spec, batch_size=options["batch_size"])
    except UserError:
        raise
    except Exception as error:  # a network may look at values, which the plan's tensors do not have
        log.warning("%s at length %s has no plan (%s)", model["name"], length, error)
        return None


def _measure(cell: Cell, turn: str, options: Mapping[str, Any], progress: str) -> None:
    """Run one process of a cell, unless its file is there or the cell is lost already."""
    path = cell.folder / f"{turn}.json"
    if path.is_file() or any(result["status"] != "ok" for result in cell.results()):
        return
    limit = _memory_limit_bytes(options["memory_gib"]) if cell.job["device"] == "cpu" else None
    if limit is not None and cell.cost and cell.cost.activation_bytes > limit:
        message = (
            f"not tried: the plan states {format_bytes(cell.cost.activation_bytes)} of activations, and "
            f"{format_bytes(limit)} may be used"
        )
        _write_result({"status": "out_of_memory", "message": message}, path)
    else:
        what = MEMORY if turn == MEMORY else "time"
        run_cell(cell.job, path, measure=what, timeout_s=options["timeout_s"], memory_limit_bytes=limit)
    log.info("%s  %s at %s: %s", progress, cell.variant, f"{cell.job['length']:,}", _summary(path))


def run_cell(
    job: Mapping[str, Any], path: Path, *, measure: str, timeout_s: float, memory_limit_bytes: int | None
) -> None:
    """Measure a job in a fresh process and leave the result in `path`, whatever becomes of the process.

    Args:
        job: see `krontime.commands.benchmark_cell.measure`.
        path: result file.
        measure: `time` or `memory`.
        timeout_s: the process is ended after this many seconds.
        memory_limit_bytes: maximum host memory of the process; None for no limit.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    task = {**job, "measure": measure, "memory_limit_bytes": memory_limit_bytes, "result": str(path.resolve())}
    command = [sys.executable, "-P", "-m", "krontime.commands.benchmark_cell"]
    # Freed memory then goes back to the system at once, so that the peak is what was in use together.
    extra = {"MALLOC_MMAP_THRESHOLD_": "65536"} if measure == MEMORY else {}
    result: dict[str, Any]
    try:
        done = subprocess.run(
            command,
            input=json.dumps(task),
            text=True,
            encoding="utf-8",
            capture_output=True,
            timeout=timeout_s,
            env={**os.environ, **extra},
            check=False,
        )
    except subprocess.TimeoutExpired:
        result = {"status": "timeout", "message": f"no result after {timeout_s:g} s", "timeout_s": timeout_s}
    else:
        if path.is_file():
            return
        if done.returncode == -signal.SIGKILL:  # the system's answer when memory has run out
            result = {"status": "out_of_memory", "message": "ended by the system"}
        else:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            result = {"status": "failed", "message": f"exit status {done.returncode}: {last}"}
    _write_result(result, path)


def _write_result(result: Mapping[str, Any], path: Path) -> None:
    """Write the result of a process that could not write its own."""
    with replacing(path) as temporary:
        text = json.dumps({**result, "finished_at": datetime.now(UTC).isoformat()}, indent=2)
        temporary.write_text(text + "\n", encoding="utf-8")


def _memory_limit_bytes(memory_gib: float | None) -> int:
    """What one process may take: as asked, or nine tenths of what is free."""
    if memory_gib is not None:
        return int(memory_gib * GIBIBYTE)
    return int(0.9 * available_memory_bytes())


def _may_end_otherwise(result: Mapping[str, Any], timeout_s: float) -> bool:
    """Whether to try again: the cause of a failure may be fixed, or more time is given now."""
    return result["status"] == "failed" or (result["status"] == "timeout" and result["timeout_s"] < timeout_s)


def _summary(path: Path) -> str:
    result = json.loads(path.read_text(encoding="utf-8"))
    if result["status"] != "ok":
        return f"{result['status'].replace('_', ' ')} ({result['message']})"
    if "peak_memory_bytes" in result:
        return f"{format_bytes(result['peak_memory_bytes'])} in training"
    train, inference = (statistics.median(result[key]) for key in ("train_ms", "inference_ms"))
    return f"training step {train:.1f} ms, inference {inference:.1f} ms"


def _write(
    cells: Sequence[Cell], options: Mapping[str, Any], about: Mapping[str, Any], output: Path, *, is_last: bool
) -> None:
    """The CSV file and the environment after each turn; the tables and plots, which are shown too, after the last."""
    order = list(dict.fromkeys(cell.variant for cell in cells))
    rows = [cell.row() for cell in sorted(cells, key=lambda cell: order.index(cell.variant))]
    finished = sorted(result["finished_at"] for cell in cells for result in cell.results())
    write_rows(rows, output / CSV)
    settings = {key: value for key, value in options.items() if key not in ("same", "variants", "output", "cells")}
    models = {cell.variant: cell.job["model"] for cell in cells}
    content = {**about, "first_result_at": finished[0], "last_result_at": finished[-1], "settings": settings}
    with replacing(output / ENVIRONMENT) as temporary:
        temporary.write_text(json.dumps({**content, "models": models}, indent=2) + "\n", encoding="utf-8")
    if not is_last:
        return

    from krontime.console import show

    names = write_report(output)
    for name in names:
        show((output / f"{name}.md").read_text(encoding="utf-8"))
    show(f"Written to {output}: {CSV}, {ENVIRONMENT}, " + ", ".join(f"{name}.{{md,tex,csv,png,svg}}" for name in names))
