"""Ends a run whose loss is not finite any more, before its state replaces a good checkpoint."""

import math

import lightning.pytorch as pl

from krontime.errors import UserError


class StopOnDivergence(pl.Callback):
    """Ends training after the first epoch whose loss, on train or on validation, is not finite."""

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Check that the losses are finite; Lightning writes checkpoints after this.

        Raises:
            UserError: with what was seen, and what usually helps.
        """
        losses = {name: float(trainer.callback_metrics.get(name, 0.0)) for name in ("train/loss", "val/nll")}
        if all(map(math.isfinite, losses.values())):
            return
        seen = ", ".join(f"{name} is {loss:g}" for name, loss in losses.items())
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        raise UserError(
            f"training diverged: in epoch {trainer.current_epoch + 1} {seen}, with a learning rate of {rate:g} at its "
            "end; expected a smaller optim.optimizer.lr or trainer.gradient_clip_val, or data without extreme values "
            "(data.scaling=series)"
        )
