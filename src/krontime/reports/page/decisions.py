"""What sets at a stated coverage and thresholds on one class give: promised by held-out series, seen on test series."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from krontime.errors import UserError
from krontime.reports.page.render import Section, Table
from krontime.runs.decisions import ConformalSets, Threshold
from krontime.runs.predictions import Predictions

COVERAGES = (0.8, 0.9, 0.95)
RECALL = 0.95
MAX_CLASSES = 20
"""With more, no thresholds are shown."""


class Decided(NamedTuple):
    """One rule with what it gives for test series.

    Attributes:
        rule: taken from held-out series; None where these are too few.
        problem: why there is none; empty where there is.
        seen: for sets, the fraction of test series whose set holds the true class, the mean size of the sets and the
            fraction that is empty; for a threshold, recall and precision. Empty without a test split.
    """

    rule: ConformalSets | Threshold | None
    problem: str
    seen: tuple[float, ...]


def decided_for(held_out: Predictions, test: Predictions | None) -> list[Decided]:
    """The usual rules: sets at three coverages, and a threshold for a recall of each class of not too many."""
    names = held_out.class_names
    decided: list[Decided] = []
    for coverage in COVERAGES:
        try:
            rule = ConformalSets.of(held_out, coverage)
        except UserError as error:
            decided.append(Decided(None, str(error), ()))
            continue
        decided.append(Decided(rule, "", () if test is None else _seen_by_sets(rule, test)))
    for name in names if len(names) <= MAX_CLASSES else ():
        try:
            limit = Threshold.of(held_out, name, recall=RECALL)
        except UserError as error:
            decided.append(Decided(None, f"{name}: {error}", ()))
            continue
        decided.append(Decided(limit, "", () if test is None else _seen_by_threshold(limit, test)))
    return decided


def _known(test: Predictions) -> tuple[np.ndarray, np.ndarray]:
    """Positions `(n,)` of the true classes, and probabilities `(n, K)`, of the series whose class is known."""
    code = {name: position for position, name in enumerate(test.class_names)}
    known = np.array([label is not None for label in test.labels])
    truth = np.array([code[label] for label in test.labels if label is not None], np.int64)
    return truth, test.probabilities[known]


def _seen_by_sets(rule: ConformalSets, test: Predictions) -> tuple[float, ...]:
    truth, probability = _known(test)
    sets = rule.sets(probability)
    size = sets.sum(axis=1)
    holds = sets[np.arange(len(truth)), truth]
    return float(holds.mean()), float(size.mean()), float((size == 0).mean())


def _seen_by_threshold(limit: Threshold, test: Predictions) -> tuple[float, ...]:
    truth, probability = _known(test)
    code = test.class_names.index(limit.class_name)
    chosen, is_class = probability[:, code] >= limit.lowest, truth == code
    hits = float((chosen & is_class).sum())
    return hits / max(1, is_class.sum()), hits / max(1, chosen.sum())


def decisions(decided: Sequence[Decided]) -> Section | None:
    """The section of a page; None without any rule."""
    sets = [each for each in decided if isinstance(each.rule, ConformalSets)]
    limits = [each for each in decided if isinstance(each.rule, Threshold)]
    if not sets and not limits:
        return None
    set_rows = [
        [f"{each.rule.coverage:g}", f"{each.rule.lowest:.3f}", *(f"{value:.3f}" for value in each.seen)]
        for each in sets
        if isinstance(each.rule, ConformalSets)
    ]
    limit_rows = [
        [
            each.rule.class_name,
            f"{each.rule.lowest:.3f}",
            *(f"{value:.3f}" for value in (each.rule.recall, each.rule.precision, *each.seen)),
        ]
        for each in limits
        if isinstance(each.rule, Threshold)
    ]
    tables = []
    is_tested = any(each.seen for each in decided)
    if set_rows:
        header = ["stated coverage", "probability from which a class is in it"]
        header += ["test series covered", "mean size", "empty"] if is_tested else []
        tables.append(Table("Sets of classes (predict coverage=0.9)", header, set_rows))
    if limit_rows:
        header = ["class", "threshold", "held-out recall", "held-out precision"]
        header += ["test recall", "test precision"] if is_tested else []
        tables.append(
            Table(f"Thresholds for a recall of {RECALL:g} (predict threshold.recall={RECALL:g})", header, limit_rows)
        )
    few = sum(each.rule is None for each in decided)
    words = ["Sets and thresholds come from series that were held out of the fit, and were not chosen by test series."]
    if not is_tested:
        words = ["Sets and thresholds come from series that were held out of the fit."]
    if few:
        words.append(f"{few} more can't be promised by so few held-out series.")
    return Section("Sets and thresholds", words, tables)
