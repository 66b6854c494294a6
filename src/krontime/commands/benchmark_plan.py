"""What a benchmark measures: its cells, each one model variant at one length, from the options of the command."""

import logging
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from krontime.commands.benchmark_process import MEMORY, read_result
from krontime.commands.plan import Cost, cost
from krontime.config import resolve, targets
from krontime.config.identity import config_hash
from krontime.data.series import SeriesSpec
from krontime.errors import UserError
from krontime.reports.benchmark.tables import Row

log = logging.getLogger(__name__)

MODES = ("eager", "compiled")
"""How a network is run: as it is, or through `torch.compile`, with CUDA graphs on a GPU."""


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
        return [result for path in paths if (result := read_result(path))]

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


def cells_of(options: Mapping[str, Any], device: str, about: Mapping[str, Any]) -> list[Cell]:
    """Every cell, mode by mode, the shortest length first, so that variants at one length are measured close together.

    Raises:
        UserError: with every variant that is no model or cannot take a length.
    """
    problems: list[str] = []
    models: dict[str, dict[str, Any]] = {}
    for variant in options["models"] or options["variants"]:
        try:
            models[variant] = model_of(options["variants"][variant])
        except UserError as error:
            problems += [f"variants.{variant}: {problem}" for problem in error.problems]
    shared = {key: options[key] for key in ("num_channels", "num_classes", "precision", "warmup", "steps", "measure_s")}
    cells: list[Cell] = []
    refused: dict[str, int] = {}
    for length in sorted(options["lengths"]):
        batch_size = batch_size_at(length, options)
        for variant, model in models.items():
            job = {"model": model, "length": length, "batch_size": batch_size, "device": device, **shared}
            try:
                planned = _planned(model, job)
            except UserError as error:
                for problem in error.problems:
                    refused.setdefault(f"variants.{variant}: {problem}", length)
                continue
            for mode in options["modes"]:
                name, job = (variant, job) if mode == MODES[0] else (f"{variant}_{mode}", {**job, "mode": mode})
                folder = Path(options["cells"]) / f"{name}-{length}-{config_hash({**job, 'where': where(about)})}"
                cells.append(Cell(name, job, planned, folder))
    problems += [f"{problem} (at length {length})" for problem, length in refused.items()]
    if problems:
        raise UserError(problems)
    modes = {mode: number for number, mode in enumerate(options["modes"])}
    return sorted(cells, key=lambda cell: modes[cell.job.get("mode", MODES[0])])


def batch_size_at(length: int, options: Mapping[str, Any]) -> int:
    """Series in a batch: as many as hold the points that were asked for, or `batch_size`."""
    points = options["points_per_batch"]
    return options["batch_size"] if points is None else max(1, points // (length * options["num_channels"]))


def where(about: Mapping[str, Any]) -> dict[str, Any]:
    """What a number depends on beside its job: numbers of another machine or other code are measured anew."""
    return {"device": about["device"], "torch": about["versions"]["torch"], "code_sha256": about["code_sha256"]}


def model_of(overrides: Any) -> dict[str, Any]:
    """The plain config of the network that overrides of the command `plan` name.

    Raises:
        UserError: they are no list of overrides, or name nothing that is there.
    """
    config = composed("plan", flat(overrides))
    if problems := targets.target_problems({"model": config["model"]}):
        raise UserError(problems)
    return config["model"]


def flat(overrides: Any) -> list[str]:
    """The overrides of a list; lists in it are taken for what they hold.

    Raises:
        UserError: it is no list.
    """
    if not isinstance(overrides, list):
        raise UserError(f"{overrides!r}: expected a list of overrides, such as [model=tcn]")
    return [str(part) for item in overrides for part in (item if isinstance(item, list) else [item])]


def composed(command: str, overrides: Sequence[str]) -> dict[str, Any]:
    """The plain config of a command with overrides.

    Raises:
        UserError: they name nothing that is there.
    """
    from hydra import compose
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    try:
        return resolve.plain(compose(command, list(overrides)))
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(str(error).splitlines()[0]) from error


def _planned(model: Mapping[str, Any], job: Mapping[str, Any]) -> Cost | None:
    import torch

    names = tuple(str(label) for label in range(job["num_classes"]))
    spec = SeriesSpec(job["num_channels"], job["length"], len(names), names)
    try:
        with torch.autocast("cpu", torch.bfloat16, enabled=job["precision"] == "bf16-mixed"):
            return cost({"model": model}, spec, batch_size=job["batch_size"])
    except UserError:
        raise
    except Exception as error:  # a network may look at values, which the plan's tensors do not have
        log.warning("%s at length %s has no plan (%s)", model["name"], job["length"], error)
        return None
