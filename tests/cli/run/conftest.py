"""Data sets, configs and a finished run for the tests of whole runs."""

import contextlib
import io
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer

from krontime.runs import run
from krontime.training.module import SeriesClassifier
from tests.cli.run.small import NETWORKS, labelled, write_npz, write_ts


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of data sets: equal.npz, gaps.npz (two channels, unequal, gaps in train alone), TRAIN.ts and TEST.ts."""
    folder = tmp_path_factory.mktemp("files")
    train, y = labelled(30, 3, seed=0)
    test, y_test = labelled(12, 3, seed=1)
    write_npz(folder / "equal.npz", train, test, np.r_[y, y_test], classes=np.array(["a", "b", "c"]), fs=100.0)
    write_ts(folder / "TRAIN.ts", train, y)
    write_ts(folder / "TEST.ts", test, y_test)
    train, y = labelled(24, 2, seed=2, num_channels=2, lengths=(40, 90), missing=True)
    test, y_test = labelled(7, 2, seed=3, num_channels=2, lengths=(60, 60))
    write_npz(folder / "gaps.npz", train, test, np.r_[y, y_test])
    return folder


@pytest.fixture(scope="module")
def config(compose: Callable[..., dict[str, Any]], files: Path) -> Callable[..., dict[str, Any]]:
    """`config("equal.npz", "seed=1", network="tcn")`: a small run's config."""

    def composed(file: str, *overrides: str, network: str = "krontime") -> dict[str, Any]:
        chosen = ("data=npz", f"data.path={files / file}")
        if file.endswith(".ts"):
            chosen = ("data=ts", f"data.train={files / file}")
        return compose(*chosen, *NETWORKS[network], *overrides)

    return composed


@pytest.fixture(scope="module")
def finished(config: Callable[..., dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A finished run's folder, and what it printed."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    with contextlib.redirect_stdout(io.StringIO()) as screen:
        run.train_in(config("equal.npz"), folder)
    return folder, screen.getvalue()


@pytest.fixture
def no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("trained")

    monkeypatch.setattr(Trainer, "fit", refuse)


@pytest.fixture
def interrupted_at(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int | None, BaseException], None]]:
    """`interrupted_at(5, error)` raises it in training step 5; `interrupted_at(None, ...)` no more."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    original = SeriesClassifier.training_step

    def interrupted_at(step: int | None, error: BaseException) -> None:
        def training_step(self: SeriesClassifier, batch: Any, batch_idx: int) -> torch.Tensor:
            if self.global_step == step:
                raise error
            return original(self, batch, batch_idx)

        monkeypatch.setattr(SeriesClassifier, "training_step", training_step)

    yield interrupted_at
    for number, handler in handlers.items():  # Lightning ignores further interrupts while it stops
        signal.signal(number, handler)
