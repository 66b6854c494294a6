"""Processes of the benchmark, each of which leaves one file, whatever becomes of it."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from krontime.data.memory import available_memory_bytes
from krontime.storage import replacing

MEMORY = "memory"
PEAK = "peak"
GIBIBYTE = 2**30


def run_cell(
    job: Mapping[str, Any], path: Path, *, measure: str, timeout_s: float, memory_limit_bytes: int | None
) -> None:
    """Measure a job in a fresh process and leave the result in `path`, whatever becomes of the process.

    Args:
        job: see `krontime.commands.benchmark_cell.measure`.
        path: result file.
        measure: `time`, `memory` or `peak`.
        timeout_s: the process is ended after this many seconds.
        memory_limit_bytes: maximum host memory of the process; None for no limit.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    task = {**job, "measure": measure, "memory_limit_bytes": memory_limit_bytes, "result": str(path.resolve())}
    # Freed memory then goes back to the system at once, so that the peak is what was in use together.
    extra = {"MALLOC_MMAP_THRESHOLD_": "65536"} if measure == MEMORY else {}
    failure = run_process("krontime.commands.benchmark_cell", [], json.dumps(task), timeout_s=timeout_s, extra=extra)
    if failure and (failure["status"] == "timeout" or not path.is_file()):
        write_result(failure, path)


def run_process(
    module: str, arguments: Sequence[str], text: str, *, timeout_s: float, extra: Mapping[str, str]
) -> dict[str, Any] | None:
    """Run a module of this package with a text on standard input.

    Args:
        module: its name.
        arguments: of its command line.
        text: what it reads.
        timeout_s: it is ended after this many seconds.
        extra: environment beside this process's own.

    Returns:
        Why it came to nothing, as a result's `status` and `message`; None where it ended well.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", module, *arguments],
            input=text,
            text=True,
            encoding="utf-8",
            capture_output=True,
            timeout=timeout_s,
            env={**os.environ, **extra},
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"status": "timeout", "message": f"no result after {timeout_s:g} s", "timeout_s": timeout_s}
    if done.returncode == 0:
        return None
    if done.returncode == -signal.SIGKILL:  # the system's answer when memory has run out
        return {"status": "out_of_memory", "message": "ended by the system"}
    last = (done.stderr.strip().splitlines() or ["no message"])[-1]
    return {"status": "failed", "message": f"exit status {done.returncode}: {last}"}


def write_result(result: Mapping[str, Any], path: Path) -> None:
    """Write the result of a process that could not write its own."""
    with replacing(path) as temporary:
        text = json.dumps({**result, "finished_at": datetime.now(UTC).isoformat()}, indent=2)
        temporary.write_text(text + "\n", encoding="utf-8")


def read_result(path: Path) -> dict[str, Any] | None:
    """The result that is in a file; None without the file."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def forget_what_may_end_otherwise(folder: Path, timeout_s: float) -> None:
    """Remove results to be tried again: the cause of a failure may be fixed, or more time is given now."""
    for path in folder.glob("*.json"):
        result = json.loads(path.read_text(encoding="utf-8"))
        if result["status"] == "failed" or (result["status"] == "timeout" and result["timeout_s"] < timeout_s):
            path.unlink()


def memory_limit_bytes(memory_gib: float | None) -> int:
    """What one process may take: as asked, or nine tenths of what is free."""
    if memory_gib is not None:
        return int(memory_gib * GIBIBYTE)
    return int(0.9 * available_memory_bytes())
