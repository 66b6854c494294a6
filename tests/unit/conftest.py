"""Records to start from; a test changes what it is about."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from krontime.config.identity import config_hash
from krontime.runs.predictions import Outcomes, Predictions, write_predictions
from krontime.runs.record import Device, GitState, Metrics, Protocol, Record, Status
from krontime.storage import PREDICTIONS

STARTED = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def protocol(**changes: Any) -> Protocol:
    fields: dict[str, Any] = {
        "data_sha256": "ab" * 32,
        "split_method": "stratified",
        "split_seed": 0,
        "num_train": 80,
        "num_val": 20,
        "num_test": 100,
        "train_class_counts": {"oven": 40, "fridge": 40},
        "selection_metric": "val/accuracy",
        "scaling": "per_series",
    }
    return Protocol(**{**fields, **changes})


def record(**changes: Any) -> Record:
    """A completed record; `accuracy`, `balanced_accuracy`, `auroc` and keys of `Record` may be given.

    The seed of the split is the run's.
    """
    seed = changes.get("seed", 0)
    accuracy = changes.pop("accuracy", 0.87)
    balanced = changes.pop("balanced_accuracy", accuracy)
    test = {"accuracy": accuracy, "balanced_accuracy": balanced, "auroc": changes.pop("auroc", None)}
    fields: dict[str, Any] = {
        "status": Status.COMPLETED,
        "model": "krontime",
        "data": "ACSF1",
        "seed": seed,
        "config": {"seed": seed, "model": {"depth": 2}, "trainer": {"max_epochs": 5}},
        "protocol": protocol(),
        "metrics": Metrics(val={"accuracy": 0.9, "nll": 0.25}, test=test),
        "num_parameters": 123_456,
        "train_time_s": 125.4,
        "peak_memory_bytes": 3 * 2**29,
        "device": Device(kind="cpu", name="A Processor", num_threads=2, platform="Linux 6 x86_64"),
        "versions": {"python": "3.11.9", "torch": "2.13.0"},
        "git": GitState(commit="0123456789" * 4, dirty=True),
        "started_at": STARTED,
        "finished_at": STARTED + timedelta(seconds=130),
    }
    fields |= changes
    if fields["protocol"] is not None:
        fields["protocol"] = fields["protocol"].model_copy(update={"split_seed": seed})
    if fields["status"] is not Status.COMPLETED:
        fields.setdefault("error", "something broke")
        fields["metrics"] = changes.get("metrics", Metrics())
    fields.setdefault("config_hash", config_hash(fields["config"]))
    return Record(**fields)


@pytest.fixture(scope="session")
def make_record() -> Callable[..., Record]:
    return record


@pytest.fixture(scope="session")
def make_protocol() -> Callable[..., Protocol]:
    return protocol


def write_outcomes_to(outcomes: Outcomes, folder: Path) -> None:
    """Predictions in a run folder that give these outcomes."""
    names = sorted({*outcomes.labels, *outcomes.predicted})
    if outcomes.probability is None:
        names += [f"unused {number}" for number in range(3 - len(names))]  # so that there are more than two classes
        probabilities = np.array(outcomes.predicted)[:, None] == np.array(names, dtype=object)
    else:
        assert outcomes.positive is not None
        names = [next(name for name in names if name != outcomes.positive), outcomes.positive]
        probabilities = np.stack([1 - outcomes.probability, outcomes.probability], axis=1)
    predictions = Predictions(
        outcomes.index, list(outcomes.labels), probabilities.astype(np.float64), tuple(names), groups=outcomes.groups
    )
    write_predictions(predictions, folder / PREDICTIONS)


@pytest.fixture(scope="session")
def write_outcomes() -> Callable[[Outcomes, Path], None]:
    return write_outcomes_to
