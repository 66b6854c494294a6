"""How far a sweep has come, read off its folder: each state, what else lies there, and the time left."""

import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from krontime import cli
from krontime.commands import sweep_status
from krontime.config.identity import config_hash
from krontime.errors import UserError
from krontime.runs import lock
from krontime.runs.record import Device, Metrics, Protocol, Record, Status
from krontime.runs.sweep import Job, JobState, Sweep, listed, progress, varied

START = datetime(2026, 1, 1, tzinfo=UTC)


def write(folder: Path, status: Status, *, duration_s: float = 60.0, train_time_s: float = 50.0) -> None:
    """A record of a run that took so long."""
    config: dict[str, Any] = {"seed": 0}
    is_done = status is Status.COMPLETED
    Record(
        status=status,
        model="tcn",
        data="hum",
        seed=0,
        config=config,
        config_hash=config_hash(config),
        protocol=Protocol(
            data_sha256="0" * 64,
            split_method="stratified",
            split_seed=0,
            num_train=8,
            num_val=2,
            num_test=2,
            train_class_counts={"a": 4, "b": 4},
            selection_metric="val/nll",
            scaling="series",
        ),
        metrics=Metrics(test={"accuracy": 0.5}) if is_done else Metrics(),
        num_parameters=1,
        train_time_s=train_time_s,
        peak_memory_bytes=1,
        device=Device(kind="cpu", name="x", num_threads=1, platform="y"),
        versions={},
        git=None,
        started_at=START,
        finished_at=START + timedelta(seconds=duration_s),
        error=None if is_done else f"it is {status}\nmore of it",
    ).write(folder / "record.json")


def jobs(*names: str, group: str = "hum/tcn") -> list[Job]:
    return [Job(folder=f"{group}/{name}", overrides=["model=tcn", f"seed={name}"]) for name in names]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A sweep of eight jobs, one of them in each state and two refused."""
    root = tmp_path / "outputs"
    folder = root / "hum" / "tcn"
    listed = jobs("done", "cut", "killed", "failed", "oom", "todo", "refused", "mended")
    listed[6:] = [job.model_copy(update={"error": "seed=x: expected\na number"}) for job in listed[6:]]
    Sweep(jobs=listed).write(root)
    write(folder / "done", Status.COMPLETED)
    write(folder / "cut", Status.INTERRUPTED)
    write(folder / "failed", Status.FAILED)
    write(folder / "oom", Status.OUT_OF_MEMORY)
    write(folder / "mended", Status.COMPLETED, duration_s=100.0, train_time_s=200.0)
    (folder / "killed").mkdir()
    (folder / "killed" / "config.yaml").touch()
    (folder / "killed.lock").touch()  # of a process that is gone
    return root


def status(outputs: Any) -> dict[JobState, int]:
    from omegaconf import OmegaConf

    return sweep_status.sweep_status(OmegaConf.create({"outputs": outputs}))


EXPECTED = {
    JobState.DONE: 2,
    JobState.RUNNING: 0,
    JobState.INTERRUPTED: 2,
    JobState.FAILED: 2,
    JobState.OUT_OF_MEMORY: 1,
    JobState.BROKEN: 0,
    JobState.TO_DO: 1,
}


def test_each_job_is_in_its_state(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert status(str(root)) == EXPECTED
    head, row, total, *lines = capsys.readouterr().out.splitlines()
    assert head == "runs\tdone\trunning\tinterrupted\tfailed\tout of memory\tbroken\tto do"
    assert row == f"{root}/hum/tcn\t2\t0\t2\t2\t1\t0\t1"
    assert total == "total\t2\t0\t2\t2\t1\t0\t1"
    folder = f"{root}/hum/tcn"
    assert lines == [
        f"interrupted: {folder}/cut: it is interrupted",
        f"failed: {folder}/failed: it is failed",
        f"interrupted: {folder}/killed: cut off",
        f"out of memory: {folder}/oom: it is out_of_memory",
        f"failed: {folder}/refused: seed=x: expected",
        "time left: about 13 min 0 s",  # six jobs of (60 + 200) / 2 s
    ]


def test_a_run_that_holds_its_lock_is_running_whatever_its_last_record_says(root: Path) -> None:
    folder = root / "hum" / "tcn" / "cut"
    (folder / "config.yaml").touch()
    started = time.time() - 100
    os.utime(folder / "config.yaml", (started, started))
    with lock.run_lock(folder):
        assert status(str(root)) == {**EXPECTED, JobState.RUNNING: 1, JobState.INTERRUPTED: 1}
        left_s = sweep_status.time_left_s(sweep_status.jobs_in(root))
    assert left_s is not None
    assert 30 + 5 * 130 - 20 <= left_s <= 30 + 5 * 130  # some seconds have passed


def test_several_at_once_share_what_is_left(root: Path) -> None:
    folder = root / "hum" / "tcn"
    with lock.run_lock(folder / "todo"), lock.run_lock(folder / "refused"):
        assert sweep_status.time_left_s(sweep_status.jobs_in(root)) == 6 * 130 / 2


def test_a_record_that_cannot_be_read_is_named_and_stops_nothing(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = root / "hum" / "tcn"
    (folder / "done" / "record.json").write_text("{")
    assert status(str(root)) == {**EXPECTED, JobState.DONE: 1, JobState.BROKEN: 1}
    path = folder / "done" / "record.json"
    assert f"broken: {folder}/done: {path}: not a readable record" in capsys.readouterr().out

    def refuse(self: Path) -> bool:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "is_file", refuse)
    assert progress(folder / "cut") == (JobState.BROKEN, None, f"{folder}/cut/record.json: Permission denied")


def test_other_runs_and_other_sweeps_count_too_but_not_what_force_has_set_aside(root: Path) -> None:
    Sweep(jobs=[*jobs("done", "more"), *jobs("slow", group="hum/patchtst")]).write(root)
    write(root / "hum" / "krontime" / "single", Status.COMPLETED)
    write(root / "hum" / "krontime" / "single.until-20260101T000000.000000Z", Status.FAILED)
    assert status(str(root)) == {**EXPECTED, JobState.DONE: 3, JobState.TO_DO: 3}
    assert {Path(folder).name for folder in listed(root)} >= {"done", "more", "slow", "todo"}


def test_several_output_folders(root: Path, tmp_path: Path) -> None:
    write(tmp_path / "other" / "hum" / "tcn" / "run", Status.COMPLETED)
    both = [str(root), str(tmp_path / "other")]
    assert status(both)[JobState.DONE] == 3
    assert status([str(root)] * 2) == EXPECTED


def test_a_folder_in_another_is_counted_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = status(str(root))
    monkeypatch.chdir(root)
    assert status([str(root / "hum"), str(root), "."]) == expected


def test_the_same_sweep_leaves_one_list(tmp_path: Path) -> None:
    for _ in range(2):
        Sweep(jobs=jobs("a", "b")).write(tmp_path)
    Sweep(jobs=jobs("b", "a")).write(tmp_path)
    assert len(list((tmp_path / ".sweeps").iterdir())) == 1
    Sweep(jobs=jobs("a", "c")).write(tmp_path)
    assert {Path(folder).name for folder in listed(tmp_path)} == {"a", "b", "c"}
    Sweep(jobs=jobs("a", "c")).remove(tmp_path)
    assert {Path(folder).name for folder in listed(tmp_path)} == {"a", "b"}
    Sweep(jobs=jobs("b", "a")).remove(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_nothing_done_nothing_known(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Sweep(jobs=jobs("a")).write(tmp_path)
    assert status(str(tmp_path))[JobState.TO_DO] == 1
    assert capsys.readouterr().out.splitlines()[-1] == "time left: unknown until a job is done"


def test_all_done_nothing_left(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "hum" / "tcn" / "a", Status.COMPLETED)
    assert status(str(tmp_path))[JobState.DONE] == 1
    assert "time left" not in capsys.readouterr().out


def test_a_table_on_a_terminal(root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    status(str(root))
    out = capsys.readouterr().out
    assert "\t" not in out
    for text in ("out of memory", "total", "time left: about 13 min 0 s"):
        assert text in out


def test_mistakes_are_named_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(["sweep-status", f"outputs=[{tmp_path}/none,{tmp_path},3]"])
    assert stopped.value.code == 2
    err = capsys.readouterr().err
    assert f"outputs='{tmp_path}/none': expected the folder" in err
    assert "outputs='3': expected the folder" in err
    with pytest.raises(UserError, match=r"outputs=\[\]: expected"):
        status([])


@pytest.mark.parametrize("text", ["{", '{"schema_version": 2, "jobs": []}', '{"schema_version": 1}'])
def test_a_list_that_cannot_be_read_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / ".sweeps").mkdir()
    (tmp_path / ".sweeps" / "x.json").write_text(text)
    with pytest.raises(UserError, match=r"x\.json: not a readable list"):
        status(str(tmp_path))


def test_a_job_is_called_by_what_others_do_not_have(tmp_path: Path) -> None:
    assert varied(jobs("0", "1")) == ["seed=0", "seed=1"]
    assert varied(jobs("0")) == ["hum/tcn/0"]
    assert progress(tmp_path / "none").state is JobState.TO_DO
