"""The experiment of each field, from files of its kind to scores, on small data."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from krontime.runs.prepare import prepare
from tests.cli.run.small import NETWORK, train
from tests.cli.run.test_recordings import write_table

FEW = ("closed_form=none", "tokenizer.patch_length=8", "trainer.max_epochs=1", *NETWORK)


def write_prices(path: Path) -> Path:
    rng = np.random.default_rng(0)
    days = pd.date_range("2016-01-01", "2021-12-31", freq="B")
    frames = [
        pd.DataFrame({"time": days, "asset": asset, "close": 100 * np.exp(np.cumsum(rng.normal(0, 0.01, len(days))))})
        for asset in ("x", "y")
    ]
    pd.concat(frames).to_csv(path, index=False)
    return path


@pytest.fixture
def prices(tmp_path: Path) -> Path:
    return write_prices(tmp_path / "prices.csv")


def test_finance(compose: Callable[..., Any], prices: Path, tmp_path: Path, quick_plots: None) -> None:
    record = train(compose("experiment=finance", f"data.path={prices}", *FEW), tmp_path / "run")
    assert record.protocol.split_method == "given"
    assert record.protocol.groups_in_train_and_test == record.protocol.groups_in_train_and_validation == 0
    assert set(record.protocol.train_class_counts) == {"down", "up"}
    assert record.metrics.test["balanced_accuracy"] is not None


def test_prices_of_one_period_say_nothing_of_another(compose: Callable[..., Any], prices: Path, tmp_path: Path) -> None:
    """What is trained on, and each class of it, is the same whatever the prices are later."""
    config = compose("experiment=finance", f"data.path={prices}", *FEW)
    before = prepare(config)
    table = pd.read_csv(prices)
    later = table["time"] >= "2018-01-01"
    table.loc[later, "close"] = table.loc[later, "close"].to_numpy()[::-1] * 3
    table.to_csv(prices, index=False)
    after = prepare(config)
    np.testing.assert_array_equal(before.split.train, after.split.train)
    for index in before.split.train.tolist():
        assert before.data.labels[index] == after.data.labels[index]
        np.testing.assert_array_equal(before.data.series(index), after.data.series(index))
    last = before.data.windows.start[before.split.train] + before.data.windows.length[before.split.train]
    rows = (table["time"] < "2018-01-01").sum() // 2
    assert last.max() <= rows - 5
    assert before.data.offsets[1] == rows
    days = ((table["time"] >= "2018-01-01") & (table["time"] < "2020-01-01")).sum() // 2
    assert before.data.offsets[2] - before.data.offsets[1] == days - 5  # less the embargo


def test_sensors(compose: Callable[..., Any], tmp_path: Path, quick_plots: None) -> None:
    table = write_table(tmp_path / "machines.csv", [f"m{i}" for i in range(6)])
    windows = ("data.window.length=40", "data.window.stride=20")
    record = train(compose("experiment=sensors", f"data.path={table}", *windows, *FEW), tmp_path / "run")
    assert record.protocol.group == "machine"
    assert record.protocol.groups_in_train_and_test == 0
    assert (tmp_path / "run" / "segments.csv").is_file()


def test_medicine(compose: Callable[..., Any], tmp_path: Path, quick_plots: None) -> None:
    wfdb = pytest.importorskip("wfdb")
    rng = np.random.default_rng(0)
    (tmp_path / "records").mkdir()
    for number in range(8):
        signal = rng.integers(-900, 900, (1200, 1))
        options = {"fs": 360, "units": ["mV"], "sig_name": ["MLII"], "fmt": ["16"], "adc_gain": [200.0]}
        where = str(tmp_path / "records")
        wfdb.wrsamp(f"r{number}", d_signal=signal, baseline=[0], write_dir=where, **options)
        rhythms = {"symbol": ["+", "+"], "aux_note": ["(N", "(AFIB"], "write_dir": where}
        wfdb.wrann(f"r{number}", "atr", np.array([1, 601]), **rhythms)
    chosen = ("experiment=medicine", f"data.path={tmp_path / 'records'}", "data.window.length=60")
    record = train(compose(*chosen, *FEW), tmp_path / "run")
    assert set(record.protocol.train_class_counts) == {"N", "AFIB"}
    assert record.protocol.group == "patient"
    assert record.config["loss"]["class_weights"] == "balanced"
