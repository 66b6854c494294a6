"""Sweeps in processes of their own: cut off and started again, side by side, and by every launcher.

The processes are forked from one that has imported everything, so that a start takes no seconds.
"""

import contextlib
import multiprocessing
import os
import random
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import pytest

from krontime import cli
from krontime.runs.record import Status
from tests.reliability.sweeps import SMALL, completed, records, timeless

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
    [(4, 1), (10, 3)],
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
