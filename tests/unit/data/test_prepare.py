"""Resampling and cropping keep what they should: shapes, slow signals, missing values."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from krontime.data import read_ahead
from krontime.data.prepare import Prepare, resample
from krontime.errors import UserError


@settings(deadline=None, max_examples=60)
@given(length=st.integers(1, 300), new=st.integers(1, 300), channels=st.integers(1, 3), missing=st.floats(0, 1))
def test_resampled_to_a_length_has_that_length(length, new, channels, missing):
    rng = np.random.default_rng(length)
    x = rng.standard_normal((channels, length)).astype(np.float32)
    x[rng.random(x.shape) < missing] = np.nan
    out = resample(x, Fraction(new, length))
    assert out.shape == (channels, new)
    assert not np.isinf(out).any()
    if not np.isnan(x).any():
        assert not np.isnan(out).any()
    for channel in range(channels):
        if np.isnan(x[channel]).all():
            assert np.isnan(out[channel]).all()


def test_a_slow_signal_survives_and_a_fast_one_does_not_alias():
    t = np.arange(2000)
    slow, fast = np.sin(2 * np.pi * t / 400), np.sin(2 * np.pi * t / 3)
    out = resample((slow + fast + 100.0)[None].astype(np.float32), Fraction(1, 8))[0]
    assert np.abs(out - (slow[::8] + 100)).max() < 0.35
    assert np.abs(out - (slow[::8] + 100))[10:-10].max() < 0.02


def test_missing_stretches_stay_where_they_were():
    x = np.arange(100, dtype=np.float32)[None].copy()
    x[0, 40:60] = np.nan
    half = resample(x, Fraction(1, 2))[0]
    assert np.flatnonzero(np.isnan(half)).tolist() == list(range(20, 30))
    np.testing.assert_allclose(half[~np.isnan(half)], np.arange(0, 100, 2)[~np.isnan(half)], atol=0.5)
    double = resample(x, Fraction(2))[0]
    assert np.isnan(double).sum() == pytest.approx(40, abs=1)


def test_values_that_resampling_makes_too_large_are_refused(make_data):
    data = make_data(lengths=[40, 40], labels=[0, 1])
    data.values[40:] = np.where(np.arange(40) // 5 % 2, 3.3e38, -3.3e38)
    with pytest.raises(UserError, match=r"resampled, series 1 holds infinite values \(or larger than float32"):
        Prepare(resample_length=25).apply(data)
    assert Prepare(crop_length=25).apply(data).lengths.tolist() == [25, 25]


def test_new_rate_changes_length_and_recorded_rate(make_data):
    from dataclasses import replace

    data = replace(make_data(lengths=[1000, 250], labels=[0, 1]), sampling_rate_hz=173.61)
    out = Prepare(resample_hz=100).apply(data)
    assert out.sampling_rate_hz == pytest.approx(100, rel=1e-4)
    assert out.lengths.tolist() == [pytest.approx(576, abs=1), pytest.approx(144, abs=1)]


def test_resampling_to_a_length_knows_the_rate_of_equal_lengths_only(make_data):
    from dataclasses import replace

    equal = replace(make_data(lengths=[80, 80], labels=[0, 1]), sampling_rate_hz=8.0)
    assert Prepare(resample_length=40).apply(equal).sampling_rate_hz == 4.0
    unequal = replace(make_data(lengths=[80, 60], labels=[0, 1]), sampling_rate_hz=8.0)
    assert Prepare(resample_length=40).apply(unequal).sampling_rate_hz is None


@pytest.mark.parametrize(("crop_from", "start"), [("start", 0), ("center", 3), ("end", 6)])
def test_crop_keeps_the_asked_part_and_short_series_whole(make_data, crop_from, start):
    data = make_data(lengths=[10, 3], labels=[0, 1], num_channels=2)
    out = Prepare(crop_length=4, crop_from=crop_from).apply(data)
    np.testing.assert_array_equal(out.series(0), data.series(0)[:, start : start + 4])
    np.testing.assert_array_equal(out.series(1), data.series(1))


def test_long_series_are_resampled_at_once_to_the_same_bit(make_data, monkeypatch):
    data = make_data(lengths=[40_000, 1_000, 50_000, 33_000], labels=[0, 1, 0, 1])
    prepared = []
    for num_cpus in (1, 3):
        monkeypatch.setattr(read_ahead, "num_cpus", lambda num_cpus=num_cpus: num_cpus)
        prepared.append(Prepare(resample_length=10_000, crop_length=9_000).apply(data))
    assert prepared[0].values.tobytes() == prepared[1].values.tobytes()
    assert prepared[0].given_lengths.tolist() == prepared[1].given_lengths.tolist()


def test_cropping_the_missing_part_away_is_noticed(make_data):
    data = make_data(lengths=[10], labels=[0])
    data.values[8] = np.nan
    assert not Prepare(crop_length=5).apply(data).has_missing


def test_nothing_asked_is_nothing_done(make_data):
    data = make_data(lengths=[10, 3], labels=[0, 1])
    assert Prepare().apply(data) is data


def test_a_rate_for_data_without_one_is_refused(make_data):
    with pytest.raises(ValueError, match=r"^resample_hz=.*sampling rate of the data is not known"):
        Prepare(resample_hz=10).apply(make_data(lengths=[10], labels=[0]))


@pytest.mark.parametrize("rates", [(4000, 2000, 4000), (8000, 11025, 500), (1000, 1000, 3000)])
def test_each_series_is_resampled_from_its_own_rate(make_data, rates):
    from dataclasses import replace

    data = make_data(lengths=[rate // 5 for rate in rates], labels=[0, 1, 0])
    mixed = replace(data, rates_hz=np.array(rates, float))
    out = Prepare(resample_hz=1000, crop_length=150).apply(mixed)
    assert (out.sampling_rate_hz, out.rates_hz) == (1000, None)
    assert out.lengths.tolist() == [150] * 3
    assert out.given_lengths.tolist() == [200] * 3
    for i, rate in enumerate(rates):
        alone = replace(make_data(lengths=[rate // 5], labels=[0]), values=data.series(i)[0], sampling_rate_hz=rate)
        np.testing.assert_array_equal(out.series(i), Prepare(resample_hz=1000, crop_length=150).apply(alone).series(0))


def test_what_the_lengths_were_is_kept_for_the_training_series_alone(make_data):
    data = make_data(lengths=[50, 90, 700], labels=[0, 1, 0], is_test=[False, False, True])
    assert data.spec.given_lengths is None
    assert data.spec.min_length == 50
    assert Prepare(crop_length=40).apply(data).spec.given_lengths == (50, 90)
    assert Prepare(resample_length=30).apply(data).spec.given_lengths == (50, 90)
