"""Raw numbers of new series become the values that training made of its own."""

import numpy as np
import pytest

from krontime.data.decoding import Decoding
from krontime.data.series import unscaled


def test_codes_are_missing_before_the_others_are_scaled():
    raw = np.array([[1, -9, 300], [-9, 2, 3]], np.int16)
    decoded = Decoding(missing_value=-9, missing_channels=[0], scale=0.01).decoded(raw)
    np.testing.assert_allclose(decoded, [[0.01, np.nan, 3], [-0.09, 0.02, 0.03]], rtol=1e-6)


def test_values_are_those_of_training_to_the_last_bit():
    raw = np.random.default_rng(0).integers(-30_000, 30_000, (2, 500)).astype(np.int16)
    expected = unscaled(raw, np.tile([0.003, 0.0], (2, 1)), None)
    np.testing.assert_array_equal(Decoding(scale=0.003).decoded(raw), expected)


def test_a_source_may_have_none_of_the_options():
    raw = np.array([[1.5, -9]])
    assert Decoding.of({"_target_": "x", "train": "y"}).decoded(raw) is raw
    assert Decoding.of({"missing_value": -9, "missing_channels": None, "path": "x"}) == Decoding(missing_value=-9)


@pytest.mark.filterwarnings("error")
def test_what_float32_cannot_hold_is_infinite():
    assert np.isinf(Decoding(scale=10.0).decoded(np.array([[1e39]]))).all()
