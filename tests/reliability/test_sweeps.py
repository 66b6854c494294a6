"""How sweeps end, in this process: what fails, is busy or interrupted, and what cannot be begun."""

import contextlib
import io
import multiprocessing
import os
import signal
from collections.abc import Callable
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
from krontime.runs.record import Status
from tests.reliability.sweeps import SMALL, completed, records


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
