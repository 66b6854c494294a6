"""Probabilities from logits of series that were left out: one temperature, fitted to the log loss.

Shape letters: n series, K classes.
"""

import math

from torch import Tensor

_RANGE = (-7.0, 5.0)
"""Natural logarithms of the factors that logits are multiplied by."""

DEFAULT_FACTOR = 3.0
"""Where no series could be left out."""


def log_loss(log_probability: Tensor, labels: Tensor) -> Tensor:
    """Negative log-likelihood `(n,)` of the labels."""
    return -log_probability.gather(1, labels[:, None])[:, 0]


def score_loss(log_probability: Tensor, labels: Tensor, prior: Tensor) -> Tensor:
    """What each series costs, `(n,)`: its log loss, or the part of it that balanced accuracy is about.

    For the latter each class has the same weight, and probabilities are as if each had been trained on alike.

    Args:
        log_probability: `(n, K)`.
        labels: `(n,)`.
        prior: `(K,)` frequencies of the training classes where the score is balanced accuracy; else all alike.
    """
    prior = prior.to(log_probability)
    weight = 1 / prior[labels]
    return log_loss((log_probability - prior.log()).log_softmax(dim=1), labels) * weight / weight.mean()


def fit_factor(logits: Tensor, labels: Tensor) -> float:
    """The factor (an inverse temperature) that gives logits `(n, K)` the smallest log loss.

    One series more than there are is taken to be of each class alike, so that logits which never err do not become
    certain (after Platt's correction of targets).
    """
    from scipy.optimize import minimize_scalar

    if not len(labels):
        return DEFAULT_FACTOR
    logits = logits.double()
    doubt = 1 / (len(labels) + 2)

    def loss(exponent: float) -> float:
        log_probability = (math.exp(exponent) * logits).log_softmax(dim=1)
        return float((1 - doubt) * log_loss(log_probability, labels).mean() - doubt * log_probability.mean())

    return math.exp(float(minimize_scalar(loss, bounds=_RANGE, method="bounded").x))
