"""Storage, memory and files that give out under a run: a message, a record, and a next start that goes on.

The harm is done for real, by a child process to itself or to its files, in the middle of its second epoch.
"""

import contextlib
import errno
import io
import os
import resource
import shutil
import signal
from collections.abc import Callable
from multiprocessing import active_children
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from krontime import cli
from krontime.runs import run
from krontime.runs.record import Record, Status
from krontime.training.module import SeriesClassifier

pytestmark = pytest.mark.slow

InChild = Callable[[Callable[[], Any]], tuple[int, str]]


@pytest.fixture(scope="module")
def folder(matrix: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data, and the folder `twin` of a run that was left alone."""
    folder = tmp_path_factory.mktemp("resources")
    matrix.write_data(folder)
    with contextlib.redirect_stdout(io.StringIO()):
        run.train_in(matrix.config(folder, ()), folder / "twin")
    return folder


@pytest.fixture
def twin(folder: Path) -> Path:
    return folder / "twin"


@pytest.fixture
def harmed(folder: Path, matrix: ModuleType) -> Any:
    """`harmed(do, *overrides)` is the command that trains into `paths.output=OUTPUT`, harmed by `do()` in epoch 2."""

    def command(do: Callable[[], Any], output: Path, *overrides: str) -> Callable[[], None]:
        given = (f"data.path={folder / 'data.npz'}", f"paths.cache={folder / 'cache'}", f"paths.output={output}")

        def task() -> None:
            original = SeriesClassifier.training_step

            def training_step(self: SeriesClassifier, batch: Any, batch_idx: int) -> Any:
                if (self.current_epoch, batch_idx) == (1, 2):
                    do()
                return original(self, batch, batch_idx)

            SeriesClassifier.training_step = training_step  # type: ignore[method-assign]
            cli.main(["train", *matrix.TINY, *given, *overrides])

        return task

    return command


def nothing() -> None:
    pass


def the_run(output: Path) -> Path:
    """The one run folder below an output folder."""
    (config,) = output.rglob("config.yaml")
    return config.parent


def limit_files() -> None:
    """Writing more fails half-way, as it does on a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (12_000, 12_000))


def fill_disk() -> None:
    """Not even a record can be written."""

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    os.fsync = full


@pytest.mark.parametrize(("harm", "reason"), [(limit_files, "File too large"), (fill_disk, "No space left on device")])
def test_a_full_disk_is_told_and_the_next_start_goes_on(
    harmed: Any, in_child: InChild, matrix: ModuleType, twin: Path, tmp_path: Path, harm: Any, reason: str
) -> None:
    status, text = in_child(harmed(harm, tmp_path))
    assert status == 2, text
    assert "Traceback" not in text
    assert f"{reason}; expected " in text
    assert "the same command resumes from the last checkpoint" in text
    folder = the_run(tmp_path)
    assert (folder / "record.json").is_file() == (harm is limit_files)
    if harm is limit_files:
        record = Record.read(folder / "record.json")
        assert record.status is Status.FAILED
        assert reason in str(record.error)
    status, text = in_child(harmed(nothing, tmp_path))
    assert status == 0, text
    assert "Resuming from" in text
    assert matrix.differences(folder, twin) == []


def test_a_cache_that_is_removed_under_a_run_is_not_missed(
    harmed: Any, in_child: InChild, matrix: ModuleType, twin: Path, folder: Path, tmp_path: Path
) -> None:
    status, text = in_child(harmed(lambda: shutil.rmtree(folder / "cache"), tmp_path, "data.num_workers=1"))
    assert status == 0, text
    result = matrix.differences(the_run(tmp_path), twin)
    assert result == ["record: config", "record: config_hash"]  # the number of workers
    status, text = in_child(harmed(nothing, tmp_path / "other"))
    assert status == 0, text
    assert matrix.differences(the_run(tmp_path / "other"), twin) == []


def test_a_worker_that_is_killed_is_told_and_the_next_start_goes_on(
    harmed: Any, in_child: InChild, matrix: ModuleType, tmp_path: Path, folder: Path
) -> None:
    def kill_workers() -> None:
        for worker in active_children():
            assert worker.pid is not None
            os.kill(worker.pid, signal.SIGKILL)

    status, text = in_child(harmed(kill_workers, tmp_path / "cut", "data.num_workers=2"))
    assert status == 2, text
    assert "Traceback" not in text
    assert "data.num_workers=2: a process that reads data" in text
    cut = the_run(tmp_path / "cut")
    assert Record.read(cut / "record.json").status is Status.FAILED
    status, text = in_child(harmed(nothing, tmp_path / "cut", "data.num_workers=2"))
    assert status == 0, text
    assert "Resuming from" in text
    in_child(harmed(nothing, tmp_path / "whole", "data.num_workers=2"))
    assert matrix.differences(cut, the_run(tmp_path / "whole")) == []


@pytest.mark.parametrize(("num_workers", "expected"), [(0, -signal.SIGBUS), (1, 2)])
def test_a_cache_that_is_cut_short_under_a_run_is_built_again_by_the_next_start(
    harmed: Any,
    in_child: InChild,
    matrix: ModuleType,
    folder: Path,
    tmp_path: Path,
    num_workers: int,
    expected: int,
) -> None:
    """Reading a mapped file beyond its new end is a SIGBUS, which no program can turn into an exception."""

    def cut() -> None:
        (values,) = (folder / "cache").glob("*/values.npy")
        os.truncate(values, 0)

    workers = f"data.num_workers={num_workers}"
    status, text = in_child(harmed(cut, tmp_path / "cut", workers))
    assert status == expected, text
    assert num_workers == 0 or "data.num_workers=1: a process that reads data" in text
    status, text = in_child(harmed(nothing, tmp_path / "cut", workers))
    assert status == 0, text
    assert "is damaged" in text
    assert "Resuming from" in text
    in_child(harmed(nothing, tmp_path / "whole", workers))
    assert matrix.differences(the_run(tmp_path / "cut"), the_run(tmp_path / "whole")) == []


def test_an_output_folder_that_cannot_be_written_is_told(harmed: Any, in_child: InChild, tmp_path: Path) -> None:
    output = tmp_path / "output"
    output.mkdir(mode=0o500)
    if os.access(output, os.W_OK):  # the superuser's tests
        output = Path("/proc/krontime")
    status, text = in_child(harmed(nothing, output))
    assert status == 2, text
    assert "Traceback" not in text
    assert str(output) in text
