"""Keeps a sweep on disk: the list of its jobs; and finds how far each of them has come.

A sweep writes its list when it starts, to `.sweeps/HASH.json` under the output folder; the same sweep writes the same
file again. All else is read off the run folders: records, locks, and what a run that was killed has left.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from krontime.errors import UserError
from krontime.runs.lock import is_held
from krontime.runs.record import Record, Status
from krontime.runs.remarks import Unrecorded, is_job_folder
from krontime.storage import RECORD, replacing

SWEEPS = ".sweeps"
_MAX_TRAIN = "data.validation.max_train"


class JobState(StrEnum):
    """How far a job has come."""

    DONE = "done"
    RUNNING = "running"
    INTERRUPTED = "interrupted"
    FAILED = "failed"
    OUT_OF_MEMORY = "out of memory"
    BROKEN = "broken"
    TO_DO = "to do"


_STATES = {
    Status.COMPLETED: JobState.DONE,
    Status.INTERRUPTED: JobState.INTERRUPTED,
    Status.FAILED: JobState.FAILED,
    Status.OUT_OF_MEMORY: JobState.OUT_OF_MEMORY,
}


class Job(BaseModel):
    """One job of a sweep.

    Attributes:
        folder: of the run, relative to the output folder, with slashes.
        overrides: what was typed after the command, this job's values alone.
        error: why it could not be begun, where it left no record that says so.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    folder: Annotated[str, Field(min_length=1)]
    overrides: list[str]
    error: str | None = None


class Sweep(BaseModel):
    """The jobs of one sweep in one output folder, each once."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    schema_version: Literal[1] = 1
    jobs: list[Job]

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read and check the list in `path`.

        Raises:
            UserError: it can't be read, or is no list of jobs.
        """
        try:
            return cls.model_validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            raise UserError(f"{path}: not a readable list of a sweep's jobs ({str(error).splitlines()[0]})") from error

    def write(self, root: Path) -> None:
        """Write to the output folder `root`, whole or not at all; the same jobs always to the same file."""
        with replacing(self._path(root)) as temporary:
            temporary.write_text(self.model_dump_json(indent=1) + "\n", encoding="utf-8")

    def remove(self, root: Path) -> None:
        """Take back what `write` wrote."""
        self._path(root).unlink(missing_ok=True)
        with suppress(OSError):  # there are lists of other sweeps
            (root / SWEEPS).rmdir()

    @property
    def id(self) -> str:
        """Hash of the jobs' folders: the same for the same jobs."""
        folders = json.dumps(sorted(job.folder for job in self.jobs))
        return hashlib.sha256(folders.encode()).hexdigest()[:12]

    def _path(self, root: Path) -> Path:
        return root / SWEEPS / f"{self.id}.json"


def listed(root: Path) -> dict[str, Job]:
    """Read the jobs of all sweeps that were started on an output folder, by their folder.

    Raises:
        UserError: a list can't be read.
    """
    jobs: dict[str, Job] = {}
    for path in sorted((root / SWEEPS).glob("*.json"), key=lambda path: path.stat().st_mtime):
        jobs |= {job.folder: job for job in Sweep.read(path).jobs}
    return jobs


def unrecorded(root: Path) -> list[Unrecorded]:
    """List the jobs of sweeps whose folders lie at or below `root`, named as run folders are, and hold no record.

    Raises:
        UserError: a list can't be read.
    """
    root = root.resolve()
    outputs = [root, *(folder for folder in root.parents if os.access(folder / SWEEPS, os.R_OK | os.X_OK))]
    outputs += (path.parent for path in root.rglob(SWEEPS))
    return [
        Unrecorded(folder, max_train=_max_train(job), is_failed=job.error is not None)
        for output in dict.fromkeys(outputs)
        for folder, job in listed(output).items()
        if is_job_folder(folder) and (output / folder).is_relative_to(root) and not (output / folder / RECORD).is_file()
    ]


def _max_train(job: Job) -> int | None:
    """Return `data.validation.max_train` of a job, as far as it was typed; else None."""
    values = [
        value for key, _, value in (text.partition("=") for text in job.overrides) if key.lstrip("+") == _MAX_TRAIN
    ]
    try:
        return int(values[-1])
    except (IndexError, ValueError):
        return None


class Progress(NamedTuple):
    """How far a job has come.

    Attributes:
        state: of the run folder.
        record: of the run that ended there, if one did; broken is a job whose record can't be read.
        error: the first line of what went wrong, if anything did.
    """

    state: JobState
    record: Record | None = None
    error: str | None = None


def progress(run_dir: Path, job: Job | None = None) -> Progress:
    """Find how far the run in a folder has come.

    Args:
        run_dir: the folder, there or not.
        job: of a sweep, where it belongs to one.
    """
    record, problem, is_begun = None, None, False
    try:
        record = Record.read(run_dir / RECORD) if (run_dir / RECORD).is_file() else None
        is_begun = run_dir.is_dir() and any(run_dir.iterdir())
    except UserError as error:
        problem = "; ".join(error.problems)
    except OSError as error:  # another user's folder
        problem = f"{run_dir / RECORD}: {error.strerror or error}"
    if record and record.status is Status.COMPLETED:
        return Progress(state=JobState.DONE, record=record)
    if is_held(run_dir):
        return Progress(state=JobState.RUNNING, record=record)
    if problem is not None:
        return Progress(state=JobState.BROKEN, error=problem)
    if record:
        return Progress(state=_STATES[record.status], record=record, error=first_line(record.error))
    if is_begun:
        return Progress(state=JobState.INTERRUPTED, error="cut off")
    if job and job.error is not None:
        return Progress(state=JobState.FAILED, error=first_line(job.error))
    return Progress(state=JobState.TO_DO)


def first_line(text: str | None) -> str:
    """Return the first line of a message; empty where there is none."""
    return next(iter((text or "").splitlines()), "")


def varied(jobs: Sequence[Job]) -> list[str]:
    """Name what distinguishes each job of a sweep: its overrides without those that all have, or its folder."""
    common = set.intersection(*(set(job.overrides) for job in jobs))
    return [" ".join(text for text in job.overrides if text not in common) or job.folder for job in jobs]


def counts(states: Iterable[JobState]) -> dict[JobState, int]:
    """Count the jobs in each state, every state named."""
    listed_states = list(states)
    return {state: listed_states.count(state) for state in JobState}
