"""Runs on one data set by their protocol: those whose scores may be averaged or compared."""

import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from krontime.reports.comparison.collect import Stored
from krontime.runs.record import Protocol

_COUNTS = (
    "num_train",
    "num_val",
    "num_test",
    "num_test_cropped",
    "train_class_counts",
    "groups_in_train_and_validation",
)
"""These may follow the seed of a split by group, or the resample."""

SEEDS = ("split_seed", "fold", "resample", "resampled_by")
"""Fields of a protocol that only say which repetition a run is."""

_BLANK: dict[str, Any] = {
    "split_seed": 0,
    "fold": None,
    "resample": 0,
    "resampled_by": None,
    "num_train": 0,
    "num_val": 0,
    "num_test_cropped": 0,
    "train_class_counts": {},
    "groups_in_train_and_validation": None,
}


def by_protocol(runs: Sequence[Stored]) -> list[list[Stored]]:
    """Runs on one data set, grouped by what their protocols share, the largest group first.

    The seed of a split may differ within a group, and with it the sizes of train and validation; with one seed
    the sizes must agree. What selects nothing on validation goes with what does, and a reference classifier, whose
    scaling is part of the classifier, with networks of any scaling. Runs that failed before they had a protocol go with
    the largest group.
    """
    groups: dict[str, list[Stored]] = defaultdict(list)
    lost = []
    usual = _usual(runs)
    by_group = any(run.record.protocol and run.record.protocol.resampled_by == "group" for run in runs)
    always = {**_BLANK, "num_test": 0} if by_group else _BLANK  # whole groups are tested on, large or small
    for run in runs:
        if run.record.protocol is None:
            lost.append(run)
        else:
            blank = always
            if run.record.protocol.selection_metric is None:
                blank = {**blank, "selection_metric": usual.get("selection_metric")}
            if run.record.protocol.fitted_on is not None:
                blank = {**blank, "fitted_on": None, "series_length": None, **usual}
            groups[run.record.protocol.model_copy(update=blank).model_dump_json()].append(run)
    apart: list[list[Stored]] = []
    for group in groups.values():
        sizes: dict[str, set[str]] = defaultdict(set)
        for run in group:
            sizes[_dump(run, SEEDS)].add(_dump(run, _COUNTS))
        if all(len(alike) == 1 for alike in sizes.values()):
            apart.append(group)
        else:
            by_size: dict[str, list[Stored]] = defaultdict(list)
            for run in group:
                by_size[_dump(run, _COUNTS)].append(run)
            apart += by_size.values()
    apart.sort(key=len, reverse=True)
    if not apart:
        return [lost]
    apart[0] += lost
    return apart


def _usual(runs: Sequence[Stored]) -> dict[str, Any]:
    """What most of our own models were selected on and scaled by, whose rows the others are shown in."""
    own = [run.record.protocol for run in runs if run.record.protocol and not run.record.protocol.fitted_on]
    usual: dict[str, Any] = {"selection_metric": None}
    if own:
        usual["scaling"] = statistics.mode(protocol.scaling for protocol in own)
    if selected := [metric for protocol in own if (metric := protocol.selection_metric) is not None]:
        usual["selection_metric"] = statistics.mode(selected)
    return usual


def _dump(run: Stored, fields: Iterable[str]) -> str:
    assert run.record.protocol is not None
    return run.record.protocol.model_dump_json(include=set(fields))


def first_protocol(group: Sequence[Stored]) -> Protocol | None:
    """Of the first run that has one."""
    return next((run.record.protocol for run in group if run.record.protocol is not None), None)
