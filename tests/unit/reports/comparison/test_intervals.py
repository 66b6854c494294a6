"""Intervals of scores against plain formulas."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from krontime.reports.comparison.collect import Stored
from krontime.reports.comparison.compare import compare
from krontime.reports.comparison.intervals import intervals
from krontime.runs.predictions import Outcomes


@pytest.mark.parametrize("groups", [None, np.arange(200)])
def test_without_groups_that_join_series_these_are_drawn(groups, predicted):
    right = [np.arange(200) < 150]
    [result], _ = intervals(predicted({"a": right}, ["x", "y"] * 100, groups=groups))
    assert result.n == 200


@pytest.mark.parametrize(("n", "right"), [(20, True), (400, True), (50, False)])
@pytest.mark.parametrize("balanced", [True, False])
def test_all_right_or_all_wrong_has_an_exact_interval(n, right, balanced, predicted):
    [result], _ = intervals(predicted({"a": [np.full(n, right)] * 2}, ["x", "y"] * (n // 2), balanced=balanced))
    count = n // 2 if balanced else n  # of the smallest class
    end = (0.05 / 2) ** (1 / count)
    assert (result.low, result.high) == pytest.approx((end, 1) if right else (0, 1 - end))


def test_the_interval_of_a_score_is_what_other_series_would_give(predicted):
    rng = np.random.default_rng(2)
    runs = [rng.random(400) < 0.8 for _ in range(3)]
    [result], notes = intervals(predicted({"a": runs}, ["x", "y"] * 200))
    right = np.mean(runs, axis=0)
    half = 1.96 * right.std() / np.sqrt(400)
    assert (result.data, result.variant, result.metric, result.n, notes) == ("ACSF1", ("a",), "accuracy", 400, [])
    assert result.mean == pytest.approx(right.mean())
    assert (result.low, result.high) == pytest.approx((right.mean() - half, right.mean() + half), abs=0.005)
    assert intervals(predicted({"a": runs}, ["x", "y"] * 200, metric="nll")) == ([], [])


def test_the_interval_of_the_area_under_the_roc_curve(make_record, write_outcomes, tmp_path):
    """Against the variance of DeLong, DeLong and Clarke-Pearson (1988)."""
    rng = np.random.default_rng(3)
    labels = np.array(["a"] * 150 + ["b"] * 50, dtype=object)
    runs = []
    for seed in range(2):
        probability = 1 / (1 + np.exp(-rng.normal(size=200) - 1.2 * (labels == "b")))
        area = float(roc_auc_score(labels == "b", probability))
        folder = tmp_path / str(seed)
        answers = np.where(probability > 0.5, "b", "a").astype(object)
        write_outcomes(Outcomes(np.arange(200), labels, answers, "b", probability), folder)
        runs.append(Stored(make_record(seed=seed, auroc=area), folder))
        alone, _ = intervals(compare(runs[-1:], metric="auroc"))
        above = probability[labels == "b"][:, None] > probability[labels == "a"]
        error = np.sqrt(above.mean(axis=1).var() / 50 + above.mean(axis=0).var() / 150)
        assert alone[0].mean == pytest.approx(area)
        assert (alone[0].high - alone[0].low) / 2 == pytest.approx(1.96 * error, rel=0.1)
    [both], _ = intervals(compare(runs, metric="auroc"))
    assert both.low < both.mean < both.high
    write_outcomes(Outcomes(np.arange(200), labels, labels), tmp_path / "1")  # without probabilities
    runs = [Stored(run.record, run.folder) for run in runs]  # what they said is read once
    assert intervals(compare(runs, metric="auroc")) == ([], [])
    assert both.high - both.low < alone[0].high - alone[0].low  # two runs that err apart


def test_runs_on_other_series_have_no_interval(predicted, write_outcomes, tmp_path):
    comparison = predicted({"a": [np.arange(40) < 30] * 2}, ["x", "y"] * 20)
    labels = np.array(["x", "y"] * 20, dtype=object)
    write_outcomes(Outcomes(np.arange(1, 41), labels, labels), tmp_path / "a" / "1")
    assert intervals(comparison) == (
        [],
        ["ACSF1: the test predictions of the runs of a are of different series; no interval."],
    )
