"""`predict follow=true` gives for windows of a stream what `predict` gives for the same series."""

import contextlib
import io
import json
import os
import signal
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from krontime import cli
from krontime.runs import bundle
from krontime.training.predict import Scorer
from tests.cli.run.small import command


def series_of(files: Path) -> np.ndarray:
    """The twelve test series, one after the other: 12 windows of 80 points."""
    with np.load(files / "equal.npz") as file:
        return file["X_flat"][0, file["offsets"][30] :].reshape(12, 80)


def text_of(points: np.ndarray) -> str:
    return "".join(f"{value!r}\n" for value in points.ravel().tolist())


@pytest.fixture
def stdin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """`stdin(text)` lets the command read it."""

    with contextlib.ExitStack() as files:

        def given(text: str) -> None:
            (tmp_path / "stdin").write_text(text)
            monkeypatch.setattr(sys, "stdin", files.enter_context((tmp_path / "stdin").open()))

        yield given


def test_the_numbers_are_those_of_the_same_series_in_a_file(finished, files, tmp_path, stdin):
    run, series = finished[0], series_of(files)
    stdin(text_of(series) + "1\n2\n")
    out = command("predict", f"run={run}", "follow=true", "input=-", "output=-", "coverage=0.8")
    rows = pd.read_csv(io.StringIO(out))
    assert list(rows) == ["index", "start", "stop", "start_s", "stop_s", "predicted", "set", "p_a", "p_b", "p_c"]
    assert rows["start"].tolist() == list(range(0, 960, 80))
    assert rows["stop_s"].iloc[0] == 0.8
    np.save(tmp_path / "windows.npy", series)
    command(
        "predict", f"run={run}", f"input={tmp_path / 'windows.npy'}", f"output={tmp_path / 'a.csv'}", "coverage=0.8"
    )
    batch = pd.read_csv(tmp_path / "a.csv")
    assert batch["predicted"].tolist() == rows["predicted"].tolist()
    assert batch["set"].tolist() == rows["set"].tolist()
    loaded = bundle.load(run)
    scorer = replace(Scorer.of(loaded.config), batch_size=1)
    from krontime.data.in_memory import unlabelled_series

    data = unlabelled_series(series, loaded.spec.class_names)
    alone = scorer.probabilities(loaded.module, data, np.arange(12)).numpy()
    np.testing.assert_array_equal(rows[["p_a", "p_b", "p_c"]].to_numpy("f4"), alone)  # to the last bit
    np.testing.assert_allclose(batch[["p_a", "p_b", "p_c"]], alone, atol=1e-6)


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_a_file_that_grows_is_followed_until_sigterm(finished, files, tmp_path, capsys):
    path, output = tmp_path / "points.txt", tmp_path / "out.jsonl"
    path.write_text("")
    lines = text_of(series_of(files)[:4]).splitlines(keepends=True)

    def grow() -> None:
        for part in np.array_split(np.array(lines), 9):
            with path.open("a") as file:
                file.write("".join(part))
            time.sleep(0.01)
        deadline = time.monotonic() + 60
        while not (output.exists() and output.read_text().count("\n") == 9) and time.monotonic() < deadline:
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGTERM)

    writer = threading.Thread(target=grow)
    writer.start()
    given = [f"run={finished[0]}", "follow=true", f"input={path}", f"output={output}", "latency=true"]
    cli.main(["predict", *given, "window.length=0.8s", "window.stride=30", "json=true"])
    writer.join()
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert [row["start"] for row in rows] == list(range(0, 241, 30))
    said = json.loads(capsys.readouterr().out)
    assert said["num_windows"] == 9
    assert 0 < said["latency_ms"]["median"] <= said["latency_ms"]["max"]


def test_a_window_without_an_observed_point_has_no_class(finished, files, stdin, capsys):
    stdin(text_of(series_of(files)[0]) + "nan\n" * 80)
    out = command("predict", f"run={finished[0]}", "follow=true", "input=-", "output=-")
    rows = [line.split(",")[5:] for line in out.splitlines()]
    assert rows[-1] == ["", "", "", ""]
    errors = capsys.readouterr().err
    assert "1 windows have no value and get no class" in errors
    assert f"{len(rows) - 2} windows classified" in errors


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["window.length=90"], "expected at most 80 points"),
        (["window.length=2.5"], "expected points such as 500, or seconds such as 2.5s"),
        (["window.stride=0"], "expected at least one point"),
        (["output=a.parquet"], "ends in .csv or .jsonl"),
        (["on_error=skip", "split=test", "source.label=x"], "source.label='x': expected null with follow=true"),
        (["sampling_rate_hz=50"], "expected 100 points per second"),
        (["threshold.class=z", "threshold.recall=0.5"], "threshold.class='z'"),
        (["follow=false", "window.length=80"], "nothing without follow=true"),
        ([], "line 2: value 0 is 'x'"),
    ],
)
def test_mistakes_are_named(finished, stdin, tmp_path, monkeypatch, capsys, overrides, expected):
    monkeypatch.chdir(tmp_path)
    stdin("1\nx\n")
    with pytest.raises(SystemExit) as stopped:
        cli.main(["predict", f"run={finished[0]}", "follow=true", "input=-", "output=-", *overrides])
    assert stopped.value.code == 2
    assert expected in capsys.readouterr().err
