"""Progress where there is no terminal to draw a bar on."""

import logging

import lightning.pytorch as pl

log = logging.getLogger(__name__)


class EpochLines(pl.Callback):
    """One line for each epoch: loss, validation accuracy and speed."""

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the line; a validation pass ends every epoch."""
        values = {**trainer.logged_metrics, **trainer.callback_metrics}
        shown = [
            f"{title} {float(values[name]):.{digits}f}"
            for name, title, digits in (
                ("train/loss", "loss", 3),
                ("val/nll", "validation loss", 3),
                ("val/accuracy", "validation accuracy", 3),
                ("series_per_s", "series/s", 0),
            )
            if name in values
        ]
        log.info("epoch %d of %s: %s", trainer.current_epoch + 1, trainer.max_epochs, ", ".join(shown))
