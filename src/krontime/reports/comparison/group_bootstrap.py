"""Resamples of whole groups of test series (patients, speakers), whose series are not independent of each other.

Shape letters: n series, G groups, K strata, R resamples.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class Resampled(NamedTuple):
    """A statistic and what it is on other groups.

    Attributes:
        value: of the groups that there are.
        drawn: `(R,)`, of groups that were drawn from these.
        low, high: percentile interval.
    """

    value: float
    drawn: np.ndarray
    low: float
    high: float


def resampled_means(
    values: np.ndarray, strata: np.ndarray, groups: np.ndarray, *, num_resamples: int, level: float
) -> Resampled:
    """The mean over strata of the mean of each, with whole groups drawn; strata that are not drawn are left out.

    Args:
        values: `(n,)`, such as whether a series was classified right.
        strata: `(n,)` codes: the classes for balanced accuracy, all alike for accuracy.
        groups: `(n,)` codes.
        num_resamples: R.
        level: of significance, which the interval leaves out.
    """
    stratum, place = (np.unique(codes, return_inverse=True)[1] for codes in (strata, groups))
    shape = (place.max() + 1, stratum.max() + 1)
    totals, counts = np.zeros(shape), np.zeros(shape)
    np.add.at(totals, (place, stratum), values)
    np.add.at(counts, (place, stratum), 1)

    def mean(weights_RG: np.ndarray) -> np.ndarray:
        number_RK = weights_RG @ counts
        means_RK = np.divide(weights_RG @ totals, number_RK, where=number_RK > 0, out=np.full_like(number_RK, np.nan))
        return np.asarray(np.nanmean(means_RK, axis=1))

    drawn = mean(_weights(shape[0], num_resamples))
    return _resampled(float(mean(np.ones((1, shape[0])))[0]), drawn, level)


def resampled_statistic(
    statistic: Callable[[np.ndarray, np.ndarray], float],
    is_positive: np.ndarray,
    groups: np.ndarray,
    *,
    num_resamples: int,
    level: float,
) -> Resampled:
    """A statistic of the positions of negative and positive series, with whole groups drawn.

    Resamples without series of both kinds are left out.
    """
    place = np.unique(groups, return_inverse=True)[1]
    drawn = []
    for weights_G in _weights(place.max() + 1, num_resamples).astype(int):
        positions = np.repeat(np.arange(len(place)), weights_G[place])
        positive = is_positive[positions]
        if positive.any() and not positive.all():
            drawn.append(statistic(positions[~positive], positions[positive]))
    value = statistic(np.flatnonzero(~is_positive), np.flatnonzero(is_positive))
    return _resampled(value, np.array(drawn), level)


def _weights(num_groups: int, num_resamples: int) -> np.ndarray:
    """How often each group is drawn, `(R, G)`."""
    rng = np.random.default_rng(0)
    return rng.multinomial(num_groups, np.full(num_groups, 1 / num_groups), size=num_resamples).astype(float)


def _resampled(value: float, drawn: np.ndarray, level: float) -> Resampled:
    low, high = np.quantile(drawn, [level / 2, 1 - level / 2])
    return Resampled(value, drawn, float(low), float(high))
