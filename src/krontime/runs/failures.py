"""Explains what ended a run and was not the program's fault, in words that say what to do."""

import errno
import os
import re
import traceback
from collections.abc import Mapping
from multiprocessing import connection
from pathlib import Path
from typing import Any

import torch

from krontime.errors import Terminated, UserError
from krontime.runs.record import Status

_STORAGE = {
    errno.ENOSPC: "room",
    errno.EDQUOT: "room in the quota",
    errno.EFBIG: "a limit on file sizes above what is written (ulimit -f)",
    errno.EROFS: "a folder that can be written",
    errno.EACCES: "a folder that can be written",
    errno.EPERM: "a folder that can be written",
    errno.EIO: "a disk in order",
    errno.ESTALE: "a network folder that stays mounted",
}
"""What is expected instead of each error of the storage, by error number."""

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.ESTALE)
"""Those that are the storage's whatever was done."""

_RESUMES = "; the same command resumes from the last checkpoint"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the machine or the device had no more memory."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


def terminated_by(error: BaseException) -> int | None:
    """Return the signal that caused an error, or None; Lightning's clean-up may fail after it and hide it."""
    link: BaseException | None = error
    seen: set[int] = set()
    while link is not None and id(link) not in seen:
        if isinstance(link, Terminated):
            return link.number
        seen.add(id(link))
        link = link.__cause__ or link.__context__
    return None


def status_of(error: BaseException) -> Status:
    """Return the status under which a run that was ended by an error is recorded."""
    return Status.OUT_OF_MEMORY if is_out_of_memory(error) else Status.FAILED


def explained(
    error: BaseException, config: Mapping[str, Any], run_dir: Path, *, memory_advice: str | None = None
) -> UserError | None:
    """Explain what a user can do about an error; None where it is the program's own.

    Args:
        error: what ended the run.
        config: of the run, in plain types.
        run_dir: its folder.
        memory_advice: what was too large, and what would be smaller.
    """
    if is_out_of_memory(error):
        return UserError(f"out of memory with {memory_advice or 'this data set: expected a smaller one'}")
    if isinstance(error, OSError) and (expected := _STORAGE.get(error.errno or 0)):
        where = error.filename or run_dir
        return UserError(f"{where}: {error.strerror or error}; expected {expected}{_RESUMES}")
    if is_rank_lost(error):
        return UserError(
            "another process of this training ended or can't be reached: expected its own message further up (none "
            f"where the operating system ended it, for want of memory above all){_RESUMES}"
        )
    if config["data"]["num_workers"] and (reason := _reader_ended(error)):
        return UserError(
            f"data.num_workers={config['data']['num_workers']}: a process that reads data {reason}; expected memory "
            f"for all of them, or fewer, and files that are left alone while they are read{_RESUMES}"
        )
    if said := _refused_by_trainer(error, config["trainer"]):
        return UserError(said)
    return None


def storage_problem(error: BaseException) -> str | None:
    """Say that a disk is full, or failed, where that is what an error means, of Python or of a library in Rust."""
    number = error.errno if isinstance(error, OSError) else None
    if number is None and (match := re.search(r"\(os error (\d+)\)", str(error))):
        number = int(match[1])
    if number not in _FULL:
        return None
    where = f"{error.filename}: " if isinstance(error, OSError) and error.filename else ""
    return f"{where}{os.strerror(number)}: expected {_STORAGE[number]}"


def is_rank_lost(error: BaseException) -> bool:
    """Say whether the process group lost a process, from what gloo and NCCL then raise in the others."""
    text = str(error)
    return isinstance(error, RuntimeError) and (
        ("gloo" in text and any(words in text for words in ("closed by peer", "reset by peer", "Timed out", "timeout")))
        or "remote process exited or there was a network error" in text
        or type(error).__name__ in ("DistNetworkError", "DistBackendError")
    )


def _refused_by_trainer(error: BaseException, options: Mapping[str, Any]) -> str | None:
    """Name the option of the trainer that Lightning refuses once it knows how many batches there are."""
    text = " ".join(str(error).split())
    frames = traceback.extract_tb(error.__traceback__)
    if not frames or "lightning" not in Path(frames[-1].filename).parts:
        return None
    named = [f"trainer.{key}={value!r}" for key, value in options.items() if f"`{key}`" in text]
    return f"{', '.join(named)}: {text}" if named else None


def _reader_ended(error: BaseException) -> str | None:
    """Say what became of a process that reads data; None where an error is about something else."""
    if isinstance(error, RuntimeError):
        if match := re.search(r"DataLoader worker \(pid(?:\(s\))? [^)]*\) (.*)", str(error)):
            return match[1].split(". ")[0].rstrip(".")
        if "Pin memory thread exited" in str(error):  # which ends with the process whose batch it was pinning
            return "ended unexpectedly"
    if isinstance(error, ConnectionError | EOFError) and any(  # it ended while its batch was being received
        frame.filename == connection.__file__ for frame in traceback.extract_tb(error.__traceback__)
    ):
        return "ended unexpectedly"
    return None
