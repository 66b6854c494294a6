"""Runs whose validation series are too few to say whether a network adds to the closed form."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from krontime.commands.evaluate import evaluate
from krontime.commands.export import export
from krontime.runs import load
from tests.cli.run.small import call, labelled, train, write_npz


def small_set(folder: Path) -> str:
    series, y = labelled(48, 2, seed=0)
    return str(write_npz(folder / "one.npz", series[:36], series[36:], y))


@pytest.mark.parametrize("option", ["compile=false", "compile=true", '+trainer.max_time="00:00:01:00"'])
def test_the_closed_form_answers_alone(
    config: Callable[..., Any], tmp_path: Path, caplog: pytest.LogCaptureFixture, option: str
) -> None:
    caplog.set_level(logging.INFO)
    options = config(small_set(tmp_path), "closed_form.min_network_series=9", option)
    folder = tmp_path / "run"
    record = train(options, folder)
    (line,) = (message for message in caplog.messages if "not trained" in message)
    assert "7 validation series" in line
    assert "min_network_series=9" in line
    assert record.num_steps is record.max_steps is record.limited_by is None
    assert record.metrics.val["accuracy"] > 0.5
    assert load.load_run(folder).module.network is None
    assert not (folder / "attention.png").exists()
    assert call(evaluate, run=folder, split="test")["accuracy"] == record.metrics.test["accuracy"]
    call(export, run=folder, output=tmp_path / "bundle", format="bundle", check=None, latency=False)


def test_as_many_series_as_are_asked_for_train_it(config: Callable[..., Any], tmp_path: Path) -> None:
    options = config(small_set(tmp_path), "closed_form.min_network_series=7")
    assert train(options, tmp_path / "run").num_steps
    assert load.load_run(tmp_path / "run").module.network is not None
