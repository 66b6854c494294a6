"""What a run needs to go on, after it was cut off, as if it had not been."""

import csv
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason
from lightning.pytorch.loggers import CSVLogger

from krontime.results.files import replacing


class LastCheckpoint(ModelCheckpoint):
    """The state after every epoch, in `last.ckpt`.

    `save_last` of a checkpoint that validation selects is no substitute: Lightning then writes both at once, so that
    the last state is that of the best epoch.

    Args:
        dirpath: folder of the file.
    """

    def __init__(self, dirpath: Path) -> None:
        super().__init__(dirpath=dirpath, filename="last", save_on_train_epoch_end=True, enable_version_counter=False)


class StayStopped(pl.Callback):
    """Keeps a run that was stopped early, and cut off before it was scored, from training on.

    Lightning restores the callback that asked to stop, and forgets that it did.
    """

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Ask again."""
        states = checkpoint.get("callbacks", {})
        reasons = [
            states.get(callback.state_key, {}).get("stopping_reason", EarlyStoppingReason.NOT_STOPPED.value)
            for callback in trainer.callbacks  # type: ignore[attr-defined]
            if isinstance(callback, EarlyStopping)
        ]
        trainer.should_stop = any(reason != EarlyStoppingReason.NOT_STOPPED.value for reason in reasons)


def keep_rows(logger: CSVLogger, num_steps: int) -> None:
    """Let a run that goes on append to the `metrics.csv` of its first part, which the logger would delete.

    Args:
        logger: that has not been used yet.
        num_steps: optimiser steps that are done; rows of later ones are dropped, since they are logged again.
    """
    path = Path(logger.log_dir) / "metrics.csv"
    kept = path.with_name(".metrics.csv.kept")  # there when this process is killed half-way
    source = kept if kept.is_file() else path
    if not source.is_file():
        return
    with source.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        rows = [row for row in reader if (row.get("step") or "").isdigit() and int(row["step"]) < num_steps]
        keys = list(reader.fieldnames or ())
    _write(kept, keys, rows)
    writer: Any = logger.experiment  # deletes the file
    _write(path, keys, rows)
    writer.metrics_keys = keys
    kept.unlink()


def _write(path: Path, keys: list[str], rows: list[dict[str, Any]]) -> None:
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, keys, extrasaction="ignore")
        table.writeheader()
        table.writerows(rows)
