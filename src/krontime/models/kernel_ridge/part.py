"""One part of the closed form: features, a ridge regression on them, and its own temperature.

Shape letters: B batch, C channels, L time points, n series, P features, K classes.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from krontime.models.kernel_ridge.calibration import fit_factor
from krontime.models.kernel_ridge.features import Features
from krontime.models.kernel_ridge.ranks import Ranks
from krontime.models.kernel_ridge.ridge import (
    STREAMED_STRENGTHS,
    Groups,
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

Batches = Callable[[Sequence[range]], Iterable[tuple[Tensor, Tensor | None]]]
"""A function that reads the series `(B, C, L)` at some positions and their masks; a batch is of one range."""


class LabelledSeries(NamedTuple):
    """The series that a part is fitted to, and their classes.

    Attributes:
        read: the series, those for training first.
        labels: `(n,)` their classes.
        num_train: how many are for training; the others are for validation.
        fit_validation: whether the final weights are fitted to the series for validation too.
        groups: of series that are left out together, or None.
        ranks: the processes that a streamed fit is shared by; each of them has all labels.
    """

    read: Batches
    labels: Tensor
    num_train: int
    fit_validation: bool
    groups: Groups | None
    ranks: Ranks = Ranks()

    @property
    def num_fitted(self) -> int:
        """Number of series that the final weights are fitted to, the first ones."""
        return len(self.labels) if self.fit_validation else self.num_train


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
        return self._fit_streamed(series) if is_streamed(series.num_fitted) else self._fit_exactly(series)

    def _fit_exactly(self, series: LabelledSeries) -> Tensor:
        """Fit to the first series with the features of all in memory; returns what `fit` does."""
        num_fitted = series.num_fitted
        [rows] = self._features_of([range(len(series.labels))], series.read)
        labels = series.labels[:num_fitted]
        groups = None if series.groups is None else series.groups.at(slice(num_fitted))
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

        Several processes share the features, chunk by chunk. Chunks are the same for any number of processes, so that
        sums differ by the rounding of float64 alone; the first process solves.

        Returns:
            What `fit` does, of these series alone; the rows of all others are zeros.
        """
        ranks, num_series = series.ranks, len(series.labels)
        has_validation = series.num_train < num_series
        num_train = series.num_train if has_validation else num_series * 9 // 10
        train, held_out = _own_chunks(range(num_train), ranks), _own_chunks(range(num_train, num_series), ranks)
        ridge = StreamedRidge(*self.weight.shape)
        standardizer: Standardizer | None = None
        features = self._features_of([*train, *held_out], series.read)
        for chunk, rows in zip(train, features, strict=False):  # the held-out ones are left
            if standardizer is None:
                standardizer = ranks.from_first(partial(Standardizer.of, rows))
                of_used = standardizer.at(ridge.columns)
            ridge.add(of_used.in_place(ridge.used(rows)), series.labels[chunk.start : chunk.stop])
        assert standardizer is not None
        ridge.gather(ranks)
        weights, biases = ranks.from_first(lambda: ridge.solve(STREAMED_STRENGTHS))
        predictions = torch.zeros(len(weights), num_series - num_train, weights.shape[2])
        for chunk, rows in zip(held_out, features, strict=True):
            standard = of_used.in_place(ridge.used(rows))
            predicted = torch.einsum("np,apk->ank", standard, weights) + biases[:, None]
            predictions[:, chunk.start - num_train : chunk.stop - num_train] = predicted
            if series.fit_validation or not has_validation:
                ridge.add(standard, series.labels[chunk.start : chunk.stop])
        ridge.gather(ranks)
        predictions, labels = ranks.total(predictions).double(), series.labels[num_train:]
        errors = (predictions - indicators(labels, predictions.shape[2])).square().mean(dim=(1, 2))
        best = int(errors.argmin())
        factor = fit_factor(predictions[best], labels)
        weight, bias = ranks.from_first(lambda: ridge.solve(STREAMED_STRENGTHS[best : best + 1]))
        whole = torch.zeros_like(self.weight)
        whole[ridge.columns] = weight[0]
        self._set(standardizer, whole, bias[0], factor)
        left_out = torch.zeros(num_series, predictions.shape[2], dtype=torch.float64)
        left_out[num_train:] = (factor * predictions[best]).log_softmax(dim=-1)
        return left_out

    def _features_of(self, chunks: Sequence[range], read: Batches) -> Iterator[Tensor]:
        """Yield the features `(n, P)` of the series of each chunk of positions."""
        batches = iter(read(chunks))
        for chunk in chunks:
            # Filled as features come: no second copy of all of them is made.
            rows = torch.empty(len(chunk), self.features.num_features)
            count = 0
            while count < len(chunk):
                features = self.features(*next(batches))
                rows[count : count + len(features)] = features
                count += len(features)
            yield rows
        assert next(batches, None) is None  # and so reading has come to its end

    def _set(self, standardizer: Standardizer, weight: Tensor, bias: Tensor, factor: float) -> None:
        """Keep what was fitted in the buffers."""
        self.mean.copy_(standardizer.mean)
        self.scale.copy_(standardizer.scale)
        self.weight.copy_(weight)
        self.bias.copy_(bias)
        self.factor.fill_(factor)


def is_streamed(num_fitted: int) -> bool:
    """Say whether a fit to so many series accumulates sums, which several processes can share."""
    return num_fitted > MAX_EXACT


def _own_chunks(positions: range, ranks: Ranks) -> Sequence[range]:
    """Cut positions into chunks of `_SERIES_AT_ONCE`, and return those of this process; an empty one where it has none.

    So every process comes to the same sums.
    """
    chunks = [
        range(start, min(start + _SERIES_AT_ONCE, positions.stop))
        for start in range(positions.start, positions.stop, _SERIES_AT_ONCE)
    ]
    return ranks.own(chunks) or [range(positions.start, positions.start)]
