"""Tables of prices: times that say what they are, and rows that stay as they are written."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from krontime.data.sources.prices import PricesSource
from krontime.errors import UserError


def lengths(path: Path, start: str = "2020-01-13", **options) -> list[int]:
    read = PricesSource(str(path), start, asset=None, horizon=1, **options).stream(path.parent)
    return [one.values.shape[1] for one in read]


def write(path: Path, times: list[str], end: str = "") -> Path:
    rows = [f"{time},{100 + number % 3},7{end}\n" for number, time in enumerate(times)]
    path.write_text("time,close,volume\n" + "".join(rows))
    return path


DAYS = [str(day) for day in np.arange("2020-01-01", "2020-01-25", dtype="datetime64[D]")]


@pytest.mark.parametrize(
    "times",
    [
        [day.replace("-", "") for day in DAYS],
        ["/".join((day[8:], day[5:7], day[:4])) for day in DAYS[:12]],
    ],
    ids=["digits", "day or month first"],
)
def test_times_that_may_mean_several_things_are_refused(tmp_path, times):
    with pytest.raises(UserError, match=r"a time can't be read \(.*\); expected ISO 8601"):
        lengths(write(tmp_path / "p.csv", times))


def test_a_mark_at_the_end_of_rows_shifts_nothing(tmp_path):
    assert lengths(write(tmp_path / "p.csv", DAYS, end=",")) == [12, 11]


def test_periods_begin_in_the_zone_of_the_rows(tmp_path):
    hours = pd.date_range("2020-01-12", periods=48, freq="h", tz="Asia/Tokyo")
    path = write(tmp_path / "p.csv", [hour.isoformat() for hour in hours])
    assert lengths(path) == [24, 23]
    assert lengths(path, "2020-01-13T00:00:00+00:00") == [33, 14]


def test_a_border_after_all_rows_and_rows_of_no_asset_are_refused(tmp_path):
    with pytest.raises(UserError, match="expected times that rise, between"):
        lengths(write(tmp_path / "p.csv", DAYS), "2021-01-01")
    (tmp_path / "p.csv").write_text("time,close,asset\n2020-01-01,1,a\n2020-01-02,1,\n")
    with pytest.raises(UserError, match="column 'asset': 1 rows have no asset"):
        list(PricesSource(str(tmp_path / "p.csv"), "2020-01-02").stream(tmp_path))
