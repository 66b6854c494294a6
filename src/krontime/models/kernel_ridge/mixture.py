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
"""Number of left-out series below which there is no evidence for a network, or against a part."""

_MIN_STANDARD_ERRORS = 2.0
"""Number of standard errors that the loss has to improve by."""

_FOLDS = 5
"""Number of folds by which factor and weight are scored on series that they were not fitted to."""


class NetworkMixing(NamedTuple):
    """How a network is mixed with a closed form; checkpoints keep the four numbers in this order.

    Attributes:
        factor: what its logits are multiplied by (an inverse temperature).
        weight: of its probabilities, 0 to 1; 0 where held-out series do not speak for it.
        gain: mean improvement of the loss, in nats, on series that neither factor nor weight was fitted to.
        error: its standard error.
    """

    factor: float
    weight: float
    gain: float
    error: float


def average(log_probabilities: Sequence[Tensor]) -> Tensor:
    """Return the logarithm `(n, K)` of the mean of probabilities, each given as logarithms `(n, K)`."""
    stacked = torch.stack(list(log_probabilities))
    return stacked.logsumexp(dim=0) - torch.tensor(float(len(stacked))).log().to(stacked)


def select_parts(log_probabilities: Sequence[Tensor], labels: Tensor, groups: Tensor | None = None) -> list[int]:
    """Choose the parts that an average with equal weights is better with.

    The part without which the average improves most is dropped, again and again, as long as the log loss improves by
    more than two standard errors. All parts are kept with fewer than `MIN_SERIES` series, or with a single group.

    Args:
        log_probabilities: of each part, `(n, K)`, of series that were left out of its fit.
        labels: `(n,)` classes.
        groups: `(n,)` codes of series that were left out together, and so err together; None for one at a time.

    Returns:
        Positions of the parts that are kept, rising.
    """
    kept = list(range(len(log_probabilities)))
    if len(labels) < MIN_SERIES:
        return kept
    group = torch.arange(len(labels)) if groups is None else groups.unique(return_inverse=True)[1]

    def loss(parts: Sequence[int]) -> Tensor:
        return log_loss(average([log_probabilities[part] for part in parts]), labels)

    while len(kept) > 1:
        present = loss(kept)
        gains = [present - loss([other for other in kept if other != part]) for part in kept]
        best = max(range(len(kept)), key=lambda i: float(gains[i].mean()))
        if not float(gains[best].mean()) > _MIN_STANDARD_ERRORS * _standard_error(gains[best], group):
            break
        kept.pop(best)
    return kept


def _standard_error(values: Tensor, group: Tensor) -> float:
    """Return the standard error of a mean of values `(n,)` that are independent between groups, not within.

    The estimate of Liang and Zeger (1986) with `G / (G - 1)` for G groups: of groups of one value, the usual one.
    It is infinite where there is one group alone.

    Args:
        values: `(n,)`.
        group: `(n,)` int64 codes 0 to G - 1, each of them there.
    """
    num_groups = int(group.max()) + 1
    if num_groups == 1:
        return math.inf
    totals = values.new_zeros(num_groups).index_add(0, group, values - values.mean())
    return float((totals.square().sum() * num_groups / (num_groups - 1)).sqrt()) / len(values)


def mixed(logits: Tensor, log_probability: Tensor, factor: Tensor | float, weight: Tensor | float) -> Tensor:
    """Return the logarithm `(n, K)` of a weighted mean of a network's probabilities and of those of a closed form.

    Args:
        logits: `(n, K)`, the network's.
        log_probability: `(n, K)`, the closed form's.
        factor: what the logits are multiplied by.
        weight: of the network, 0 to 1; the closed form has the rest.
    """
    weight = torch.as_tensor(weight, dtype=log_probability.dtype, device=log_probability.device)
    calibrated = (factor * logits.to(log_probability.dtype)).log_softmax(dim=-1)
    both = torch.logaddexp(calibrated + weight.log(), log_probability + (1 - weight).log())
    return torch.where(weight > 0, both, log_probability)  # exactly, and whatever the logits are


def network_mixing(
    logits: Tensor, log_probability: Tensor, labels: Tensor, prior: Tensor, period: Tensor | None = None
) -> NetworkMixing:
    """Fit how a network is mixed with a closed form, and test whether that improves on the closed form alone.

    Factor and weight are fitted to four fifths of the series and scored on the rest, in turn. Only an improvement of
    the loss by more than two standard errors counts: the weight is 0 otherwise, and with fewer than `MIN_SERIES`
    series, or fewer periods than folds.

    Args:
        logits: `(n, K)`, the network's, of held-out series.
        log_probability: `(n, K)`, the closed form's of the same series, from fits that left each out.
        labels: `(n,)` classes.
        prior: see `score_loss`, whose mean is what has to improve.
        period: `(n,)` codes of the times that windows are of; those of one are in one fold and count as one. None where
            each series counts.
    """
    logits, log_probability = logits.double(), log_probability.double()
    cluster = torch.arange(len(labels)) if period is None else period.unique(return_inverse=True)[1]
    is_few = len(labels) < MIN_SERIES or int(cluster.max()) + 1 < _FOLDS
    if is_few or not bool(logits.isfinite().all()):
        return NetworkMixing(1.0, 0.0, 0.0, 0.0)
    fold = _folds(labels) if period is None else cluster % _FOLDS
    gains = torch.empty(len(labels), dtype=torch.float64)
    for number in range(_FOLDS):
        held = fold == number
        factor, weight = _fit_factor_and_weight(logits[~held], log_probability[~held], labels[~held])
        mixture = mixed(logits[held], log_probability[held], factor, weight)
        alone = score_loss(log_probability[held], labels[held], prior)
        gains[held] = alone - score_loss(mixture, labels[held], prior)
    gain, error = float(gains.mean()), _standard_error(gains, cluster)
    factor, weight = _fit_factor_and_weight(logits, log_probability, labels)
    return NetworkMixing(factor, weight if gain > _MIN_STANDARD_ERRORS * error else 0.0, gain, error)


def _folds(labels: Tensor) -> Tensor:
    """Assign a fold to each series, `(n,)`, so that the series of each class are spread over all folds."""
    fold = torch.empty_like(labels)
    fold[labels.argsort(stable=True)] = torch.arange(len(labels)) % _FOLDS
    return fold


def _fit_factor_and_weight(logits: Tensor, log_probability: Tensor, labels: Tensor) -> tuple[float, float]:
    """Fit the factor that calibrates a network's logits, then the weight with the smallest log loss.

    `log(weight) + log(1 - weight)` is added to the log-likelihood, as a series for each side alone would add, so that
    neither weight comes out as 0.
    """
    from scipy.optimize import minimize_scalar

    factor = fit_factor(logits, labels)

    def loss(weight: float) -> float:
        total = float(log_loss(mixed(logits, log_probability, factor, weight), labels).sum())
        return total - math.log(weight) - math.log(1 - weight)

    return factor, float(minimize_scalar(loss, bounds=(1e-3, 1 - 1e-3), method="bounded").x)
