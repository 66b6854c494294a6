"""What a run needs to go on, after it was cut off, as if it had not been."""

import csv
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason
from lightning.pytorch.loggers import CSVLogger

from krontime.storage import replacing


class RestoreStopState(pl.Callback):
    """Mends what Lightning forgets of the state that it restores.

    A run that was stopped early, and cut off before it was scored, stays stopped: Lightning restores the callback that
    asked to stop, and not that it did. And a run folder that was moved keeps its best score: Lightning drops that where
    the folder has another name.
    """

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Mend the state before the callbacks are given it."""
        states = checkpoint.get("callbacks", {})
        reasons = []
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            state = states.get(callback.state_key, {})
            if isinstance(callback, EarlyStopping):
                reasons.append(state.get("stopping_reason", EarlyStoppingReason.NOT_STOPPED.value))
            elif isinstance(callback, ModelCheckpoint) and state:
                _move(state, str(callback.dirpath))
        trainer.should_stop = any(reason != EarlyStoppingReason.NOT_STOPPED.value for reason in reasons)


def _move(state: dict[str, Any], dirpath: str) -> None:
    """Let a `ModelCheckpoint`'s state name the files of another folder."""

    def moved(path: str) -> str:
        return str(Path(dirpath) / Path(path).name) if path else path

    state["dirpath"] = dirpath
    for key in ("best_model_path", "kth_best_model_path", "last_model_path"):
        state[key] = moved(state[key])
    state["best_k_models"] = {moved(path): score for path, score in state["best_k_models"].items()}


def kept_rows(folder: Path) -> Path:
    """Where the rows of a folder's `metrics.csv` are safe from the logger, which rewrites that file in place."""
    return folder / ".metrics.csv.kept"


def snapshot_rows(logger: CSVLogger) -> None:
    """Keep the rows that are logged by now, for a run that goes on from the checkpoint that is written next."""
    logger.save()
    path = Path(logger.log_dir) / "metrics.csv"
    if path.is_file():
        with replacing(kept_rows(path.parent)) as temporary:
            shutil.copyfile(path, temporary)


def keep_rows(logger: CSVLogger, num_steps: int, history: Sequence[dict[str, float]]) -> None:
    """Let a run that goes on append to the `metrics.csv` of its first part, which the logger would delete.

    Args:
        logger: that has not been used yet.
        num_steps: optimiser steps that are done; rows of later ones are dropped, since they are logged again.
        history: metrics of the epochs that are done. Lightning logs an epoch's training loss after its checkpoint is
            written, so that the row may be missing.
    """
    path = Path(logger.log_dir) / "metrics.csv"
    kept = kept_rows(path.parent)
    source = kept if kept.is_file() else path
    if not source.is_file():
        return
    with source.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        rows = [row for row in reader if (row.get("step") or "").isdigit() and int(row["step"]) < num_steps]
        keys = list(reader.fieldnames or ())
    loss = "train/loss_epoch"
    if (
        history
        and loss in history[-1]
        and not any(row.get(loss) and row.get("epoch") == str(history[-1]["epoch"]) for row in rows)
    ):
        logged = {key: history[-1][key] for key in ("epoch", loss, "series_per_s") if key in history[-1]}
        rows.append({**logged, "step": num_steps - 1})
        keys = sorted({*keys, *rows[-1]})
    _write(kept, keys, rows)
    writer: Any = logger.experiment  # deletes the file
    _write(path, keys, rows)
    writer.metrics_keys = keys


def _write(path: Path, keys: list[str], rows: list[dict[str, Any]]) -> None:
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, keys, extrasaction="ignore")
        table.writeheader()
        table.writerows(rows)
