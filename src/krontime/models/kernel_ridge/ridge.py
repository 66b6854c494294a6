"""Ridge regression on class indicators, with predictions for series (or groups of them) that were left out.

Shape letters: n series, P features, K classes, A strengths.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

STRENGTHS = tuple(10.0 ** (0.5 * i) for i in range(-10, 5))
"""Ridge strengths that are tried, as multiples of the mean squared length of the centred features of a series."""

STREAMED_STRENGTHS = STRENGTHS[4:]
"""Those that are safe beside the rounding of sums in float32."""

DEFAULT_STRENGTH = 0.1
"""That of classes of one series each, of which none can be left out."""

LARGEST = 10.0
"""Standardised features are cut here, so that a single strange one does not decide."""

_AT_ONCE = 2048
"""Features of all series that are copied at once."""

_SMALLEST = 1e-8


class Standardizer(NamedTuple):
    """Scales features to mean 0 and deviation 1 over training series, and cuts what is far away.

    Attributes:
        mean: `(P,)`.
        scale: `(P,)`, 1 / deviation; 0 for features that do not vary.
    """

    mean: Tensor
    scale: Tensor

    @classmethod
    def of(cls, features: Tensor) -> "Standardizer":
        """From features `(n, P)`. Of 20 series or more, the most extreme hundredth, at least one, has no say in it."""
        mean, scale = zip(*(_centre_and_scale(columns) for columns in features.split(_AT_ONCE, dim=1)), strict=True)
        return cls(torch.cat(mean), torch.cat(scale))

    def __call__(self, features: Tensor) -> Tensor:
        """Standardised features `(n, P)`, at most `LARGEST` away from 0; 0 for what is no number."""
        return self.in_place(features.clone())

    def in_place(self, features: Tensor) -> Tensor:
        """See `__call__`, without a copy."""
        return features.sub_(self.mean).mul_(self.scale).nan_to_num_(0.0).clamp_(-LARGEST, LARGEST)


def _centre_and_scale(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and 1 / deviation of features `(n, P)`, see `Standardizer.of`."""
    num_extreme = 1 + len(features) // 100 if len(features) >= 20 else 0
    if num_extreme:
        low = features.kthvalue(1 + num_extreme, dim=0).values
        high = features.kthvalue(len(features) - num_extreme, dim=0).values
        features = features.clamp(low, high)
    deviation, mean = torch.std_mean(features, dim=0, correction=0)
    varies = deviation > 1e-6 * mean.abs().clamp(min=1e-3)
    return mean, torch.where(varies, 1 / deviation.clamp(min=1e-30), 0.0)


class RidgeFit(NamedTuple):
    """What a ridge regression found.

    Attributes:
        weight: `(P, K)` float32.
        bias: `(K,)` float32.
        left_out: `(n, K)` float64, predictions of a fit without the series, or without its group.
        strength: that was chosen, relative as `STRENGTHS`.
    """

    weight: Tensor
    bias: Tensor
    left_out: Tensor
    strength: float


def indicators(labels: Tensor, num_classes: int) -> Tensor:
    """Targets `(n, K)` float64: 1 for the class of a series, -1 for the others."""
    return 2 * torch.nn.functional.one_hot(labels, num_classes).double() - 1


def can_be_left_out(labels: Tensor, groups: Tensor | None = None) -> Tensor:
    """`(n,)` bool: whether the class of a series is still known without it, or without its group."""
    if groups is None:
        return labels.bincount()[labels] > 1
    first = torch.full((int(labels.max()) + 1,), -1).scatter_reduce(0, labels, groups, "amax")
    other = torch.full_like(first, -1).scatter_reduce(0, labels, -groups, "amax", include_self=False)
    return (first != -other)[labels]


def fit_dual(rows: Tensor, labels: Tensor, num_classes: int, groups: Tensor | None = None) -> RidgeFit:
    """Fit in n dimensions, exactly, with one decomposition, and without a copy of all features.

    The strength minimises the squared error of the predictions for series that are left out.

    Args:
        rows: `(n, P)` standardised features, float32.
        labels: `(n,)` classes.
        num_classes: K.
        groups: `(n,)` codes of series that are left out together; None for one at a time.
    """
    mean = rows.mean(dim=0)
    gram = torch.zeros(len(rows), len(rows), dtype=torch.float64)
    for centred in _centred(rows, mean):
        gram += (centred @ centred.T).double()
    # Again, in float64: left-out predictions need ones to be an eigenvector, far more exactly than float32 has it.
    gram -= gram.mean(dim=0, keepdim=True)
    gram -= gram.mean(dim=1, keepdim=True)
    unit = float(gram.diagonal().mean().clamp(min=_SMALLEST))
    values, vectors = torch.linalg.eigh(gram / unit)
    values = values.clamp(min=0)
    targets = indicators(labels, num_classes)
    target_mean = targets.mean(dim=0)
    projected = vectors.T @ (targets - target_mean)
    counts = can_be_left_out(labels, groups)
    best: tuple[float, float, Tensor] | None = None
    for strength in STRENGTHS if counts.any() else (DEFAULT_STRENGTH,):
        left_out = targets - _residuals_left_out(values, vectors, projected, strength, groups)
        error = float((left_out - targets)[counts].square().mean()) if counts.any() else 0.0
        if best is None or error < best[0]:
            best = error, strength, left_out
    assert best is not None
    _, strength, left_out = best
    coefficients = (vectors @ (projected / (values + strength)[:, None]) / unit).float()
    weight = torch.cat([centred.T @ coefficients for centred in _centred(rows, mean)])
    bias = target_mean.float() - mean @ weight
    return RidgeFit(weight, bias, left_out, strength)


def _centred(rows: Tensor, mean: Tensor) -> Iterator[Tensor]:
    """Features `(n, P)` less their means `(P,)`, a few columns at a time."""
    for columns, centre in zip(rows.split(_AT_ONCE, dim=1), mean.split(_AT_ONCE), strict=True):
        yield columns - centre


def _residuals_left_out(
    values: Tensor, vectors: Tensor, projected: Tensor, strength: float, groups: Tensor | None
) -> Tensor:
    """Targets less predictions `(n, K)` for series that were left out, from the decomposition of the Gram matrix."""
    shrunk = strength / (values + strength)
    residuals = vectors @ (shrunk[:, None] * projected)
    if groups is None:
        kept = (vectors.square() @ shrunk - 1 / len(vectors)).clamp(min=_SMALLEST)
        return residuals / kept[:, None]
    out = torch.empty_like(residuals)
    for group in groups.unique():
        members = (groups == group).nonzero()[:, 0]
        part = vectors[members]
        kept = (part * shrunk) @ part.T - 1 / len(vectors)
        kept.diagonal().add_(_SMALLEST)
        out[members] = torch.linalg.solve(kept, residuals[members])
    return out


class StreamedRidge:
    """A ridge regression in P dimensions, from sums over any number of series.

    Args:
        num_features: P; of more than `MAX_COLUMNS`, evenly spaced ones are used.
        num_classes: K.
    """

    MAX_COLUMNS = 4096

    def __init__(self, num_features: int, num_classes: int) -> None:
        used = min(num_features, self.MAX_COLUMNS)
        self.columns = torch.arange(used) * num_features // used
        self.num_features = num_features
        self._gram = torch.zeros(used, used, dtype=torch.float64)
        self._cross = torch.zeros(used, num_classes, dtype=torch.float64)
        self._total = torch.zeros(used, dtype=torch.float64)
        self._targets = torch.zeros(num_classes, dtype=torch.float64)
        self._count = 0

    def add(self, rows: Tensor, labels: Tensor) -> None:
        """Add series: standardised features `(n, P)` and labels `(n,)`."""
        used = rows[:, self.columns]
        targets = indicators(labels, len(self._targets))
        self._gram += (used.T @ used).double()
        self._cross += used.T.double() @ targets
        self._total += used.sum(dim=0).double()
        self._targets += targets.sum(dim=0)
        self._count += len(rows)

    def solve(self, strengths: Sequence[float]) -> tuple[Tensor, Tensor]:
        """Weights `(A, P, K)` and biases `(A, K)`, float32, for each strength; 0 for features that are not used."""
        mean, target_mean = self._total / self._count, self._targets / self._count
        gram = self._gram - self._count * torch.outer(mean, mean)
        cross = self._cross - self._count * torch.outer(mean, target_mean)
        unit = gram.diagonal().sum().clamp(min=_SMALLEST) / self._count
        weights = torch.zeros(len(strengths), self.num_features, len(target_mean))
        biases = torch.zeros(len(strengths), len(target_mean))
        for i, strength in enumerate(strengths):
            ridged = gram + strength * unit * torch.eye(len(gram), dtype=gram.dtype)
            factor, failed = torch.linalg.cholesky_ex(ridged)
            if failed:
                raise ValueError(f"ridge strength {strength:g}: the features are not finite, or too alike for float32")
            weight = torch.cholesky_solve(cross, factor)
            weights[i, self.columns] = weight.float()
            biases[i] = (target_mean - mean @ weight).float()
        return weights, biases
