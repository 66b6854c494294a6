"""A limit on time is a number of steps, which is measured once: from then on a run depends on no clock."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from krontime.config.schema import check_train
from krontime.errors import UserError
from krontime.runs import network_fit
from krontime.runs.record import Record, Status
from krontime.training import budget
from krontime.training.schedule import WarmupCosine
from tests.cli.run.small import equal, train, weights

ENDLESS = ("trainer.max_epochs=100000", "callbacks.early_stopping=null", "callbacks.done=null")
LIMIT = '+trainer.max_time="00:00:00:04"'


@pytest.fixture
def limited(config: Callable[..., Any], tmp_path: Path) -> Callable[..., tuple[Record, Path]]:
    numbers = itertools.count()

    def limited(*overrides: str, folder: Path | None = None) -> tuple[Record, Path]:
        folder = folder or tmp_path / f"run{next(numbers)}"
        return train(config("equal.npz", *ENDLESS, *overrides), folder), folder

    return limited


def without_clock(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    monkeypatch.setattr(network_fit, "measured_steps", lambda *_, **__: steps)


def test_time_is_turned_into_steps_and_the_schedule_comes_to_its_end(limited: Callable[..., Any]) -> None:
    record, folder = limited(LIMIT, "trainer.log_every_n_steps=1")
    assert record.status is Status.COMPLETED
    assert record.limited_by == "seconds"
    assert record.num_steps == record.max_steps
    assert record.num_steps is not None
    assert record.num_steps >= 1
    assert record.train_time_s is not None
    rates = pd.read_csv(folder / "metrics.csv").filter(like="lr-").dropna().iloc[:, 0].tolist()
    options = record.config["optim"]
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=options["optimizer"]["lr"])
    shape = {"warmup_fraction": options["warmup_fraction"], "min_lr_ratio": options["min_lr_ratio"]}
    schedule = WarmupCosine(optimizer, total_steps=record.num_steps, **shape)
    expected = [options["optimizer"]["lr"] * schedule.factor(step) for step in range(record.num_steps)]
    assert rates == pytest.approx(expected)


@pytest.mark.parametrize("steps", [7, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 13))])
def test_a_run_of_so_much_time_is_one_of_so_many_steps(
    steps: int, limited: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the bit, wherever in an epoch (of four steps) the last of them is."""
    without_clock(monkeypatch, steps)
    in_time, first = limited(LIMIT)
    in_steps, second = limited(f"+trainer.max_steps={steps}")
    assert (in_time.limited_by, in_steps.limited_by) == ("seconds", "steps")
    assert in_time.num_steps == in_steps.num_steps == steps
    assert equal(weights(first), weights(second))
    assert in_time.metrics == in_steps.metrics


@pytest.mark.parametrize("stopped_at", [9, *(pytest.param(n, marks=pytest.mark.slow) for n in (3, 17))])
def test_a_resumed_run_has_the_steps_that_were_measured_first(
    stopped_at: int,
    limited: Callable[..., Any],
    interrupted_at: Callable[..., None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    without_clock(monkeypatch, 18)
    _, whole = limited(LIMIT, "checkpoint_every_n_steps=1")
    interrupted_at(stopped_at, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        limited(LIMIT, "checkpoint_every_n_steps=1", folder=tmp_path / "run")
    interrupted_at(None, KeyboardInterrupt())
    without_clock(monkeypatch, 5)  # the machine is slower now
    record, resumed = limited(LIMIT, "checkpoint_every_n_steps=1", folder=tmp_path / "run")
    assert (record.num_steps, record.limited_by) == (18, "seconds")
    assert equal(weights(whole), weights(resumed))


@pytest.mark.parametrize("limit", [None, "+trainer.max_steps=14"])
def test_an_epoch_that_was_whole_is_not_ended_again(
    limit: str | None, config: Callable[..., Any], interrupted_at: Callable[..., None], tmp_path: Path
) -> None:
    """Lightning ends it a second time where steps are limited, without the score that early stopping waits for."""
    options = config("equal.npz", "trainer.max_epochs=4", *([limit] if limit else []))
    train(options, tmp_path / "whole")
    interrupted_at(8, KeyboardInterrupt())  # in the first step of the third epoch
    with pytest.raises(KeyboardInterrupt):
        train(options, tmp_path / "cut")
    interrupted_at(None, KeyboardInterrupt())
    assert train(options, tmp_path / "cut").status is Status.COMPLETED
    assert equal(weights(tmp_path / "whole"), weights(tmp_path / "cut"))
    whole, cut = (pd.read_csv(tmp_path / name / "metrics.csv") for name in ("whole", "cut"))
    assert cut.drop(columns="series_per_s").equals(whole.drop(columns="series_per_s"))


@pytest.mark.slow
def test_the_smallest_limit_counts(limited: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    without_clock(monkeypatch, 9)
    assert limited(LIMIT, "trainer.max_epochs=1")[0].limited_by == "epochs"
    assert limited(LIMIT, "+trainer.max_steps=3")[0].limited_by == "steps"
    assert limited(LIMIT, "+trainer.max_steps=30")[0].limited_by == "seconds"


@pytest.mark.slow
def test_time_for_less_than_an_epoch_is_told(limited: Callable[..., Any], caplog: pytest.LogCaptureFixture) -> None:
    record, _ = limited('+trainer.max_time="00:00:00:01"', "optim.min_batches_per_epoch=100000")
    assert record.num_steps < 100_000
    assert "the network is trained for less than an epoch, of 100000 steps" in caplog.text


@pytest.mark.slow
def test_measuring_leaves_the_run_as_it_is(limited: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The same steps give the same weights, whether they were measured or told; with dropout and batches to draw."""
    measured, first = limited(LIMIT, "augment.jitter=0.1")
    monkeypatch.setattr(budget, "measured_steps", None)
    told, second = limited(f"+trainer.max_steps={measured.num_steps}", "augment.jitter=0.1")
    assert told.num_steps == measured.num_steps
    assert equal(weights(first), weights(second))


@pytest.mark.parametrize(
    ("override", "wanted"),
    [
        ("+trainer.max_time=soon", "days:hours:minutes:seconds"),
        ('+trainer.max_time="00:00:00:00"', "more than no time"),
        ("+trainer.max_time={weks:1}", "expected days, hours, minutes"),
        ("+trainer.max_steps=0", "at least 1, or -1"),
        ("+trainer.max_steps=2.5", "whole number"),
        ("+trainer.fast_dev_run=true", "recorded as those of a run"),
        ("+trainer.limit_val_batches=0", "callbacks.checkpoint and callbacks.early_stopping monitor validation"),
        ("+trainer.limit_train_batches=0", "some to train on"),
    ],
)
def test_what_leaves_nothing_to_train_or_validate_is_refused_beforehand(
    override: str, wanted: str, config: Callable[..., Any]
) -> None:
    with pytest.raises(UserError) as error:
        check_train(config("equal.npz", override), is_multirun=False)
    assert len(error.value.problems) == 1
    assert wanted in error.value.problems[0]


def test_without_validation_where_nothing_monitors_it(limited: Callable[..., Any]) -> None:
    options = ("callbacks.checkpoint=null", "+trainer.limit_val_batches=0", "+trainer.max_steps=3")
    record, _ = limited(*options)
    assert record.status is Status.COMPLETED
    assert record.num_steps == 3
