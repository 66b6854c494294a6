"""The measurements of an audit.

Scores are balanced accuracies of classifiers that take seconds: the nearest neighbour, and a ridge classifier on
MiniRocket's features of all series, whose biases come from the official training series.

Shape letters: n series, C channels, L time points, P features.
"""

from dataclasses import dataclass, replace

import numpy as np

from krontime.data.assemble import also_trained_on
from krontime.data.normalizer import Scaling
from krontime.data.resample import resampled
from krontime.data.series import SeriesData
from krontime.runs.classical_fit import Arrays

NEAR = 0.01
"""Root mean squared difference of two scaled series, deviation 1 each, that are called the same but for noise."""

_BATCH = 64


@dataclass(frozen=True)
class Audit:
    """What was measured on a data set.

    Attributes:
        name: of the data set.
        num_train, num_test, num_classes: of the official split.
        test_counts: test series of each class.
        group_name: what a group is; None without groups.
        duplicates: test series that are training series too, to the last bit.
        near_duplicates: test series that are a training series but for noise, duplicates among them.
        shared_groups: groups with series in both splits.
        nearest_neighbour: balanced accuracy of the nearest training series.
        official: balanced accuracy of the kernels on the official split.
        permuted: the same, with the time points of every series permuted by one fixed permutation.
        shuffled: the same, with the training labels shuffled, once for each shuffle.
        resamples: balanced accuracy on resamples 1, 2, ...
        resampled_by: `stratified` or `group`.
    """

    name: str
    num_train: int
    num_test: int
    num_classes: int
    test_counts: tuple[int, ...]
    group_name: str | None
    duplicates: int
    near_duplicates: int
    shared_groups: int
    nearest_neighbour: float
    official: float
    permuted: float
    shuffled: tuple[float, ...]
    resamples: tuple[float, ...]
    resampled_by: str

    @property
    def chance(self) -> float:
        """Balanced accuracy of a guess, over the classes with test series."""
        return 1 / sum(count > 0 for count in self.test_counts)

    @property
    def chance_error(self) -> float:
        """Standard deviation of a guess's balanced accuracy."""
        counts = np.array([count for count in self.test_counts if count])
        p = self.chance
        return float(np.sqrt((p * (1 - p) / counts).sum()) / len(counts))

    @property
    def shift(self) -> float:
        """The split-shift index: the score on the official split less the mean over resamples."""
        return self.official - float(np.mean(self.resamples))


def audit(
    data: SeriesData, *, name: str, scaling: Scaling, num_resamples: int, num_shuffles: int, seed: int, num_jobs: int
) -> Audit:
    """Measure a data set in its official split.

    Args:
        data: the series, with test series.
        name: of the data set.
        scaling: see `Normalizer`.
        num_resamples: at least 2.
        num_shuffles: at least 1.
        seed: of kernels, permutation and shuffles.
        num_jobs: threads.
    """
    rng = np.random.default_rng(seed)
    train, test = np.flatnonzero(~data.is_test), np.flatnonzero(data.is_test)
    length = int(data.lengths[train].max())
    x = Arrays(data, train, scaling=scaling, length=length, batch_size=_BATCH).read(np.arange(len(data)))
    distance, nearest = _nearest(x, train, test)
    features = _features(x, train, seed, num_jobs)
    groups = data.groups
    shared = 0 if groups is None else len(np.intersect1d(groups[train], groups[test]))
    others = [np.flatnonzero(resampled(data, k).is_test) for k in range(1, num_resamples + 1)]
    shuffled = [replace(data, labels=_shuffled(data.labels, train, rng)) for _ in range(num_shuffles)]
    permuted = _features(x[..., rng.permutation(x.shape[-1])], train, seed, num_jobs)
    return Audit(
        name=name,
        num_train=len(train),
        num_test=len(test),
        num_classes=len(data.class_names),
        test_counts=tuple(np.bincount(data.labels[test], minlength=len(data.class_names)).tolist()),
        group_name=data.group_name if groups is not None else None,
        duplicates=len(also_trained_on(data)),
        near_duplicates=int((distance < NEAR).sum()),
        shared_groups=shared,
        nearest_neighbour=_balanced(data.labels[test], data.labels[train][nearest]),
        official=_score(features, data.labels, test),
        permuted=_score(permuted, data.labels, test),
        shuffled=tuple(_score(features, other.labels, test) for other in shuffled),
        resamples=tuple(_score(features, data.labels, other) for other in others),
        resampled_by="stratified" if groups is None else "group",
    )


def _shuffled(labels: np.ndarray, train: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Labels of which those of the training series are shuffled."""
    shuffled = labels.copy()
    shuffled[train] = rng.permutation(labels[train])
    return shuffled


def _nearest(x: np.ndarray, train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Root mean squared difference to, and place among the training series of, the nearest one of each test series."""
    from sklearn.neighbors import NearestNeighbors

    flat = x.reshape(len(x), -1)
    distance, place = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(flat[train]).kneighbors(flat[test])
    return distance[:, 0] / np.sqrt(flat.shape[1]), place[:, 0]


def _features(x: np.ndarray, train: np.ndarray, seed: int, num_jobs: int) -> np.ndarray:
    """MiniRocket's features `(n, P)` of every series, standardised over the training series."""
    from aeon.transformations.collection.convolution_based import MiniRocket
    from sklearn.preprocessing import StandardScaler

    rocket = MiniRocket(random_state=seed, n_jobs=num_jobs).fit(x[train].astype(np.float32))
    features = np.concatenate(
        [rocket.transform(x[start : start + _BATCH].astype(np.float32)) for start in range(0, len(x), _BATCH)]
    )
    scaled: np.ndarray = StandardScaler(with_mean=False).fit(features[train]).transform(features)
    return scaled


def _score(features: np.ndarray, labels: np.ndarray, test: np.ndarray) -> float:
    """Balanced accuracy on some series of a ridge classifier fitted to all others."""
    from sklearn.linear_model import RidgeClassifierCV

    train = np.setdiff1d(np.arange(len(labels)), test)
    ridge = RidgeClassifierCV(alphas=np.logspace(-3, 3, 10)).fit(features[train], labels[train])
    return _balanced(labels[test], ridge.predict(features[test]))


def _balanced(labels: np.ndarray, predicted: np.ndarray) -> float:
    """Recall averaged over the classes that occur."""
    return float(np.mean([(predicted[labels == label] == label).mean() for label in np.unique(labels)]))
