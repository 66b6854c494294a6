"""Runs as commands and as processes of their own."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from krontime import cli
from krontime.commands import evaluate
from krontime.runs.predictions import read_predictions
from krontime.runs.record import Record, Status
from tests.cli.run.small import SMALL, call, command, equal, train, weights


class TestCommand:
    def test_whole_path_with_spaces_and_accents(self, files: Path, tmp_path: Path) -> None:
        folder = tmp_path / "Messdaten für Zoë (2)"
        folder.mkdir()
        source = folder / "Aufnahme=1.npz"
        source.write_bytes((files / "equal.npz").read_bytes())
        screen = command("train", "data=npz", f"data.path={source}", *SMALL, f"paths.output={folder}")
        (record,) = folder.rglob("record.json")
        assert record.parent.name == f"seed0-{Record.read(record).config_hash}"
        assert record.parent.parent.parent.name == "Aufnahme=1"
        (line,) = (line for line in screen.splitlines() if "krontime evaluate" in line)
        assert str(record.parent) in line
        assert "test split scored again" in command("evaluate", f"run={record.parent}")
        command("predict", f"run={record.parent}", f"input={source}", f"output={folder / 'aus (1).csv'}")
        assert (folder / "aus (1).csv").is_file()

    def test_one_run_for_each_value_of_a_list(self, files: Path, tmp_path: Path) -> None:
        overrides = ("data=npz", f"data.path={files / 'equal.npz'}", *SMALL, "trainer.max_epochs=1")
        command("train", "-m", "seed=0,1", *overrides, f"paths.output={tmp_path}")
        records = [Record.read(path) for path in sorted(tmp_path.rglob("record.json"))]
        assert [record.seed for record in records] == [0, 1]
        screen = command("train", "seed=1", *overrides, f"paths.output={tmp_path}")
        assert "already done" in screen

    def test_a_job_that_cannot_work_does_not_stop_the_others(
        self, files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        overrides = ("data=npz", f"data.path={files / 'equal.npz'}", *SMALL, "trainer.max_epochs=1")
        with pytest.raises(SystemExit) as stopped:
            cli.main(["train", "-m", "model.dropout=2,0", *overrides, f"paths.output={tmp_path}"])
        assert stopped.value.code == 2
        assert "model.dropout=2: expected a fraction" in capsys.readouterr().err
        (record,) = (Record.read(path) for path in tmp_path.rglob("record.json"))
        assert record.config["model"]["dropout"] == 0

    def test_several_devices_are_refused_in_a_multirun(
        self, files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        data = ("data=npz", f"data.path={files / 'equal.npz'}", f"paths.output={tmp_path}")
        with pytest.raises(SystemExit) as stopped:
            cli.main(["train", "-m", "seed=0,1", "trainer=ddp_cpu", *data])
        assert stopped.value.code == 2
        message = capsys.readouterr().err
        assert "trainer.devices=2" in message
        assert "one command for each job" in message
        assert not list(tmp_path.rglob("record.json"))


@pytest.mark.slow
class TestProcesses:
    """What only a process of its own shows."""

    def start(self, *arguments: str, cwd: Path) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "krontime", *arguments]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
        return subprocess.Popen(
            command,
            cwd=cwd,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
        )

    def test_interrupted_by_the_user(self, files: Path, tmp_path: Path) -> None:
        data = ("train", "data=npz", f"data.path={files / 'equal.npz'}", *SMALL, "trainer.enable_progress_bar=true")
        overrides = (*data, "trainer.max_epochs=60", "callbacks.early_stopping=null")
        process = self.start(*overrides, "paths.output=cut", cwd=tmp_path)
        assert process.stderr is not None
        lines = [process.stderr.readline()]
        while lines[-1] and not lines[-1].startswith("epoch 4 "):
            lines.append(process.stderr.readline())
        assert lines[-1], "".join(lines)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=120)
        assert process.returncode == -signal.SIGINT, err
        assert "Traceback" not in err
        assert "interrupted" in out
        (path,) = tmp_path.rglob("record.json")
        assert Record.read(path).status is Status.INTERRUPTED

        process = self.start(*overrides, "paths.output=cut", cwd=tmp_path)
        _, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
        assert "Resuming from" in err
        assert "epoch 1 of" not in err
        process = self.start(*overrides, "paths.output=whole", cwd=tmp_path)
        _, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
        cut, whole = (next((tmp_path / name).rglob("record.json")).parent for name in ("cut", "whole"))
        assert Record.read(cut / "record.json").metrics == Record.read(whole / "record.json").metrics
        assert equal(weights(cut), weights(whole))
        assert equal(weights(cut, "best.ckpt"), weights(whole, "best.ckpt"))

    def test_two_cpu_processes_train_together_and_score_once(self, files: Path, tmp_path: Path) -> None:
        data = ("data=npz", f"data.path={files / 'equal.npz'}", *SMALL, "trainer=ddp_cpu", "trainer.max_epochs=2")
        process = self.start("train", *data, "trainer.enable_progress_bar=true", cwd=tmp_path)
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
        assert out.count("completed") == 1
        assert err.count("epoch 1 of 2") == 1
        assert err.count("Fitting the closed form: part 1/") == 1  # the other process is sent it
        assert "warning" not in err.lower()
        assert "recommended" not in err
        (path,) = tmp_path.rglob("record.json")
        record = Record.read(path)
        assert record.device.count == 2
        assert len(read_predictions(path.parent / "test_predictions.parquet").labels) == 12
        rows = (path.parent / "metrics.csv").read_text().splitlines()
        assert rows  # 24 training series: 12 each, in 2 batches of 6 an epoch
        checkpoint = torch.load(path.parent / "checkpoints" / "last.ckpt", weights_only=True)
        assert checkpoint["global_step"] == 4
        process = self.start("evaluate", f"run={path.parent}", cwd=tmp_path)
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
        accuracy = record.metrics.test["accuracy"]
        assert out.count(f"{accuracy:.3f}") >= 2  # recorded, and now

    @pytest.mark.filterwarnings("ignore:`torch.jit.script_method`:DeprecationWarning")  # PyTorch's own, on import
    def test_compiled_network_scores_as_it_stands_in_the_checkpoint(
        self, config: Callable[..., Any], tmp_path: Path
    ) -> None:
        record = train(config("equal.npz", "compile=true", "trainer.max_epochs=1"), tmp_path / "run")
        assert call(evaluate.evaluate, run=tmp_path / "run") == record.metrics.test
