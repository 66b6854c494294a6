"""What sets and thresholds promise holds for new series, and what can't be promised is refused."""

import json

import numpy as np
import pytest

from krontime.errors import UserError
from krontime.runs.decisions import ConformalSets, Rules, Threshold
from krontime.runs.predictions import Predictions, prediction_table

NAMES = ("a", "b", "c")
NO_THRESHOLD = {"class": None, "recall": None, "precision": None}


def drawn(n: int, rng: np.random.Generator, group_size: int = 1) -> Predictions:
    """Probabilities that are not calibrated, harder in some groups than in others, and the classes of the series."""
    hard = np.repeat(rng.normal(0, 1.5, n // group_size), group_size)[:, None]
    truth = rng.integers(3, size=n)
    logits = 2 * np.eye(3)[truth] + rng.normal(size=(n, 3)) + hard * np.eye(3)[(truth + 1) % 3]
    probability = np.exp(2 * logits) / np.exp(2 * logits).sum(axis=1, keepdims=True)
    predictions = Predictions.from_codes(np.arange(n), truth, probability.astype(np.float32), NAMES)
    if group_size == 1:
        return predictions
    return Predictions(predictions.index, predictions.labels, predictions.probabilities, NAMES, groups=hard_codes(hard))


def hard_codes(hard: np.ndarray) -> np.ndarray:
    return np.unique(hard, return_inverse=True)[1].astype(np.int64).ravel()


def truth(predictions: Predictions) -> np.ndarray:
    return np.array([NAMES.index(str(label)) for label in predictions.labels])


@pytest.mark.parametrize(("coverage", "n", "group_size"), [(0.9, 60, 1), (0.5, 60, 1), (0.9, 19, 1), (0.8, 240, 8)])
def test_sets_cover_new_series_as_often_as_stated(coverage, n, group_size):
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(300):
        held_out, new = drawn(n, rng, group_size), drawn(400, rng, group_size)
        sets = ConformalSets.of(held_out, coverage).sets(new.probabilities)
        covered.append(sets[np.arange(400), truth(new)].mean())
    most = 1 / (n // group_size + 1) + 0.01
    assert coverage - 0.01 < np.mean(covered) < coverage + most


def test_a_large_group_counts_as_much_as_a_small_one():
    values = np.r_[np.full(90, 0.2), 0.9, 0.8, 0.7]  # one group of ninety, three of one
    probability = np.stack([values, 1 - values], axis=1).astype(np.float32)
    groups = np.r_[np.zeros(90), 1, 2, 3].astype(np.int64)
    held_out = Predictions(np.arange(93), ["a"] * 93, probability, ("a", "b"), groups=groups)
    assert ConformalSets.of(held_out, 0.6).lowest == pytest.approx(0.7)
    assert ConformalSets.of(held_out, 0.61).lowest == pytest.approx(0.2)
    with pytest.raises(UserError, match=r"coverage=0\.81: expected at most 0\.800, since this run held out 4 groups"):
        ConformalSets.of(held_out, 0.81)


def test_too_few_series_promise_nothing():
    held_out = drawn(9, np.random.default_rng(0))
    assert ConformalSets.of(held_out, 0.9).lowest == min(held_out.probabilities[np.arange(9), truth(held_out)].tolist())
    with pytest.raises(UserError, match=r"coverage=0\.91: expected at most 0\.900, since this run held out 9 series"):
        ConformalSets.of(held_out, 0.91)


@pytest.mark.parametrize("coverage", [0, 1, 1.5, -0.1, "high", True])
def test_a_coverage_that_is_no_fraction_is_refused(coverage):
    with pytest.raises(UserError, match=r"coverage=.*: expected a fraction above 0 and below 1"):
        Rules.of(coverage, NO_THRESHOLD, drawn(9, np.random.default_rng(0)))


def test_a_threshold_reaches_the_recall_it_promises():
    rng = np.random.default_rng(0)
    reached = []
    for _ in range(300):
        threshold = Threshold.of(drawn(90, rng), "b", recall=0.9)
        new = drawn(400, rng)
        reached.append((threshold.decide(new) == 1)[truth(new) == 1].mean())
    assert 0.89 < np.mean(reached) < 0.95


def test_a_threshold_reaches_the_precision_on_held_out_series_with_the_largest_recall():
    values = np.array([0.9, 0.8, 0.7, 0.6, 0.6, 0.5, 0.4], np.float32)
    is_a = [True, True, True, True, False, True, False]
    probability = np.stack([values, 1 - values], axis=1)
    held_out = Predictions(np.arange(7), ["a" if one else "b" for one in is_a], probability, ("a", "b"))
    assert Threshold.of(held_out, "a", precision=0.75).lowest == pytest.approx(0.7)  # 3 of 3 and one more
    found = Threshold.of(held_out, "a", precision=0.7)  # 5 of 6 and one more
    assert (found.lowest, found.recall, found.precision) == (0.5, 1.0, pytest.approx(5 / 6))
    with pytest.raises(UserError, match=r"threshold\.precision=0\.9: expected at most 0\.750, which the 7 held-out"):
        Threshold.of(held_out, "a", precision=0.9)


@pytest.mark.parametrize(
    ("threshold", "expected"),
    [
        ({"class": "z", "recall": 0.9}, "threshold.class='z': expected one of a, b, c"),
        ({"class": "a"}, "expected either threshold.recall or threshold.precision"),
        ({"class": "a", "recall": 0.9, "precision": 0.9}, "expected either threshold.recall or"),
        ({"recall": 0.9}, "threshold.recall: expected threshold.class=NAME beside it"),
        ({"class": "a", "recall": 0.99}, "threshold.recall=0.99: expected at most 0."),
        ({"class": "a", "recall": 2}, "threshold.recall=2: expected a fraction"),
    ],
)
def test_thresholds_that_say_nothing_are_refused(threshold, expected):
    with pytest.raises(UserError) as refused:
        Rules.of(None, {**NO_THRESHOLD, **threshold}, drawn(30, np.random.default_rng(0)))
    assert expected in str(refused.value)


def test_a_run_without_held_out_series_says_how_to_get_them():
    with pytest.raises(UserError, match=r"coverage: expected null for this run.*force=true"):
        Rules.of(0.9, NO_THRESHOLD, None)


def test_rules_are_applied_to_predictions():
    probability = np.array([[0.5, 0.3, 0.2], [0.05, 0.55, 0.4], [0.1, 0.2, 0.7]], np.float32)
    predictions = Predictions.from_codes(np.arange(3), np.array([-1] * 3), probability, NAMES)
    rules = Rules(ConformalSets(0.9, 0.3, 20, "series"), Threshold("b", 0.3, 1.0, 0.5, 3))
    table = prediction_table(rules.applied(predictions)).to_pandas()
    assert [json.loads(each) for each in table["set"]] == [["a", "b"], ["b", "c"], ["c"]]
    assert table["predicted"].tolist() == ["b", "b", "c"]
    assert list(table) == ["index", "label", "predicted", "set", "p_a", "p_b", "p_c"]
    high = Rules(threshold=Threshold("b", 0.6, 1.0, 0.5, 3))
    assert high.applied(predictions).predicted == ["a", "c", "c"]  # the best of the others
    assert Rules().applied(predictions).predicted == predictions.predicted
