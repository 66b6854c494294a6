"""One part of the closed form: features, a ridge regression on them, and its own temperature.

Shape letters: B batch, C channels, L time points, n series, P features, K classes.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from krontime.models.kernel_ridge.calibration import fit_factor
from krontime.models.kernel_ridge.features import Features
from krontime.models.kernel_ridge.ridge import (
    STREAMED_STRENGTHS,
    Standardizer,
    StreamedRidge,
    can_be_left_out,
    fit_dual,
    indicators,
)

MAX_EXACT = 4_096
"""Number of series up to which the ridge regression is exact; beyond it, a Gram matrix of features is accumulated."""

_SERIES_AT_ONCE = 2_000
"""Number of series whose features a streamed fit holds at once; the first ones give the means and deviations."""

Batches = Callable[[], Iterable[tuple[Tensor, Tensor | None]]]
"""A function that reads series `(B, C, L)` and their masks, in the same order each time."""


class LabelledSeries(NamedTuple):
    """The series that a part is fitted to, and their classes.

    Attributes:
        read: the series, those for training first.
        labels: `(n,)` their classes.
        num_train: how many are for training; the others are for validation.
        fit_validation: whether the final weights are fitted to the series for validation too.
        groups: `(n,)` codes of series that are left out together, or None.
    """

    read: Batches
    labels: Tensor
    num_train: int
    fit_validation: bool
    groups: Tensor | None


class Part(nn.Module):
    """A family of features, their standardisation, a ridge regression on them, and its temperature.

    Args:
        features: the family.
        num_classes: K.

    Attributes:
        mean, scale: `(P,)`, see `Standardizer`.
        weight, bias: `(P, K)` and `(K,)`, of the ridge regression.
        factor: what its predictions are multiplied by before the softmax (an inverse temperature).
    """

    mean: Tensor
    scale: Tensor
    weight: Tensor
    bias: Tensor
    factor: Tensor

    def __init__(self, features: Features, num_classes: int) -> None:
        super().__init__()
        self.features = features
        self.register_buffer("mean", torch.zeros(features.num_features))
        self.register_buffer("scale", torch.zeros(features.num_features))
        self.register_buffer("weight", torch.zeros(features.num_features, num_classes))
        self.register_buffer("bias", torch.zeros(num_classes))
        self.register_buffer("factor", torch.ones(()))

    @torch.no_grad()
    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the logarithms of class probabilities `(B, K)` of raw series `(B, C, L)`."""
        return self._log_probability(self.standardized(x, mask))

    @torch.no_grad()
    def standardized(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the features `(B, P)` of raw series `(B, C, L)` as the ridge regression takes them."""
        return Standardizer(self.mean, self.scale)(self.features(x, mask))

    def _log_probability(self, standard: Tensor) -> Tensor:
        """Return the logarithms of class probabilities `(B, K)` of standardised features `(B, P)`."""
        return (self.factor * (standard @ self.weight + self.bias)).log_softmax(dim=-1)

    @torch.no_grad()
    def fit(self, series: LabelledSeries) -> Tensor:
        """Fit the standardisation, the ridge regression and the temperature; the features are fitted already.

        Returns:
            `(n, K)`: logarithms of the probabilities of each series from a fit without it (or without its group), and
            for series that were not fitted to, from the fit itself.
        """
        num_fitted = len(series.labels) if series.fit_validation else series.num_train
        if num_fitted <= MAX_EXACT:
            return self._fit_exactly(series, num_fitted)
        return self._fit_streamed(series)

    def _fit_exactly(self, series: LabelledSeries, num_fitted: int) -> Tensor:
        """Fit to the first series with the features of all in memory; returns what `fit` does."""
        rows = torch.empty(len(series.labels), self.features.num_features)
        position = 0
        for batch in series.read():
            features = self.features(*batch)
            rows[position : position + len(features)] = features
            position += len(features)
        labels = series.labels[:num_fitted]
        groups = None if series.groups is None else series.groups[:num_fitted]
        standardizer = Standardizer.of(rows[:num_fitted])
        standard = standardizer.in_place(rows)
        ridge = fit_dual(standard[:num_fitted], labels, self.weight.shape[1], groups)
        has_left_out = can_be_left_out(labels, groups)
        factor = fit_factor(ridge.left_out[has_left_out], labels[has_left_out])
        self._set(standardizer, ridge.weight, ridge.bias, factor)
        left_out = (factor * ridge.left_out).log_softmax(dim=-1)
        return torch.cat([left_out, self._log_probability(standard[num_fitted:]).double()])

    def _fit_streamed(self, series: LabelledSeries) -> Tensor:
        """Fit to any number of series, in memory that does not grow with the features of all of them.

        Strength and temperature are those that are best for the series for validation; without any, for the last tenth
        of the others. Then the fit is extended to these; to series for validation only where `fit_validation` says so.

        Returns:
            What `fit` does, of these series alone; the rows of all others are zeros.
        """
        has_validation = series.num_train < len(series.labels)
        num_train = series.num_train if has_validation else len(series.labels) * 9 // 10
        ridge = StreamedRidge(*self.weight.shape)
        standardizer: Standardizer | None = None
        solved: tuple[Tensor, Tensor] | None = None
        held_out = []
        position = 0

        def narrowed(features: Tensor) -> Tensor:
            return features if standardizer is None else features[:, ridge.columns]

        for rows in _regrouped((self.features(*batch) for batch in series.read()), num_train, narrowed):
            labels = series.labels[position : position + len(rows)]
            if standardizer is None:  # of all features, of which those that are used are kept of later series
                standardizer = Standardizer.of(rows)
                rows = narrowed(rows)
            standard = standardizer.at(ridge.columns).in_place(rows)
            if position >= num_train:
                solved = solved or ridge.solve(STREAMED_STRENGTHS)
                held_out.append(torch.einsum("np,apk->ank", standard, solved[0]) + solved[1][:, None])
            if position < num_train or series.fit_validation or not has_validation:
                ridge.add(standard, labels)
            position += len(rows)
        assert standardizer is not None
        predictions, labels = torch.cat(held_out, dim=1).double(), series.labels[num_train:]
        errors = (predictions - indicators(labels, predictions.shape[2])).square().mean(dim=(1, 2))
        best = int(errors.argmin())
        factor = fit_factor(predictions[best], labels)
        weight, bias = ridge.solve(STREAMED_STRENGTHS[best : best + 1])
        whole = torch.zeros_like(self.weight)
        whole[ridge.columns] = weight[0]
        self._set(standardizer, whole, bias[0], factor)
        left_out = torch.zeros(len(series.labels), predictions.shape[2], dtype=torch.float64)
        left_out[num_train:] = (factor * predictions[best]).log_softmax(dim=-1)
        return left_out

    def _set(self, standardizer: Standardizer, weight: Tensor, bias: Tensor, factor: float) -> None:
        """Keep what was fitted in the buffers."""
        self.mean.copy_(standardizer.mean)
        self.scale.copy_(standardizer.scale)
        self.weight.copy_(weight)
        self.bias.copy_(bias)
        self.factor.fill_(factor)


def _regrouped(batches: Iterable[Tensor], border: int, narrowed: Callable[[Tensor], Tensor]) -> Iterator[Tensor]:
    """Join batches of features into larger ones, of about `_SERIES_AT_ONCE` series.

    Args:
        batches: features `(B, P)`.
        border: position of a series before which a batch ends.
        narrowed: takes from features `(B, P)` those that are kept.
    """
    joined: Tensor | None = None  # filled as features come: no second copy of all of them is made
    count = position = 0
    for rows in batches:
        for chunk in rows.tensor_split([max(0, min(len(rows), border - position))]):
            if not len(chunk):
                continue
            kept = narrowed(chunk)
            if joined is None:
                joined = kept.new_empty(_SERIES_AT_ONCE + len(rows), kept.shape[1])
            joined[count : count + len(kept)] = kept
            count, position = count + len(kept), position + len(kept)
            if count >= _SERIES_AT_ONCE or position == border:
                yield joined[:count]
                joined, count = None, 0
    if joined is not None:
        yield joined[:count]
