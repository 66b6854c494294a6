"""Restores what a run that was cut off needs to resume as if it had not been."""

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason

from krontime.training.done import StopWhenDone


class RestoreStopState(pl.Callback):
    """Restores the parts of a checkpoint's state that Lightning does not restore.

    A run that was stopped early, and cut off before it was scored, stays stopped: Lightning restores the callback that
    asked to stop, and not that it did. And a run folder that was moved keeps its best score: Lightning drops that where
    the folder has another name.
    """

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Correct the state before it reaches the callbacks."""
        states = checkpoint.get("callbacks", {})
        reasons, is_done = [], False
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            state = states.get(callback.state_key, {})
            if isinstance(callback, EarlyStopping):
                reasons.append(state.get("stopping_reason", EarlyStoppingReason.NOT_STOPPED.value))
            elif isinstance(callback, StopWhenDone) and state.get("reason"):
                is_done = True
            elif isinstance(callback, ModelCheckpoint) and state:
                _move(state, str(callback.dirpath))
        trainer.should_stop = is_done or any(reason != EarlyStoppingReason.NOT_STOPPED.value for reason in reasons)


def _move(state: dict[str, Any], dirpath: str) -> None:
    """Change the state of a `ModelCheckpoint` so that its paths are in the folder `dirpath`."""

    def moved(path: str) -> str:
        return str(Path(dirpath) / Path(path).name) if path else path

    state["dirpath"] = dirpath
    for key in ("best_model_path", "kth_best_model_path", "last_model_path"):
        state[key] = moved(state[key])
    state["best_k_models"] = {moved(path): score for path, score in state["best_k_models"].items()}
