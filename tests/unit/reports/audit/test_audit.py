"""An audit finds what was planted: duplicates, shared groups, leaks of labels, order that matters, a split apart."""

from dataclasses import replace

import numpy as np
import pytest

from krontime.data.assemble import flatten
from krontime.data.series import SeriesData
from krontime.reports.audit.measure import Audit, audit
from krontime.reports.audit.page import verdicts, write_page

CHECKS = ("duplicates", "groups", "labels", "order", "shift", "neighbour")
GOOD = Audit(
    name="Good",
    num_train=100,
    num_test=100,
    num_classes=2,
    test_counts=(50, 50),
    group_name="speaker",
    duplicates=0,
    near_duplicates=0,
    shared_groups=0,
    nearest_neighbour=0.7,
    official=0.9,
    permuted=0.6,
    shuffled=(0.5, 0.52),
    resamples=(0.88, 0.9, 0.92),
    resampled_by="group",
)


def make_data(*, num: int = 60, length: int = 64, seed: int = 0, groups: np.ndarray | None = None) -> SeriesData:
    """Noise with a burst of one of two frequencies at a random place; a half is tested on."""
    rng = np.random.default_rng(seed)
    labels = np.arange(num) % 2
    series = 0.1 * rng.standard_normal((num, 1, length))
    for x, label in zip(series, labels, strict=True):
        start = rng.integers(0, length - 24)
        x[0, start : start + 24] += np.sin(np.arange(24) * (0.5 + 0.9 * label) + rng.uniform(0, 6))
    values, offsets = flatten(list(series))
    return SeriesData(
        values=values,
        offsets=offsets,
        labels=labels,
        is_test=np.arange(num) >= num // 2,
        class_names=("slow", "fast"),
        num_channels=1,
        has_missing=False,
        groups=groups,
        group_name=None if groups is None else "speaker",
    )


def measured(data: SeriesData) -> Audit:
    return audit(data, name="Bursts", scaling="series", num_resamples=2, num_shuffles=2, seed=0, num_jobs=1)


@pytest.fixture(scope="module")
def bursts() -> Audit:
    return measured(make_data())


def test_order_matters_and_shuffled_labels_do_not(bursts):
    assert bursts.official > 0.9
    assert bursts.permuted < bursts.official
    assert abs(np.mean(bursts.shuffled) - 0.5) < 3 * bursts.chance_error
    assert bursts.chance_error == pytest.approx(0.5 / np.sqrt(30))
    assert (bursts.duplicates, bursts.near_duplicates, bursts.shared_groups) == (0, 0, 0)
    assert (bursts.resampled_by, len(bursts.resamples)) == ("stratified", 2)
    assert measured(make_data()) == bursts


def test_planted_duplicates_and_shared_groups_are_counted():
    data = make_data(groups=np.arange(60) // 4)  # the group of series 28 to 31 straddles the split
    values = data.values.reshape(60, -1).copy()
    values[40] = values[3]
    values[41] = values[4] + 1e-4 * np.sin(np.arange(64))
    result = measured(replace(data, values=values.ravel()))
    assert (result.duplicates, result.near_duplicates, result.shared_groups) == (1, 2, 1)
    assert result.resampled_by == "group"


@pytest.mark.parametrize(
    ("change", "failed"),
    [
        ({}, []),
        ({"duplicates": 2, "near_duplicates": 2}, ["duplicates"]),
        ({"shared_groups": 3}, ["groups"]),
        ({"shuffled": (0.8, 0.8)}, ["labels"]),
        ({"permuted": 0.89}, ["order"]),
        ({"official": 0.97}, ["shift"]),
        ({"nearest_neighbour": 0.95}, ["neighbour"]),
    ],
)
def test_each_check_speaks_of_its_own(change, failed):
    checks = dict(zip(CHECKS, verdicts(replace(GOOD, **change)), strict=True))
    assert [name for name, (passed, _) in checks.items() if not passed] == failed
    page = write_page(replace(GOOD, **change))
    assert page.count("**look here**") == len(failed)
    assert ("No check speaks against" in page) == (not failed)
