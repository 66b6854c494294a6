"""What is said of epochs and of predictions: counted from 1, with the time that is left, and not too often."""

import logging
from types import SimpleNamespace
from typing import Any

import pytest

from krontime import console
from krontime.training import progress
from krontime.training.progress import Bar, EpochLines, PredictionProgress


@pytest.fixture
def now_s(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def trainer(**options: Any) -> Any:
    return SimpleNamespace(
        **{"is_global_zero": True, "current_epoch": 0, "max_epochs": 3, "num_training_batches": 100, **options}
    )


@pytest.mark.parametrize(("step_s", "expected"), [(0.05, 0), (0.3, 2), (1.0, 9), (20.0, 99)])
def test_a_long_epoch_is_told_of_every_ten_seconds(
    step_s: float, expected: int, now_s: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    lines, module = EpochLines(), SimpleNamespace()
    lines.on_train_epoch_start(trainer(), module)
    for batch in range(100):
        now_s[0] += step_s
        lines.on_train_batch_end(trainer(), module, None, None, batch)
    assert len(caplog.messages) == expected
    if step_s == 1:
        assert caplog.messages[0] == "epoch 1 of 3: batch 10 of 100, about 1 min 30 s left of it"


def test_the_rest_of_an_epoch_is_told_from_where_the_run_resumed(
    now_s: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    """Lightning does not begin an epoch again that a checkpoint was made within."""
    caplog.set_level(logging.INFO)
    lines, module = EpochLines(), SimpleNamespace()
    now_s[0] = 5000.0
    progress = SimpleNamespace(current=SimpleNamespace(completed=60))
    resumed = trainer(fit_loop=SimpleNamespace(epoch_loop=SimpleNamespace(batch_progress=progress)))
    lines.on_train_start(resumed, module)
    for batch in range(60, 80):
        now_s[0] += 1.0
        lines.on_train_batch_end(resumed, module, None, None, batch)
    assert caplog.messages[0] == "epoch 1 of 3: batch 70 of 100, about 30.0 s left of it"


def test_a_long_validation_is_told_of_too(now_s: list[float], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    lines, module = EpochLines(), SimpleNamespace()
    now_s[0] = 1000.0
    lines.on_validation_start(trainer(), module)
    for batch in range(40):
        now_s[0] += 1.0
        lines.on_validation_batch_end(trainer(num_val_batches=[40]), module, None, None, batch, 0)
    assert caplog.messages[0] == "epoch 1 of 3: validation batch 10 of 40, about 30.0 s left of it"
    assert len(caplog.messages) == 3


def test_other_ranks_say_nothing(now_s: list[float], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    lines = EpochLines()
    now_s[0] = 100
    lines.on_train_batch_end(trainer(is_global_zero=False), SimpleNamespace(), None, None, 3)
    assert caplog.messages == []


@pytest.mark.parametrize(("epoch", "expected"), [(0, "epoch 1 of 3"), (1, "epoch 2 of 3"), (2, "epoch 3 of 3")])
def test_the_bar_counts_from_one(epoch: int, expected: str) -> None:
    bar = Bar()
    bar._trainer = trainer()
    assert bar._get_train_description(epoch) == expected


def test_each_predicted_batch_counts_its_series(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[int] = []
    counted = PredictionProgress()
    counted.step = done.append
    for size in (5, 5, 2):
        counted.on_predict_batch_end(trainer(), SimpleNamespace(), None, SimpleNamespace(index=range(size)), 0, 0)
    assert done == [5, 5, 2]
    with console.progress("predicting", 12) as counted.step:
        counted.on_predict_batch_end(trainer(), SimpleNamespace(), None, SimpleNamespace(index=range(12)), 0, 0)
