"""Test scores computed again from the predictions that a run left."""

import numpy as np

from krontime.metrics import MetricName
from krontime.runs.predictions import Outcomes

_ROUNDING = 1e-6  # of scores and probabilities in float32
_AREA_ROUNDING = 1e-5  # of an area, which is summed in float32


def recomputed(outcomes: Outcomes) -> dict[MetricName, tuple[float, float]]:
    """Minimum and maximum that a score can be by the predictions: accuracy, balanced accuracy and macro F1, and of
    two classes the area under the ROC curve; NaN where it is not defined.

    A score depends on the names of the classes alone, so that it is the same whoever gave the predictions.
    """
    import pandas as pd
    from sklearn.metrics import accuracy_score, f1_score, recall_score

    num = len(outcomes.labels)
    codes, _ = pd.factorize(np.concatenate([outcomes.labels, outcomes.predicted]), use_na_sentinel=False)
    true, guessed = codes[:num], codes[num:]
    exact: dict[MetricName, float] = dict.fromkeys(("accuracy", "balanced_accuracy", "macro_f1"), float("nan"))
    if num:
        averaged = {"average": "macro", "zero_division": 0}
        exact["accuracy"] = accuracy_score(true, guessed)
        exact["balanced_accuracy"] = recall_score(true, guessed, labels=np.unique(true), **averaged)
        exact["macro_f1"] = f1_score(true, guessed, **averaged)
    bounds = {name: (score - _ROUNDING, score + _ROUNDING) for name, score in exact.items()}
    if outcomes.probability is not None:
        bounds["auroc"] = _area(outcomes.probability, outcomes.labels == outcomes.positive)
    return bounds


def _area(probability: np.ndarray, is_positive: np.ndarray) -> tuple[float, float]:
    """The mean of the areas of both classes, of which only the second one's probabilities are known.

    Those of the first are 1 less these before rounding, which is coarser the larger a probability is: series that tie
    may not do so for the first class where that is the less probable one.
    """
    positive, negative = probability[is_positive], np.sort(probability[~is_positive])
    num_pairs = len(positive) * len(negative)
    if not num_pairs:
        return float("nan"), float("nan")
    lower, upper = np.searchsorted(negative, positive, "left"), np.searchsorted(negative, positive, "right")
    half = np.where(positive <= 0.5, (upper - lower) / 2, 0.0)  # of those that tie for both
    smallest = (np.searchsorted(negative, positive - _ROUNDING, "left") + half).sum() / num_pairs
    largest = (np.searchsorted(negative, positive + _ROUNDING, "right") - half).sum() / num_pairs
    second = (lower + upper).sum() / 2 / num_pairs
    return float(second + smallest) / 2 - _AREA_ROUNDING, float(second + largest) / 2 + _AREA_ROUNDING
