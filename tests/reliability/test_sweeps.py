"""Sweeps in processes of their own: cut off and started again, side by side, and how they end.

The processes are forked from one that has imported everything, so that a start takes no seconds.
"""

import contextlib
import io
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from krontime import cli
from krontime.config import files as config_files
from krontime.config import hydra_guard, overrides
from krontime.runs import lock, run
from krontime.runs.fit import Fit
from krontime.runs.prepare import PreparedData
from krontime.runs.record import Record, Status
from tests.cli.run.small import CLOSED_FORM

SMALL = (
    *("data=synthetic", "data.source.num_train=24", "data.source.num_test=8", "data.source.length=512"),
    *("model.d_model=8", "model.num_heads=2", "model.num_layers=1", "model.ffn_dim=8", "tokenizer=linear"),
    *CLOSED_FORM,
    *(
        "data.batch_size=8",
        "trainer.enable_progress_bar=false",
        "optim.min_batches_per_epoch=1",
        "callbacks.early_stopping=null",
    ),
)
LAUNCHERS = {
    "joblib": ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2"),
    "submitit_local": ("hydra/launcher=submitit_local", "hydra.launcher.timeout_min=10"),
}
Start = Callable[..., ForkServerProcess]


@pytest.fixture(scope="module")
def start() -> Start:
    """`start("seed=0,1", output=FOLDER)`: a sweep in another process."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["krontime.runs.run", "krontime.runs.plot.curves", "krontime.training.predict", "hydra"]
    )

    def start(*overrides: str, output: Path) -> ForkServerProcess:
        arguments = ["train", "-m", *SMALL, *overrides, f"paths.output={output}"]
        process = context.Process(target=cli.main, args=(arguments,))
        process.start()
        return process

    return start


def records(output: Path) -> dict[str, Record]:
    result = {path.parent.relative_to(output).as_posix(): path for path in output.glob("*/*/*/record.json")}
    return {folder: Record.read(path) for folder, path in sorted(result.items())}


def timeless(record: Record) -> dict[str, Any]:
    """What a record says, without when, how long, and in which memory."""
    kept = {"status", "model", "data", "seed", "config", "config_hash", "protocol", "metrics", "num_parameters"}
    return record.published().model_dump(include=kept)


def completed(output: Path) -> dict[str, tuple[Any, ...]]:
    """Of each completed run, what changes when it is run again."""
    result = {}
    for folder, record in records(output).items():
        if record.status is Status.COMPLETED:
            written = [path.stat().st_mtime_ns for path in sorted((output / folder).rglob("*.ckpt"))]
            result[folder] = (record.started_at, record.finished_at, *written)
    return result


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
@pytest.mark.parametrize(
    ("num_kills", "at_least"),
    [(4, 1), pytest.param(10, 3, marks=pytest.mark.thorough)],
)
def test_killed_at_any_moment_and_started_again_it_ends_as_one_that_was_not(
    start: Start, tmp_path: Path, num_kills: int, at_least: int
) -> None:
    sweep = ("model.dropout=0.1", "seed=0,1,2", "trainer.max_epochs=6")
    output = tmp_path / "cut"
    moment = random.Random(0)
    done: dict[str, tuple[Any, ...]] = {}
    num_cut = 0
    for _ in range(num_kills):
        process = start(*sweep, output=output)
        wait_for_epochs(process, output, moment.randrange(2))
        time.sleep(moment.uniform(0.0, 0.2))
        process.kill()
        process.join()
        now = completed(output)
        assert done.items() <= now.items(), "a finished job was run again"
        done = now
        num_cut += len(list(output.rglob("last.ckpt"))) > len(done)
    assert num_cut >= at_least  # in the middle of a job, that is; most are
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


@pytest.fixture(scope="module")
def basic(start: Start, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What the records of two jobs say that ran one after the other in one process."""
    output = tmp_path_factory.mktemp("basic")
    process = start("seed=0,1", "trainer.max_epochs=2", output=output)
    process.join()
    assert process.exitcode == 0
    return {folder: timeless(record) for folder, record in records(output).items()}


def command(*overrides: str, output: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """A sweep as the command that it is."""
    return subprocess.run(
        [sys.executable, "-m", "krontime", "train", "-m", *SMALL, *overrides, f"paths.output={output}"],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=600,
    )


@pytest.mark.slow
@pytest.mark.parametrize("launcher", LAUNCHERS.values(), ids=LAUNCHERS)
def test_jobs_in_other_processes_leave_the_same_records(
    launcher: tuple[str, ...], basic: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    done = command("seed=0,1", *launcher, "trainer.max_epochs=2", output=tmp_path)
    assert done.returncode == 0, done.stderr
    assert {folder: timeless(record) for folder, record in records(tmp_path).items()} == basic


@pytest.mark.slow
def test_several_devices_are_refused_in_other_processes_too(tmp_path: Path) -> None:
    """Lightning would start the further ones with the command of the sweep."""
    done = command("seed=0,1", "trainer.devices=2", *LAUNCHERS["joblib"], output=tmp_path)
    assert done.returncode == 2
    assert "  failed: seed=1: trainer.devices=2: the further ones would be started with" in done.stderr
    assert not list(tmp_path.rglob("record.json"))


SLURM = {
    "sbatch": """
    # Starts each job of an array in the background, as SLURM does on a node.
    tasks=$(sed -n 's/^#SBATCH --ntasks-per-node=//p' "$1")
    export SLURM_ARRAY_JOB_ID=70 SLURM_JOB_NAME=train SLURM_NNODES=1 SLURM_JOB_NUM_NODES=1 SLURM_JOB_NODELIST=here
    export SLURM_NTASKS=$tasks SLURM_NTASKS_PER_NODE=$tasks SLURM_PROCID=0 SLURM_LOCALID=0 SLURM_NODEID=0
    for task in $(seq 0 $(sed -n 's/^#SBATCH --array=0-\\([0-9]*\\).*/\\1/p' "$1")); do
        SLURM_ARRAY_TASK_ID=$task SLURM_JOB_ID=$((71 + task)) bash "$1" > "$1.$task" 2>&1 &
    done
    echo "Submitted batch job 70"
    """,
    "srun": """
    # One task, without the options: --unbuffered --output FILE --error FILE
    shift 5
    exec "$@"
    """,
    "sacct": "printf 'JobID|State|NodeList\\n70_0|RUNNING|here\\n70_1|RUNNING|here\\n'",
}
"""What submitit calls of SLURM, on this machine."""


@pytest.mark.slow
def test_jobs_of_slurm_leave_the_same_records(basic: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    """As far as can be told without SLURM: its commands are small scripts here, and its variables are set."""
    for name, script in SLURM.items():
        (tmp_path / "bin").mkdir(exist_ok=True)
        (tmp_path / "bin" / name).write_text(f"#!/bin/bash\n{textwrap.dedent(script)}")
        (tmp_path / "bin" / name).chmod(0o755)
    launcher = ("hydra/launcher=submitit_slurm", "hydra.launcher.partition=long", "hydra.launcher.gpus_per_node=1")
    path = f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"
    done = command("seed=0,1", *launcher, "trainer.max_epochs=2", output=tmp_path / "runs", PATH=path)
    assert done.returncode == 0, done.stderr
    assert {folder: timeless(record) for folder, record in records(tmp_path / "runs").items()} == basic
    submitted = [path.read_text() for path in (tmp_path / "runs" / ".submitit").rglob("*submission*.sh")]
    assert submitted
    assert all("#SBATCH --partition=long" in text for text in submitted)


@pytest.mark.slow
def test_jobs_on_another_node_of_a_ray_cluster_leave_the_same_records(
    basic: dict[str, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two nodes, of which that of the sweep has no room for a job."""
    pytest.importorskip("ray", reason="ray is not installed: pip install krontime[ray]")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    from ray.cluster_utils import Cluster

    small = {"object_store_memory": 80_000_000}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, **small})
    try:
        cluster.add_node(num_cpus=2, **small)
        launcher = ("hydra/launcher=ray", f"hydra.launcher.ray.init.address='{cluster.address}'")
        done = command("seed=0,1", *launcher, "trainer.max_epochs=2", output=tmp_path)
    finally:
        cluster.shutdown()
    assert done.returncode == 0, done.stderr
    assert {folder: timeless(record) for folder, record in records(tmp_path).items()} == basic


def sweep(*overrides: str, output: Path) -> None:
    """A sweep in this process."""
    with contextlib.redirect_stdout(io.StringIO()):
        cli.main(["train", "-m", *SMALL, *overrides, "trainer.max_epochs=1", f"paths.output={output}"])


@pytest.mark.slow
def test_what_fails_stops_no_other_and_the_last_lines_say_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One job is refused, in one the program fails; the second start finds one done and runs what it can."""
    original = run._write_results

    def faulty(job: PreparedData, fit: Fit, run_dir: Path) -> Any:
        if fit.config["seed"] == 0:
            raise ZeroDivisionError("no such thing")
        return original(job, fit, run_dir)

    monkeypatch.setattr(run, "_write_results", faulty)
    jobs = ("seed=0,1", "model.dropout=0,2")
    with pytest.raises(SystemExit) as stopped:
        sweep(*jobs, output=tmp_path)
    assert stopped.value.code == 2
    err = capsys.readouterr().err
    assert "ZeroDivisionError: no such thing" in err.partition("krontime: ")[0]  # with its traceback
    assert "Traceback" not in err.partition("krontime: ")[2]
    assert err.splitlines()[-5:] == [
        "krontime: the sweep has 4 jobs: 1 done, 3 failed",
        "  failed: seed=0 model.dropout=0: ZeroDivisionError: no such thing",
        "  failed: seed=0 model.dropout=2: model.dropout=2: expected a fraction of at least 0 and less than 1",
        "  failed: seed=1 model.dropout=2: model.dropout=2: expected a fraction of at least 0 and less than 1",
        f"the same command runs the rest; krontime sweep-status outputs={tmp_path} looks at it",
    ]
    done = completed(tmp_path)
    assert len(done) == 1
    cli.main(["sweep-status", f"outputs={tmp_path}"])
    assert "total\t1\t0\t0\t3\t0\t0\t0" in capsys.readouterr().out

    monkeypatch.setattr(run, "_write_results", original)
    with pytest.raises(SystemExit):
        sweep(*jobs, output=tmp_path)
    assert "krontime: the sweep has 4 jobs: 2 done, 2 failed" in capsys.readouterr().err
    assert done.items() < completed(tmp_path).items()

    folder = next(iter(done))
    (tmp_path / folder / "record.json").write_text("{")
    with pytest.raises(SystemExit) as stopped:
        sweep(*jobs, output=tmp_path)
    assert stopped.value.code == 2
    err = capsys.readouterr().err
    assert "krontime: the sweep has 4 jobs: 1 done, 2 failed, 1 broken" in err
    assert f"{folder}/record.json: not a readable record" in err


@pytest.mark.slow
def test_wandb_gets_a_run_for_each_job_and_one_of_the_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_SILENT", "true")
    overrides = ("logger=wandb", "model.dropout=0,2", "trainer.max_epochs=1", f"paths.output={tmp_path}")
    with contextlib.redirect_stdout(io.StringIO()) as screen, pytest.raises(SystemExit):
        cli.main(["train", "-m", *SMALL, *overrides])
    assert f"wandb sync {tmp_path}/wandb/offline-run-*" in screen.getvalue()
    assert len(list(tmp_path.glob("*/*/*/wandb/offline-run-*"))) == 1  # the other job was refused
    (summary,) = (tmp_path / "wandb").glob("offline-run-*")
    (listed,) = (tmp_path / ".sweeps").glob("*.json")
    assert summary.name.endswith(f"sweep-{listed.stem}")
    (table,) = (summary / "files" / "media" / "table").glob("jobs*.json")
    jobs = pd.read_json(table, typ="series")
    rows = [dict(zip(jobs["columns"], row, strict=True)) for row in jobs["data"]]
    assert [row["state"] for row in rows] == ["done", "failed"]
    assert "model.dropout=0" in rows[0]["overrides"].split()
    assert "expected a fraction" in rows[1]["error"]
    (record,) = records(tmp_path).values()
    assert rows[0]["test/accuracy"] == pytest.approx(record.metrics.test["accuracy"])


def test_a_sweep_that_is_interrupted_says_how_far_it_came(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "_write_results", interrupted)
    with contextlib.redirect_stdout(io.StringIO()) as screen, pytest.raises(SystemExit) as stopped:
        cli.main(["train", "-m", *SMALL, "seed=0,1", "trainer.max_epochs=1", f"paths.output={tmp_path}"])
    assert stopped.value.code == 130
    assert capsys.readouterr().err.splitlines()[-1] == "krontime: interrupted"
    assert "the sweep has 2 jobs: 1 interrupted, 1 to do" in screen.getvalue()


@pytest.mark.slow
def test_a_job_that_is_busy_elsewhere_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is run here where the other process gave up."""
    from hydra_plugins.hydra_krontime import sweeper

    sweep("seed=0,1", output=tmp_path)
    (folder,) = tmp_path.glob("*/*/seed0-*")
    (folder / "record.json").unlink()
    other = contextlib.ExitStack()
    other.enter_context(lock.run_lock(folder))
    naps: list[float] = []

    def nap(duration_s: float) -> None:
        naps.append(duration_s)
        if len(naps) == 2:
            other.close()

    monkeypatch.setattr(sweeper.time, "sleep", nap)
    monkeypatch.setattr(lock, "_TIMEOUT_S", 0.0)
    sweep("seed=0,1", output=tmp_path)
    assert len(naps) == 2
    assert [record.status for record in records(tmp_path).values()] == [Status.COMPLETED] * 2


@pytest.mark.slow
def test_a_job_that_kills_each_process_keeps_no_other_from_being_run(tmp_path: Path) -> None:
    """The first job always does, the second once; each start ends by one of them until there is only the first."""
    original, output = run._write_results, tmp_path / "out"

    def killing(job: PreparedData, fit: Fit, run_dir: Path) -> Any:
        seed, once = fit.config["seed"], tmp_path / "once"
        if seed == 0 or (seed == 1 and not once.exists()):
            once.touch() if seed else None
            os.kill(os.getpid(), signal.SIGKILL)
        return original(job, fit, run_dir)

    def begin() -> None:
        run._write_results = killing
        sweep("seed=0,1,2", output=output)

    num_done = []
    for _ in range(4):
        process = multiprocessing.get_context("fork").Process(target=begin)
        process.start()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        num_done.append(len(completed(output)))
    assert num_done == [0, 0, 1, 2]


@pytest.mark.slow
def test_jobs_that_are_run_last_return_in_their_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And keep it where folders are named after the place."""
    from hydra.core.plugins import Plugins

    Plugins.instance()  # which imports what is installed anew
    from hydra_plugins.hydra_krontime.sweeper import KrontimeSweeper

    whole, result = KrontimeSweeper.sweep, []
    monkeypatch.setattr(KrontimeSweeper, "sweep", lambda self, arguments: result.append(whole(self, arguments)))
    for subdir, places in (("${data.name}/x/seed${seed}", [1, 0]), ("x/${hydra.job.num}/y", [0, 1])):
        jobs = ("seed=0,1", f"hydra.sweep.subdir={subdir}")
        sweep(*jobs, output=tmp_path)
        first = result[-1][0].hydra_cfg.hydra.runtime.output_dir
        Path(f"{first}.lock").touch()
        sweep(*jobs, output=tmp_path)
        assert [job.cfg.seed for job in result[-1]] == [0, 1]
        assert [job.hydra_cfg.hydra.job.num for job in result[-1]] == places


def test_a_suite_is_a_sweep_over_its_data_sets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One of the user's own, with data sets that are in `paths.data`; the same command then runs nothing again."""
    (tmp_path / "configs/suite").mkdir(parents=True)
    (tmp_path / "configs/suite/own.yaml").write_text(
        "overrides: [data=archive, 'data.name={name}']\ndata_sets: {One: the first, Two: the second}\n"
    )
    rng = np.random.default_rng(0)
    for name in ("One", "Two"):
        x = rng.standard_normal((40, 1, 20))
        np.savez(tmp_path / f"{name}.npz", X=x, y=np.arange(40) % 2, split=np.arange(40) >= 30)
    command = [
        *("train", "-m", "--config-dir", str(tmp_path / "configs"), "+suite=own", "data.resample=0,1", "model=aeon"),
        *("model.classifier=aeon.classification.DummyClassifier", "logger=[]", f"paths.data={tmp_path}"),
        f"paths.output={tmp_path / 'out'}",
    ]
    cli.main(command)
    assert "Sweep: 4 jobs, all done" in capsys.readouterr().out
    done = {folder: record for folder, record in records(tmp_path / "out").items()}
    assert sorted((r.data, r.protocol.resample) for r in done.values() if r.protocol) == [
        ("One", 0), ("One", 1), ("Two", 0), ("Two", 1),
    ]  # fmt: skip
    cli.main(command)
    assert records(tmp_path / "out") == done
    for wrong, says in (("+suite=other", "one of "), ("+suite=own data=ucr", "data=ucr: has no effect beside +suite")):
        with pytest.raises(SystemExit):
            cli.main([*command[:4], *wrong.split(), *command[5:]])
        assert says in capsys.readouterr().err


def test_a_suite_without_a_sweep_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["train", "+suite=dev"])
    assert "suite: expected krontime train -m +suite=NAME" in capsys.readouterr().err


def test_a_job_that_cannot_be_composed_is_told_before_any_is_begun(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(["train", "-m", "data=synthetic,npz", f"paths.output={tmp_path}"])
    assert stopped.value.code == 2
    assert "data.path=...: expected a value" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_launcher_that_is_not_installed_is_named_with_its_extra(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from hydra.core.config_store import ConfigStore
    from hydra.core.plugins import Plugins

    Plugins.instance()  # which stores what is installed
    for name in overrides.LAUNCHER_EXTRAS:
        monkeypatch.delitem(ConfigStore.instance().repo["hydra"]["launcher"], f"{name}.yaml")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for name, extra in {**overrides.LAUNCHER_EXTRAS, "ray": "ray"}.items():
        with pytest.raises(SystemExit) as stopped:
            cli.main(["train", "-m", "seed=0,1", f"hydra/launcher={name}", f"paths.output={tmp_path}"])
        assert stopped.value.code == 2
        message = f"hydra/launcher={name}: is not installed; expected pip install 'krontime[{extra}]' before"
        assert capsys.readouterr().err == f"krontime: {message}\n"
    assert list(tmp_path.iterdir()) == []


def test_a_launcher_of_one_run_would_have_no_effect(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(["train", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"])
    assert stopped.value.code == 2
    assert capsys.readouterr().err.count("has no effect on a single run") == 2


@pytest.mark.parametrize("launcher", ["basic", "joblib", "submitit_local", "submitit_slurm", "ray"])
def test_every_launcher_passes_the_guard_with_its_own_options(launcher: str, compose: Callable[..., Any]) -> None:
    """And no further: what it would build is not for a config to say."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir

    evil = "{_target_:logging.FileHandler,filename:F}"
    with initialize_config_dir(str(config_files.config_dir()), version_base="1.3"):
        config = hydra_compose("train", [f"hydra/launcher={launcher}"], return_hydra_config=True)
        assert hydra_guard.hydra_problems(config) == []
        config = hydra_compose(
            "train", [f"hydra/launcher={launcher}", f"+hydra.launcher.x={evil}"], return_hydra_config=True
        )
        assert len(hydra_guard.hydra_problems(config)) == 1
