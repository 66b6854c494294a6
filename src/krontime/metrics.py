"""Names of the scores that every run is given, and the one place where probabilities become a class.

Shape letters: n series, K classes.
"""

from typing import Any, Literal, get_args

MetricName = Literal["accuracy", "balanced_accuracy", "macro_f1", "auroc", "nll", "ece"]
METRICS: tuple[MetricName, ...] = get_args(MetricName)

METRIC_TITLES: dict[MetricName, str] = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
    "auroc": "AUROC",
    "nll": "negative log likelihood",
    "ece": "calibration error",
}
"""What people read."""

StatedScore = Literal["accuracy", "balanced_accuracy"]
"""What a run is judged by, and hence how it decides."""


def decide(probability: Any, prior: Any) -> Any:
    """The class `(n,)` of each series that is right most often for the stated score; the first of equals.

    Args:
        probability: `(n, K)`, an array of NumPy or a tensor, which keeps the frequencies of the training classes.
        prior: `(K,)`, of the same kind, all above 0: the frequencies of the training classes where the score is
            balanced accuracy, since a class counts there by how much more probable a series makes it; all alike where
            it is accuracy.
    """
    return (probability / prior).argmax(axis=1)
