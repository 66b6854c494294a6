"""Small data sets for the tests of the data layer."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from krontime.data.assemble import flatten
from krontime.data.series import SeriesData

MakeData = Callable[..., SeriesData]


@pytest.fixture
def make_data() -> MakeData:
    """Builds a `SeriesData` of random values from lengths, labels and the rest."""

    def make(
        *,
        lengths: list[int],
        labels: list[int],
        is_test: list[bool] | None = None,
        num_channels: int = 1,
        groups: list[int] | None = None,
        missing: float = 0.0,
        seed: int = 0,
    ) -> SeriesData:
        rng = np.random.default_rng(seed)
        series = [rng.standard_normal((num_channels, length)) for length in lengths]
        for x in series:
            x[rng.random(x.shape) < missing] = np.nan
        values, offsets = flatten(series)
        return SeriesData(
            values=values,
            offsets=offsets,
            labels=np.array(labels, np.int64),
            is_test=np.array(is_test if is_test is not None else [False] * len(lengths)),
            class_names=tuple(f"class {i}" for i in range(max(labels) + 1)),
            num_channels=num_channels,
            has_missing=bool(np.isnan(values).any()),
            groups=None if groups is None else np.array(groups, np.int64),
            group_name=None if groups is None else "speaker",
        )

    return make


@pytest.fixture
def real_data() -> Path:
    """The folder of real data sets; the test is skipped where there is none."""
    folder = os.environ.get("KRONTIME_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("KRONTIME_DATA names no folder of data sets")
    return Path(folder)
