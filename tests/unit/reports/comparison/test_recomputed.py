"""Scores computed again from predictions are those that a run has given itself."""

import numpy as np
import pytest
import torch

from krontime.reports.comparison.recomputed import recomputed
from krontime.runs.predictions import Predictions, read_outcomes, write_outcomes, write_predictions
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
        write_outcomes(read_outcomes(tmp_path / f"{num}"), tmp_path / f"{num}-published")
        for folder in (f"{num}", f"{num}-published"):
            found = recomputed(read_outcomes(tmp_path / folder))
            names_found = {"accuracy", "balanced_accuracy", "macro_f1"} | ({"auroc"} if num_classes == 2 else set())
            assert set(found) == names_found
            for name, (least, most) in found.items():
                assert least <= scores(probability, labels)[name] <= most, name
                assert spread == 30.0 or most - least < 0.01, name


def test_one_class_has_no_area_and_no_series_no_score(tmp_path):
    table = "index,label,predicted,p_b\n"
    (tmp_path / "test_outcomes.csv").write_text(table + "0,a,a,0.1\n1,a,b,0.6\n")
    found = recomputed(read_outcomes(tmp_path))
    assert np.isnan(found["auroc"]).all()
    assert found["balanced_accuracy"] == pytest.approx((0.5, 0.5), abs=1e-5)
    (tmp_path / "test_outcomes.csv").write_text(table)
    assert all(np.isnan(score).all() for score in recomputed(read_outcomes(tmp_path)).values())


def test_a_file_that_lacks_a_class_gives_scores_all_the_same(tmp_path):
    (tmp_path / "test_outcomes.csv").write_text("index,label,predicted\n0,a,a\n1,a\n")
    assert recomputed(read_outcomes(tmp_path))["accuracy"] == pytest.approx((0.5, 0.5), abs=1e-5)


def test_a_network_that_says_the_same_of_all_series_is_not_contradicted(tmp_path):
    """Its probabilities nearly tie, for one class more than for the other."""
    for seed in range(30):
        rng = np.random.default_rng(seed)
        labels = np.arange(40) % 2
        logits = 6 + rng.standard_normal(40).astype(np.float32) * np.float32(1e-5)
        probability = torch.from_numpy(np.stack([np.zeros_like(logits), logits], axis=1)).softmax(dim=1)
        predictions = Predictions.from_codes(np.arange(40), labels, probability.numpy(), CLASSES[:2])
        write_predictions(predictions, tmp_path / "test_predictions.parquet")
        least, most = recomputed(read_outcomes(tmp_path))["auroc"]
        assert least <= scores(probability, labels)["auroc"] <= most
