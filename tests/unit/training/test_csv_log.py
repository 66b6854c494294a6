"""Rows that are logged stay, and those of steps that are done again do not stand twice."""

import csv
from pathlib import Path

import pytest

from krontime.training.csv_log import CsvLogger

HISTORY = [{"epoch": 0, "train/loss_epoch": 1.5, "series_per_s": 10.0}]


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return [{key: value for key, value in row.items() if value} for row in csv.DictReader(file)]


@pytest.fixture
def logged(tmp_path):
    """The folder of a logger that has logged three steps and one validation."""
    logger = CsvLogger(tmp_path)
    for step in (0, 1, 2):
        logger.log_metrics({"train/loss": 1.0 / (step + 1), "epoch": 0}, step)
    logger.log_metrics({"val/loss": 0.25, "epoch": 0}, 2)
    logger.sync()
    return tmp_path


def test_each_call_is_a_row_at_once(logged):
    assert rows(logged) == [
        {"train/loss": "1.0", "epoch": "0", "step": "0"},
        {"train/loss": "0.5", "epoch": "0", "step": "1"},
        {"train/loss": "0.3333333333333333", "epoch": "0", "step": "2"},
        {"val/loss": "0.25", "epoch": "0", "step": "2"},
    ]
    assert [path.name for path in logged.iterdir()] == ["metrics.csv"]


def test_a_resumed_run_appends_and_repeats_nothing(logged):
    before = rows(logged)
    logger = CsvLogger(logged)
    logger.resume(2, [])
    assert rows(logged) == before[:2]
    logger.log_metrics({"train/loss": 0.1, "epoch": 0}, 2)
    assert [row["step"] for row in rows(logged)] == ["0", "1", "2"]


def test_the_loss_of_an_epoch_that_was_not_logged_yet_is(logged):
    CsvLogger(logged).resume(3, HISTORY)
    assert rows(logged)[-1] == {"train/loss_epoch": "1.5", "series_per_s": "10.0", "epoch": "0", "step": "2"}
    CsvLogger(logged).resume(3, HISTORY)
    assert [row.get("train/loss_epoch") for row in rows(logged)].count("1.5") == 1


def test_a_row_that_was_cut_off_is_dropped(logged):
    before = rows(logged)
    with (logged / "metrics.csv").open("a") as file:
        file.write("0,3")
    CsvLogger(logged).resume(9, [])
    assert rows(logged) == before


def test_nothing_logged_nothing_written(tmp_path):
    logger = CsvLogger(tmp_path)
    logger.resume(3, HISTORY)
    logger.sync()
    assert list(tmp_path.iterdir()) == []
