"""Whole jobs of the benchmark: `krontime train` on generated series, timed by the record that it leaves."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from krontime.commands.benchmark_plan import composed, flat, where
from krontime.commands.benchmark_process import read_result, run_process, write_result
from krontime.config.identity import config_hash
from krontime.errors import UserError
from krontime.reports.benchmark.jobs import JobRow
from krontime.runs.record import Record, Status
from krontime.storage import RECORD

_MEASURED = ("fit_s", "closed_form_s", "predict_ms_per_series", "whole_s", "peak_memory_bytes")


@dataclass(frozen=True)
class Job:
    """One training at one length.

    Attributes:
        name: its name.
        model: config name of the model.
        overrides: of the command `train`, without the folder of its run.
        length: time points of a series.
        num_series: for training, and as many for testing.
        folder: where its result lies; another job has another folder.
    """

    name: str
    model: str
    overrides: tuple[str, ...]
    length: int
    num_series: int
    folder: Path

    @property
    def path(self) -> Path:
        """The file of its result."""
        return self.folder / "job.json"

    def run(self, timeout_s: float) -> None:
        """Train in a process of its own, and leave what its record says."""
        output = self.folder / "run"
        arguments = ["train", *self.overrides, f"paths.output={output}", "force=true"]
        failure = run_process("krontime", arguments, "", timeout_s=timeout_s, extra={})
        records = sorted(output.rglob(RECORD), key=lambda path: path.stat().st_mtime)
        if failure and (failure["status"] != "failed" or not records):
            write_result(failure, self.path)
            return
        record = Record.read(records[-1])
        assert record.finished_at is not None
        is_completed = record.status is Status.COMPLETED
        measured = {
            "fit_s": record.train_time_s,
            "closed_form_s": record.part_times_s.get("closed_form"),
            "predict_ms_per_series": record.inference_ms_per_series,
            "whole_s": (record.finished_at - record.started_at).total_seconds(),
            "peak_memory_bytes": record.peak_memory_bytes,
        }
        status = "ok" if is_completed else record.status.value
        write_result({"status": status, "message": record.error, **(measured if is_completed else {})}, self.path)

    def row(self) -> JobRow | None:
        """Its row of the CSV file; None where it was not measured."""
        result = read_result(self.path)
        if result is None:
            return None
        return JobRow(
            job=self.name,
            model=self.model,
            length=self.length,
            num_series=self.num_series,
            status=result["status"],
            message=result["message"],
            **{key: result.get(key) for key in _MEASURED},
        )


def jobs_of(options: Mapping[str, Any], about: Mapping[str, Any]) -> list[Job]:
    """Every job, the shortest length first.

    Raises:
        UserError: with every job that is no training.
    """
    problems: list[str] = []
    jobs = []
    for length in sorted(options["job_lengths"]):
        for name in list(options["trainings"]) if options["jobs"] is None else options["jobs"]:
            num_series = options["job_series"]
            data = [
                "data=synthetic",
                f"data.source.length={length}",
                f"data.source.num_train={num_series}",
                f"data.source.num_test={num_series}",
                "trainer.enable_progress_bar=false",
            ]
            try:
                overrides = [*flat(options["trainings"][name]), *data]
                model = composed("train", overrides)["model"]["name"]
            except UserError as error:
                problems += [f"trainings.{name}: {problem}" for problem in error.problems]
                continue
            identity = {"overrides": overrides, "where": where(about)}
            folder = Path(options["cells"]) / f"job_{name}-{length}-{config_hash(identity)}"
            jobs.append(Job(name, model, tuple(overrides), length, num_series, folder))
    if problems:
        raise UserError(list(dict.fromkeys(problems)))
    return jobs
