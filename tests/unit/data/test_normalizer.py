"""Scaling against numpy, with missing points, constant channels, and offsets that float32 has trouble with."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from krontime.data.datamodule import SeriesDataset
from krontime.data.normalizer import Normalizer


def make_batch(batch_size=5, num_channels=3, length=40, seed=0):
    """Values with a level and spread of each channel's own, zero where the mask is false."""
    generator = torch.Generator().manual_seed(seed)
    level = 5 * torch.randn(batch_size, num_channels, 1, generator=generator)
    spread = 1 + 3 * torch.rand(batch_size, num_channels, 1, generator=generator)
    x = level + spread * torch.randn(batch_size, num_channels, length, generator=generator)
    mask = torch.rand(x.shape, generator=generator) > 0.3
    return x * mask, mask


def test_each_channel_of_each_series_by_its_observed_points():
    x, mask = make_batch()
    scaled = Normalizer(scaling="series", num_channels=3)(x, mask)
    observed = np.where(mask, x.double(), np.nan)
    mean = np.nanmean(observed, axis=-1, keepdims=True)
    expected = np.nan_to_num((observed - mean) / np.nanstd(observed, axis=-1, keepdims=True))
    np.testing.assert_allclose(scaled, expected, atol=1e-5)
    assert scaled[~mask].eq(0).all()


@pytest.mark.parametrize("scaling", ["series", "none"])
def test_without_a_mask_all_points_are_observed(scaling):
    x = make_batch()[0] + 1
    normalizer = Normalizer(scaling=scaling, num_channels=3)
    torch.testing.assert_close(normalizer(x), normalizer(x, torch.ones_like(x, dtype=torch.bool)))


@pytest.mark.parametrize("scaling", ["series", "channel", "none"])
def test_padding_and_batch_mates_change_nothing(scaling):
    x, mask = make_batch()
    normalizer = Normalizer(scaling=scaling, num_channels=3)
    normalizer.mean += 7
    normalizer.scale *= 3
    alone = normalizer(x, mask)
    padded = normalizer(F.pad(x, (0, 30)), F.pad(mask, (0, 30)))
    torch.testing.assert_close(padded[..., :40], alone, atol=1e-6, rtol=1e-5)
    assert padded[..., 40:].eq(0).all()
    torch.testing.assert_close(normalizer(x[2:3], mask[2:3]), alone[2:3])


@pytest.mark.parametrize(("factor", "offset"), [(0.001, -3), (1e-25, 0), (1e25, 1e25), (-1, 0)])
def test_series_scaling_ignores_level_and_unit(factor, offset):
    x, mask = make_batch()
    normalizer = Normalizer(scaling="series", num_channels=3)
    expected = normalizer(x, mask) * np.sign(factor)
    torch.testing.assert_close(normalizer((x * factor + offset) * mask, mask), expected, atol=1e-3, rtol=1e-3)


def test_none_leaves_values_as_they_are():
    x, mask = make_batch()
    assert torch.equal(Normalizer(scaling="none", num_channels=3)(x, mask), x)


@pytest.mark.parametrize("level", [0.0, 0.1, 1e6, -12345.678])
@pytest.mark.parametrize("masked", [True, False])
def test_constant_channels_become_zero(level, masked):
    _, mask = make_batch(length=1000)
    x = torch.full((5, 3, 1000), level)
    scaled = Normalizer(scaling="series", num_channels=3)(*((x * mask, mask) if masked else (x,)))
    assert scaled.abs().max() <= 1e-6 * max(1, abs(level))


def test_series_without_a_value_or_with_one_become_zero():
    x, mask = make_batch()
    mask[0] = False
    mask[1, :, 1:] = False
    mask[1, :, 0] = True
    for scaling in ("series", "channel"):
        scaled = Normalizer(scaling=scaling, num_channels=3)((x + 1) * mask, mask)
        assert scaled.isfinite().all()
        assert scaled[0].eq(0).all()
        if scaling == "series":
            assert scaled[1].eq(0).all()


@pytest.mark.parametrize("offset", [1e3, -1e4])
def test_a_big_offset_costs_no_accuracy(offset):
    """The mean is taken off before squares are summed."""
    x, mask = make_batch(length=5000)
    values = ((x + offset) * mask).float()
    exact = np.where(mask, values.double(), np.nan)
    mean = np.nanmean(exact, axis=-1, keepdims=True)
    expected = np.nan_to_num((exact - mean) / np.nanstd(exact, axis=-1, keepdims=True))
    scaled = Normalizer(scaling="series", num_channels=3)(values, mask)
    np.testing.assert_allclose(scaled, expected, atol=2e-6 * abs(offset))


@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_channel_statistics_are_those_of_the_training_series(make_data, missing):
    data = make_data(lengths=[30, 50, 20, 40], labels=[0, 1, 0, 1], num_channels=2, missing=missing)
    data.values[:] = 3 * data.values + 10
    train = np.array([0, 2])
    normalizer = Normalizer(scaling="channel", num_channels=2)
    normalizer.fit(data, train)
    values = np.concatenate([data.series(i) for i in train], axis=1).astype(np.float64)
    np.testing.assert_allclose(normalizer.mean[:, 0], np.nanmean(values, axis=1), rtol=1e-5)
    np.testing.assert_allclose(normalizer.scale[:, 0], np.nanstd(values, axis=1), rtol=1e-5)

    before = {key: value.clone() for key, value in normalizer.state_dict().items()}
    for other in (1, 3):
        data.series(other)[:] = np.nan if other == 1 else 1e9
    normalizer.fit(data, train)
    assert all(torch.equal(value, before[key]) for key, value in normalizer.state_dict().items())

    batch = SeriesDataset(data).__getitems__([0, 2])
    scaled = normalizer(batch.x, batch.mask)
    torch.testing.assert_close(scaled[batch.mask.expand_as(scaled)].mean(), torch.tensor(0.0), atol=1e-4, rtol=0)
    assert scaled[~batch.mask].eq(0).all()


@pytest.mark.parametrize("offset", [1e4, 1e6])
def test_channel_deviation_with_a_big_offset(make_data, offset):
    data = make_data(lengths=[4000, 4000], labels=[0, 1])
    data.values[:] = data.values + np.float32(offset)
    normalizer = Normalizer(scaling="channel", num_channels=1)
    normalizer.fit(data, np.array([0, 1]))
    assert normalizer.scale.item() == pytest.approx(data.values.astype(np.float64).std(), rel=1e-3)


@pytest.mark.parametrize("level", [0.0, 0.1, 1e6, np.nan])
def test_a_constant_or_missing_channel_of_the_training_series_is_not_scaled(make_data, level):
    data = make_data(lengths=[1000, 1000], labels=[0, 1], num_channels=2)
    for i in range(2):
        data.series(i)[1] = level
    normalizer = Normalizer(scaling="channel", num_channels=2)
    normalizer.fit(data, np.array([0, 1]))
    assert normalizer.mean[1].item() == pytest.approx(np.nan_to_num(level))
    assert normalizer.scale[1].item() == 1
    assert normalizer.scale[0].item() == pytest.approx(data.values.reshape(2, 2, -1)[:, 0].std(), rel=1e-3)


@pytest.mark.parametrize("scaling", ["series", "none"])
def test_other_scalings_take_nothing_from_training(make_data, scaling):
    data = make_data(lengths=[30, 30], labels=[0, 1])
    normalizer = Normalizer(scaling=scaling, num_channels=1)
    normalizer.fit(data, np.array([0]))
    assert normalizer.mean.eq(0).all()
    assert normalizer.scale.eq(1).all()


def test_statistics_travel_in_the_state(make_data):
    data = make_data(lengths=[30, 50], labels=[0, 1], num_channels=2)
    normalizer = Normalizer(scaling="channel", num_channels=2)
    normalizer.fit(data, np.array([0, 1]))
    other = Normalizer(scaling="channel", num_channels=2)
    other.load_state_dict(normalizer.state_dict())
    x, mask = make_batch(num_channels=2)
    assert torch.equal(other(x, mask), normalizer(x, mask))
    assert not torch.equal(other(x, mask), Normalizer(scaling="channel", num_channels=2)(x, mask))


def test_unknown_scaling_is_refused():
    with pytest.raises(ValueError, match=r"^scaling='batch'.*series, channel or none"):
        Normalizer(scaling="batch", num_channels=1)


@pytest.mark.parametrize("largest", [1e30, 1e38, 3.4e38])
@pytest.mark.parametrize("scaling", ["series", "channel"])
@pytest.mark.parametrize("masked", [True, False])
def test_values_near_the_end_of_float32_stay_finite(largest, scaling, masked, make_data):
    x, mask = make_batch()
    x = (x / x.abs().amax()).double()
    large = (x * largest).float()
    large[0, 0, :2] = torch.tensor([largest, -largest])
    data = make_data(lengths=[40] * 5, labels=[0, 1, 0, 1, 0], num_channels=3)
    result = []
    for values in (large, (large.double() / largest).float()):
        normalizer = Normalizer(scaling=scaling, num_channels=3)
        normalizer.fit(replace(data, values=values.numpy().ravel()), np.arange(5))
        result.append(normalizer(*((values * mask, mask) if masked else (values,))))
    assert result[0].isfinite().all()
    torch.testing.assert_close(result[0], result[1], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("exponent", [-60, 30, 79, 81, 110])
def test_a_power_of_two_is_a_unit_like_any_other_to_the_bit(exponent):
    x, mask = make_batch()
    normalizer = Normalizer(scaling="series", num_channels=3)
    assert torch.equal(normalizer(x * 2.0**exponent, mask), normalizer(x, mask))
