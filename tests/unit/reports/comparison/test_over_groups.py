"""Tests and intervals over groups against simulated groups, whose true mean is 0, and plain formulas."""

from itertools import product

import numpy as np
import pytest
from scipy import stats

from krontime.reports.comparison.over_groups import mean_over_groups, sign_flip_p, statistic_over_groups


def simulated(num_groups: int, are_even: bool, number: int):
    """Values of series that share the normal mean of their group, and groups of 20 or of very unequal sizes."""
    for seed in range(number):
        rng = np.random.default_rng([num_groups, are_even, seed])
        sizes = np.full(num_groups, 20) if are_even else rng.lognormal(3, 1, num_groups).astype(int) + 1
        groups = np.repeat(np.arange(num_groups), sizes)
        yield rng.normal(size=num_groups)[groups] + rng.normal(size=len(groups)), groups


@pytest.mark.parametrize(
    ("num_groups", "even", "uneven"),
    [(2, 0.948, 0.956), (3, 0.956, 0.921), (5, 0.955, 0.933), (8, 0.94, 0.92), (20, 0.964, 0.936)],
)
def test_an_interval_holds_the_true_mean_about_as_often_as_it_says(num_groups, even, uneven):
    """The fractions are those of docs/tables.md."""
    for are_even, expected in ((True, even), (False, uneven)):
        ends = [
            mean_over_groups(values, np.zeros_like(groups), groups)[1:]
            for values, groups in simulated(num_groups, are_even, 1000)
        ]
        assert np.mean([low <= 0 <= high for low, high in ends]) == pytest.approx(expected, abs=0.001)


@pytest.mark.parametrize("num_groups", [5, 8, 20])
@pytest.mark.parametrize("are_even", [True, False])
def test_without_a_difference_few_tests_are_significant(num_groups, are_even):
    p = [
        sign_flip_p(values, np.zeros_like(groups), groups)
        for values, groups in simulated(num_groups, are_even, 400 if num_groups < 20 else 200)
    ]
    assert np.mean(np.array(p) < 0.05) <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / len(p))


def test_of_groups_of_one_size_the_interval_is_students():
    values, groups = next(simulated(7, True, 1))
    means = values.reshape(7, 20).mean(axis=1)
    expected = stats.t.interval(0.95, 6, means.mean(), stats.sem(means))
    assert mean_over_groups(values, np.zeros(140, int), groups) == pytest.approx((means.mean(), *expected))


def test_all_ways_to_swap_the_sides_of_groups_are_tried():
    groups, classes = np.arange(60) % 6, np.arange(60) // 20
    differences = np.random.default_rng(0).normal(0.3, 1, 60)
    flipped = [
        np.mean([(differences * np.array(signs)[groups])[classes == name].mean() for name in range(3)])
        for signs in product((1, -1), repeat=6)
    ]
    assert sign_flip_p(differences, classes, groups) == np.mean(np.abs(flipped) >= flipped[0])
    assert sign_flip_p(np.ones(60), classes, groups) == 2 / 2**6  # the smallest that there is
    assert sign_flip_p(np.zeros(60), classes, groups) == 1


def test_a_class_in_one_group_alone_leaves_no_interval():
    values, groups = next(simulated(6, True, 1))
    assert mean_over_groups(values, (groups == 0).astype(int), groups)[1:] == (None, None)
    assert statistic_over_groups(lambda negative, positive: 0.5, groups == 0, groups)[1:] == (None, None)


def test_a_statistic_that_is_a_mean_has_the_interval_of_the_mean():
    values, groups = next(simulated(9, False, 1))
    is_positive = np.arange(len(values)) % 2 == 0

    def mean_of_means(negative, positive):
        return (values[negative].mean() + values[positive].mean()) / 2

    expected = mean_over_groups(values, is_positive.astype(int), groups)
    assert statistic_over_groups(mean_of_means, is_positive, groups) == pytest.approx(expected)
