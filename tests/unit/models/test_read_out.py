"""The read-out in closed form: its features against loops, its weights against scikit-learn, its mixture."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge, RidgeCV
from sklearn.metrics.pairwise import rbf_kernel
from torch import Tensor
from torch.nn import functional as F

from krontime.models.layers.kernels import PatchFeatures, dilations_within
from krontime.models.layers.spectrum import patch_spectra
from krontime.models.read_out import KernelReadOut, mixing_weights


def make_batch(batch_size: int = 6, num_channels: int = 2, length: int = 150, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(batch_size, num_channels, length, generator=generator).cumsum(dim=-1) / 5
    mask = torch.rand(x.shape, generator=generator) > 0.2
    return x * mask, mask


def make(num_channels: int = 2, num_classes: int = 3, **options) -> KernelReadOut:
    read_out = KernelReadOut(
        num_channels=num_channels, length=150, num_classes=num_classes, **{"patch_length": 32, **options}
    )
    read_out.fit_kernels(*make_batch(num_channels=num_channels, seed=1))
    return read_out


def fitted(batch_size: int = 40, **options) -> tuple[KernelReadOut, Tensor, Tensor]:
    """Fitted to three classes of noise of different colour, and its features and labels."""
    read_out = make(**options)
    x, mask = make_batch(batch_size=batch_size, seed=2)
    labels = torch.arange(batch_size) % 3
    x = torch.stack([F.avg_pool1d(row[None], 2 * int(y) + 1, 1, int(y))[0] for row, y in zip(x, labels, strict=True)])
    features = read_out.features(x * mask, mask)
    read_out.fit(features, labels)
    return read_out, features, labels


def pooled(found: PatchFeatures) -> np.ndarray:
    """Mean, deviation and maximum over the patches of one row, in NumPy: `(3, F)`."""
    values, weight = found.values[0].double().numpy(), found.observed[0].double().numpy()
    mean = np.average(values, axis=0, weights=weight)
    deviation = np.sqrt(np.average((values - mean) ** 2, axis=0, weights=weight))
    return np.stack([mean, deviation, values[weight >= weight.max() / 2].max(axis=0)])


@pytest.mark.parametrize("length", [20, 32, 33, 100, 150])
def test_features_are_mean_deviation_and_maximum_over_patches(length):
    read_out = make()
    x, mask = make_batch(length=length)
    found = read_out.features(x, mask).unflatten(1, (2, -1))
    for row in range(len(x)):
        for channel in range(2):
            given = x[row, channel][None], mask[row, channel][None]
            kernels = np.sqrt(pooled(read_out.kernels(*given)).clip(min=1e-6))
            spectra = pooled(patch_spectra(*given, patch_length=32))
            expected = torch.tensor(np.concatenate([kernels, spectra], axis=None), dtype=torch.float32)
            torch.testing.assert_close(found[row, channel], expected, atol=1e-3, rtol=1e-4)


def test_the_mean_over_patches_is_that_over_points():
    """However the last patch is cut, a point counts as much as any other."""
    x, _ = make_batch(length=150, num_channels=1)
    whole = KernelReadOut(num_channels=1, length=150, num_classes=2, patch_length=150, spectrum=False)
    cut = KernelReadOut(num_channels=1, length=150, num_classes=2, patch_length=64, spectrum=False)
    means = [part.features(x, None).unflatten(1, (3, -1))[:, 0] for part in (whole, cut)]
    torch.testing.assert_close(*means, atol=1e-5, rtol=1e-4)


def test_padding_and_batch_mates_change_nothing():
    read_out, _, _ = fitted()
    x, mask = make_batch()
    together = read_out(x, mask)
    for padding in (1, 32, 100):
        torch.testing.assert_close(read_out(F.pad(x, (0, padding)), F.pad(mask, (0, padding))), together)
    for row in range(len(x)):
        torch.testing.assert_close(read_out(x[row : row + 1], mask[row : row + 1])[0], together[row])
    full = torch.ones_like(mask)
    torch.testing.assert_close(read_out(x, full), read_out(x, None))


def test_a_channel_or_a_series_without_values_gives_numbers():
    read_out, _, _ = fitted()
    x, mask = make_batch()
    mask[0], mask[1, 1] = False, False
    features = read_out.features(x * mask, mask)
    num_kernel_features = 3 * read_out.kernels.num_features
    for row, channel in ((0, 0), (0, 1), (1, 1)):
        kernels, spectra = features[row].unflatten(0, (2, -1))[channel].split([num_kernel_features, 3 * 17])
        assert kernels.eq(1e-3).all()
        assert spectra.eq(0).all()
    assert read_out(x * mask, mask).isfinite().all()


def standard_of(read_out: KernelReadOut, features: Tensor) -> Tensor:
    return ((features - features.mean(0)) / read_out.scale).clamp(-10, 10)


def kernel(x: np.ndarray, y: np.ndarray, num_channels: int = 2, num_spectral: int = 3 * 17) -> np.ndarray:
    """Of standardised features: exp(-0.05 d), d to four fifths the mean squared difference of kernels' features."""
    spectral = np.tile(np.arange(x.shape[1] // num_channels) >= x.shape[1] // num_channels - num_spectral, num_channels)
    return np.prod(
        [
            rbf_kernel(x[:, which], y[:, which], gamma=0.05 * share / which.sum())
            for which, share in ((~spectral, 0.8), (spectral, 0.2))
        ],
        axis=0,
    )


def test_weights_are_scikit_learns_ridge_up_to_the_scale_of_the_logits():
    read_out, features, labels = fitted()
    standard = standard_of(read_out, features).double().numpy()
    targets = 2.0 * np.eye(3)[labels] - 1
    values, vectors = np.linalg.eigh(kernel(standard, standard))
    coordinates = vectors * np.sqrt(values.clip(0))
    best = np.inf
    for alpha in np.logspace(-3, 3, 13):  # leave-one-out by hand: each series predicted by a fit to the others
        left_out = np.empty_like(targets)
        for i in range(len(targets)):
            others = np.arange(len(targets)) != i
            left_out[i] = Ridge(alpha=alpha).fit(coordinates[others], targets[others]).predict(coordinates[[i]])[0]
        if (error := ((left_out - targets) ** 2).mean()) < best - 1e-12:
            best, best_alpha, best_left_out = error, alpha, left_out
    ridge = Ridge(alpha=best_alpha).fit(coordinates, targets)
    (scale,) = mixing_weights([torch.from_numpy(best_left_out)], labels, prior=(1.0,), strength=1.0)
    expected = torch.from_numpy(scale * ridge.predict(coordinates)).float()
    torch.testing.assert_close(read_out.logits(features), expected, atol=2e-3, rtol=2e-3)


def test_a_new_series_is_compared_with_landmarks():
    """With fewer landmarks than series, against scikit-learn's form of Nystrom's method."""
    read_out, features, labels = fitted(batch_size=60, max_landmarks=25)
    assert read_out.landmarks.shape == (25, features.shape[1])
    standard = standard_of(read_out, features)
    chosen = [
        int((standard * read_out.importance == landmark).all(dim=1).nonzero()[0]) for landmark in read_out.landmarks
    ]
    standard = standard.double().numpy()
    landmarks = standard[chosen]
    values, vectors = np.linalg.eigh(kernel(landmarks, landmarks))
    coordinates = kernel(standard, landmarks) @ vectors / np.sqrt(values)
    targets = 2.0 * np.eye(3)[labels] - 1
    ridge = RidgeCV(np.logspace(-3, 3, 13)).fit(coordinates, targets)
    own = read_out.logits(features).numpy()
    expected = ridge.predict(coordinates)
    scale = (own * expected).sum() / (expected**2).sum()
    np.testing.assert_allclose(own, scale * expected, atol=0.01 * scale)


def test_equal_series_do_no_harm():
    read_out, features, labels = fitted()
    logits = read_out.logits(features)
    read_out.fit(torch.cat([features, features[:5]]), torch.cat([labels, labels[:5]]))
    assert read_out.logits(features).isfinite().all()
    assert (read_out.logits(features).argmax(dim=1) == logits.argmax(dim=1)).float().mean() > 0.9


def test_it_learns_what_kernels_tell_apart():
    read_out, features, labels = fitted(batch_size=90)
    assert (read_out.logits(features).argmax(dim=1) == labels).float().mean() > 0.95


def test_weights_of_the_mixture_are_the_best_of_a_grid():
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(4, (200,), generator=generator)
    good = 2 * F.one_hot(labels, 4) + 1.5 * torch.randn(200, 4, generator=generator)
    noise = torch.randn(200, 4, generator=generator)

    def cost(weights: tuple[float, float]) -> float:
        prior = 7 * (weights[0] ** 2 + (weights[1] - 1) ** 2) / 2
        return float(F.cross_entropy(weights[0] * good + weights[1] * noise, labels, reduction="sum")) + prior

    found = tuple(mixing_weights([good, noise], labels, prior=(0, 1), strength=7).tolist())
    assert found[0] > 0.5
    assert min(found) >= 0
    grid = [(a, b) for a in np.linspace(0, 3, 31) for b in np.linspace(0, 1, 21)]
    assert cost(found) <= min(map(cost, grid)) + 1e-6


def test_a_class_that_counts_twice_counts_as_if_it_were_there_twice():
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(3, (90,), generator=generator)
    parts = [F.one_hot(labels, 3) + torch.randn(90, 3, generator=generator) for _ in range(2)]
    twice = torch.cat([torch.arange(90), (labels == 1).nonzero()[:, 0]])
    options = {"prior": (0, 0), "strength": 1e-9}
    expected = mixing_weights([part[twice] for part in parts], labels[twice], **options)
    found = mixing_weights(parts, labels, **options, class_weights=torch.tensor([0.5, 1.0, 0.5]))
    np.testing.assert_allclose(found, expected, rtol=1e-3)
    assert not np.allclose(found, mixing_weights(parts, labels, **options), rtol=1e-3)


def test_class_weights_shift_the_logits_by_their_logarithms():
    """So a class counts as if series of it came that much more often, and the ridge regression stays what it is."""
    read_out, features, labels = fitted()
    before = read_out.logits(features)
    weights = torch.tensor([0.5, 1.0, 4.0])
    read_out.fit(features, labels, weights)
    torch.testing.assert_close(read_out.logits(features), before + weights.log())


def test_a_branch_that_is_wrong_gets_no_weight_and_few_series_leave_the_prior():
    labels = torch.arange(300) % 3
    right = 4.0 * F.one_hot(labels, 3)
    assert mixing_weights([right, -right], labels, prior=(0, 1), strength=1)[1] == 0
    few = mixing_weights([right[:1], right[:1]], labels[:1], prior=(0, 1), strength=30)
    np.testing.assert_allclose(few, (0, 1), atol=0.05)


def test_the_mixture_is_a_weighted_sum_and_travels_in_the_state():
    read_out, features, labels = fitted()
    network = torch.randn(40, 3)
    read_out.fit_mix(network, read_out.logits(features), labels)
    first, second = read_out.mix.tolist()
    own = read_out.logits(features)
    torch.testing.assert_close(read_out.mixed(network, own), first * network + second * own)
    other = make()
    other.load_state_dict(read_out.state_dict())
    x, mask = make_batch(seed=5)
    torch.testing.assert_close(other(x, mask), read_out(x, mask), rtol=0, atol=0)
    assert not any(parameter.requires_grad for parameter in read_out.parameters())


@pytest.mark.parametrize(("length", "expected"), [(1, 1), (8, 1), (9, 1), (17, 2), (1460, 8), (4097, 10), (16384, 11)])
def test_dilations_leave_the_kernel_within_the_series(length, expected):
    assert dilations_within(length) == expected
    assert expected == 1 or 8 * 2 ** (expected - 1) <= length - 1 < 8 * 2**expected


def test_many_channels_use_fewer_kernels():
    read_out = KernelReadOut(num_channels=64, length=3000, num_classes=2)
    assert read_out.landmarks.shape[1] - 64 * 3 * 33 <= 40_000
    assert len(read_out.kernels.kernels) >= 1
    assert read_out.features(torch.randn(2, 64, 100), None).shape == (2, read_out.landmarks.shape[1])
    assert len(KernelReadOut(num_channels=1, length=16384, num_classes=2).kernels.kernels) == 84


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"patch_length": 0}, "read_out.patch_length=0"),
        ({"max_features": 0}, "read_out.max_features=0"),
        ({"max_landmarks": 0}, "read_out.max_landmarks=0"),
        ({"num_dilations": 0}, "read_out.num_dilations=0"),
        ({"num_biases": 0}, "read_out.num_biases=0"),
        ({"fit_on": "test"}, "read_out.fit_on='test'"),
    ],
)
def test_options_that_cannot_work_are_refused(options, expected):
    with pytest.raises(ValueError, match=expected):
        KernelReadOut(num_channels=1, length=100, num_classes=2, **options)
