"""Other splits into train and test of the same series, numbered as the archives' resamples are."""

from dataclasses import replace
from typing import Literal

import numpy as np

from krontime.data.series import SeriesData

ResampleMethod = Literal["stratified", "group"]


def resample_method(data: SeriesData, resample: int) -> ResampleMethod | None:
    """How a resample is drawn: whole groups where the data has groups, else by class; None for the official split."""
    if not resample:
        return None
    return "stratified" if data.groups is None else "group"


def resampled(data: SeriesData, resample: int) -> SeriesData:
    """The same series, with another split.

    Without groups the split is that of aeon's `stratified_resample_data` with `resample` as its seed, on the series in
    the order train, test: as many of each class in train as before. Series of a class that has no test series stay in
    train. With groups, whole groups are tested on, drawn until classes are as near to their number of test series as
    groups allow.

    Args:
        data: the series in their official split; its `sha256` stays, since it says of which series this is.
        resample: 0 for the official split, which is returned as it is; 1 and more are seeds.

    Raises:
        ValueError: there is no test split, it is one by time, or no groups can be drawn.
    """
    if not resample:
        return data
    if data.by_time:
        raise ValueError(
            f"resample={resample}: expected 0, since what is trained on has to be before what is tested on"
        )
    if not data.is_test.any():
        raise ValueError(f"resample={resample}: expected 0, for data without a test split")
    draw = _by_class if data.groups is None else _by_group
    return replace(data, is_test=draw(data, resample))


def _by_class(data: SeriesData, seed: int) -> np.ndarray:
    """Bool `(n,)`: aeon's stratified resample; its order of classes is that of their names as text."""
    from aeon.benchmarking.resampling import stratified_resample_data_indices

    is_tested = np.isin(data.labels, data.labels[data.is_test])
    order = np.concatenate([np.flatnonzero(is_tested & ~data.is_test), np.flatnonzero(data.is_test)])
    names = np.array(data.class_names)[data.labels[order]]
    num_train = len(order) - int(data.is_test.sum())
    _, test = stratified_resample_data_indices(names[:num_train], names[num_train:], random_state=seed)
    is_test = np.zeros(len(data), bool)
    is_test[order[test]] = True
    return is_test


def _by_group(data: SeriesData, seed: int) -> np.ndarray:
    """Bool `(n,)`: groups in random order, each of them tested on where that brings the classes nearer to their number.

    Every class keeps a series in train.
    """
    assert data.groups is not None
    num_classes = len(data.class_names)
    groups, codes = np.unique(data.groups, return_inverse=True)
    counts_GK = np.zeros((len(groups), num_classes), np.int64)
    np.add.at(counts_GK, (codes, data.labels), 1)
    wanted_K = np.bincount(data.labels[data.is_test], minlength=num_classes)
    left_K = counts_GK.sum(axis=0)
    tested_K = np.zeros(num_classes, np.int64)
    chosen = []
    for group in np.random.RandomState(seed).permutation(len(groups)):  # numpy keeps this generator's draws for good
        after_K = tested_K + counts_GK[group]
        is_nearer = np.abs(wanted_K - after_K).sum() < np.abs(wanted_K - tested_K).sum()
        if is_nearer and (left_K > after_K).all():
            chosen.append(group)
            tested_K = after_K
    if not chosen:
        raise ValueError(
            f"resample={seed}: no whole {data.group_name or 'group'} can be tested on and leave each class a "
            "training series; expected 0"
        )
    return np.isin(codes, chosen)
