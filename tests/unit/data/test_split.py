"""Validation comes from train only, whatever the data; of test series at most whether their groups are new matters."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from krontime.data.series import SeriesData
from krontime.data.split import split_indices


def labelled(labels, is_test, groups=None) -> SeriesData:
    n = len(labels)
    return SeriesData(
        values=np.zeros(n, np.float32),
        offsets=np.arange(n + 1, dtype=np.int64),
        labels=np.asarray(labels, np.int64),
        is_test=np.asarray(is_test, bool),
        class_names=tuple(map(str, range(max(labels) + 1))),
        num_channels=1,
        has_missing=False,
        groups=None if groups is None else np.asarray(groups, np.int64),
        group_name=None if groups is None else "speaker",
    )


@st.composite
def data_sets(draw) -> SeriesData:
    n = draw(st.integers(4, 60))
    num_classes = draw(st.integers(2, 5))
    labels = draw(st.lists(st.integers(0, num_classes - 1), min_size=n, max_size=n))
    is_test = draw(st.lists(st.booleans(), min_size=n, max_size=n))
    groups = draw(st.none() | st.lists(st.integers(0, 8), min_size=n, max_size=n))
    if all(is_test):
        is_test[0] = False
    return labelled(labels, is_test, groups)


OPTIONS = st.fixed_dictionaries(
    {
        "method": st.sampled_from(["auto", "stratified", "group", "kfold"]),
        "fraction": st.floats(0.05, 0.6),
        "num_folds": st.just(3),
        "fold": st.integers(0, 2),
        "seed": st.integers(0, 5),
    }
)


@settings(deadline=None, max_examples=150)
@given(data=data_sets(), options=OPTIONS)
def test_parts_are_disjoint_and_cover_and_groups_stay_whole(data, options):
    try:
        split = split_indices(data, **options)
    except ValueError:
        return
    joined = np.concatenate([split.train, split.validation, split.test])
    assert sorted(joined.tolist()) == list(range(len(data)))
    assert data.is_test[split.test].all()
    assert not data.is_test[np.concatenate([split.train, split.validation])].any()
    assert len(split.train)
    assert len(split.validation)
    assert set(data.labels[split.validation]) <= set(data.labels[split.train])
    if split.protocol["method"] == "group":
        assert not set(data.groups[split.train]) & set(data.groups[split.validation])
    for part in (split.train, split.validation, split.test):
        assert part.dtype == np.int64
        assert (np.diff(part) > 0).all()
    counts = [split.protocol[key] for key in ("num_train", "num_validation", "num_test")]
    assert counts == [len(split.train), len(split.validation), len(split.test)]


@settings(deadline=None, max_examples=50)
@given(data=data_sets(), options=OPTIONS, shuffle=st.randoms())
def test_test_labels_and_groups_play_no_part(data, options, shuffle):
    def result(data):
        try:
            split = split_indices(data, **options)
        except ValueError as error:
            return str(error)
        return split.train.tolist(), split.validation.tolist()

    other = data.labels.copy()
    other[data.is_test] = shuffle.randint(0, len(data.class_names) - 1)
    changed = replace(data, labels=other)
    straddles = data.groups is not None and np.isin(data.groups[data.is_test], data.groups[~data.is_test]).any()
    if data.groups is not None and not (options["method"] == "auto" and straddles):
        groups = data.groups.copy()
        groups[data.is_test] = 99
        changed = replace(changed, groups=groups)
    assert result(changed) == result(data)


@pytest.mark.parametrize(("test_groups", "method"), [([5, 5], "group"), ([5, 1], "stratified"), ([0, 1], "stratified")])
def test_validation_mirrors_how_test_was_split_off(test_groups, method):
    """New speakers are validated on where new speakers are tested on; the same ones where those are."""
    data = labelled([0, 1] * 10, [False] * 18 + [True] * 2)
    data = replace(data, groups=np.array([0, 1, 2] * 6 + test_groups), group_name="speaker")
    assert split_indices(data).protocol["method"] == method


class TestMaxTrain:
    DATA = labelled([0] * 50 + [1] * 30 + [2] * 4 + [0, 1], [False] * 84 + [True] * 2)

    def test_smaller_parts_are_nested_and_classes_in_proportion(self):
        whole = split_indices(self.DATA)
        parts = [split_indices(self.DATA, max_train=most) for most in (3, 8, 30, 60, 1000)]
        for part in parts:
            assert part.validation.tolist() == whole.validation.tolist()
            assert part.protocol["num_train"] == len(part.train)
        assert parts[-1].train.tolist() == whole.train.tolist()
        for smaller, larger in itertools.pairwise(parts):
            assert set(smaller.train.tolist()) < set(larger.train.tolist())
        assert np.bincount(self.DATA.labels[parts[0].train]).tolist() == [1, 1, 1]
        counts = np.bincount(self.DATA.labels[parts[2].train])
        assert counts.sum() == 30
        np.testing.assert_allclose(
            counts / 30, np.bincount(self.DATA.labels[whole.train]) / len(whole.train), atol=0.05
        )
        assert split_indices(self.DATA, max_train=30, seed=1).train.tolist() != parts[2].train.tolist()

    def test_too_few_for_the_classes_are_refused(self):
        with pytest.raises(ValueError, match=r"max_train=2: expected at least 3"):
            split_indices(self.DATA, max_train=2)


def test_the_seed_decides():
    data = labelled([0, 1] * 50, [False] * 100)
    first, again, other = (split_indices(data, seed=seed).validation.tolist() for seed in (0, 0, 1))
    assert first == again != other


def test_stratified_shares_follow_the_classes():
    data = labelled([0] * 60 + [1] * 30 + [2] * 10, [False] * 100)
    split = split_indices(data, method="stratified", fraction=0.2)
    assert np.bincount(data.labels[split.validation]).tolist() == [12, 6, 2]


@settings(deadline=None, max_examples=100)
@given(
    counts=st.lists(st.integers(1, 9), min_size=2, max_size=12),
    fraction=st.floats(0.05, 0.6),
    seed=st.integers(0, 20),
)
def test_stratified_puts_each_class_on_both_sides(counts, fraction, seed):
    labels = np.repeat(np.arange(len(counts)), counts)
    try:
        split = split_indices(
            labelled(labels, [False] * len(labels)), method="stratified", fraction=fraction, seed=seed
        )
    except ValueError:
        return
    shared = set(np.flatnonzero(np.array(counts) >= 2).tolist())
    assert set(labels[split.validation].tolist()) == shared
    assert set(labels[split.train].tolist()) == set(range(len(counts)))


@pytest.mark.parametrize("method", ["stratified", "kfold"])
def test_a_class_of_one_series_is_trained_on(method):
    data = labelled([0] * 10 + [1] * 10 + [2], [False] * 21)
    for fold in range(5):
        assert 20 in split_indices(data, method=method, fold=fold, seed=fold).train


def test_folds_are_a_partition_of_the_training_series():
    data = labelled([0, 1, 2] * 10, [False] * 24 + [True] * 6)
    folds = [split_indices(data, method="kfold", num_folds=4, fold=fold, seed=3).validation for fold in range(4)]
    assert sorted(np.concatenate(folds).tolist()) == list(range(24))


def test_auto_takes_groups_where_there_are_any():
    labels, is_test = [0, 1] * 10, [False] * 20
    assert split_indices(labelled(labels, is_test)).protocol["method"] == "stratified"
    assert split_indices(labelled(labels, is_test, np.arange(20) // 2)).protocol["method"] == "group"


def test_groups_that_straddle_are_counted_in_the_protocol():
    data = labelled([0, 1] * 10, [False] * 16 + [True] * 4, [0] * 10 + [1] * 10)
    protocol = split_indices(data, method="stratified").protocol
    assert protocol["groups_in_train_and_validation"] >= 1
    assert protocol["groups_in_train_and_test"] == 1


def test_group_validation_keeps_every_class_in_training():
    """The only group of class 2 must not be put aside, whatever the seed."""
    labels = [0, 1] * 12 + [2] * 6
    groups = list(np.repeat(np.arange(4), 6)) + [9] * 6
    for seed in range(8):
        split = split_indices(labelled(labels, [False] * 30, groups), method="group", seed=seed)
        assert 2 in labelled(labels, [False] * 30).labels[split.train]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_train": 1}, "max_train=1: expected at least 2"),
        ({"method": "kfold", "num_folds": 11}, "at most 10"),
        ({"method": "group"}, "has no groups"),
        ({"method": "stratified", "fraction": 0.95}, "no room"),
    ],
)
def test_options_that_cannot_work_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        split_indices(labelled([0, 1] * 10, [False] * 20), **options)


def test_too_few_groups_are_told_with_their_name():
    with pytest.raises(ValueError, match=r"1 groups \(speaker\)"):
        split_indices(labelled([0, 1] * 5, [False] * 10, [3] * 10))


def test_a_fold_without_a_group_is_never_validation():
    """Where each class is a group of its own and one is large, some folds are empty."""
    labels = [0] * 43 + [1] * 5 + [2] * 3 + [3] * 2 + [4] * 3
    with pytest.raises(ValueError, match="takes a whole class out"):
        split_indices(labelled(labels, [False] * len(labels), labels), fraction=0.125)


def test_a_validation_part_of_the_source_is_taken_unless_another_way_is_asked_for(make_data):
    data = make_data(lengths=[9] * 20, labels=[0, 1] * 10, is_test=[False] * 16 + [True] * 4)
    data = replace(data, is_validation=np.isin(np.arange(20), (4, 5, 9)))
    for method in ("auto", "given"):
        split = split_indices(data, method=method)
        assert split.validation.tolist() == [4, 5, 9]
        assert sorted([*split.train, *split.validation, *split.test]) == list(range(20))
        assert split.protocol["method"] == "given"
    assert split_indices(data, method="stratified", fraction=0.5).protocol["num_validation"] == 8
    with pytest.raises(ValueError, match="no validation part of its own"):
        split_indices(replace(data, is_validation=None), method="given")


COPIES = {"method": "stratified", "fraction": 0.3}, *({"method": "kfold", "num_folds": 4, "fold": i} for i in range(4))


@pytest.mark.parametrize("options", COPIES)
def test_copies_are_on_one_side(options):
    """Each series twice, or one class four times, as where it is made as frequent as another."""
    for number in (np.arange(40) // 2, np.concatenate([np.arange(20), 20 + np.arange(20) // 4])):
        data = replace(labelled([0] * 20 + [1] * 20, [False] * 40), digests=number.astype(np.uint64))
        split = split_indices(data, **options)
        assert not set(number[split.train]) & set(number[split.validation])
        assert sorted([*split.train, *split.validation]) == list(range(40))
        assert all(set(data.labels[part]) == {0, 1} for part in (split.train, split.validation))


@pytest.mark.parametrize("options", COPIES)
def test_without_copies_in_training_the_split_is_what_it_was(options):
    data = labelled([0, 1, 1] * 10, [False] * 20 + [True] * 10)
    number = np.arange(30, dtype=np.uint64)
    number[20:] = 3
    given, plain = split_indices(replace(data, digests=number), **options), split_indices(data, **options)
    assert given.train.tolist() == plain.train.tolist()
    assert given.validation.tolist() == plain.validation.tolist()


@pytest.mark.parametrize("options", COPIES)
def test_copies_that_cannot_be_on_one_side_are_divided(options):
    """Where the series of each class are copies of one, and of one series in both classes."""
    for number in (np.arange(20) % 2, np.arange(20) // 20):
        data = replace(labelled([0, 1] * 10, [False] * 20), digests=number.astype(np.uint64))
        split = split_indices(data, **options)
        assert all(set(data.labels[part]) == {0, 1} for part in (split.train, split.validation))


@pytest.mark.parametrize("options", COPIES)
def test_copies_of_several_classes_leave_each_class_in_train(options):
    """All of class 2 are copies of series of classes 0 and 1."""
    number = np.array([*range(16), *range(8)], np.uint64)
    data = replace(labelled([0, 1] * 8 + [2] * 8, [False] * 24), digests=number)
    split = split_indices(data, **options)
    assert set(data.labels[split.train]) == {0, 1, 2}
    assert not set(number[split.train]) & set(number[split.validation])
