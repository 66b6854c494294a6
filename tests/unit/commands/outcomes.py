"""What tests of tables share: runs that never were, and the command that makes tables of them."""

import json
from pathlib import Path

from hydra import compose, initialize_config_dir

from krontime.commands.tables import tables
from krontime.config.files import config_dir
from krontime.config.identity import config_hash
from krontime.runs.record import Record

TEXTS = (".md", ".tex", ".csv")
PLOTS = (".svg",)
"""Endings of the files that are made."""

DATA = {
    "scaling": "per_series",
    "prepare": {"crop_length": None, "crop_from": "start"},
    "window": {"length": None, "stride": None},
    "validation": {"method": "auto", "fold": 0, "max_train": None},
}


def run(*overrides: str) -> list[Path]:
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        config = compose("tables", list(overrides))
    return tables(config)


def finished(data: str, model: str, seed: int, accuracy: float, **changes) -> Record:
    config = {"seed": seed, "data": {"name": data, **DATA}, "model": {"name": model, "_target_": "x", "depth": 2}}
    config["callbacks"] = {"checkpoint": {"monitor": "val/accuracy"}}
    config["paths"] = {"data": "/home/me/data"}
    fields = {
        "status": "completed",
        "model": model,
        "data": data,
        "seed": seed,
        "config": config,
        "error": None,
        "config_hash": config_hash(config),
        "protocol": {
            "data_sha256": "ab" * 32,
            "split_method": "stratified",
            "split_seed": seed,
            "scaling": "per_series",
            "num_train": 80,
            "num_val": 20,
            "num_test": 100,
            "selection_metric": "val/accuracy",
            "train_class_counts": {"oven": 40, "fridge": 40},
        },
        "metrics": {"val": {"accuracy": 0.9}, "test": scores(accuracy)},
        "num_parameters": 1000,
        "train_time_s": 12.5,
        "peak_memory_bytes": 2**30,
        "device": {"kind": "cpu", "name": "A Processor", "count": 1, "num_threads": 2, "platform": "Linux 6 x86_64"},
        "versions": {"torch": "2.13.0"},
        "git": None,
        "started_at": "2026-01-02T03:04:05Z",
        "finished_at": "2026-01-02T03:05:05Z",
    }
    return Record.model_validate_json(json.dumps(fields | changes))


def scores(share: float) -> dict[str, float]:
    """Of two classes of the same size with that share of each right, and with all ties or none."""
    return {"accuracy": share, "balanced_accuracy": share, "macro_f1": share, "auroc": share}
