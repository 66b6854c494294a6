"""The page of an explanation and its numbers, from a run on series with a burst at a known place."""

import contextlib
import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from krontime import cli
from krontime.runs.run import train_in
from tests.cli.run.small import CLOSED_FORM

START, STOP, LENGTH = 100, 140, 240
SMALL = (
    "model.d_model=8",
    "model.num_heads=2",
    "model.num_layers=1",
    "model.ffn_dim=8",
    *CLOSED_FORM,
    "optim.min_batches_per_epoch=1",
    "trainer.max_epochs=2",
    "trainer.enable_progress_bar=false",
)


@pytest.fixture(scope="module")
def run(compose, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("explained")
    y = np.arange(60) % 2
    X = np.random.default_rng(0).normal(size=(60, 1, LENGTH)).astype("f4")
    X[y == 1, 0, START:STOP] += 4 * np.sin(np.arange(STOP - START))
    np.savez(folder / "fast.npz", X=X[:4], fs=40.0)
    np.savez(folder / "empty.npz", X=np.where(np.arange(4)[:, None, None] == 1, np.nan, X[:4]), fs=20.0)
    np.savez(folder / "short.npz", X=X[:4, :, :200], fs=20.0)
    np.savez(folder / "a.npz", X=X, y=y, split=np.zeros(60, int), classes=np.array(["calm", "burst"]), fs=20.0)
    with contextlib.redirect_stdout(io.StringIO()):
        train_in(compose("data=npz", f"data.path={folder / 'a.npz'}", "data.scaling=none", *SMALL), folder / "run")
    return folder


def test_the_burst_is_what_decided(run, tmp_path, capsys):
    cli.main(
        ["explain", f"run={run / 'run'}", f"input={run / 'a.npz'}", "series=[1,0]", f"output={tmp_path / 'e.html'}"]
    )
    printed = capsys.readouterr()
    assert "e.html" in printed.out
    assert "60 series of 240 points (12 s at 20 Hz), 1 channel" in printed.err
    text = (tmp_path / "e.html").read_text(encoding="utf-8")
    assert "Series 1: burst" in text
    assert "Where the network attends to" in text
    assert "<th>closed form</th>" in text.replace(' scope="col"', "")
    assert "What each level of the network adds to the logit of burst" in text
    assert "Training series 1: burst" in text  # the series itself was trained on
    assert "distance 0.000" in text
    numbers = pd.read_csv(tmp_path / "e.csv")
    burst = numbers[numbers["series"] == 1].reset_index(drop=True)
    assert len(burst) == LENGTH
    assert burst["time_s"].iloc[-1] == pytest.approx((LENGTH - 1) / 20)
    assert START - 16 <= burst["occlusion"].idxmax() < STOP + 16


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["series=[60]"], "positions from 0 to 59"),
        (["series=[]"], "positions of series"),
        (["series=[-1]"], "positions of series"),
        (["target=storm"], "calm, burst"),
        (["output=page.pdf"], "ends in .html"),
        (["input=nothing.npz"], "nothing.npz"),
        (["input={folder}/fast.npz"], "resample=true brings them"),
        (["input={folder}/short.npz"], "allow=[length]"),
        (["sampling_rate_hz=0"], "a rate above 0"),
        (["input={folder}/empty.npz", "series=[0,1]"], "series=[1]: expected positions of series that have a value"),
    ],
)
def test_mistakes_are_named_before_anything_is_written(run, tmp_path, monkeypatch, capsys, overrides, expected):
    monkeypatch.chdir(tmp_path)
    overrides = [override.format(folder=run) for override in overrides]
    with pytest.raises(SystemExit) as stopped:
        cli.main(["explain", f"run={run / 'run'}", f"input={run / 'a.npz'}", *overrides])
    assert stopped.value.code == 2
    assert expected in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_what_may_differ_for_predict_may_differ_here(run, tmp_path):
    given = [f"run={run / 'run'}", f"input={run / 'short.npz'}", f"output={tmp_path / 'e.html'}"]
    cli.main(["explain", *given, "allow=[length]"])
    assert len(pd.read_csv(tmp_path / "e.csv")) == 200


def test_no_training_series_of_changed_data_are_shown(run, tmp_path):
    with np.load(run / "a.npz") as stored:
        np.savez(tmp_path / "a.npz", **{**stored, "y": 1 - stored["y"]})
    moved = [f"paths.data={tmp_path}", f"paths.cache={tmp_path / 'cache'}"]
    cli.main(
        [
            "explain",
            f"run={run / 'run'}",
            f"input={run / 'short.npz'}",
            "allow=length",
            f"output={tmp_path / 'e.html'}",
            *moved,
        ]
    )
    text = (tmp_path / "e.html").read_text(encoding="utf-8")
    assert "The nearest training series are not shown: the data set has changed since the run." in text
    assert "Training series" not in text
