"""The lock of a run folder: one process at a time, gone with its process, and with its file."""

import multiprocessing
import os
import signal
from collections.abc import Iterator
from multiprocessing.context import ForkProcess
from pathlib import Path

import pytest
from filelock import FileLock

from krontime.errors import UserError
from krontime.runs import lock


def hold(run_dir: Path, ready: object, release: object) -> None:
    with lock.run_lock(run_dir):
        ready.set()  # type: ignore[attr-defined]
        release.wait()  # type: ignore[attr-defined]


class Holder:
    """Another process that has the lock."""

    def __init__(self, run_dir: Path) -> None:
        context = multiprocessing.get_context("fork")
        ready, self.release = context.Event(), context.Event()
        self.process: ForkProcess = context.Process(target=hold, args=(run_dir, ready, self.release))
        self.process.start()
        assert ready.wait(60)


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[Holder]:
    result = Holder(tmp_path / "data" / "run")
    yield result
    result.process.kill()
    result.process.join()


def test_only_one_process_at_a_time(holder: Holder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_dir = tmp_path / "data" / "run"
    monkeypatch.setattr(lock, "_TIMEOUT_S", 0.1)
    assert lock.is_held(run_dir)
    with pytest.raises(lock.Busy, match="another process is training there"), lock.run_lock(run_dir):
        raise AssertionError("entered")
    holder.release.set()
    holder.process.join()
    assert not lock.is_held(run_dir)
    assert list((tmp_path / "data").iterdir()) == []
    with lock.run_lock(run_dir):
        assert lock.is_held(run_dir)


def test_a_killed_process_holds_nothing(holder: Holder, tmp_path: Path) -> None:
    run_dir = tmp_path / "data" / "run"
    assert holder.process.pid is not None
    os.kill(holder.process.pid, signal.SIGKILL)
    holder.process.join()
    assert run_dir.with_name("run.lock").exists()
    assert not lock.is_held(run_dir)
    began = lock.killed_at(run_dir)
    assert began is not None
    with lock.run_lock(run_dir):
        assert lock.is_held(run_dir)
        assert lock.killed_at(run_dir) is None
        assert run_dir.with_name("run.lock").stat().st_mtime > began
    assert not run_dir.with_name("run.lock").exists()
    assert lock.killed_at(run_dir) is None


def test_looking_leaves_no_file_behind(tmp_path: Path) -> None:
    assert not lock.is_held(tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_a_lock_of_another_user_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: FileLock, *_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", self.lock_file)

    (tmp_path / "run.lock").touch()
    monkeypatch.setattr(FileLock, "acquire", refuse)
    assert lock.is_held(tmp_path / "run")
    with (
        pytest.raises(UserError, match=r"run\.lock can't be written \(Permission denied\)"),
        lock.run_lock(tmp_path / "run"),
    ):
        raise AssertionError("entered")


def compete(run_dir: Path, log: Path, num_turns: int) -> None:
    for _ in range(num_turns):
        with lock.run_lock(run_dir):
            inside = run_dir.with_name("inside")
            inside.touch(exist_ok=False)  # fails where another process is in
            inside.unlink()
            with log.open("a") as file:
                file.write("x")


def test_a_lock_whose_file_is_removed_at_release_still_keeps_others_out(tmp_path: Path) -> None:
    """Four processes that wait for the file which the holder is about to remove."""
    context = multiprocessing.get_context("fork")
    arguments = (tmp_path / "run", tmp_path / "log", 25)
    processes = [context.Process(target=compete, args=arguments) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    finished = (tmp_path / "log").read_text()
    assert [process.exitcode for process in processes] == [0] * 4
    assert finished == "x" * 100
