"""Which series train, which validate and which test. Validation is carved from the training split; test is as given."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold, StratifiedShuffleSplit

from krontime.data.copies import copies_among
from krontime.data.series import UNKNOWN_LABEL, SeriesData

METHODS = ("auto", "given", "stratified", "group", "kfold", "time")

_NUM_BLOCKS = 10
"""Number of stretches of time that training windows are left out in."""


@dataclass(frozen=True)
class Split:
    """Positions in a `SeriesData`, disjoint and together all of it but for what is left out of training.

    Attributes:
        train: int64, rising.
        validation: int64, rising.
        test: int64, rising; empty where the data has no test split.
        protocol: how it was made, as plain values for the record.
    """

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    protocol: dict[str, Any]


def split_indices(
    data: SeriesData,
    *,
    method: str = "auto",
    fraction: float = 0.2,
    num_folds: int = 5,
    fold: int = 0,
    max_train: int | None = None,
    seed: int = 0,
) -> Split:
    """Carve validation from the training series; of the test series, only which groups they come from plays a part.

    Args:
        data: the series.
        method: `given` (the series that the source puts aside for it), `stratified` (a random part of each class),
            `group` (whole groups, classes balanced as well as they allow), `kfold` (fold `fold` of `num_folds`
            stratified folds; ignores groups), `time` (the last part of each recording that windows are cut from; those
            across the border are left out), or `auto` (`given` where the source puts series aside, `group` where the
            data has groups, unless the test series come from groups of the training series too; else `stratified`):
            validation is to training as test is.
        fraction: fraction of the training series that validates (`stratified`, `group`), or of each recording (`time`);
            with few groups as near as whole groups allow, and with `stratified` at least one series of each class.
        num_folds: number of folds (`kfold`).
        fold: which of them validates (`kfold`).
        max_train: keep at most so many of the series that are left to train on, classes in proportion; a smaller number
            keeps a part of what a larger one does. Validation is the same for all. None for all series.
        seed: of the shuffle.

    Under `stratified`, each class of two training series or more is on both sides. A class with a single one stays in
    train, under `kfold` too. Series that are copies of one another, to the last bit, are on one side under both, and
    count as one; where no split does so, they are divided.

    Raises:
        ValueError: names the option that cannot work with this data.
    """
    assert method in METHODS
    num_classes = len(np.unique(data.labels[~data.is_test]))
    if max_train is not None and max_train < num_classes:
        raise ValueError(f"max_train={max_train}: expected at least {num_classes}, a series of each class, or null")

    train = np.flatnonzero(~data.is_test)
    y = data.labels[train]
    assert (y != UNKNOWN_LABEL).all()
    if method == "given" and data.is_validation is None:
        raise ValueError(
            "method='given': the data has no validation part of its own; expected auto, stratified, group or kfold"
        )
    if data.windows is not None and method in ("stratified", "kfold"):
        raise ValueError(
            f"method={method!r}: expected auto, group, given or time, since windows of one recording would "
            "be trained on and validate"
        )
    if data.by_time and method not in ("auto", "given"):
        raise ValueError(f"method={method!r}: expected auto or given, since the data says which period validates")
    if data.windows is None and method == "time":
        raise ValueError("method='time': expected another one, since the series are no windows of recordings")
    if method == "auto" and data.is_validation is not None:
        method = "given"
    if method == "auto":
        is_grouped = data.groups is not None and not _groups_straddle(data)
        method = "group" if is_grouped or data.windows is not None else "stratified"
    copies, is_left_out = copies_among(data, train), np.zeros(len(train), bool)
    if method == "given":
        assert data.is_validation is not None
        validates = np.flatnonzero(data.is_validation[train])
    elif method == "stratified":
        validates = _with_copies(y, copies, partial(_stratified, fraction=fraction, seed=seed))
    elif method == "group":
        if data.groups is None:
            raise ValueError("method='group': the data has no groups; expected auto, stratified or kfold")
        other = "stratified" if data.windows is None else "time"
        validates = _grouped(y, data.groups[train], fraction, seed, data.group_name or "group", other)
    elif method == "time":
        validates, is_left_out = _latest(data, train, fraction)
    else:
        validates = _with_copies(y, copies, partial(_kfold, num_folds=num_folds, fold=fold, seed=seed))

    in_validation = np.zeros(len(train), bool)
    in_validation[validates] = True
    kept = train[~in_validation & ~is_left_out]
    if max_train is not None and max_train < len(kept):
        kept = kept[_nested(data.labels[kept], max_train, seed)]
    split = Split(
        train=kept,
        validation=train[in_validation],
        test=np.flatnonzero(data.is_test),
        protocol={},
    )
    split.protocol.update(
        method=method,
        seed=seed,
        num_train=len(split.train),
        num_validation=len(split.validation),
        num_test=len(split.test),
        **({"num_folds": num_folds, "fold": fold} if method == "kfold" else {}),
        **({"fraction": fraction} if method in ("stratified", "group", "time") else {}),
        **_group_facts(data, split),
    )
    return split


def blocks_of_time(data: SeriesData, split: Split) -> np.ndarray:
    """Which windows to leave out together where training and validation are of other times, not of other recordings.

    Those that validate are one block, so that they are predicted from what is trained on alone. Those that are trained
    on are cut into tenths of the longest recording, none shorter than a window, counted back from where training ends
    in each: so those of several recordings that end at one time are left out at one time.

    Returns:
        int64 `(n,)`, the block of each window; -1 for others than these.
    """
    assert data.windows is not None
    block = np.full(len(data), -1)
    block[split.validation] = 0
    recording, start, length = (column[split.train] for column in data.windows)
    first = np.full(len(data.offsets) - 1, np.iinfo(np.int64).max)
    last = np.zeros_like(first)
    np.minimum.at(first, recording, start)
    np.maximum.at(last, recording, start + length)
    size = max(-(-int((last - first).max()) // _NUM_BLOCKS), int(length.max()))
    block[split.train] = 1 + (last[recording] - start - length) // size
    return block


def _nested(y: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Positions of `count` series, rising: one of each class at first, then classes in proportion.

    The order in which series are taken does not depend on `count`.
    """
    rank = np.empty(len(y))
    order = np.random.default_rng(seed).permutation(len(y))
    for label in np.unique(y):
        mine = order[y[order] == label]
        rank[mine] = (np.arange(len(mine)) + 0.5) / len(mine)
        rank[mine[0]] = 0.0
    return np.sort(order[np.argsort(rank[order], kind="stable")[:count]])


def _groups_straddle(data: SeriesData) -> bool:
    assert data.groups is not None
    return bool(np.isin(data.groups[data.is_test], data.groups[~data.is_test]).any())


def _group_facts(data: SeriesData, split: Split) -> dict[str, Any]:
    """Whether groups straddle, said beside every score."""
    if data.groups is None:
        return {"group_name": None}
    train, validation, test = (set(data.groups[part].tolist()) for part in (split.train, split.validation, split.test))
    return {
        "group_name": data.group_name,
        "groups_in_train_and_validation": len(train & validation),
        "groups_in_train_and_test": len((train | validation) & test),
    }


def _with_copies(y: np.ndarray, copies: np.ndarray | None, chosen: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Positions that validate, chosen from one of each set of copies, with its copies; from all where that fails.

    Args:
        y: `(n,)` classes.
        copies: `(n,)` codes of what is one set, or None.
        chosen: positions that validate of series of some classes; raises `ValueError`.
    """
    if copies is None:
        return chosen(y)
    firsts = np.sort(np.unique(copies, return_index=True)[1])
    try:
        validates = np.isin(copies, copies[firsts[chosen(y[firsts])]])
    except ValueError:
        return chosen(y)
    # A class may be trained on only by copies of series of others.
    lost = np.isin(y, np.setdiff1d(y, y[~validates]))
    validates &= ~np.isin(copies, copies[lost])
    return np.flatnonzero(validates) if validates.any() else chosen(y)


def _stratified(y: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    counts = np.bincount(y)
    shared = np.flatnonzero(counts[y] >= 2)  # a class of one series can only be trained on
    num_classes = len(np.unique(y[shared]))
    num_validation = max(round(fraction * len(y)), num_classes)
    if num_classes == 0 or len(shared) - num_validation < num_classes:
        raise ValueError(
            f"fraction={fraction}: {len(y)} training series of {len(np.unique(y))} classes leave no "
            "room for one series of each class in training and in validation; expected a smaller one, or more series"
        )
    splitter = StratifiedShuffleSplit(n_splits=1, test_size=num_validation, random_state=seed)
    trains, validates = next(splitter.split(np.zeros(len(shared)), y[shared]))
    # It rounds fractions of small classes down to nothing; each class gives one series to the side that has none.
    sides = [list(trains), list(validates)]
    for side, other in (sides, sides[::-1]):
        for label in np.setdiff1d(y[shared], y[shared[side]]):
            moved = next(position for position in other if y[shared[position]] == label)
            other.remove(moved)
            side.append(moved)
    return shared[sides[1]]


def _latest(data: SeriesData, train: np.ndarray, fraction: float) -> tuple[np.ndarray, np.ndarray]:
    """The windows, of those at `train`, in the last part of their recordings; bool of those across the border."""
    assert data.windows is not None
    start = data.windows.start[train]
    border = np.floor((1 - fraction) * np.diff(data.offsets)[data.windows.recording[train]])
    is_late, is_early = start >= border, start + data.windows.length[train] <= border
    y = data.labels[train]
    lost = np.setdiff1d(y, y[is_early])
    if len(lost) or not is_late.any():
        what = f"no window of {data.class_names[lost[0]]!r} in the first" if len(lost) else "no window in the last"
        raise ValueError(f"fraction={fraction}: {what} part of the recordings; expected another one, or method=group")
    return np.flatnonzero(is_late), ~is_late & ~is_early


def _grouped(y: np.ndarray, groups: np.ndarray, fraction: float, seed: int, group_name: str, other: str) -> np.ndarray:
    """The fold of whole groups that loses fewest classes from training and validation, then nearest to `fraction`.

    `other` is the method to name where groups can't be divided so.
    """
    num_groups = len(np.unique(groups))
    if num_groups < 2 or np.bincount(y).max() < 2:
        raise ValueError(
            f"method='group': {len(y)} training series come from {num_groups} groups ({group_name}); "
            f"expected at least 2 groups and 2 series of one class, or method={other}"
        )
    num_folds = int(np.clip(round(1 / fraction), 2, min(num_groups, np.bincount(y).max())))
    num_classes = len(np.unique(y))

    def badness(validates: np.ndarray) -> tuple[int, int, float]:
        trains = np.setdiff1d(np.arange(len(y)), validates)
        return (
            num_classes - len(np.unique(y[trains])),
            num_classes - len(np.unique(y[validates])),
            abs(len(validates) / len(y) - fraction),
        )

    splitter = StratifiedGroupKFold(n_splits=num_folds, shuffle=True, random_state=seed)
    folds = [validates for validates in _folds(splitter, y, groups) if len(validates)]  # large groups leave some empty
    best = min(folds, key=badness)
    if badness(best)[0]:
        raise ValueError(
            f"method='group': any {group_name} put aside for validation takes a whole class out of "
            f"training; expected method={other}"
        )
    return best


def _kfold(y: np.ndarray, num_folds: int, fold: int, seed: int) -> np.ndarray:
    counts = np.bincount(y)
    if num_folds > counts.max() or counts.max() < 2:
        raise ValueError(
            f"num_folds={num_folds}: expected at most {counts.max()}, the number of series in the "
            "largest training class, and at least two such series"
        )
    shared = np.flatnonzero(counts[y] >= 2)
    splitter = StratifiedKFold(n_splits=num_folds, shuffle=True, random_state=seed)
    return shared[_folds(splitter, y[shared], None)[fold]]


def _folds(
    splitter: StratifiedKFold | StratifiedGroupKFold, y: np.ndarray, groups: np.ndarray | None
) -> list[np.ndarray]:
    with warnings.catch_warnings():
        # Classes smaller than the number of folds are normal here: they miss from some folds.
        warnings.filterwarnings("ignore", message="The least populated class")
        return [validates for _, validates in splitter.split(np.zeros(len(y)), y, groups)]
