"""New series that differ from those of training are told, each in its own line, unless the user allows it."""

from dataclasses import replace

import numpy as np
import pytest

from krontime.data.mismatch import mismatches
from krontime.data.series import SeriesSpec

SPEC = SeriesSpec(2, 100, 2, ("a", "b"), 16000.0, min_length=60)


def told(data, spec=SPEC, **options):
    return mismatches(data, spec, names=[f"{i}.wav" for i in range(len(data))], given="new", **options)


@pytest.fixture
def series(make_data):
    return replace(make_data(lengths=[60, 80, 100], labels=[0, 1, 0], num_channels=2), sampling_rate_hz=16000.0)


def test_series_like_those_of_training_are_taken(series):
    assert told(series) == []
    assert told(replace(series, sampling_rate_hz=None)) == []
    assert told(series, replace(SPEC, sampling_rate_hz=None, min_length=None)) == []


@pytest.mark.parametrize("lengths", [[59], [70, 20, 30], [1, 100]])
def test_shorter_series_than_any_trained_on_are_told(make_data, lengths):
    data = make_data(lengths=lengths, labels=[0] * len(lengths), num_channels=2)
    (line,) = told(data)
    assert "expected at least 60 points" in line
    assert "allow=[length]" in line
    assert told(data, allow=["length"]) == []


@pytest.mark.parametrize("lengths", [[101], [70, 1000, 3000], [100, 160]])
def test_longer_series_than_any_trained_on_are_told(make_data, lengths):
    data = make_data(lengths=lengths, labels=[0] * len(lengths), num_channels=2)
    (line,) = told(data)
    assert "expected at most 100 points" in line
    assert told(data, allow=["length"]) == []


@pytest.mark.parametrize("given", [[400, 90], [350, 300], [1000, 2]])
def test_lengths_before_cropping_count(make_data, given):
    data = make_data(lengths=[100, 100], labels=[0, 1], num_channels=2)
    cropped = replace(data, given_lengths=np.array(given))
    spec = replace(SPEC, min_length=100, given_lengths=(100, 300))
    assert told(replace(data, given_lengths=np.array([100, 300])), spec) == []
    assert told(cropped, spec)


@pytest.mark.parametrize("rate", [8000.0, 44100.0, 16100.0])
def test_other_rates_are_told(series, rate):
    (line,) = told(replace(series, sampling_rate_hz=rate))
    assert f"{rate:,.6g}" in line
    assert "resample=true" in line
    (line,) = told(replace(series, sampling_rate_hz=None, rates_hz=np.array([16000, 16000, rate])))
    assert "1 of 3 series" in line
    assert "2.wav" in line
    assert told(replace(series, sampling_rate_hz=rate), allow=["rate"]) == []


def test_everything_is_told_at_once(make_data):
    data = replace(make_data(lengths=[5, 500], labels=[0, 1]), sampling_rate_hz=8000.0)
    assert len(told(data)) == 4
