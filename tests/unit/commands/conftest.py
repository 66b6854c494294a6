"""Commands are tested without their plots; one test of `tables` has them drawn."""

import shutil

import numpy as np
import pytest

from krontime.runs.predictions import Outcomes
from tests.unit.commands.outcomes import finished


@pytest.fixture(scope="module", autouse=True)
def undrawn(quick_plots: None) -> None:
    """What is drawn takes longest, and is tested in `tests/unit/reports` and `tests/unit/runs/plot`."""


@pytest.fixture
def no_plots(monkeypatch):
    """Plots take longest; one test makes them."""
    monkeypatch.setattr("krontime.reports.folder.plot_pareto", lambda comparison, folder: [])
    monkeypatch.setattr("krontime.reports.folder.plot_critical_difference", lambda variants, scores, folder: "no plot")


@pytest.fixture(scope="module")
def finished_runs(tmp_path_factory, write_outcomes):
    """Three models on three data sets with two seeds, and their predictions."""
    folder = tmp_path_factory.mktemp("finished")
    labels = np.array(["oven", "fridge"] * 50, dtype=object)
    for data in ("A", "B", "C"):
        for rank, model in enumerate(("krontime", "patchtst", "tcn")):
            for seed in (0, 1):
                right = (np.arange(100) * 7 + seed) % 100 < 90 - 10 * rank
                record = finished(data=data, model=model, seed=seed, accuracy=float(right.mean()))
                place = folder / data / model / f"seed{seed}-{record.config_hash}"
                record.write(place / "record.json")
                answers = np.where(right, labels, np.roll(labels, 1)).astype(object)
                probability = np.where(answers == "oven", 0.75, 0.25)
                write_outcomes(Outcomes(np.arange(100), labels, answers, "oven", probability), place)
    return folder


@pytest.fixture
def runs(finished_runs, tmp_path):
    """A folder of finished runs that a test may change."""
    return shutil.copytree(finished_runs, tmp_path / "runs")
