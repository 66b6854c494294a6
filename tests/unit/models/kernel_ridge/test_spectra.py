"""Energy in bands of frequency: what is computed, and what it tells apart."""

from itertools import pairwise

import numpy as np
import pytest
import scipy.signal
import torch
from torch import Tensor

from krontime.models.kernel_ridge.rows import Rows
from krontime.models.kernel_ridge.spectra import BandEnergies, _borders


def make(*windows: int, num_features: int = 10_000, length: int = 4096, **options) -> BandEnergies:
    return BandEnergies(
        num_channels=1, length=length, scaling="channel", num_features=num_features, windows=windows, **options
    )


def views_of(x: np.ndarray, window: int) -> np.ndarray:
    """Logarithms of the energies of bands less their mean, then that mean: `(V, T)`, by SciPy, a series at a time."""
    taper = np.hanning(window + 1)[:-1]
    transform = scipy.signal.ShortTimeFFT(taper / np.sqrt((taper**2).sum()), window // 2, fs=1)
    first = transform.lower_border_end[1]
    spectra = np.abs(transform.stft(x)[:, first : first + (len(x) - window) // (window // 2) + 1]) ** 2
    borders = _borders(window, 24)
    energy = np.stack([spectra[low:high].mean(axis=0) for low, high in pairwise(borders)])
    log_energy = np.log(energy + 1e-6)
    level = log_energy.mean(axis=0, keepdims=True)
    return np.concatenate([log_energy - level, level])


@pytest.mark.parametrize("window", [16, 64, 250])
def test_features_are_those_of_a_spectrum_computed_otherwise(window: int) -> None:
    rng = np.random.default_rng(0)
    series = [rng.standard_normal(length).cumsum() / 10 for length in (1000, 1700)]
    x = torch.zeros(2, 1700)
    for row, values in zip(x, series, strict=True):
        row[: len(values)] = torch.from_numpy(values)
    seen = torch.arange(1700) < torch.tensor([[1000], [1700]])
    features = make(window)._features(Rows(x, seen, torch.zeros(2, dtype=torch.long)))
    for row, values in zip(features.numpy(), series, strict=True):
        views = views_of(values, window)
        change = np.diff(views)
        num_views, middle = len(views), views.shape[1] / 2
        assert np.allclose(row[:num_views], views.mean(axis=1), atol=1e-4)
        halves = row[num_views : 4 * num_views].reshape(num_views, 3)
        assert np.allclose(halves[:, 0], views[:, : round(middle)].mean(axis=1), atol=1e-4)
        assert np.allclose(halves[:, 1], views[:, round(middle) :].mean(axis=1), atol=1e-4)
        assert np.allclose(row[11 * num_views : 12 * num_views], views.std(axis=1), atol=1e-4)
        of_change = row[20 * num_views :]
        assert np.allclose(of_change[11 * num_views : 12 * num_views], change.std(axis=1), atol=1e-4)
        covariances = np.cov(views, bias=True)[np.triu_indices(num_views, 1)]
        assert np.allclose(row[40 * num_views :], covariances, atol=1e-4)


def _tone(frequency: float, start: int = 0, stop: int = 4096) -> Tensor:
    point = torch.arange(4096) - start
    return ((2 * torch.pi * frequency * point).sin() * ((point >= 0) & (point < stop - start)))[None, None]


def test_a_higher_tone_has_its_energy_in_a_higher_band() -> None:
    features = make(256)
    num_bands = len(_borders(256, 24)) - 1
    loudest = [int(features(_tone(frequency))[0, :num_bands].argmax()) for frequency in (0.01, 0.03, 0.1, 0.3)]
    assert loudest == sorted(set(loudest))


def test_the_same_sounds_in_another_order_differ_in_their_means_of_intervals_alone() -> None:
    features = make(64)
    num_views = len(_borders(64, 24))
    early, late = (features(_tone(0.1, start, start + 1024))[0] for start in (512, 2560))
    assert torch.allclose(early[:num_views], late[:num_views], atol=1e-4)
    assert not torch.allclose(early[num_views : 4 * num_views], late[num_views : 4 * num_views], atol=1)
    assert torch.allclose(early[11 * num_views : 20 * num_views], late[11 * num_views : 20 * num_views], atol=1e-4)


@pytest.mark.parametrize(("length", "expected"), [(4096, [64, 1024]), (4095, [64]), (256, [64]), (255, [])])
def test_windows_are_used_that_fit_four_times(length: int, expected: list[int]) -> None:
    features = make(64, 1024, length=length)
    assert features.windows == expected
    assert bool(features.num_features) == bool(expected)


def test_series_below_the_minimum_length_have_no_features() -> None:
    features = make(16, length=99, min_length=100)
    assert features.num_features == 0
    assert features(torch.randn(3, 1, 99)).shape == (3, 0)


def test_bands_are_at_least_as_wide_as_the_lowest_frequency() -> None:
    for window in (4, 5, 16, 64, 1024):
        borders = _borders(window, 24)
        assert borders[0] == 1
        assert borders[-1] == window // 2 + 1
        assert len(borders) - 1 <= min(24, window // 2)


@pytest.mark.parametrize("windows", [(64, 2), (8192,), (), (64, 16, 64), tuple(range(16, 25))])
def test_options_that_cannot_work_are_refused_at_once(windows: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"^windows=\[.*of 4 to 4096 points\nmin_length=-1: expected at least 0$"):
        make(*windows, min_length=-1)
