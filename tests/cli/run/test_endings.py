"""A run that is interrupted, fails, runs out of memory or diverges: what is left, and how it goes on."""

import contextlib
import io
import os
import signal
import sys
from collections.abc import Callable
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities.exceptions import SIGTERMException

from krontime.commands import evaluate
from krontime.console.streams import SafeStream
from krontime.errors import Terminated, UserError
from krontime.runs import fitted_module, run
from krontime.runs.load import load_checkpoint
from krontime.runs.predictions import read_predictions
from krontime.runs.record import Record, Status
from tests.cli.run.small import SMALL, call, equal, labelled, train, weights, write_npz


def stumbling(*_: Any, **__: Any) -> None:
    """Fails while it cleans up after a SIGTERM, as Lightning does."""
    try:
        os.kill(os.getpid(), signal.SIGTERM)
    finally:
        raise RuntimeError("Please call `iter(combined_loader)` first.")


def forgetting(*_: Any, **__: Any) -> None:
    """Turns a SIGTERM into an error that knows nothing of it, as matplotlib's compiled code does."""
    with contextlib.suppress(Terminated):
        os.kill(os.getpid(), signal.SIGTERM)
    raise ValueError("Invalid bounding box")


def refusing(*_: Any, **__: Any) -> None:
    """Makes a mistake of the user's of it, as where a compiler was ended by it too."""
    with contextlib.suppress(Terminated):
        os.kill(os.getpid(), signal.SIGTERM)
    raise UserError("compile=True: the compiler can't be run")


def exiting(*_: Any, **__: Any) -> None:
    """Ends as Lightning does after the step in which the signal came, where the step's own error was lost."""
    with contextlib.suppress(Terminated):
        os.kill(os.getpid(), signal.SIGTERM)
    raise SIGTERMException


class TestEndings:
    @pytest.mark.parametrize(("num_workers", "step"), [(0, 6), pytest.param(2, 9, marks=pytest.mark.slow)])
    def test_interrupted_run_ends_as_if_it_had_not_been(
        self,
        config: Callable[..., Any],
        tmp_path: Path,
        interrupted_at: Callable[..., None],
        num_workers: int,
        step: int,
    ) -> None:
        options = config(
            *("equal.npz", "callbacks=ema", "augment.shift=0.2", "augment.mixup=0.4", "augment.jitter=0.1"),
            *(f"data.num_workers={num_workers}", "trainer.max_epochs=3"),
        )
        whole = train(options, tmp_path / "whole")
        interrupted_at(step, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            train(options, tmp_path / "cut")
        cut = Record.read(tmp_path / "cut" / "record.json")
        assert cut.status is Status.INTERRUPTED
        assert not cut.metrics.test
        assert not (tmp_path / "cut" / "test_predictions.parquet").exists()
        with pytest.raises(UserError, match=r"interrupted.*run to its end"):
            call(evaluate.evaluate, run=tmp_path / "cut")
        interrupted_at(None, KeyboardInterrupt())
        kept = load_checkpoint(tmp_path / "cut" / "checkpoints" / "last.ckpt")
        resumed = train(options, tmp_path / "cut")
        assert resumed.status is Status.COMPLETED
        assert resumed.metrics == whole.metrics
        assert resumed.train_cpu_s > kept["callbacks"]["ProcessorTimer"]["seconds"] > 0
        for name in ("last.ckpt", "best.ckpt"):
            assert equal(weights(tmp_path / "cut", name), weights(tmp_path / "whole", name))
        first, second = (read_predictions(tmp_path / n / "test_predictions.parquet") for n in ("cut", "whole"))
        assert (first.probabilities == second.probabilities).all()

    def test_interrupted_while_scoring_goes_on_to_the_same_scores(
        self, config: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, finished: tuple[Path, str]
    ) -> None:
        def interrupted(*_: Any) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(run, "_write_results", interrupted)
            with pytest.raises(KeyboardInterrupt):
                train(config("equal.npz"), tmp_path / "run")
        assert Record.read(tmp_path / "run" / "record.json").status is Status.INTERRUPTED
        again = train(config("equal.npz"), tmp_path / "run")
        assert again.metrics == Record.read(finished[0] / "record.json").metrics

    @pytest.mark.slow
    def test_a_checkpoint_of_other_data_is_not_gone_on_from(
        self,
        compose: Callable[..., Any],
        files: Path,
        tmp_path: Path,
        interrupted_at: Callable[..., None],
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        path = tmp_path / "mine.npz"
        path.write_bytes((files / "equal.npz").read_bytes())
        options = compose("data=npz", f"data.path={path}", *SMALL)
        interrupted_at(5, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            train(options, tmp_path / "run")
        interrupted_at(None, KeyboardInterrupt())
        path.write_bytes((files / "gaps.npz").read_bytes())
        train(options, tmp_path / "run")
        assert "changed since" in caplog.text
        assert "starts anew" in caplog.text
        assert len(list(tmp_path.glob("run.until-*/checkpoints/last.ckpt"))) == 1
        train(options, tmp_path / "fresh")
        assert equal(weights(tmp_path / "run"), weights(tmp_path / "fresh"))

    def test_a_damaged_checkpoint_is_not_gone_on_from(
        self,
        config: Callable[..., Any],
        tmp_path: Path,
        interrupted_at: Callable[..., None],
        caplog: pytest.LogCaptureFixture,
        finished: tuple[Path, str],
    ) -> None:
        interrupted_at(5, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            train(config("equal.npz"), tmp_path / "run")
        interrupted_at(None, KeyboardInterrupt())
        last = tmp_path / "run" / "checkpoints" / "last.ckpt"
        last.write_bytes(last.read_bytes()[:1000])
        train(config("equal.npz"), tmp_path / "run")
        assert "starts anew" in caplog.text
        assert equal(weights(tmp_path / "run"), weights(finished[0]))

    @pytest.mark.parametrize("fit", [stumbling, forgetting, refusing, exiting])
    def test_a_sigterm_that_becomes_another_error_is_still_one(
        self,
        config: Callable[..., Any],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        fit: Callable[..., None],
    ) -> None:
        monkeypatch.setattr(Trainer, "fit", fit)
        with pytest.raises(Terminated):
            train(config("equal.npz"), tmp_path / "run")
        record = Record.read(tmp_path / "run" / "record.json")
        assert (record.status, record.error) == (Status.INTERRUPTED, "ended by SIGTERM; the same command resumes it")

    def test_a_terminal_that_is_closed_interrupts_the_run(
        self, config: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
        monkeypatch.setattr(Trainer, "fit", lambda *_, **__: os.kill(os.getpid(), signal.SIGHUP))
        try:
            with pytest.raises(Terminated) as ended:
                train(config("equal.npz"), tmp_path / "run")
        finally:
            signal.signal(signal.SIGHUP, before)
        assert ended.value.code == 129
        record = Record.read(tmp_path / "run" / "record.json")
        assert (record.status, record.error) == (Status.INTERRUPTED, "ended by SIGHUP; the same command resumes it")

    def test_failure_is_recorded_and_shown_whole(
        self, config: Callable[..., Any], tmp_path: Path, interrupted_at: Callable[..., None]
    ) -> None:
        interrupted_at(2, RuntimeError("something broke"))
        with pytest.raises(RuntimeError, match="something broke"):
            train(config("equal.npz"), tmp_path / "run")
        record = Record.read(tmp_path / "run" / "record.json")
        assert (record.status, record.error) == (Status.FAILED, "RuntimeError: something broke")

    @pytest.mark.slow
    def test_a_reading_process_that_ends_while_a_batch_is_taken_over_is_explained(
        self, config: Callable[..., Any], tmp_path: Path, interrupted_at: Callable[..., None]
    ) -> None:
        """Its end is then first seen as that of a connection."""
        here, there = Pipe()
        there.close()
        with pytest.raises(EOFError) as ended:
            here.recv()
        interrupted_at(2, ended.value)
        with pytest.raises(UserError, match=r"data\.num_workers=1: a process that reads data ended unexpectedly"):
            train(config("equal.npz", "data.num_workers=1"), tmp_path / "run")
        assert Record.read(tmp_path / "run" / "record.json").error == "EOFError"
        for text in ("DataLoader worker (pid(s) 123, 456) ended unexpectedly", "Pin memory thread exited unexpectedly"):
            interrupted_at(2, RuntimeError(text))
            with pytest.raises(UserError, match=r"data\.num_workers=1: a process that reads data ended unexpectedly"):
                train(config("equal.npz", "data.num_workers=1", "seed=2", "force=true"), tmp_path / "told")
        interrupted_at(2, EOFError("of another kind"))
        with pytest.raises(EOFError):
            train(config("equal.npz", "data.num_workers=1", "seed=1"), tmp_path / "other")

    @pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError()])
    def test_out_of_memory_is_recorded_and_explained(
        self, config: Callable[..., Any], tmp_path: Path, interrupted_at: Callable[..., None], error: BaseException
    ) -> None:
        interrupted_at(2, error)
        with pytest.raises(UserError, match=r"data\.batch_size=6.*smaller batch"):
            train(config("equal.npz"), tmp_path / "run")
        assert Record.read(tmp_path / "run" / "record.json").status is Status.OUT_OF_MEMORY

    def test_out_of_memory_before_the_first_step_is_recorded_too(
        self, config: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def exhausted(*_: Any, **__: Any) -> None:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")

        monkeypatch.setattr(fitted_module, "fitted_module", exhausted)
        with pytest.raises(UserError, match="out of memory"):
            train(config("equal.npz"), tmp_path / "run")
        assert Record.read(tmp_path / "run" / "record.json").status is Status.OUT_OF_MEMORY


class TestPrinting:
    @pytest.mark.parametrize("where", ["full", "no reader", "ascii"])
    def test_a_completed_run_stays_one_whatever_becomes_of_its_screen(
        self, config: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
    ) -> None:
        names = np.array(["正常", "異常", "ノイズ"])
        path = tmp_path / "classes.npz"
        (train_series, y), (test_series, y_test) = labelled(24, 3, seed=0), labelled(9, 3, seed=1)
        write_npz(path, train_series, test_series, np.r_[y, y_test], classes=names)
        with contextlib.ExitStack() as stack:
            if where == "full":
                stream: Any = stack.enter_context(open("/dev/full", "w", buffering=1))
            elif where == "no reader":
                reading, writing = os.pipe()
                os.close(reading)
                stream = stack.enter_context(open(writing, "w", buffering=1))
            else:
                stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
            monkeypatch.setattr(sys, "stdout", stream)
            record = run.train_in(config(str(path), "trainer.max_epochs=1"), tmp_path / "run")
            again = run.train_in(config(str(path), "trainer.max_epochs=1"), tmp_path / "run")
            SafeStream(stream).settle()
        assert record == again == Record.read(tmp_path / "run" / "record.json")
        assert record is not None
        assert record.status is Status.COMPLETED
        assert record.metrics.test

    def test_an_interruption_while_the_screen_is_printed_comes_too_late_to_unmake_the_run(
        self, config: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def interrupted(*_: Any) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(run, "final_screen", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(config("equal.npz", "trainer.max_epochs=1"), tmp_path / "run")
        assert Record.read(tmp_path / "run" / "record.json").status is Status.COMPLETED

    def test_a_signal_right_after_the_record_comes_too_late_too(
        self, config: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        original = Record.write

        def interrupted(self: Record, path: Path) -> None:
            original(self, path)
            os.kill(os.getpid(), signal.SIGTERM)

        monkeypatch.setattr(Record, "write", interrupted)
        with pytest.raises(Terminated):
            train(config("equal.npz", "trainer.max_epochs=1"), tmp_path / "run")
        assert Record.read(tmp_path / "run" / "record.json").status is Status.COMPLETED


class TestDivergence:
    def test_a_loss_that_is_no_number_ends_the_run_with_a_diagnosis(
        self, config: Callable[..., Any], tmp_path: Path
    ) -> None:
        diverging = ("optim.optimizer.lr=1e30", "optim.warmup_fraction=0", "trainer.gradient_clip_val=null")
        with pytest.raises(UserError, match=r"diverged: in epoch 1 train/loss is .*optim\.optimizer\.lr"):
            train(config("equal.npz", *diverging), tmp_path)
        record = Record.read(tmp_path / "record.json")
        assert record.status is Status.FAILED
        assert "diverged" in str(record.error)
        assert not record.metrics.test
        assert not list(tmp_path.rglob("*.ckpt"))  # none that a next start would go on from
