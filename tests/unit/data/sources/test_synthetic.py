"""The synthetic class needs both ranges: either alone stays at chance, both together tell it."""

import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier

from krontime.data.sources.synthetic import (
    BURST_WIDTH,
    HIGHEST_FREQUENCY,
    LOWEST_FREQUENCY,
    SyntheticSource,
)

K, LENGTH = 4, 2048
WINDOW = 64
CHANCE = 1 / K
MARGIN = 0.08
"""Beyond four standard errors of a guess over 800 series is 0.06."""


@pytest.fixture(scope="module")
def data():
    return SyntheticSource(num_train=800, num_test=800, length=LENGTH, num_classes=K, seed=7).load()


@pytest.fixture(scope="module")
def x(data):
    return data.values.reshape(len(data), LENGTH)


def forest_accuracy(features: np.ndarray, data) -> float:
    forest = RandomForestClassifier(100, random_state=0, n_jobs=1)
    forest.fit(features[~data.is_test], data.labels[~data.is_test])
    return forest.score(features[data.is_test], data.labels[data.is_test])


def short_range_features(x: np.ndarray) -> np.ndarray:
    """What short windows hold, without where they are: sorted band powers, means and maxima over the windows."""
    windows = x.reshape(len(x), -1, WINDOW)
    power = np.abs(np.fft.rfft(windows, axis=-1)) ** 2
    return np.concatenate(
        [power.mean(axis=1), np.quantile(windows.mean(axis=-1), (0.5, 0.8, 0.9, 1), axis=1).T, power.max(axis=1)],
        axis=1,
    )


def slow(x: np.ndarray, factor: int = 32) -> np.ndarray:
    """Means over blocks: the long range without the short one."""
    return x.reshape(len(x), -1, factor).mean(axis=-1)


def slow_resemblance(x: np.ndarray) -> np.ndarray:
    """Autocorrelation of the slow part at every distance."""
    s = slow(x, 16) - np.median(slow(x, 16), axis=1, keepdims=True)
    spectrum = np.fft.rfft(s, 2 * s.shape[-1], axis=-1)
    return np.fft.irfft(np.abs(spectrum) ** 2, axis=-1)[:, : s.shape[-1]]


def told_burst(x: np.ndarray) -> np.ndarray:
    """The short-range pattern: the carrier whose band holds most power above the noise."""
    power = (np.abs(np.fft.rfft(x, axis=-1)) ** 2).T
    frequency = np.fft.rfftfreq(x.shape[-1])
    carriers = np.linspace(LOWEST_FREQUENCY, HIGHEST_FREQUENCY, K)
    return np.argmax([power[np.abs(frequency - f) < 1 / BURST_WIDTH].sum(axis=0) for f in carriers], axis=0)


def told_distance(x: np.ndarray) -> np.ndarray:
    """The long-range pattern: the distance at which the slow part resembles itself most."""
    s = slow(x, 8)
    s = s - np.median(s, axis=1, keepdims=True)
    distances = np.linspace(LENGTH // 4, 3 * LENGTH // 4, K).astype(int) // 8
    return np.argmax([(s[:, :-d] * s[:, d:]).sum(axis=1) for d in distances], axis=0)


def test_short_range_alone_is_at_chance(x, data):
    assert abs(forest_accuracy(short_range_features(x), data) - CHANCE) < MARGIN


def test_short_range_features_do_tell_the_burst(x, data):
    """So the forest above fails for want of the other range, not for want of information on this one."""
    bursts = told_burst(x)
    forest = RandomForestClassifier(50, random_state=0).fit(
        short_range_features(x)[~data.is_test], bursts[~data.is_test]
    )
    assert forest.score(short_range_features(x)[data.is_test], bursts[data.is_test]) > 0.9


def test_long_range_alone_is_at_chance(x, data):
    for features in (slow(x), slow_resemblance(x)):
        assert abs(forest_accuracy(features, data) - CHANCE) < MARGIN


def test_long_range_features_do_tell_the_distance(x, data):
    distances = told_distance(x)
    forest = RandomForestClassifier(50, random_state=0).fit(
        slow_resemblance(x)[~data.is_test], distances[~data.is_test]
    )
    assert forest.score(slow_resemblance(x)[data.is_test], distances[data.is_test]) > 0.9


def test_both_together_tell_the_class(x, data):
    told = (told_burst(x) + told_distance(x)) % K
    assert (told == data.labels).mean() > 0.95


def test_classes_are_balanced(data):
    for part in (data.is_test, ~data.is_test):
        assert np.bincount(data.labels[part]).tolist() == [200] * K


def test_the_seed_decides_and_train_does_not_depend_on_test():
    first = SyntheticSource(num_train=20, num_test=8, length=512, seed=0).load()
    again = SyntheticSource(num_train=20, num_test=40, length=512, seed=0).load()
    other = SyntheticSource(num_train=20, num_test=8, length=512, seed=1).load()
    np.testing.assert_array_equal(first.values[: 20 * 512], again.values[: 20 * 512])
    assert not np.array_equal(first.values, other.values)
    assert not np.array_equal(first.series(0), first.series(20))


def test_all_wrong_arguments_are_named_at_once():
    with pytest.raises(ValueError, match=r"noise=-1\.0") as caught:
        SyntheticSource(num_train=3, num_test=-1, length=100, num_classes=1, noise=-1.0, seed=-1)
    assert len(str(caught.value).splitlines()) == 6


def test_smallest_length_works():
    data = SyntheticSource(num_train=16, num_test=0, length=512).load()
    assert np.isfinite(data.values).all()


def test_patterns_are_those_that_make_the_labels():
    source = SyntheticSource(num_train=40, num_test=18, length=512, num_classes=3, seed=4)
    short, long = source.patterns()
    data = source.load()
    np.testing.assert_array_equal((short + long) % 3, data.labels)
    assert set(zip(short.tolist(), long.tolist(), strict=True)) == {(m, a) for m in range(3) for a in range(3)}
