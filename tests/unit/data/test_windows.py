"""Recordings cut into windows: their classes, and that no split divides a recording."""

from dataclasses import replace

import numpy as np
import pytest

from krontime.data.datamodule import SeriesDataset
from krontime.data.resample import resampled
from krontime.data.series import UNKNOWN_LABEL, SeriesData, Windows
from krontime.data.split import blocks_of_time, split_indices
from krontime.data.windows import cut, cut_as, index_of, labels_of
from krontime.errors import UserError


def recordings(num: int, *, points: int = 100, groups: list[int] | None = None, is_test: int = 0) -> SeriesData:
    """Recordings of two channels whose first half is of class a, the second of class b, but for ten points between."""
    rng = np.random.default_rng(0)
    half = points // 2
    rows = [row for i in range(num) for row in ((i, 0, half - 5, 0), (i, half + 5, points, 1))]
    return SeriesData(
        values=rng.standard_normal(num * 2 * points).astype(np.float32),
        offsets=np.arange(num + 1) * points,
        labels=np.full(num, UNKNOWN_LABEL),
        is_test=np.arange(num) >= num - is_test,
        class_names=("a", "b"),
        num_channels=2,
        has_missing=False,
        groups=np.arange(num) if groups is None else np.array(groups),
        group_name="machine",
        annotations=np.array(rows),
    )


@pytest.mark.parametrize("rule", ["majority", "any", "start", "center", "end"])
def test_the_class_of_a_window_is_that_of_its_points(rule):
    """Against a count of every point, for windows and annotations anywhere, overlapping ones among them."""
    rng = np.random.default_rng(1)
    for _ in range(50):
        length, points, stride = int(rng.integers(1, 12)), int(rng.integers(12, 40)), int(rng.integers(1, 9))
        rows = []
        for recording in (0, 1):
            for label in (0, 1):  # of one class they overlap; of several they follow each other
                low, high = (0, points // 2) if label else (points // 2, points)
                for _ in range(3):
                    start = int(rng.integers(low, high))
                    rows.append((recording, start, int(rng.integers(start + 1, high + 1)), label))
        windows = index_of(np.array([points, points]), length=length, stride=stride)
        dense = np.full((2, points), UNKNOWN_LABEL)
        for recording, start, stop, label in rows:
            dense[recording, start:stop] = label
        labels = labels_of(windows, np.array(rows), 2, rule=rule, rarest_first=[1, 0])
        for recording, start, n, label in zip(*windows, labels, strict=True):
            seen = dense[recording, start : start + n]
            counts = [int((seen == k).sum()) for k in (0, 1)]
            most = int(np.argmax(counts))
            expected = {
                "majority": most if counts[most] >= max(1, int((seen < 0).sum())) else UNKNOWN_LABEL,
                "any": 1 if counts[1] else 0 if counts[0] else UNKNOWN_LABEL,
                "start": seen[0],
                "center": seen[(n - 1) // 2],
                "end": seen[-1],
            }[rule]
            assert label == expected


@pytest.mark.parametrize("rule", ["majority", "start", "center", "end"])
def test_two_classes_at_once_are_refused(rule):
    data = recordings(3)

    def with_more(*rows: tuple[int, ...]) -> SeriesData:
        assert data.annotations is not None
        return replace(data, annotations=np.concatenate([data.annotations, rows]), recording_names=("r", "s", "t"))

    both = with_more((1, 20, 40, 1), (2, 0, 20, 1))
    with pytest.raises(UserError, match=r"2 of 15 windows .* 'a' and 'b' from point 20 of recording s.*multi-label"):
        cut(both, length=20, stride=20, rule=rule)
    assert len(cut(both, length=20, stride=20, rule="any")) == 15
    little = cut(with_more((1, 22, 26, 1)), length=20, stride=20, rule=rule)
    assert np.array_equal(little.labels, cut(data, length=20, stride=20, rule=rule).labels)


def test_windows_are_views_of_what_is_stored():
    data = recordings(3)
    windows = cut(data, length=20, stride=10)
    assert np.shares_memory(windows.series(0), data.values)
    assert windows.values is data.values
    assert windows.name_of(1) is None
    named = replace(windows, recording_names=("m1", "m2", "m3"))
    assert [named.name_of(index) for index in (0, 1, 8)] == ["m1 from point 0", "m1 from point 10", "m2 from point 0"]
    for i in range(len(windows)):
        start = windows.windows.start[i]
        expected = data.series(int(windows.recording[i]))[:, start : start + 20]
        np.testing.assert_array_equal(windows.series(i), expected)
    batch = SeriesDataset(windows).__getitems__([5, 0, 7])
    np.testing.assert_array_equal(batch.x[0].numpy(), windows.series(5))
    assert batch.mask is None


def test_windows_without_a_class_are_left_out_or_are_one():
    data = recordings(4)
    assert len(cut(data, length=10, stride=10)) == 4 * 10  # of the two in the middle, half has a class
    assert len(cut(data, length=10, stride=10, min_overlap=0.9)) == 4 * 8
    assert len(cut(data, length=10, stride=5, rule="start")) == 4 * 17
    named = cut(data, length=10, stride=5, rule="start", unlabelled="none")
    assert named.class_names == ("a", "b", "none")
    assert len(named) == 4 * 19
    assert np.bincount(named.labels).tolist() == [36, 32, 8]


def test_windows_without_any_value_are_left_out():
    data = replace(recordings(4), has_missing=True)
    data.stretch(1)[:, 15:45] = np.nan
    data.stretch(2)[0] = np.nan
    windows = cut(data, length=10, stride=10)
    assert np.flatnonzero(windows.windows.recording == 1).tolist() == list(range(10, 18))
    assert windows.windows.start[10:18].tolist() == [0, 10, 40, 50, 60, 70, 80, 90]
    assert len(windows) == len(windows.labels) == 4 * 10 - 2
    assert "2 windows without any value left out" in windows.notes


@pytest.mark.parametrize("seed", range(4))
def test_no_window_of_a_training_recording_validates_or_tests(seed):
    """Nor does one of another recording of its machine, nor do points of windows that overlap."""
    data = recordings(12, groups=[0, 0, 0, 1, 1, 2, 2, 3, 4, 5, 6, 6], is_test=3)
    windows = cut(data, length=20, stride=5)
    split = split_indices(windows, seed=seed)
    assert split.protocol["method"] == "group"
    parts = [split.train, split.validation, split.test]
    assert all(len(part) for part in parts)
    points = []
    for part in parts:
        seen = np.zeros(data.offsets[-1], bool)
        for i in part:
            start = data.offsets[windows.windows.recording[i]] + windows.windows.start[i]
            seen[start : start + 20] = True
        points.append(seen)
    for first, second in ((0, 1), (0, 2), (1, 2)):
        assert not (points[first] & points[second]).any()
        assert not set(windows.groups[parts[first]]) & set(windows.groups[parts[second]])
        assert not set(windows.recording[parts[first]]) & set(windows.recording[parts[second]])


@pytest.mark.parametrize("method", ["stratified", "kfold"])
def test_splits_by_window_are_refused(method):
    with pytest.raises(ValueError, match="windows of one recording would"):
        split_indices(cut(recordings(4), length=20, stride=20), method=method)


def test_one_recording_validates_by_its_end():
    data = recordings(1)
    windows = cut(data, length=20, stride=5)
    with pytest.raises(ValueError, match=r"come from 1 groups \(machine\); expected .* or method=time"):
        split_indices(windows)
    split = split_indices(windows, method="time", fraction=0.3)
    ends = windows.windows.start + 20
    border = int(0.7 * data.offsets[1])
    assert ends[split.train].max() <= border
    assert windows.windows.start[split.validation].min() >= border
    assert len(split.train) + len(split.validation) == len(windows) - ((ends > border) & (ends < border + 20)).sum()
    assert split.protocol["groups_in_train_and_validation"] == 1
    with pytest.raises(ValueError, match=r"fraction=0.99: no window of .* in the first part"):
        split_indices(windows, method="time", fraction=0.99)


def test_windows_are_left_out_by_time_where_their_recordings_are_on_both_sides():
    windows = cut(replace(recordings(2, points=400), is_test=np.array([False, False])), length=20, stride=5)
    split = split_indices(windows, method="time", fraction=0.25)
    block = blocks_of_time(windows, split)
    assert (block[split.validation] == 0).all()
    start, stop = windows.windows.start[split.train], windows.windows.start[split.train] + 20
    assert block[split.train].tolist() == [1 + (300 - end) // 30 for end in stop]
    assert len(np.unique(block[split.train])) == 10
    assert (start.min(), stop.max()) == (0, 300)
    few = cut(recordings(1, points=200), length=40, stride=5)
    split = split_indices(few, method="time", fraction=0.25)
    assert np.unique(blocks_of_time(few, split)[split.train]).tolist() == [1, 2, 3]  # none shorter than a window


def test_what_is_split_by_time_stays_so():
    data = replace(recordings(4, points=200), is_validation=np.array([False, True, False, True]), by_time=True)
    data = replace(data, is_test=np.array([False, False, True, False]))
    with pytest.raises(UserError, match="label='majority': expected end"):
        cut(data, length=20, stride=20)
    windows = cut(data, length=20, stride=20, rule="end")
    for method in ("time", "group"):
        with pytest.raises(ValueError, match=f"method='{method}': expected auto or given"):
            split_indices(windows, method=method)
    with pytest.raises(ValueError, match="resample=1: expected 0"):
        resampled(windows, 1)
    assert split_indices(windows).protocol["method"] == "given"
    period = windows.period_of(np.arange(len(windows)))
    assert period.tolist() == ((200 - windows.windows.start) // 40).tolist()  # the same for all recordings


def test_windows_have_periods_that_are_no_shorter_than_two_of_them():
    windows = cut(recordings(2, points=2000), length=10, stride=5)
    period = windows.period_of(np.arange(len(windows)))
    expected = windows.windows.recording * 50 + windows.windows.start // 40
    assert period.tolist() == expected.tolist()
    assert len(np.unique(period)) == 100
    windows = cut(recordings(1), length=30, stride=5)
    assert windows.period_of(np.arange(len(windows))).tolist() == (windows.windows.start // 60).tolist()


def test_labelled_series_are_recordings_of_one_class(make_data):
    """Where their groups are on both sides of the official split, series are what is kept apart."""
    data = make_data(lengths=[50, 40, 9, 60], labels=[0, 1, 0, 1], is_test=[False, False, False, True])
    windows = cut(data, length=20, stride=20)
    assert windows.recording.tolist() == [0, 0, 1, 1, 2, 3, 3, 3]
    assert windows.labels.tolist() == [0, 0, 1, 1, 0, 1, 1, 1]
    assert windows.lengths.tolist() == [20, 20, 20, 20, 9, 20, 20, 20]
    assert windows.group_name == "recording"
    straddling = replace(data, groups=np.array([0, 1, 0, 0]), group_name="speaker")
    assert cut(straddling, length=20, stride=20).group_name == "recording"
    apart = replace(data, groups=np.array([0, 0, 0, 1]), group_name="speaker")
    assert cut(apart, length=20, stride=20).group_name == "speaker"


def test_a_class_that_is_only_tested_on_is_refused():
    data = recordings(4, is_test=1)
    annotations = data.annotations.copy()
    annotations[annotations[:, 0] < 3, 3] = 0
    with pytest.raises(UserError, match="training windows are all of class 'a'"):
        cut(replace(data, annotations=annotations), length=20, stride=20)
    three = replace(data, class_names=("a", "b", "c"), annotations=np.vstack([data.annotations, [[3, 45, 55, 2]]]))
    with pytest.raises(UserError, match="class 'c' has test windows but no training windows"):
        cut(three, length=10, stride=45, rule="start")
    validating = replace(three, is_test=np.zeros(4, bool), is_validation=np.arange(4) == 3)
    with pytest.raises(UserError, match="class 'c' has validation windows but no training windows"):
        cut(validating, length=10, stride=45, rule="start")


def test_recordings_are_no_series():
    with pytest.raises(UserError, match=r"data.window.label=None: expected majority, any"):
        cut_as(recordings(2), {"length": None, "stride": None, "label": None})


def test_a_window_at_the_end_does_not_run_over_it():
    windows = index_of(np.array([10, 25, 3]), length=10, stride=4)
    assert list(zip(*(column.tolist() for column in windows), strict=True)) == [
        (0, 0, 10),
        *((1, start, 10) for start in (0, 4, 8, 12)),
        (2, 0, 3),
    ]
    assert isinstance(windows, Windows)
