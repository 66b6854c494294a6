"""What a run shows and keeps of its epochs, besides what its loggers write."""

import logging
from typing import Any

import lightning.pytorch as pl

log = logging.getLogger(__name__)


class EpochLines(pl.Callback):
    """One line for each epoch, where there is no terminal to draw a progress bar on."""

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log loss, validation scores and speed; validation has ended by now."""
        if not trainer.is_global_zero:
            return
        shown = [
            f"{title} {float(trainer.callback_metrics[name]):.{digits}f}"
            for name, title, digits in (
                ("train/loss", "loss", 3),
                ("val/nll", "validation loss", 3),
                ("val/accuracy", "validation accuracy", 3),
                ("series_per_s", "series/s", 0),
            )
            if name in trainer.callback_metrics
        ]
        log.info("epoch %d of %s: %s", trainer.current_epoch + 1, trainer.max_epochs, ", ".join(shown))


class History(pl.Callback):
    """The metrics of every epoch, for the learning curves; travels in checkpoints, so that a resumed run has all."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Add one row."""
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        self.rows.append({"epoch": trainer.current_epoch, **metrics})

    def state_dict(self) -> dict[str, Any]:
        """For the checkpoint."""
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """From the checkpoint."""
        self.rows = state_dict["rows"]
