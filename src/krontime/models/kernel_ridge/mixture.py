"""Mixtures of class probabilities: the closed form's parts with each other, and these with a network.

Shape letters: n series, K classes.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from krontime.models.kernel_ridge.calibration import fit_factor, log_loss, score_loss

MIN_SERIES = 20
"""Series that were left out, below which there is no evidence for a network, or against a part."""

_ERRORS = 2.0
"""Standard errors that the loss has to improve by."""

_FOLDS = 5


class NetworkMixing(NamedTuple):
    """How a network is mixed in.

    Attributes:
        factor: that its logits are multiplied by.
        weight: of its probabilities, 0 to 1; 0 where held-out series do not speak for it.
        gain: mean improvement of the loss, in nats, on series that neither factor nor weight was fitted to.
        error: its standard error.
    """

    factor: float
    weight: float
    gain: float
    error: float


def average(log_probabilities: Sequence[Tensor]) -> Tensor:
    """Logarithm `(n, K)` of the mean of the probabilities, each a tensor `(n, K)` of logarithms."""
    stacked = torch.stack(list(log_probabilities))
    return stacked.logsumexp(dim=0) - torch.tensor(float(len(stacked))).log().to(stacked)


def kept_parts(log_probabilities: Sequence[Tensor], labels: Tensor) -> list[int]:
    """Which parts an average with equal weights is better with, in order.

    Again and again the part is dropped without which the average improves most, as long as its log loss improves by
    more than two standard errors. All are kept with fewer than `MIN_SERIES` series.

    Args:
        log_probabilities: of each part, `(n, K)`, of series that were left out of its fit.
        labels: `(n,)` classes.
    """
    kept = list(range(len(log_probabilities)))
    if len(labels) < MIN_SERIES:
        return kept

    def loss(parts: Sequence[int]) -> Tensor:
        return log_loss(average([log_probabilities[part] for part in parts]), labels)

    while len(kept) > 1:
        now = loss(kept)
        gains = [now - loss([other for other in kept if other != part]) for part in kept]
        best = max(range(len(kept)), key=lambda i: float(gains[i].mean()))
        error = float(gains[best].std()) / len(labels) ** 0.5
        if not float(gains[best].mean()) > _ERRORS * error:
            break
        kept.pop(best)
    return kept


def mixed(network: Tensor, own: Tensor, factor: Tensor | float, weight: Tensor | float) -> Tensor:
    """Logarithm `(n, K)` of `weight` times a network's probabilities and the rest of one's own.

    Args:
        network: logits `(n, K)`.
        own: logarithms of probabilities `(n, K)`.
        factor: that the logits are multiplied by.
        weight: 0 to 1.
    """
    weight = torch.as_tensor(weight, dtype=own.dtype, device=own.device)
    calibrated = (factor * network.to(own.dtype)).log_softmax(dim=-1)
    both = torch.logaddexp(calibrated + weight.log(), own + (1 - weight).log())
    return torch.where(weight > 0, both, own)  # exactly, and whatever the logits are


def network_mixing(network: Tensor, own: Tensor, labels: Tensor, prior: Tensor) -> NetworkMixing:
    """Whether, and how far, a network improves on probabilities that it was not trained with.

    Factor and weight are fitted to four fifths of the series and scored on the rest, in turn. Only an improvement of
    the loss by more than two standard errors counts: the weight is 0 otherwise, and with fewer than `MIN_SERIES`
    series.

    Args:
        network: logits `(n, K)` of held-out series.
        own: logarithms of probabilities `(n, K)` of the same, from a fit that left each out.
        labels: `(n,)` classes.
        prior: see `score_loss`, whose mean is what has to improve.
    """
    network, own = network.double(), own.double()
    if len(labels) < MIN_SERIES or not bool(network.isfinite().all()):
        return NetworkMixing(1.0, 0.0, 0.0, 0.0)
    fold = _folds(labels)
    gains = torch.empty(len(labels), dtype=torch.float64)
    for number in range(_FOLDS):
        held = fold == number
        factor, weight = _fitted(network[~held], own[~held], labels[~held])
        together = mixed(network[held], own[held], factor, weight)
        gains[held] = score_loss(own[held], labels[held], prior) - score_loss(together, labels[held], prior)
    gain, error = float(gains.mean()), float(gains.std() / len(gains) ** 0.5)
    factor, weight = _fitted(network, own, labels)
    return NetworkMixing(factor, weight if gain > _ERRORS * error else 0.0, gain, error)


def _folds(labels: Tensor) -> Tensor:
    """A fold for each series, `(n,)`, the series of each class spread over all."""
    fold = torch.empty_like(labels)
    fold[labels.argsort(stable=True)] = torch.arange(len(labels)) % _FOLDS
    return fold


def _fitted(network: Tensor, own: Tensor, labels: Tensor) -> tuple[float, float]:
    """The factor that calibrates a network's logits, and the weight with the smallest log loss for it.

    One series more than there are is taken to speak for each side alike, so that neither is ever silent.
    """
    from scipy.optimize import minimize_scalar

    factor = fit_factor(network, labels)

    def loss(weight: float) -> float:
        total = float(log_loss(mixed(network, own, factor, weight), labels).sum())
        return total - math.log(weight) - math.log(1 - weight)

    return factor, float(minimize_scalar(loss, bounds=(1e-3, 1 - 1e-3), method="bounded").x)
