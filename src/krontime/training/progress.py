"""Shows and keeps what epochs and predictions have come to, besides what loggers write."""

import logging
import time
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import RichProgressBar

from krontime.console import EVERY_S, Step, format_duration

log = logging.getLogger(__name__)


class Bar(RichProgressBar):
    """Lightning's progress bar, which asks for the metrics a few times a second and not after every batch.

    Asking waits for the device, and drawing takes as long as a small step.
    """

    EVERY_S = 0.2
    """Seconds between two drawings."""

    def __init__(self) -> None:
        super().__init__(leave=False, console_kwargs={"stderr": True})  # standard output is for results
        self._drawn_s = 0.0

    def _get_train_description(self, current_epoch: int) -> str:
        """Describe the epoch, counted from 1 as in `EpochLines`."""
        return f"epoch {current_epoch + 1} of {self.trainer.max_epochs}"

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Draw, if the last drawing is long enough ago."""
        now = time.perf_counter()
        if now - self._drawn_s >= self.EVERY_S or trainer.is_last_batch:
            self._drawn_s = now
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)


class EpochLines(pl.Callback):
    """Logs a line for each epoch, and some within a long one, where there is no terminal to draw a bar on."""

    def __init__(self) -> None:
        self._began_s = self._validation_s = self._logged_s = 0.0
        self._num_before = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note where an epoch goes on that a checkpoint was made within, which Lightning does not begin again."""
        self._began_s = self._logged_s = time.monotonic()
        self._num_before = trainer.fit_loop.epoch_loop.batch_progress.current.completed

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note when the epoch began, from which the time that is left is estimated."""
        self._began_s = self._logged_s = time.monotonic()
        self._num_before = 0

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note when validation began."""
        self._validation_s = self._logged_s = time.monotonic()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log how far the epoch has come, if the last line is long enough ago."""
        total = int(trainer.num_training_batches)
        self._log_position(trainer, "batch", batch_idx + 1, total, self._began_s, self._num_before)

    def on_validation_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        """Log how far the epoch has come, if the last line is long enough ago."""
        self._log_position(
            trainer, "validation batch", batch_idx + 1, int(sum(trainer.num_val_batches)), self._validation_s
        )

    def _log_position(
        self, trainer: pl.Trainer, what: str, done: int, total: int, began_s: float, num_before: int = 0
    ) -> None:
        """Log how many of `total` are done and how long the rest may take, if the last line is long enough ago.

        Args:
            trainer: at work.
            what: of which there are `total`.
            done: how many are.
            total: see above.
            began_s: when the first of those after `num_before` began.
            num_before: done before the run was resumed.
        """
        now_s = time.monotonic()
        if not trainer.is_global_zero or now_s - self._logged_s < EVERY_S or done >= total:
            return
        self._logged_s = now_s
        left_s = (now_s - began_s) * (total - done) / (done - num_before)
        log.info(
            "epoch %d of %s: %s %d of %d, about %s left of it",
            *(trainer.current_epoch + 1, trainer.max_epochs, what, done, total, format_duration(left_s)),
        )

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


class PredictionProgress(pl.Callback):
    """Reports each batch that is predicted to a progress display.

    Attributes:
        step: is called with the number of series of the batch; set before predicting.
    """

    step: Step

    def on_predict_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        """Report the series of the batch."""
        self.step(len(batch.index))


class History(pl.Callback):
    """Keeps the metrics of every epoch for the learning curves, in checkpoints too, so that a resumed run has all."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Add the row of the epoch."""
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        self.rows.append({"epoch": trainer.current_epoch, **metrics})

    def state_dict(self) -> dict[str, Any]:
        """Return what the checkpoint keeps."""
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take what the checkpoint kept."""
        self.rows = state_dict["rows"]
