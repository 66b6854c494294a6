"""Probabilities from logits of series that were left out: one temperature, fitted to the log loss.

Shape letters: n series, K classes.
"""

import math

from torch import Tensor

_LOG_FACTOR_BOUNDS = (-7.0, 5.0)
"""Bounds of the natural logarithm of the factor that logits are multiplied by."""

DEFAULT_FACTOR = 3.0
"""Factor that is taken where no series could be left out, so that there is nothing to fit it to."""


def log_loss(log_probability: Tensor, labels: Tensor) -> Tensor:
    """Return the negative log-likelihood `(n,)` of the labels.

    Args:
        log_probability: `(n, K)`.
        labels: `(n,)` int64.
    """
    return -log_probability.gather(1, labels[:, None])[:, 0]


def score_loss(log_probability: Tensor, labels: Tensor, prior: Tensor) -> Tensor:
    """Return the loss `(n,)` of each series that fits the stated score: log loss, or log loss with balanced classes.

    For balanced accuracy every class has the same weight, and probabilities are divided by the class frequencies, as if
    every class had had the same number of training series.

    Args:
        log_probability: `(n, K)`.
        labels: `(n,)`.
        prior: `(K,)` frequencies of the training classes where the score is balanced accuracy; else all equal.
    """
    prior = prior.to(log_probability)
    weight = 1 / prior[labels]
    return log_loss((log_probability - prior.log()).log_softmax(dim=1), labels) * weight / weight.mean()


def fit_factor(logits: Tensor, labels: Tensor) -> float:
    """Fit the factor (an inverse temperature) that gives logits `(n, K)` of labels `(n,)` the smallest log loss.

    Targets are smoothed towards all classes by `1 / (n + 2)`, so that logits which never err do not become certain
    (after Platt's correction of targets).
    """
    from scipy.optimize import minimize_scalar

    if not len(labels):
        return DEFAULT_FACTOR
    logits = logits.double()
    smoothing = 1 / (len(labels) + 2)

    def loss(exponent: float) -> float:
        log_probability = (math.exp(exponent) * logits).log_softmax(dim=1)
        return float((1 - smoothing) * log_loss(log_probability, labels).mean() - smoothing * log_probability.mean())

    return math.exp(float(minimize_scalar(loss, bounds=_LOG_FACTOR_BOUNDS, method="bounded").x))
