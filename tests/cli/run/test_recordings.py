"""A long table from the file to a confusion matrix, segments, and new recordings that are classified."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from krontime.commands.evaluate import evaluate
from krontime.commands.explain import explain
from krontime.commands.predict import predict
from krontime.errors import UserError
from krontime.runs import bundle
from krontime.runs.record import Record
from tests.cli.run.small import NETWORK, call, train

WINDOWS = ("data.window.length=40", "data.window.stride=20", "tokenizer.patch_length=8")


def write_table(path: Path, machines: list[str], *, points: int = 400, seed: int = 0) -> Path:
    rng = np.random.default_rng(seed)
    frames = []
    for machine in machines:
        state = np.repeat(rng.permutation(np.arange(points // 80) % 2), 80)
        wave = np.sin(np.cumsum(np.where(state, 1.2, 0.3)))
        frame = pd.DataFrame({"t": np.arange(points) / 10, "machine": machine})
        frame["a"], frame["b"] = wave + 0.1 * rng.standard_normal(points), rng.standard_normal(points)
        frame["state"] = np.where(state, "run", "idle")
        frames.append(frame)
    pd.concat(frames).to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory, compose, quick_plots) -> tuple[Path, Record]:
    folder = tmp_path_factory.mktemp("recordings")
    table = write_table(folder / "plant.csv", [f"m{i}" for i in range(5)])
    config = compose(
        "data=long_table",
        f"data.path={table}",
        "data.source.test_groups=[m4]",
        "data.source.group_name=machine",
        "closed_form=none",
        *WINDOWS,
        *NETWORK,
    )
    return folder / "run", train(config, folder / "run")


def test_a_run_leaves_segments_and_recordings(trained):
    folder, record = trained
    assert (record.protocol.num_train, record.protocol.num_val, record.protocol.num_test) == (57, 19, 19)
    assert record.protocol.group == "machine"
    assert record.protocol.groups_in_train_and_test == 0
    assert record.metrics.recordings == {}  # one of both classes has no class of its own
    assert 0 <= record.metrics.accuracy_over_time <= 1
    assert Record.read(folder / "record.json").metrics == record.metrics
    segments = pd.read_csv(folder / "segments.csv")
    assert set(segments["recording"]) == {"m4"}
    assert segments["start"].iloc[0] == 0
    assert segments["stop"].iloc[-1] == 400
    assert (segments["start"].iloc[1:].to_numpy() == segments["stop"].iloc[:-1].to_numpy()).all()
    assert np.allclose(segments["stop_s"], segments["stop"] / 10)
    probability = segments[["p_idle", "p_run"]].to_numpy()
    assert np.allclose(probability.sum(axis=1), 1, atol=1e-5)
    assert len(pd.read_csv(folder / "recordings.csv")) == 1
    assert (folder / "recordings.png").is_file()
    assert (folder / "confusion_matrix.png").is_file()


def test_it_is_scored_again(trained):
    folder, record = trained
    assert call(evaluate, run=folder)["accuracy"] == record.metrics.test["accuracy"]


def test_new_recordings_are_classified_by_time(trained, tmp_path):
    folder, _ = trained
    table = write_table(tmp_path / "new.csv", ["x1", "x2"], points=240, seed=7)
    new = pd.read_csv(table)
    new.drop(columns="state")[["b", "machine", "a", "t"]].to_csv(table, index=False)  # in another order
    output, segments = tmp_path / "out.csv", tmp_path / "segments.csv"
    call(predict, run=folder, input=table, output=output, segments=segments)
    rows = pd.read_csv(output)
    assert rows["file"].tolist() == ["x1", "x2"]
    assert set(pd.read_csv(segments)["recording"]) == {"x1", "x2"}
    with pytest.raises(UserError, match=r"segments=.*: expected a new name, or force=true to overwrite"):
        call(predict, run=folder, input=table, output=tmp_path / "other.csv", segments=segments)


def test_recordings_of_one_name_in_several_files_are_told_apart(trained, tmp_path):
    (tmp_path / "new").mkdir()
    for site, machines in (("s1", ["m0", "m1"]), ("s2", ["m0", "m1"]), ("s3", ["m0"])):
        write_table(tmp_path / f"new/{site}.csv", machines, points=240)
    output, segments = tmp_path / "out.csv", tmp_path / "segments.csv"
    call(predict, run=trained[0], input=tmp_path / "new", output=output, segments=segments)
    rows = pd.read_csv(output)
    assert rows["file"].tolist() == ["s1.csv: m0", "s1.csv: m1", "s2.csv: m0", "s2.csv: m1", "s3.csv"]
    assert set(pd.read_csv(segments)["recording"]) == set(rows["file"])


def test_windows_without_any_value_say_nothing(trained, tmp_path, caplog):
    folder, _ = trained
    table, output, segments = tmp_path / "new.csv", tmp_path / "out.csv", tmp_path / "segments.csv"
    write_table(table, ["x1", "x2", "x3"], points=240, seed=7)
    new = pd.read_csv(table)
    new.loc[(new["machine"] == "x1") & new["t"].between(4, 15.9), ["a", "b"]] = np.nan
    new.loc[new["machine"] == "x2", ["a", "b"]] = np.nan
    after = pd.DataFrame({"t": [24.0, 24.1], "machine": "x2", "a": 0.5, "b": 0.1, "state": "run"})  # in no window
    pd.concat([new, after]).to_csv(table, index=False)
    call(predict, run=folder, input=table, output=output, segments=segments)
    rows = pd.read_csv(output)
    assert rows["predicted"].isna().tolist() == [False, True, False]
    assert rows.loc[rows["file"] == "x2", ["p_idle", "p_run"]].isna().all(axis=None)
    assert "1 recordings have no value and get no class (at index 1)" in caplog.text
    stretches = pd.read_csv(segments)
    assert set(stretches["recording"]) == {"x1", "x3"}
    first = stretches[stretches["recording"] == "x1"]
    assert not ((first["start"] < 140) & (first["stop"] > 60)).any()


def test_windows_longer_than_any_of_training_are_cut_where_asked(trained, tmp_path, monkeypatch):
    folder, _ = trained
    run = bundle.load(folder)
    monkeypatch.setattr(bundle, "load", lambda _: run._replace(spec=replace(run.spec, length=30, min_length=30)))
    table = write_table(tmp_path / "new.csv", ["x1", "x2"], points=240, seed=7)
    given = {"run": folder, "input": table, "segments": tmp_path / "segments.csv"}
    with pytest.raises(UserError, match=r"expected at most 30 points.*allow=\[length\] cuts them"):
        call(predict, **given, output=tmp_path / "out.csv")
    call(predict, **given, output=tmp_path / "out.csv", allow=["length"])
    assert pd.read_csv(tmp_path / "out.csv")["file"].tolist() == ["x1", "x2"]


def test_windows_of_a_stream_are_cut_once(trained, tmp_path, monkeypatch):
    folder, _ = trained
    points = pd.read_csv(write_table(tmp_path / "new.csv", ["x1"], points=240, seed=7))[["a", "b"]]
    points.to_csv(tmp_path / "points.csv", index=False)
    with open(tmp_path / "points.csv") as stream:
        monkeypatch.setattr("sys.stdin", stream)
        options = {"run": folder, "input": "-", "output": tmp_path / "out.csv", "follow": True}
        with pytest.raises(UserError, match="expected at most 40 points, as in training; series 0 has 80"):
            call(predict, **options, window={"length": 80, "stride": None})
        call(predict, **options, window={"length": None, "stride": 20})
    rows = pd.read_csv(tmp_path / "out.csv")
    assert rows["start"].tolist() == list(range(0, 201, 20))


def test_a_window_is_explained_under_its_recording(trained, tmp_path):
    pytest.importorskip("captum")
    folder, _ = trained
    table, page = write_table(tmp_path / "new.csv", ["x1", "x2"], points=240, seed=7), tmp_path / "page.html"
    call(explain, run=folder, input=table, output=page, series=[1, 12], target=None, neighbours=0)
    text = page.read_text(encoding="utf-8")
    assert "x1 from point 20:" in text
    assert "x2 from point 20:" in text


def test_broken_files_are_marked_and_others_classified(trained, tmp_path):
    folder, _ = trained
    for number in range(4):
        write_table(tmp_path / f"{number}.csv", [f"x{number}"], points=80, seed=number)
    (tmp_path / "2.csv").write_text("t,machine,a\n0,x,1\n")
    output = tmp_path / "out.parquet"
    with pytest.raises(SystemExit) as ended:
        call(predict, run=folder, input=tmp_path, output=output, on_error="skip")
    assert ended.value.code == 3
    rows = pd.read_parquet(output)
    assert rows["file"].tolist() == [f"{number}.csv" for number in range(4)]
    assert rows["predicted"].isna().tolist() == [False, False, True, False]
    assert "it has the channels a; expected a, b" in rows["error"][2]
