"""What holds for every family of features."""

import functools

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from krontime.models.kernel_ridge.competing import CompetingKernels
from krontime.models.kernel_ridge.features import Features
from krontime.models.kernel_ridge.intervals import IntervalQuantiles
from krontime.models.kernel_ridge.kernels import KernelPoolings
from krontime.models.kernel_ridge.spectra import BandEnergies

FAMILIES = {
    "proportions": functools.partial(KernelPoolings, num_features=2000, poolings=1, difference=False),
    "poolings": functools.partial(KernelPoolings, num_features=4000, poolings=4, difference=True),
    "runs": functools.partial(KernelPoolings, num_features=4000, poolings=2, difference=True),
    "groups": functools.partial(CompetingKernels, num_features=3000),
    "quantiles": functools.partial(IntervalQuantiles, num_features=3000),
    "spectra": functools.partial(BandEnergies, num_features=3000, windows=(16, 32)),
}


def make_batch(batch_size: int = 5, length: int = 150, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = 3 + torch.randn(batch_size, 2, length, generator=generator).cumsum(dim=-1) / 5
    mask = torch.rand(x.shape, generator=generator) > 0.2
    return x * mask, mask


@pytest.fixture(params=FAMILIES)
def family(request) -> functools.partial:
    return FAMILIES[request.param]


@pytest.fixture(params=["series", "channel"])
def features(request, family) -> Features:
    made = family(num_channels=2, length=150, scaling=request.param)
    made.fit(*make_batch(seed=1))
    return made


def test_neither_padding_nor_other_series_change_anything(features):
    x, mask = make_batch()
    together = features(x, mask)
    assert together.shape == (5, features.num_features)
    assert together.dtype == torch.float32
    torch.testing.assert_close(features(F.pad(x, (0, 40)), F.pad(mask, (0, 40))), together)
    torch.testing.assert_close(features(x[2:3], mask[2:3])[0], together[2], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("masked", [True, False])
def test_a_large_batch_is_taken_in_pieces(features, masked, monkeypatch):
    x, mask = make_batch()
    mask = mask if masked else None
    together = features(x, mask)
    monkeypatch.setattr("krontime.models.kernel_ridge.features._POINTS_AT_ONCE", 2 * x[0].numel())
    torch.testing.assert_close(features(x, mask), together, atol=1e-5, rtol=1e-5)


def test_a_mask_of_all_points_is_no_mask(features):
    x, mask = make_batch()
    torch.testing.assert_close(features(x, torch.ones_like(mask)), features(x, None), atol=1e-5, rtol=1e-5)


def test_what_lies_under_the_mask_is_not_seen(features):
    x, mask = make_batch()
    torch.testing.assert_close(features(torch.where(mask, x, 1e9), mask), features(x, mask))


@pytest.mark.parametrize("length", [1, 2, 8, 9, 400])
def test_shorter_and_longer_series_than_trained_on_have_features(features, length):
    x, mask = make_batch(length=length)
    assert features(x, mask).isfinite().all()
    mask[0, 1] = False  # a channel without any point
    assert features(x * mask, mask).isfinite().all()
    assert features(torch.full_like(x, 7.0), None).isfinite().all()


@pytest.mark.parametrize(("scaling", "same"), [("series", True), ("channel", False)])
def test_amplitude_is_kept_where_channels_are_scaled(family, scaling, same):
    x, mask = make_batch()
    features = family(num_channels=2, length=150, scaling=scaling)
    features.fit(x, mask)
    loud = features(4 * x, mask)  # a power of two, which rounds nothing
    assert torch.allclose(loud, features(x, mask), atol=1e-5, rtol=1e-5) == same


@pytest.mark.parametrize("factor", [2.0**-90, 2.0**90])
def test_units_leave_no_trace(family, factor):
    x, mask = make_batch()
    one, other = (family(num_channels=2, length=150, scaling="channel") for _ in range(2))
    one.fit(x, mask)
    other.fit(factor * x, mask)
    torch.testing.assert_close(other(factor * x, mask), one(x, mask))


def test_one_odd_series_does_not_decide_the_scale(family):
    x, mask = make_batch(batch_size=9)
    features = family(num_channels=2, length=150, scaling="channel")
    features.fit(x, mask)
    before = features.spread.clone()
    x[4] *= 1e12
    features.fit(x, mask)
    assert (features.spread < 5 * before).all()


@pytest.mark.parametrize("num_channels", [1, 3, 40])
def test_the_number_of_features_is_limited(family, num_channels):
    features = family(num_channels=num_channels, length=3000, scaling="series")
    assert features.num_features <= max(family.keywords["num_features"], 600 * num_channels)  # the least of a channel
    x = torch.randn(2, num_channels, 100)
    features.fit(x, None)
    assert features(x, None).shape == (2, features.num_features)


def test_the_seed_decides_what_is_drawn():
    x, mask = make_batch()

    def drawn(seed: int) -> Tensor:
        features = FAMILIES["proportions"](num_channels=2, length=150, scaling="series", seed=seed)
        features.fit(x, mask)
        return features.biases

    assert torch.equal(drawn(3), drawn(3))
    assert not torch.equal(drawn(3), drawn(4))
    weights = [FAMILIES["groups"](num_channels=2, length=150, scaling="series", seed=seed).weight for seed in (3, 4)]
    assert not torch.equal(*weights)


def test_an_unknown_scaling_is_refused(family):
    with pytest.raises(ValueError, match="scaling='both'"):
        family(num_channels=1, length=10, scaling="both")
