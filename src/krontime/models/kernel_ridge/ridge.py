"""Ridge regression on class indicators, with predictions for series (or groups of them) that were left out.

Shape letters: n series, P features, U features that are used, K classes, A strengths.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from krontime.models.kernel_ridge.ranks import Ranks

STRENGTHS = tuple(10.0 ** (0.5 * i) for i in range(-10, 5))
"""Ridge strengths that are tried, as multiples of the mean squared length of the centred features of a series."""

STREAMED_STRENGTHS = STRENGTHS[4:]
"""Those of them that are large beside the rounding of Gram matrices summed in float32."""

DEFAULT_STRENGTH = 0.1
"""The strength where every class has one series, so that none can be left out to choose by."""

LARGEST = 10.0
"""Largest absolute value of a standardised feature: more is clipped, so that no single outlier decides."""

_COLUMNS_AT_ONCE = 2048
"""Number of features that are copied at once, for all series."""

_MIRRORED_AT_ONCE = 512
"""Rows of a Gram matrix that are copied at once."""

_SMALLEST = 1e-8
"""Lower bound of what is divided by."""


class Standardizer(NamedTuple):
    """Scales features to mean 0 and standard deviation 1 over training series, and clips outliers.

    Attributes:
        mean: `(P,)`.
        scale: `(P,)`, 1 / deviation; 0 for features that do not vary.
    """

    mean: Tensor
    scale: Tensor

    @classmethod
    def of(cls, features: Tensor) -> "Standardizer":
        """Fit to features `(n, P)`.

        Of 20 series or more, the most extreme hundredth at each end of a feature, at least one value, is clamped to
        the next one first.
        """
        mean, scale = zip(
            *(_centre_and_scale(columns) for columns in features.split(_COLUMNS_AT_ONCE, dim=1)), strict=True
        )
        return cls(torch.cat(mean), torch.cat(scale))

    def at(self, columns: Tensor) -> "Standardizer":
        """Return the part for the features at these positions."""
        return Standardizer(self.mean[columns], self.scale[columns])

    def __call__(self, features: Tensor) -> Tensor:
        """Return standardised features `(n, P)`, clipped to `LARGEST` in absolute value; NaN becomes 0."""
        return self.in_place(features.clone())

    def in_place(self, features: Tensor) -> Tensor:
        """Do what `__call__` does, in the memory of `features`."""
        return features.sub_(self.mean).mul_(self.scale).nan_to_num_(0.0).clamp_(-LARGEST, LARGEST)


def _centre_and_scale(features: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and 1 / standard deviation `(P,)` of features `(n, P)`, see `Standardizer.of`."""
    num_extreme = 1 + len(features) // 100 if len(features) >= 20 else 0
    if num_extreme:
        low = features.kthvalue(1 + num_extreme, dim=0).values
        high = features.kthvalue(len(features) - num_extreme, dim=0).values
        features = features.clamp(low, high)
    deviation, mean = torch.std_mean(features, dim=0, correction=0)
    varies = deviation > 1e-6 * mean.abs().clamp(min=1e-3)
    return mean, torch.where(varies, 1 / deviation.clamp(min=1e-30), 0.0)


class RidgeFit(NamedTuple):
    """The solution of a ridge regression.

    Attributes:
        weight: `(P, K)` float32.
        bias: `(K,)` float32.
        left_out: `(n, K)` float64, predictions of a fit without the series, or without its group.
        strength: the one that was chosen, in the unit of `STRENGTHS`.
    """

    weight: Tensor
    bias: Tensor
    left_out: Tensor
    strength: float


class Groups(NamedTuple):
    """Series that are left out together, as those of one speaker, or of one stretch of time.

    Attributes:
        code: int64 `(n,)`, at least 0, of the group of each series.
        span: int64 `(n, 2)`, where windows of recordings start and stop on one axis of time for all: windows that
            overlap one of a group are left out with it, but not predicted then. None where series share no points.
    """

    code: Tensor
    span: Tensor | None = None

    def at(self, index: Tensor | slice) -> "Groups":
        """Return those of the series at `index`."""
        return Groups(self.code[index], None if self.span is None else self.span[index])

    def left_out(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield positions of the series of each group, and of the others that are left out with them."""
        for code in self.code.unique():
            is_mine = self.code == code
            beside = torch.zeros_like(is_mine) if self.span is None else ~is_mine & _overlap(self.span, is_mine)
            yield is_mine.nonzero()[:, 0], beside.nonzero()[:, 0]


def _overlap(span: Tensor, chosen: Tensor) -> Tensor:
    """Say which windows `(n, 2)` overlap one of those that are chosen, `(n,)` bool."""
    start, order = span[chosen, 0].sort()
    latest = span[chosen, 1][order].cummax(dim=0).values  # stop of those that start no later
    last = torch.searchsorted(start, span[:, 1].contiguous()) - 1  # of those that start before a window stops
    return (last >= 0) & (latest[last.clamp(min=0)] > span[:, 0])


def indicators(labels: Tensor, num_classes: int) -> Tensor:
    """Return the targets `(n, K)`, float64, of labels `(n,)`: 1 for the class of a series, -1 for the others."""
    return 2 * torch.nn.functional.one_hot(labels, num_classes).double() - 1


def can_be_left_out(labels: Tensor, groups: Groups | None = None) -> Tensor:
    """Say whether the class of each series still has series without it, or without its group: `(n,)` bool.

    Args:
        labels: `(n,)` classes.
        groups: of series that are left out together; None for one at a time.
    """
    if groups is None:
        return labels.bincount()[labels] > 1
    if groups.span is not None:
        counts, has_others = labels.bincount(), torch.zeros(len(labels), dtype=torch.bool)
        for mine, beside in groups.left_out():
            others = counts - labels[torch.cat([mine, beside])].bincount(minlength=len(counts))
            has_others[mine] = others[labels[mine]] > 0
        return has_others
    # A class is in more than one group where its largest and its smallest group code differ.
    largest = torch.full((int(labels.max()) + 1,), -1).scatter_reduce(0, labels, groups.code, "amax")
    minus_smallest = torch.full_like(largest, -1).scatter_reduce(0, labels, -groups.code, "amax", include_self=False)
    return (largest != -minus_smallest)[labels]


def fit_dual(rows: Tensor, labels: Tensor, num_classes: int, groups: Groups | None = None) -> RidgeFit:
    """Fit a ridge regression exactly in its dual form, of n dimensions, from one eigendecomposition.

    The strength minimises the squared error of the predictions for series that are left out. No copy of all features
    is made.

    Args:
        rows: `(n, P)` standardised features, float32.
        labels: `(n,)` classes.
        num_classes: K.
        groups: of series that are left out together; None for one at a time.
    """
    mean = rows.mean(dim=0)
    gram = torch.zeros(len(rows), len(rows), dtype=torch.float64)
    for centred in _centred(rows, mean):
        gram += (centred @ centred.T).double()
    # Centred again, in float64: left-out predictions need the vector of ones to be an eigenvector, far more exactly
    # than sums in float32 make it.
    gram -= gram.mean(dim=0, keepdim=True)
    gram -= gram.mean(dim=1, keepdim=True)
    unit = float(gram.diagonal().mean().clamp(min=_SMALLEST))
    values, vectors = torch.linalg.eigh(gram / unit)
    values = values.clamp(min=0)
    targets = indicators(labels, num_classes)
    target_mean = targets.mean(dim=0)
    projected = vectors.T @ (targets - target_mean)
    has_left_out = can_be_left_out(labels, groups)
    best: tuple[float, float, Tensor] | None = None
    for strength in STRENGTHS if has_left_out.any() else (DEFAULT_STRENGTH,):
        left_out = targets - _residuals_left_out(values, vectors, projected, strength, groups)
        error = float((left_out - targets)[has_left_out].square().mean()) if has_left_out.any() else 0.0
        if best is None or error < best[0]:
            best = error, strength, left_out
    assert best is not None
    _, strength, left_out = best
    coefficients = (vectors @ (projected / (values + strength)[:, None]) / unit).float()
    weight = torch.cat([centred.T @ coefficients for centred in _centred(rows, mean)])
    bias = target_mean.float() - mean @ weight
    return RidgeFit(weight, bias, left_out, strength)


def _centred(rows: Tensor, mean: Tensor) -> Iterator[Tensor]:
    """Yield features `(n, P)` less their means `(P,)`, `_COLUMNS_AT_ONCE` columns at a time."""
    for columns, centre in zip(rows.split(_COLUMNS_AT_ONCE, dim=1), mean.split(_COLUMNS_AT_ONCE), strict=True):
        yield columns - centre


def _residuals_left_out(
    values: Tensor, vectors: Tensor, projected: Tensor, strength: float, groups: Groups | None
) -> Tensor:
    """Return targets less predictions `(n, K)` of fits that leave each series, or its group, out.

    They follow from one fit to all series: with hat matrix H, a group's are `(I - H)^-1` of its block times its
    residuals, which for one series is its residual over 1 less its leverage.

    Args:
        values: `(n,)` eigenvalues of the Gram matrix, at least 0.
        vectors: `(n, n)` its eigenvectors, in columns.
        projected: `(n, K)` centred targets in the basis of these.
        strength: of the regression, in the unit of the eigenvalues.
        groups: of series that are left out together; None for one at a time.
    """
    shrinkage = strength / (values + strength)
    residuals = vectors @ (shrinkage[:, None] * projected)
    if groups is None:
        one_less_leverage = (vectors.square() @ shrinkage - 1 / len(vectors)).clamp(min=_SMALLEST)
        return residuals / one_less_leverage[:, None]
    out = torch.empty_like(residuals)
    for mine, beside in groups.left_out():
        together = torch.cat([mine, beside])
        rows = vectors[together]
        one_less_hat = (rows * shrinkage) @ rows.T - 1 / len(vectors)
        one_less_hat.diagonal().add_(_SMALLEST)
        out[mine] = torch.linalg.solve(one_less_hat, residuals[together])[: len(mine)]
    return out


class StreamedRidge:
    """A ridge regression in its primal form, of P dimensions, from sums over any number of series.

    Args:
        num_features: P; of more than `MAX_COLUMNS`, evenly spaced ones are used.
        num_classes: K.

    Attributes:
        columns: `(U,)` int64, positions of the features that are used.
    """

    MAX_COLUMNS = 4096
    """Number of features at most that are used."""

    def __init__(self, num_features: int, num_classes: int) -> None:
        used = min(num_features, self.MAX_COLUMNS)
        self.columns = torch.arange(used) * num_features // used
        self._gram = torch.zeros(used, used, dtype=torch.float64)
        self._cross = torch.zeros(used, num_classes, dtype=torch.float64)
        self._total = torch.zeros(used, dtype=torch.float64)
        self._targets = torch.zeros(num_classes, dtype=torch.float64)
        self._count = torch.zeros((), dtype=torch.float64)

    def used(self, rows: Tensor) -> Tensor:
        """Return the features `(n, U)` that are used, of all `(n, P)`: these themselves where all are."""
        return rows if rows.shape[1] == len(self.columns) else rows[:, self.columns]

    def add(self, used: Tensor, labels: Tensor) -> None:
        """Add series: their standardised features `(n, U)` that are used, and labels `(n,)`."""
        targets = indicators(labels, len(self._targets))
        self._gram += used.T @ used
        self._cross += used.T.double() @ targets
        self._total += used.sum(dim=0).double()
        self._targets += targets.sum(dim=0)
        self._count += len(used)

    def gather(self, ranks: Ranks) -> None:
        """Add to the sums of the first process those of the others, which begin anew."""
        for total in (self._gram, self._cross, self._total, self._targets, self._count):
            total.copy_(ranks.total(total))
            if ranks.rank > 0:
                total.zero_()

    def solve(self, strengths: Sequence[float]) -> tuple[Tensor, Tensor]:
        """Solve for each of A strengths, in the unit of `STRENGTHS`.

        Returns:
            Weights `(A, U, K)` of the features that are used, and biases `(A, K)`, float32.

        Raises:
            ValueError: features are not finite, or too alike for sums in float32.
        """
        from scipy.linalg import LinAlgError, cho_factor, cho_solve

        mean, target_mean = self._total / self._count, self._targets / self._count
        cross = self._cross - self._count * torch.outer(mean, target_mean)
        weights = torch.zeros(len(strengths), len(mean), len(target_mean))
        biases = torch.zeros(len(strengths), len(target_mean))
        # Large: it is centred and factorised in place, and as it was afterwards.
        self._gram.addr_(mean, mean, alpha=-float(self._count))
        diagonal = self._gram.diagonal().clone()
        unit = diagonal.sum().clamp(min=_SMALLEST) / self._count
        for i, strength in enumerate(strengths):
            self._gram.diagonal().copy_(diagonal + strength * unit)
            try:  # LAPACK overwrites the lower half in Fortran's order, which is the upper one in C's
                factor = cho_factor(self._gram.numpy().T, lower=True, overwrite_a=True, check_finite=False)
            except LinAlgError as error:
                reason = "the features are not finite, or too alike for float32"
                raise ValueError(f"ridge strength {strength:g}: {reason}") from error
            weight = torch.from_numpy(cho_solve(factor, cross.numpy(), check_finite=False))
            weights[i] = weight.float()
            biases[i] = (target_mean - mean @ weight).float()
            _mirror(self._gram)
        self._gram.diagonal().copy_(diagonal)
        self._gram.addr_(mean, mean, alpha=float(self._count))
        return weights, biases


def _mirror(matrix: Tensor) -> None:
    """Copy what lies below the diagonal of a matrix above it, a block at a time; the diagonal becomes 0."""
    for start in range(0, len(matrix), _MIRRORED_AT_ONCE):
        stop = start + _MIRRORED_AT_ONCE
        below = matrix[start:stop, start:stop].tril(-1)
        matrix[start:stop, start:stop] = below + below.T
        matrix[start:stop, stop:] = matrix[stop:, start:stop].T
