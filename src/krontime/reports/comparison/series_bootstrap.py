"""How each test series was classified by some runs, and statistics of series that are drawn again."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from krontime.errors import UserError
from krontime.reports.comparison.compare import RunGroup
from krontime.runs.predictions import Outcomes

LEVEL = 0.05
"""1 less the confidence of an interval, and the level of a test."""

NUM_RESAMPLES = 9_999


def outcomes_of(*entries: RunGroup) -> list[list[Outcomes]] | None:
    """Of the scored runs of each entry; None where one is not known.

    Raises:
        UserError: they are not of the same series.
    """
    outcomes = [[run.outcomes for run in entry.scored] for entry in entries]
    known = [[outcome for outcome in runs if outcome is not None] for runs in outcomes]
    if any(len(kept) < len(runs) for kept, runs in zip(known, outcomes, strict=True)):
        return None
    reference = known[0][0]
    for outcome in (outcome for kept in known for outcome in kept):
        if not (np.array_equal(outcome.index, reference.index) and np.array_equal(outcome.labels, reference.labels)):
            names = [" ".join(entry.variant) for entry in entries]
            whose = (
                f"{names[0]} and {names[1]} are of different series; no test between them."
                if names[1:]
                else (f"the runs of {names[0]} are of different series; no interval.")
            )
            raise UserError(f"{entries[0].data}: the test predictions of {whose}")
    return known


def resamples_of(*entries: RunGroup) -> set[int]:
    """Of the scored runs; more than one where their test series differ."""
    return {run.record.protocol.resample for entry in entries for run in entry.scored if run.record.protocol}


def joining_groups(groups: np.ndarray | None) -> np.ndarray | None:
    """The groups `(n,)`; None where each series is a group of its own."""
    return None if groups is None or len(np.unique(groups)) == len(groups) else groups


def strata_of(outcomes: Outcomes, metric: str) -> np.ndarray:
    """Codes of what means are taken of first: the classes for balanced accuracy, all series for accuracy."""
    if metric == "accuracy":
        return np.zeros(len(outcomes.labels), int)
    return np.unique(outcomes.labels.astype(str), return_inverse=True)[1]


def drawn_within(outcomes: Outcomes, metric: str) -> list[np.ndarray] | None:
    """Positions of the series that are drawn together: all for accuracy, else those of each class.

    None where there is nothing to draw, or the metric is none that series can be drawn for.
    """
    _, classes = np.unique(outcomes.labels.astype(str), return_inverse=True)
    if metric == "auroc":
        if outcomes.probability is None:
            return None
        classes = (outcomes.labels == outcomes.positive).astype(int)
    elif metric == "accuracy":
        classes = np.zeros_like(classes)
    elif metric != "balanced_accuracy":
        return None
    groups = [np.flatnonzero(classes == code) for code in np.unique(classes)]
    if not groups or min(map(len, groups)) < 2 or (metric == "auroc" and len(groups) < 2):
        return None
    return groups


def _mean_of_means(*drawn: np.ndarray, axis: int = -1) -> Any:
    return np.mean([sample.mean(axis=axis) for sample in drawn], axis=0)


def bootstrapped(
    groups: Sequence[np.ndarray], statistic: Callable[..., Any] = _mean_of_means, num_resamples: int = NUM_RESAMPLES
) -> tuple[float, np.ndarray, float, float]:
    """A statistic of groups of series, its resamples with series drawn within each group, and a percentile interval."""
    from scipy.stats import bootstrap

    result = bootstrap(
        groups,
        statistic,
        n_resamples=num_resamples,
        batch=500,
        method="percentile",
        rng=np.random.default_rng(0),
    )
    low, high = result.confidence_interval
    return float(statistic(*groups)), result.bootstrap_distribution, float(low), float(high)
