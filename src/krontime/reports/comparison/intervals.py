"""What a score might be on other test series."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from krontime.errors import UserError
from krontime.reports.comparison.compare import Comparison, RunGroup, Variant
from krontime.reports.comparison.over_groups import mean_over_groups, statistic_over_groups, too_few
from krontime.reports.comparison.series_bootstrap import (
    LEVEL,
    bootstrapped,
    drawn_within,
    joining_groups,
    outcomes_of,
    resamples_of,
    strata_of,
)

_RESAMPLES_OF_RANKS = 1_999


@dataclass(frozen=True)
class Interval:
    """What a mean score might be on other test series.

    Attributes:
        data: name of the data set.
        variant: whose score it is.
        metric: that the score is.
        mean: over the runs.
        low, high: 95 % confidence interval.
        n: test series, or groups of them where there are groups.
    """

    data: str
    variant: Variant
    metric: str
    mean: float
    low: float
    high: float
    n: int


def intervals(comparison: Comparison) -> tuple[list[Interval], list[str]]:
    """An interval for each variant with one score on a data set, where its runs allow one.

    There are intervals of accuracy, balanced accuracy and, with two classes, of the area under the ROC curve. They are
    over groups (patients, speakers) where the test series have some, else over single series; never over other seeds.

    Returns:
        The intervals, and why there is none of test predictions that none could be made from.
    """
    single: list[Interval] = []
    problems: dict[str, None] = {}
    for data in dict.fromkeys(data for data, _ in comparison.rows):
        for entry in (entry for variant in comparison.variants if (entry := comparison.only(data, variant))):
            try:
                interval = _interval(entry)
            except UserError as error:
                problems |= dict.fromkeys(error.problems)
                continue
            single += [interval] if interval else []
    return single, list(problems)


def _interval(entry: RunGroup) -> Interval | None:
    """Of a score; None where a run does not say how it classified the test series, or not as this score needs it.

    Raises:
        UserError: the runs' predictions are not of the same series, or their groups are too few.
    """
    if entry.mean is None or len(resamples_of(entry)) > 1 or (known := outcomes_of(entry)) is None:
        return None
    (runs,) = known
    if (strata := drawn_within(runs[0], entry.metric)) is None:
        return None
    together = joining_groups(runs[0].groups)
    n = len(runs[0].index) if together is None else len(np.unique(together))
    if together is not None and (few := too_few(n)):
        raise UserError(f"{entry.data}: {few}")
    low: float | None
    high: float | None
    if entry.metric in ("accuracy", "balanced_accuracy"):
        right = np.mean([run.correct for run in runs], axis=0)
        if together is None:
            _, _, low, high = bootstrapped([right[stratum] for stratum in strata])
        else:
            _, low, high = mean_over_groups(right, strata_of(runs[0], entry.metric), together)
    else:
        probabilities = [run.probability for run in runs if run.probability is not None]
        if len(probabilities) < len(runs) or len({run.positive for run in runs}) > 1:
            return None
        area = _area_under_roc(np.stack(probabilities))
        if together is None:
            _, _, low, high = bootstrapped(strata, area, _RESAMPLES_OF_RANKS)
        else:
            _, low, high = statistic_over_groups(area, runs[0].labels == runs[0].positive, together)
    if low is None or high is None:
        raise UserError(f"{entry.data}: the test series of a class are all of one group; no interval.")
    if high - low < 1e-9:  # all right or all wrong: what is drawn from these, or left of them, is the same
        low, high = _exact(entry.mean, n if entry.metric == "accuracy" else min(n, *map(len, strata)))
    return Interval(entry.data, entry.variant, entry.metric, entry.mean, max(low, 0.0), min(high, 1.0), n)


def _exact(fraction: float, n: int) -> tuple[float, float]:
    """Clopper and Pearson's interval of a fraction of n."""
    from scipy.stats import beta

    right = fraction * n
    low = beta.ppf(LEVEL / 2, right, n - right + 1) if fraction > 0 else 0.0
    high = beta.ppf(1 - LEVEL / 2, right + 1, n - right) if fraction < 1 else 1.0
    return float(low), float(high)


def _area_under_roc(probabilities: np.ndarray) -> Callable[[np.ndarray, np.ndarray], float]:
    """The mean over runs of the area under the ROC curve, of the positions of negative and of positive series.

    Args:
        probabilities: `(runs, n)` of the positive class.
    """
    from scipy.stats import rankdata

    def area(negative: np.ndarray, positive: np.ndarray) -> float:
        ranks = rankdata(probabilities[:, np.concatenate([positive, negative])], axis=1)
        above = ranks[:, : len(positive)].sum(axis=1) - len(positive) * (len(positive) + 1) / 2
        return float(above.mean() / (len(positive) * len(negative)))

    return area
