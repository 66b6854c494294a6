"""Long tables: any order of rows, any way of writing, even times or a message that says what is uneven."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet

from krontime.data.cache import load_cached
from krontime.data.new_recordings import read_new_recordings
from krontime.data.prepare import Prepare
from krontime.data.series import SeriesSpec
from krontime.data.sources.long_table import LongTableSource
from krontime.data.sources.time_grid import TimeGrid
from krontime.errors import UserError

SECOND = 1_000_000_000


def table(*, machines: int = 3, points: int = 60, shuffled: bool = False) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    frames = []
    for machine in range(machines):
        frame = pd.DataFrame(rng.standard_normal((points, 2)).round(4), columns=["x", "y"])
        frame.insert(0, "machine", f"m{machine}")
        frame.insert(0, "timestamp", pd.Timestamp("2024-03-01") + pd.to_timedelta(np.arange(points) / 4, unit="s"))
        frame["state"] = np.where(np.arange(points) < points // 2, "idle", "run")
        frames.append(frame)
    whole = pd.concat(frames, ignore_index=True)
    return whole.sample(frac=1, random_state=0) if shuffled else whole


def load(path: Path, tmp_path: Path, **options):
    return load_cached(LongTableSource(str(path), **options), Prepare(), tmp_path / "cache")


@pytest.mark.parametrize("kind", ["csv", "parquet", "semicolons"])
def test_rows_become_recordings_whatever_their_order(tmp_path, kind):
    frame = table(shuffled=True)
    path = tmp_path / ("plant.parquet" if kind == "parquet" else "plant.csv")
    options = {}
    if kind == "parquet":
        frame.to_parquet(path)
    elif kind == "csv":
        frame.to_csv(path, index=False)
    else:
        frame["timestamp"] = frame.groupby("machine")["timestamp"].transform(lambda t: (t - t.min()).dt.total_seconds())
        frame.to_csv(path, index=False, sep=";", decimal=",")
        options = {"separator": ";", "decimal": ","}
    data = load(path, tmp_path, group_name="machine", test_groups=["m2"], **options)
    order = [data.recording_names.index(f"m{i}") for i in range(3)]
    assert data.sampling_rate_hz == 4.0
    assert data.class_names == ("idle", "run")
    assert data.header == "x,y"
    assert data.is_test[order].tolist() == [False, False, True]
    for machine, number in enumerate(order):
        expected = table().query(f"machine == 'm{machine}'")[["x", "y"]].to_numpy().T
        np.testing.assert_allclose(data.stretch(number), expected, rtol=1e-6)
        mine = data.annotations[data.annotations[:, 0] == number]
        assert mine[:, 1:].tolist() == [[0, 30, 0], [30, 60, 1]]


def test_what_is_chosen_by_name_can_be_said(tmp_path):
    frame = table().rename(columns={"timestamp": "when", "machine": "plant", "state": "what"})
    frame["note"] = "text"
    frame.to_csv(tmp_path / "a.csv", index=False)
    with pytest.raises(UserError) as refused:
        load(tmp_path / "a.csv", tmp_path)
    assert "column 'note' holds string and no numbers: expected data.source.ignore=[note]" in str(refused.value)
    data = load(tmp_path / "a.csv", tmp_path, time="when", recording="plant", label="what", ignore=["note"])
    assert len(data) == 3
    with pytest.raises(UserError, match=r"data.source.time='whenn': there is no such column; expected one of when"):
        load(tmp_path / "a.csv", tmp_path, time="whenn")


@pytest.mark.parametrize("name", ["", "Unnamed: 0", "sample_id", "fold", "target", "Speaker"])
def test_a_column_that_is_called_like_none_of_values_is_refused(tmp_path, name):
    frame = table()
    frame.insert(0, name, np.arange(len(frame)) % 60)
    frame.to_csv(tmp_path / "a.csv", index=False)
    called = "unnamed" if name in ("", "Unnamed: 0") else name
    with pytest.raises(UserError, match=rf"column '{called}' .*; expected data.source.ignore=\[{called}\] to leave it"):
        load(tmp_path / "a.csv", tmp_path)
    assert load(tmp_path / "a.csv", tmp_path, ignore=[called]).header == "x,y"
    kept = load(tmp_path / "a.csv", tmp_path, channels=[called, "x"])
    assert kept.header == f"{called},x"


@pytest.mark.parametrize(("key", "given"), [("group", "plnt"), ("label", "stat"), ("ignore", ["plnt"])])
@pytest.mark.parametrize("part", ["train", "test"])
def test_columns_that_are_not_there_are_refused_but_in_new_files(tmp_path, key, given, part):
    frames = {"train": table(machines=4), "test": table(machines=6).query("machine >= 'm4'"), "new": table(machines=2)}
    names = {"group": "plnt", "label": "stat", "ignore": "plnt"}
    for name, frame in frames.items():
        frame = frame.rename(columns={"state": "stat"}) if key == "label" else frame.assign(plnt=1.5)
        frame = frame.drop(columns=names[key]) if name in (part, "new") else frame
        frame.to_csv(tmp_path / f"{name}.csv", index=False)
    source = LongTableSource(str(tmp_path / "train.csv"), test=str(tmp_path / "test.csv"), **{key: given})
    with pytest.raises(UserError, match=rf"{part}.csv: data.source.{key}='{names[key]}': there is no such column"):
        load_cached(source, Prepare(), tmp_path / "cache")
    spec = SeriesSpec(num_channels=2, length=60, num_classes=2, class_names=("idle", "run"), header="x,y")
    read = read_new_recordings(source, [(tmp_path / "new.csv", "new.csv")], spec, tmp_path, skip=False)
    assert read.names == ["m0", "m1"]


def test_white_space_around_names_and_texts_counts_for_nothing(tmp_path):
    rows = [f"m{i % 2}{' ' * (i % 3)}, {i // 2}, {i / 4}, {'up' if i < 12 else 'down'}" for i in range(24)]
    (tmp_path / "a.csv").write_text("\n".join(["machine, time, x, label", *rows]))
    data = load(tmp_path / "a.csv", tmp_path)
    assert data.header == "x"
    assert data.recording_names == ("m0", "m1")
    assert data.class_names == ("down", "up")
    assert data.stretch(1).tolist() == [[(2 * i + 1) / 4 for i in range(12)]]
    (tmp_path / "b.csv").write_text("time,x, x\n0,1,2\n")
    with pytest.raises(UserError, match="column 'x' is there 2 times"):
        load(tmp_path / "b.csv", tmp_path)


def test_a_label_that_is_no_number_is_none(tmp_path):
    frame = pd.DataFrame({"x": np.arange(9.0), "label": [1.0, 1.0, 1.0, 2.0, 2.0, 2.0, np.nan, np.nan, np.nan]})
    held = pa.table({name: pa.array(column.to_numpy(), from_pandas=False) for name, column in frame.items()})
    parquet.write_table(held, tmp_path / "a.parquet")  # pandas itself writes null for NaN
    data = load(tmp_path / "a.parquet", tmp_path)
    assert data.class_names == ("1", "2")
    assert data.annotations[:, 1:].tolist() == [[0, 3, 0], [3, 6, 1]]


def test_a_machine_in_both_files_is_refused(tmp_path):
    table(machines=3).to_csv(tmp_path / "a.csv", index=False)
    table(machines=1).to_csv(tmp_path / "b.csv", index=False)
    with pytest.raises(UserError, match="machine 'm0' is trained on and tested on"):
        load(tmp_path / "a.csv", tmp_path, test=str(tmp_path / "b.csv"), group_name="machine")


@pytest.mark.parametrize("column", ["machine", "plant"])
def test_a_machine_is_the_same_however_it_is_written(tmp_path, column):
    for name, number in (("a", "1"), ("b", "1.0")):
        frame = table(machines=2).replace({"machine": {"m0": f"{name}0", "m1": f"{name}1"}})
        frame.assign(**{column: np.where(frame["machine"].str.endswith("1"), number, frame["machine"])}).to_csv(
            tmp_path / f"{name}.csv", index=False
        )
    options = {"group": column, "group_name": column}
    with pytest.raises(UserError, match=f"{column} '1' is trained on and tested on"):
        load(tmp_path / "a.csv", tmp_path, test=str(tmp_path / "b.csv"), **options)
    assert load(tmp_path / "b.csv", tmp_path, test_groups=[1], **options).is_test.sum() == 1


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"test_groups": ["m9"]}, "there is no machine 'm9'; expected some of m0, m1, m2"),
        ({"test_groups": ["m0", "m1", "m2"]}, "all 3 groups"),
    ],
)
def test_groups_to_test_on_that_cannot_be_are_refused(tmp_path, options, expected):
    table().to_csv(tmp_path / "a.csv", index=False)
    with pytest.raises(UserError, match=expected):
        load(tmp_path / "a.csv", tmp_path, group_name="machine", **options)
    assert load(tmp_path / "a.csv", tmp_path, test_fraction=0.3).is_test.sum() == 1
    with pytest.raises(ValueError, match=r"test_fraction=0.3: expected null where test_groups is set"):
        LongTableSource("a.csv", test_groups=["m1"], test_fraction=0.3)


def test_time_stamps_of_digits_alone_are_read_in_their_format(tmp_path):
    days = [*range(20240129, 20240132), *range(20240201, 20240204)]
    rows = "".join(f"{day},{i},{'ab'[i // 3]}\n" for i, day in enumerate(days))
    (tmp_path / "a.csv").write_text(f"time,x,label\n{rows}")
    data = load(tmp_path / "a.csv", tmp_path, time_format="%Y%m%d")
    assert data.sampling_rate_hz == pytest.approx(1 / 86_400, rel=1e-5)


@pytest.mark.parametrize("strange", [np.nan, np.inf, 1.7e12])
def test_numbers_that_are_no_seconds_are_refused(tmp_path, strange):
    held = {"time": pa.array([*range(299), strange], pa.float64()), "x": range(300), "label": ["a", "b"] * 150}
    parquet.write_table(pa.table(held), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=re.escape(f"column 'time': {strange:g} is no time: expected seconds")):
        load(tmp_path / "a.parquet", tmp_path)


def test_gaps_are_refused_split_or_missing():
    times = np.array([0, 1, 2, 3, 7, 8, 9]) * SECOND
    values, labels = np.arange(7, dtype=np.float32)[:, None], np.arange(7)
    with pytest.raises(UserError, match=r"1 gaps in 7 rows, the longest of 4 s after row 3, where rows are 1 s apart"):
        TimeGrid().parts(times, 7)
    split = TimeGrid(gaps="split").parts(times, 7)
    assert [part.of(values, labels)[0][0].tolist() for part in split] == [[0, 1, 2, 3], [4, 5, 6]]
    (whole,) = TimeGrid(gaps="missing").parts(times, 7)
    x, y = whole.of(values, labels)
    np.testing.assert_array_equal(x[0], [0, 1, 2, 3, np.nan, np.nan, np.nan, 4, 5, 6])
    assert y.tolist() == [0, 1, 2, 3, -1, -1, -1, 4, 5, 6]


@pytest.mark.parametrize(("rate", "unit"), [(60.0, SECOND // 1000), (1 / 86_400, SECOND)], ids=["60 Hz", "daily"])
def test_the_rate_is_that_of_all_rows_however_times_are_rounded(rate, unit):
    times = np.rint(np.arange(601) / rate * SECOND / unit).astype(np.int64) * unit
    (part,) = TimeGrid().parts(times, 601)
    assert part.sampling_rate_hz == pytest.approx(rate, rel=1e-5)


def test_uneven_rows_are_refused_or_brought_to_a_grid():
    rng = np.random.default_rng(0)
    seconds = np.cumsum(rng.uniform(0.6, 1.4, 200))
    times = np.rint(seconds * SECOND).astype(np.int64)[::-1]
    values = (2 * seconds[::-1, None]).astype(np.float32)
    with pytest.raises(UserError, match=r"% of its rows are not evenly spaced: 0.6.* expected data.source.sampling_ra"):
        TimeGrid().parts(times, 200)
    (part,) = TimeGrid(sampling_rate_hz=2.0).parts(times, 200)
    x, _ = part.of(values, np.zeros(200, int))
    assert part.sampling_rate_hz == 2.0
    np.testing.assert_allclose(x[0, :-1], 2 * (seconds[0] + np.arange(part.length - 1) / 2), rtol=1e-5)
    with pytest.raises(UserError, match="1 of 3 rows have the time of another one"):
        TimeGrid().parts(np.array([0, SECOND, SECOND]), 3)
