"""Resamples: aeon's own indices, whole groups, the official split at 0."""

import numpy as np
import pytest
from aeon.benchmarking.resampling import stratified_resample_data
from aeon.datasets import load_classification

from krontime.data.resample import resample_method, resampled
from krontime.data.series import SeriesData
from krontime.data.sources.ucr import UcrSource


def assert_same_series(data: SeriesData, split: np.ndarray, series: list[np.ndarray], labels: np.ndarray) -> None:
    """The series of a split are those given, in whatever order, each with its label."""
    ours = sorted((data.series(i).tobytes(), data.class_names[data.labels[i]]) for i in np.flatnonzero(split))
    assert ours == sorted((x.astype(np.float32).tobytes(), str(y)) for x, y in zip(series, labels, strict=True))


@pytest.mark.parametrize("resample", [1, 2, 29])
def test_series_are_those_of_aeon_on_a_data_set_of_the_archive(tmp_path, resample):
    data = resampled(UcrSource("ACSF1", str(tmp_path)).load(), resample)
    (x_train, y_train), (x_test, y_test) = (load_classification("ACSF1", split=split) for split in ("train", "test"))
    x_train, y_train, x_test, y_test = stratified_resample_data(x_train, y_train, x_test, y_test, resample)
    assert_same_series(data, ~data.is_test, list(x_train), y_train)
    assert_same_series(data, data.is_test, list(x_test), y_test)


@pytest.mark.parametrize("resample", [1, 7])
def test_series_are_those_of_aeon_where_lengths_differ_and_the_splits_are_mixed(make_data, resample):
    """With 12 classes whose names have another order as text than as numbers."""
    rng = np.random.default_rng(3)
    labels = np.concatenate([np.repeat(np.arange(12), 2), rng.integers(0, 12, 60)])
    is_test = np.concatenate([np.tile([False, True], 12), rng.random(60) < 0.4])
    data = make_data(lengths=list(rng.integers(3, 9, 84)), labels=labels.tolist(), is_test=is_test.tolist())
    data = SeriesData(**{**data.__dict__, "class_names": tuple(str(i) for i in range(12))})

    def part(split: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
        return [data.series(i) for i in np.flatnonzero(split)], labels[split].astype(str)

    x_train, y_train, x_test, y_test = stratified_resample_data(*part(~is_test), *part(is_test), resample)
    result = resampled(data, resample)
    assert_same_series(result, ~result.is_test, x_train, y_train)
    assert_same_series(result, result.is_test, x_test, y_test)
    assert (result.is_test != is_test).any()


def test_the_official_split_is_left_alone(make_data):
    data = make_data(lengths=[3] * 6, labels=[0, 1, 0, 1, 0, 1], is_test=[False, False, True, True, False, True])
    assert resampled(data, 0) is data
    assert resample_method(data, 0) is None
    assert resample_method(data, 1) == "stratified"


def test_a_class_without_test_series_stays_in_train(make_data):
    labels = [0, 0, 0, 0, 1, 1, 1, 1, 2, 2]
    data = make_data(lengths=[3] * 10, labels=labels, is_test=[False, False, True, True] * 2 + [False, False])
    result = resampled(data, 1)
    assert np.bincount(data.labels[result.is_test], minlength=3).tolist() == [2, 2, 0]


def test_the_values_are_not_copied(make_data):
    data = make_data(lengths=[3] * 4, labels=[0, 1, 0, 1], is_test=[False, False, True, True])
    assert resampled(data, 1).values is data.values


@pytest.fixture
def grouped(make_data) -> SeriesData:
    """40 groups of 1 to 9 series of three classes; a quarter of the groups is tested on officially."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(40), rng.integers(1, 10, 40))
    return make_data(
        lengths=[3] * len(groups),
        labels=rng.integers(0, 3, len(groups)).tolist(),
        is_test=(groups % 4 == 0).tolist(),
        groups=groups.tolist(),
    )


@pytest.mark.parametrize("resample", range(1, 11))
def test_groups_stay_whole_and_sizes_near_the_official_ones(grouped, resample):
    result = resampled(grouped, resample)
    assert resample_method(grouped, resample) == "group"
    assert not set(grouped.groups[result.is_test]) & set(grouped.groups[~result.is_test])
    assert abs(int(result.is_test.sum()) - int(grouped.is_test.sum())) <= 9  # the largest group
    counts = [np.bincount(grouped.labels[data.is_test], minlength=3) for data in (result, grouped)]
    assert np.abs(counts[0] - counts[1]).max() <= 9


def test_groups_are_drawn_anew_by_each_resample_and_alike_by_the_same(grouped):
    splits = [resampled(grouped, resample).is_test for resample in (1, 1, 2, 3)]
    assert np.array_equal(splits[0], splits[1])
    assert len({split.tobytes() for split in splits}) == 3


def test_each_class_keeps_a_training_series(make_data):
    """The only group of class 1 can't be tested on, whatever is drawn."""
    data = make_data(
        lengths=[3] * 8,
        labels=[0, 0, 0, 0, 0, 0, 1, 1],
        is_test=[False, False, True, True, False, False, False, True],
        groups=[0, 0, 1, 1, 2, 2, 3, 3],
    )
    for resample in range(1, 9):
        result = resampled(data, resample)
        assert not result.is_test[6:].any()
        assert result.is_test.sum() == 2


def test_what_can_not_be_resampled_is_named(make_data):
    with pytest.raises(ValueError, match=r"resample=2: expected 0, for data without a test split"):
        resampled(make_data(lengths=[3] * 4, labels=[0, 1, 0, 1]), 2)
    one_group = make_data(lengths=[3] * 2, labels=[0, 1], is_test=[False, True], groups=[0, 0])
    with pytest.raises(ValueError, match=r"resample=2: no whole speaker can be tested on"):
        resampled(one_group, 2)
