"""A run on data without a test split: its validation series take the place, and what the screen says works."""

import contextlib
import io
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from krontime import cli
from krontime.runs import run
from krontime.runs.predictions import read_predictions
from krontime.runs.record import Record
from tests.cli.run.small import labelled, write_npz


@pytest.mark.parametrize(("num_classes", "network"), [(2, "krontime"), (3, "tcn"), (2, "patchtst")])
def test_validation_predictions_and_the_next_command(
    config: Callable[..., Any], tmp_path: Path, num_classes: int, network: str
) -> None:
    series, y = labelled(30, num_classes, seed=0)
    write_npz(tmp_path / "one.npz", series, [], y)
    folder = tmp_path / "run"
    options = config(str(tmp_path / "one.npz"), "trainer.max_epochs=1", network=network)
    with contextlib.redirect_stdout(io.StringIO()) as screen:
        run.train_in(options, folder)
    record = Record.read(folder / "record.json")
    assert record.protocol is not None
    assert not record.metrics.test
    predictions = read_predictions(folder / "validation_predictions.parquet")
    assert len(predictions.index) == record.protocol.num_val > 0
    accuracy = np.mean([a == b for a, b in zip(predictions.predicted, predictions.labels, strict=True)])
    assert record.metrics.val["accuracy"] == pytest.approx(accuracy)
    assert (folder / "confusion_matrix.png").is_file()
    assert not (folder / "test_predictions.parquet").exists()
    lines = screen.getvalue().splitlines()
    assert "krontime evaluate" not in screen.getvalue()
    (following,) = (line.removeprefix("Next").strip() for line in lines if line.startswith("Next"))
    np.save(tmp_path / "new.npy", np.stack(series[:3]))
    words = shlex.split(following.replace("input=FILE", f"input={tmp_path / 'new.npy'}"))
    words = [word.replace("output=FILE", f"output={tmp_path / 'new.csv'}") for word in words]
    with contextlib.redirect_stdout(io.StringIO()):
        cli.main(words[1:])
    assert len((tmp_path / "new.csv").read_text().splitlines()) == 4
