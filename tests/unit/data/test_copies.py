"""Copied stretches are noticed wherever they stand."""

from dataclasses import replace

import numpy as np
import pytest

from krontime.data import copies
from krontime.data.copies import STRETCH, fingerprints, refuse_copies
from krontime.data.series import SeriesData
from krontime.errors import UserError


def prints_of(series: list[np.ndarray]) -> np.ndarray:
    rows = [(np.full(len(one := fingerprints(x)), i, np.uint64), one) for i, x in enumerate(series)]
    return np.concatenate([np.stack(row, axis=1) for row in rows])


@pytest.fixture
def data() -> SeriesData:
    return SeriesData(
        values=np.empty(0, np.float32),
        offsets=np.zeros(4, np.int64),
        labels=np.zeros(3, np.int64),
        is_test=np.array([False, False, True]),
        class_names=("a", "b"),
        num_channels=2,
        has_missing=False,
        recording_names=("m1", "m2", "m3"),
    )


def test_a_copied_stretch_is_refused_wherever_it_stands(data):
    rng = np.random.default_rng(0)
    series = [rng.standard_normal((2, 20_000)).astype(np.float32) for _ in range(3)]
    refuse_copies(data, prints_of(series))
    series[2][:, 1_234:9_000] = series[1][:, 7:7_773]
    with pytest.raises(UserError, match=r"test recording 'm3': .* of it stands in training recording 'm2'"):
        refuse_copies(data, prints_of(series))
    refuse_copies(replace(data, is_test=np.zeros(3, bool)), prints_of(series))


def test_silence_and_steady_states_are_no_copies(data):
    series = [np.zeros((2, 30_000), np.float32)] * 3
    assert not len(fingerprints(series[0]))
    assert not len(fingerprints(np.ones((1, STRETCH - 1), np.float32)))
    refuse_copies(data, prints_of(series))


def test_chunks_give_what_the_whole_gives(monkeypatch):
    x = np.random.default_rng(0).standard_normal((1, 5_000)).astype(np.float32)
    whole = fingerprints(x)
    monkeypatch.setattr(copies, "AT_ONCE", 512)
    np.testing.assert_array_equal(fingerprints(x), whole)
    assert len(whole) > 10
