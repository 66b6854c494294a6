"""Recordings are stored as they come, as wide as they are, and read without what was read staying in memory."""

import pickle
from pathlib import Path

import numpy as np
import psutil
import pytest

from krontime.data import copies, series
from krontime.data.prepare import Prepare
from krontime.data.recordings import Recording, Span, store
from krontime.errors import UserError


def stored(recordings, tmp_path: Path, prepare: Prepare | None = None):
    return store(recordings, tmp_path / "values.npy", prepare or Prepare(), where="data", group_name="machine")


def some(dtype=np.float32, **changes) -> list[Recording]:
    rng = np.random.default_rng(0)
    made = [rng.integers(-100, 100, (2, 40 + i)).astype(dtype) for i in range(3)]
    return [
        Recording(**{"name": f"r{i}", "values": x, "label": "ab"[i % 2], "sampling_rate_hz": 10.0, **changes})
        for i, x in enumerate(made)
    ]


@pytest.mark.parametrize("dtype", [np.float32, np.int16, np.uint8, np.float64, np.int32])
def test_values_are_stored_as_wide_as_they_are(tmp_path, dtype):
    data = stored(some(dtype), tmp_path).data
    assert data.values.dtype == (dtype if dtype in (np.float32, np.int16, np.uint8) else np.float32)
    for number, recording in enumerate(some(dtype)):
        np.testing.assert_array_equal(data.series(number), recording.values.astype(np.float32))
    assert data.labels.tolist() == [0, 1, 0]
    again = pickle.loads(pickle.dumps(data))
    np.testing.assert_array_equal(again.series(1), data.series(1))


def test_scaled_integers_are_the_numbers_that_they_stand_for(tmp_path):
    scale = np.array([[0.5, 10.0], [2.0, 0.0]])
    data = stored(some(np.int16, scale=scale, missing_code=int(some(np.int16)[0].values[1, 3])), tmp_path).data
    raw = some(np.int16)[0].values
    expected = (raw * scale[:, :1] + scale[:, 1:]).astype(np.float32)
    expected[raw == raw[1, 3]] = np.nan
    np.testing.assert_array_equal(data.series(0), expected)
    assert data.has_missing


def test_resampling_moves_annotations(tmp_path):
    recordings = some(spans=[Span(0, 20, "a"), Span(20, 40, "b")], label=None)
    data = stored(recordings, tmp_path, Prepare(resample_hz=5.0)).data
    assert data.sampling_rate_hz == 5.0
    assert data.annotations[:2].tolist() == [[0, 0, 10, 0], [0, 10, 20, 1]]
    with pytest.raises(UserError, match=r"data.prepare: expected null for crop_length"):
        stored(recordings, tmp_path, Prepare(crop_length=5))


def test_fingerprints_stay_few_and_a_copy_is_still_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(copies, "MAX_PRINTS", 500)
    rng = np.random.default_rng(0)
    made = [rng.standard_normal((1, 40_000)).astype(np.float32) for _ in range(4)]
    made.append(np.concatenate([made[1][:, 10_123:25_000], rng.standard_normal((1, 9_000))], axis=1, dtype=np.float32))
    recordings = [
        Recording(name=f"r{i}", values=x, spans=[Span(0, 9, "a"), Span(9, 99, "b")], part="test" if i == 4 else "train")
        for i, x in enumerate(made)
    ]
    data, prints = stored(recordings, tmp_path)
    assert 100 < len(prints) <= 500
    with pytest.raises(UserError, match=r"test recording 'r4': \d\d% of it stands in training recording 'r1'"):
        copies.refuse_copies(data, prints)


def test_every_problem_is_named(tmp_path):
    good = some()
    bad = [
        Recording("empty", np.empty((2, 0), np.float32)),
        Recording("three", np.zeros((3, 5), np.float32)),
        Recording("infinite", np.full((2, 5), np.inf, np.float32)),
        Recording("other rate", np.zeros((2, 5), np.float32), label="a", sampling_rate_hz=20.0),
    ]
    with pytest.raises(UserError) as refused:
        stored([*good, *bad], tmp_path)
    assert refused.value.problems == [
        "data: empty: it has no time points",
        "data: three: it has 3 channels; expected 2, as in r0",
        "data: infinite: it holds infinite values (or larger than float32 can hold)",
        "data: 1 of 4 recordings have another sampling rate than r0 (10 Hz): other rate (20 Hz); expected one rate "
        "(data.prepare.resample_hz=HZ brings them to one)",
    ]
    with pytest.raises(UserError, match="there are no labels; expected labels of two classes at least"):
        stored(some(label=None), tmp_path)
    numbers = [Span(i, i + 1, str(i / 7)) for i in range(40)]
    with pytest.raises(UserError, match=r"a number to predict \(regression\) is not supported"):
        stored(some(label=None, spans=numbers), tmp_path)
    with pytest.raises(UserError, match="there is no recording"):
        stored([], tmp_path)
    with pytest.raises(UserError, match=r"r1: its values are stored as float32, those of r0 as int16; expected one"):
        stored([some(np.int16)[0], some()[1]], tmp_path)


@pytest.mark.parametrize("limit", ["RELEASED_BYTES", "MAPPED_BYTES"])
def test_pages_that_were_read_are_given_back(limit, tmp_path, monkeypatch):
    """The resident set does not grow with what is read of a file, nor with what the system maps around that."""
    monkeypatch.setattr(series, limit, 1 << 20)
    mapped = np.lib.format.open_memmap(tmp_path / "v.npy", "w+", np.float32, (1 << 24,))
    mapped[:] = 1
    mapped.flush()
    del mapped
    values = np.load(tmp_path / "v.npy", mmap_mode="r")
    data = series.SeriesData(
        values=values,
        offsets=np.arange(65) * (1 << 18),
        labels=np.zeros(64, np.int64),
        is_test=np.zeros(64, bool),
        class_names=("a", "b"),
        num_channels=1,
        has_missing=False,
    )
    process = psutil.Process()
    before, most = process.memory_info().rss, 0
    for i in range(64):
        assert data.series(i).sum() == 1 << 18
        most = max(most, process.memory_info().rss - before)
    assert most < 1 << 24  # of 64 MiB
