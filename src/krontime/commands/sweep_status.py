"""The command `sweep-status`: how far the sweeps in an output folder have come, and about how long is left."""

import math
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from omegaconf import DictConfig

from krontime.config import resolve
from krontime.console import format_duration, is_json, result, show
from krontime.errors import UserError
from krontime.runs.lock import SUFFIX
from krontime.runs.record import Record
from krontime.runs.sweep import JobState, Progress, counts, listed, progress
from krontime.storage import RECORD, expanded

TOTAL = "total"


class Found(NamedTuple):
    """A run folder, of a sweep or not, and how far it has come."""

    folder: Path
    progress: Progress

    @property
    def group(self) -> str:
        """Runs of one data set and model take about as long as each other."""
        return self.folder.parent.as_posix()


def sweep_status(config: DictConfig) -> dict[JobState, int]:
    """Show how many jobs are in which state, what went wrong, and about how long is left.

    Returns:
        How many jobs are in each state.

    Raises:
        UserError: a folder is none, or a list of jobs in it can't be read.
    """
    outputs = resolve.plain(config)["outputs"]
    roots = outputs if isinstance(outputs, list) else [outputs]
    missing = [root for root in roots if not isinstance(root, str) or not expanded(root).is_dir()]
    if missing or not roots:
        raise UserError([f"outputs={root!r}: expected the folder of a sweep's runs" for root in missing or [roots]])
    by_folder = {job.folder.resolve(): job for root in reversed(roots) for job in jobs_in(expanded(root))}
    jobs = sorted(by_folder.values(), key=lambda job: job.folder)  # each once, where one folder lies in another
    rows = {
        group: counts(job.progress.state for job in jobs if job.group == group)
        for group in sorted({job.group for job in jobs})
    }
    rows[TOTAL] = counts(job.progress.state for job in jobs)
    result(
        counts=rows[TOTAL],
        time_left_s=time_left_s(jobs),
        jobs=[{"run": job.folder, "state": job.progress.state, "error": job.progress.error} for job in jobs],
    )
    if is_json():
        return rows[TOTAL]
    if sys.stdout.isatty():
        _show_table(rows)
    else:
        _show_lines(rows)
    for job in jobs:
        if job.progress.error is not None:
            show(f"{job.progress.state}: {job.folder.as_posix()}: {job.progress.error}")
    left_s = time_left_s(jobs)
    if left_s is not None:
        show(f"time left: about {format_duration(left_s)}")
    elif any(rows[TOTAL][state] for state in JobState if state is not JobState.DONE):
        show("time left: unknown until a job is done")
    return rows[TOTAL]


def jobs_in(root: Path) -> list[Found]:
    """Every job of the sweeps in an output folder, and every other run there.

    Raises:
        UserError: a list of jobs can't be read.
    """
    jobs = listed(root)
    folders = {root / folder: job for folder, job in jobs.items()} | {
        folder: jobs.get(folder.relative_to(root).as_posix()) for folder in _run_folders(root)
    }
    return [Found(folder, progress(folder, folders[folder])) for folder in sorted(folders)]


def _run_folders(root: Path) -> Iterator[Path]:
    """Folders with a record, or with the lock of a run; not those that `force=true` has set aside."""
    for path in root.rglob(RECORD):
        if ".until-" not in path.parent.name:
            yield path.parent
    for path in root.rglob(f"*{SUFFIX}"):
        folder = path.with_name(path.name.removesuffix(SUFFIX))
        if folder.is_dir():
            yield folder


def time_left_s(jobs: list[Found]) -> float | None:
    """About how long the jobs that are not done will take, in seconds, with as many at a time as run now.

    A job is taken to last as long as the mean of those of its data set and model that are done, or of all that are.
    None where nothing is left, or nothing is done to estimate from.
    """
    durations: dict[str, list[float]] = {}
    for job in jobs:
        if job.progress.state is JobState.DONE and job.progress.record:
            durations.setdefault(job.group, []).append(_duration_s(job.progress.record))
    every = [duration for group in durations.values() for duration in group]
    left = [job for job in jobs if job.progress.state is not JobState.DONE]
    if not every or not left:
        return None
    total_s, running = 0.0, 0
    for job in left:
        known = durations.get(job.group, every)
        expected_s = math.fsum(known) / len(known)
        if job.progress.state is JobState.RUNNING:
            running += 1
            expected_s = max(0.0, expected_s - _elapsed_s(job.folder))
        total_s += expected_s
    return total_s / max(1, running)


def _duration_s(record: Record) -> float:
    """Of a completed run; its training time spans the starts that a run may have taken."""
    assert record.finished_at is not None
    return max((record.finished_at - record.started_at).total_seconds(), record.train_time_s or 0.0)


def _elapsed_s(run_dir: Path) -> float:
    """Since the present run was started: it has then written its config."""
    from krontime.storage import CONFIG

    try:
        return max(0.0, time.time() - (run_dir / CONFIG).stat().st_mtime)
    except OSError:  # not written yet, or in another user's folder
        return 0.0


def _show_table(rows: Mapping[str, Mapping[JobState, int]]) -> None:
    from rich.table import Table

    table = Table("runs", *(str(state) for state in JobState))
    for column in table.columns[1:]:
        column.justify = "right"
    for name, row in rows.items():
        table.add_row(name, *(str(row[state] or "-") for state in JobState), style="bold" if name == TOTAL else None)
    show(table)


def _show_lines(rows: Mapping[str, Mapping[JobState, int]]) -> None:
    lines = [["runs", *JobState], *([name, *(str(row[state]) for state in JobState)] for name, row in rows.items())]
    sys.stdout.write("".join("\t".join(line) + "\n" for line in lines))  # rich would make spaces of the tabs
