"""Sweeps in processes of their own: cut off and started again, side by side, and how they end.

The processes are forked from one that has imported everything, so that a start takes no seconds.
"""

import contextlib
import multiprocessing
import random
import time
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import pytest

from krontime import cli
from krontime.results.record import Record, Status

SMALL = (
    *("data=synthetic", "data.source.num_train=24", "data.source.num_test=8", "data.source.length=512"),
    *("model.d_model=8", "model.num_heads=2", "model.num_layers=1", "model.ffn_dim=8", "tokenizer=linear"),
    *("data.batch_size=8", "trainer.enable_progress_bar=false", "callbacks.early_stopping=null"),
)
Start = Callable[..., ForkServerProcess]


@pytest.fixture(scope="module")
def start() -> Start:
    """`start("seed=0,1", output=FOLDER)`: a sweep in another process."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["krontime.run", "krontime.results.plots", "krontime.score", "hydra"])

    def start(*overrides: str, output: Path) -> ForkServerProcess:
        arguments = ["train", "-m", *SMALL, *overrides, f"paths.output={output}"]
        process = context.Process(target=cli.main, args=(arguments,))
        process.start()
        return process

    return start


def records(output: Path) -> dict[str, Record]:
    found = {path.parent.relative_to(output).as_posix(): path for path in output.glob("*/*/*/record.json")}
    return {folder: Record.read(path) for folder, path in sorted(found.items())}


def timeless(record: Record) -> dict[str, Any]:
    """What a record says, without when, how long, and in which memory."""
    kept = {"status", "model", "data", "seed", "config", "config_hash", "protocol", "metrics", "num_parameters"}
    return record.published().model_dump(include=kept)


def completed(output: Path) -> dict[str, tuple[Any, ...]]:
    """Of each completed run, what changes when it is run again."""
    found = {}
    for folder, record in records(output).items():
        if record.status is Status.COMPLETED:
            written = [path.stat().st_mtime_ns for path in sorted((output / folder).rglob("*.ckpt"))]
            found[folder] = (record.started_at, record.finished_at, *written)
    return found


def wait_for_epochs(process: ForkServerProcess, output: Path, num_epochs: int) -> None:
    """Until the runs in a folder have come that many epochs on, or the process has ended."""
    seen: set[tuple[Path, int]] | None = None
    while process.is_alive() and num_epochs >= 0:
        now = set()
        for path in output.rglob("last.ckpt"):
            with contextlib.suppress(FileNotFoundError):  # it is being replaced
                now.add((path, path.stat().st_mtime_ns))
        num_epochs -= now != seen
        seen = now
        time.sleep(0.002)


@pytest.mark.slow
def test_killed_at_any_moment_and_started_again_it_ends_as_one_that_was_not(start: Start, tmp_path: Path) -> None:
    sweep = ("model.dropout=0.1", "seed=0,1,2", "trainer.max_epochs=8")
    output = tmp_path / "cut"
    moment = random.Random(0)
    done: dict[str, tuple[Any, ...]] = {}
    num_cut = 0
    for _ in range(10):
        process = start(*sweep, output=output)
        wait_for_epochs(process, output, moment.randrange(3))
        time.sleep(moment.uniform(0.0, 0.2))
        process.kill()
        process.join()
        now = completed(output)
        assert done.items() <= now.items(), "a finished job was run again"
        done = now
        num_cut += len(list(output.rglob("last.ckpt"))) > len(done)
    assert num_cut >= 3  # in the middle of a job, that is; most are
    last = start(*sweep, output=output)
    last.join()
    assert last.exitcode == 0
    assert done.items() <= completed(output).items(), "a finished job was run again"

    whole = start(*sweep, output=tmp_path / "whole")
    whole.join()
    assert whole.exitcode == 0
    expected = {folder: timeless(record) for folder, record in records(tmp_path / "whole").items()}
    assert [record["status"] for record in expected.values()] == [Status.COMPLETED] * 3
    assert {folder: timeless(record) for folder, record in records(output).items()} == expected


@pytest.mark.slow
def test_two_sweeps_over_one_folder_share_the_work(start: Start, tmp_path: Path) -> None:
    """Every job is run once, by either, and both end well."""
    sweep = ("seed=0,1,2,3", "trainer.max_epochs=3")
    both = [start(*sweep, output=tmp_path) for _ in range(2)]
    written: set[tuple[str, int]] = set()
    while any(process.is_alive() for process in both):
        for path in tmp_path.glob("*/*/*/record.json"):
            written.add((path.parent.name, path.stat().st_mtime_ns))
        time.sleep(0.005)
    assert [process.exitcode for process in both] == [0, 0]
    assert [record.status for record in records(tmp_path).values()] == [Status.COMPLETED] * 4
    assert len(written) == 4
    assert not list(tmp_path.rglob("*.lock"))
