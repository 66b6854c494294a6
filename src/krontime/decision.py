"""The one place where class probabilities become a class, for every model and every table.

Shape letters: n series, K classes.
"""

from typing import Any, Literal

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
