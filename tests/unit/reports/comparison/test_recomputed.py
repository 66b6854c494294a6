"""Scores computed again from predictions are those that a run has given itself."""

import numpy as np
import pytest
import torch

from krontime.reports.comparison.recomputed import recomputed
from krontime.runs.predictions import Outcomes, Predictions, read_outcomes, write_predictions
from krontime.training.predict import scores

CLASSES = ("a", "b", "c", "d")


@pytest.mark.parametrize("num_classes", [2, 3, 4])
@pytest.mark.parametrize("spread", [0.1, 1.0, 30.0])  # up to probabilities that are 0 and 1 in float32
def test_they_are_what_the_run_has_computed(tmp_path, num_classes, spread):
    rng = np.random.default_rng(num_classes)
    for num in (3, 40, 300):
        labels = rng.integers(0, max(2, num_classes - 1), num)  # one class may be only guessed
        labels[:2] = 0, 1
        logits = torch.from_numpy(rng.standard_normal((num, num_classes)).astype(np.float32))
        probability = (logits.round(decimals=1) * spread).softmax(dim=1)  # with ties
        names = CLASSES[:num_classes]
        predictions = Predictions.from_codes(np.arange(num), labels, probability.numpy(), names)
        write_predictions(predictions, tmp_path / f"{num}" / "test_predictions.parquet")
        bounds = recomputed(read_outcomes(tmp_path / f"{num}"))
        assert set(bounds) == {"accuracy", "balanced_accuracy", "macro_f1"} | ({"auroc"} if num_classes == 2 else set())
        for name, (lower, upper) in bounds.items():
            assert lower <= scores(probability, labels, torch.ones(probability.shape[1]))[name] <= upper, name
            assert spread == 30.0 or upper - lower < 0.01, name


def outcomes(labels, predicted, probability=None):
    positive = None if probability is None else "b"
    index, probability = np.arange(len(labels)), None if probability is None else np.array(probability)
    return Outcomes(index, np.array(labels, dtype=object), np.array(predicted, dtype=object), positive, probability)


def test_one_class_has_no_area_and_no_series_no_score():
    bounds = recomputed(outcomes(["a", "a"], ["a", "b"], [0.1, 0.6]))
    assert np.isnan(bounds["auroc"]).all()
    assert bounds["balanced_accuracy"] == pytest.approx((0.5, 0.5), abs=1e-5)
    assert all(np.isnan(score).all() for score in recomputed(outcomes([], [], [])).values())


def test_an_answer_that_is_missing_is_a_wrong_one():
    assert recomputed(outcomes(["a", "a"], ["a", None]))["accuracy"] == pytest.approx((0.5, 0.5), abs=1e-5)


def test_a_network_that_says_the_same_of_all_series_is_not_contradicted(tmp_path):
    """Its probabilities nearly tie, for one class more than for the other."""
    for seed in range(30):
        rng = np.random.default_rng(seed)
        labels = np.arange(40) % 2
        logits = 6 + rng.standard_normal(40).astype(np.float32) * np.float32(1e-5)
        probability = torch.from_numpy(np.stack([np.zeros_like(logits), logits], axis=1)).softmax(dim=1)
        predictions = Predictions.from_codes(np.arange(40), labels, probability.numpy(), CLASSES[:2])
        write_predictions(predictions, tmp_path / "test_predictions.parquet")
        lower, upper = recomputed(read_outcomes(tmp_path))["auroc"]
        assert lower <= scores(probability, labels, torch.ones(probability.shape[1]))["auroc"] <= upper
