"""What test series in groups (patients, speakers), which are not independent of each other, say of other groups.

Shape letters: n series, G groups, K strata, R sign flips.
"""

from collections.abc import Callable
from itertools import product
from typing import NamedTuple

import numpy as np

from krontime.reports.comparison.series_bootstrap import LEVEL, NUM_RESAMPLES

MIN_GROUPS = 5
"""With fewer, no test could have a p-value below 0.1, and intervals would rest on a guess."""


class OverGroups(NamedTuple):
    """A score of test series in groups.

    Attributes:
        value: the score.
        low, high: its interval; None where it is not known without each of the groups.
    """

    value: float
    low: float | None
    high: float | None


def too_few(num_groups: int) -> str | None:
    """Why so many groups say nothing of others; None where they do."""
    if num_groups == 1:
        return "the test series are all of one group, which says nothing of other groups; no intervals and no tests."
    if num_groups < MIN_GROUPS:
        return f"the test series are of {num_groups} groups; expected at least {MIN_GROUPS} for intervals and tests."
    return None


def mean_over_groups(values: np.ndarray, strata: np.ndarray, groups: np.ndarray) -> OverGroups:
    """The mean over strata of the mean of each.

    Args:
        values: `(n,)`, such as whether a series was classified right.
        strata: `(n,)` codes: the classes for balanced accuracy, all alike for accuracy.
        groups: `(n,)` codes.
    """
    totals_GK, counts_GK = _totals(values, strata, groups)
    total_K, count_K = totals_GK.sum(axis=0), counts_GK.sum(axis=0)
    left_GK = count_K - counts_GK
    means_GK = np.divide(total_K - totals_GK, left_GK, where=left_GK > 0, out=np.full_like(left_GK, np.nan))
    return _jackknifed(float((total_K / count_K).mean()), means_GK.mean(axis=1))


def statistic_over_groups(
    statistic: Callable[[np.ndarray, np.ndarray], float], is_positive: np.ndarray, groups: np.ndarray
) -> OverGroups:
    """A statistic of the positions of negative and positive series."""

    def of(kept: np.ndarray) -> float:
        negative, positive = np.flatnonzero(kept & ~is_positive), np.flatnonzero(kept & is_positive)
        return statistic(negative, positive) if len(negative) and len(positive) else np.nan

    without_G = np.array([of(groups != group) for group in np.unique(groups)])
    return _jackknifed(of(np.ones(len(groups), bool)), without_G)


def sign_flip_p(differences: np.ndarray, strata: np.ndarray, groups: np.ndarray) -> float:
    """How often the mean difference is as far from 0 where the two sides of each group are swapped or not; two-sided.

    All ways to swap them are tried, or where these are more than `NUM_RESAMPLES`, so many that are drawn.

    Args:
        differences: `(n,)` between the sides that are compared.
        strata: `(n,)` codes; see `mean_over_groups`.
        groups: `(n,)` codes.
    """
    totals_GK, counts_GK = _totals(differences, strata, groups)
    total_G = (totals_GK / counts_GK.sum(axis=0)).mean(axis=1)
    is_exact = 2 ** len(total_G) <= NUM_RESAMPLES
    if is_exact:
        signs_RG = np.array(list(product((1, -1), repeat=len(total_G))))
    else:
        signs_RG = np.random.default_rng(0).choice((1, -1), (NUM_RESAMPLES, len(total_G)))
    as_far = int(np.sum(np.abs(signs_RG @ total_G) >= abs(total_G.sum()) - 1e-12))
    return as_far / len(signs_RG) if is_exact else (as_far + 1) / (len(signs_RG) + 1)


def _totals(values: np.ndarray, strata: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sums and numbers of series by group and stratum, `(G, K)` each."""
    stratum, place = (np.unique(codes, return_inverse=True)[1] for codes in (strata, groups))
    totals_GK, counts_GK = (np.zeros((place.max() + 1, stratum.max() + 1)) for _ in range(2))
    np.add.at(totals_GK, (place, stratum), values)
    np.add.at(counts_GK, (place, stratum), 1)
    return totals_GK, counts_GK


def _jackknifed(value: float, without_G: np.ndarray) -> OverGroups:
    """The interval of a score from what it is without each group, by Student's t with G - 1 degrees of freedom.

    The jackknife, since standard errors from residuals are too small where groups are few or of unequal size (Bell and
    McCaffrey 2002).
    """
    from scipy.stats import t

    num = len(without_G)
    if np.isnan(without_G).any():
        return OverGroups(value, None, None)
    error = np.sqrt((num - 1) / num * np.sum((without_G - value) ** 2))
    far = float(t.ppf(1 - LEVEL / 2, num - 1) * error)
    return OverGroups(value, value - far, value + far)
