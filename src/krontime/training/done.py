"""Ends a run that has nothing more to learn, though its loss still falls slowly."""

import logging
from typing import Any

import lightning.pytorch as pl

log = logging.getLogger(__name__)

ACCURACY = "val/accuracy"
NETWORK_WEIGHT = "val/network_weight"


class StopWhenDone(pl.Callback):
    """Ends training where validation has said for some epochs in a row that more training changes no answer.

    That is where every validation series is classified right, or where a closed form stands beside the network and
    answers alone: the network's weight in the mixture is 0.

    Args:
        perfect_epochs: epochs in a row with a validation accuracy of 1, after which training ends; None for no end.
        idle_epochs: epochs in a row with a weight of the network of 0, likewise.

    Attributes:
        limits: epochs in a row after which training ends, by metric.
        seen: epochs in a row up to now, by metric.
        reason: why training was ended; empty where it was not.
    """

    def __init__(self, perfect_epochs: int | None = 10, idle_epochs: int | None = 20) -> None:
        for name, value in (("perfect_epochs", perfect_epochs), ("idle_epochs", idle_epochs)):
            if value is not None and value < 1:
                raise ValueError(f"{name}={value}: expected at least 1, or null")
        self.limits = {ACCURACY: perfect_epochs, NETWORK_WEIGHT: idle_epochs}
        self.seen = dict.fromkeys(self.limits, 0)
        self.reason = ""

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Count the epochs in a row; the scores are the same on every rank."""
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        for name, done in ((ACCURACY, 1.0), (NETWORK_WEIGHT, 0.0)):
            value = trainer.callback_metrics.get(name)
            self.seen[name] = self.seen[name] + 1 if value is not None and float(value) == done else 0
            limit = self.limits[name]
            if limit is not None and self.seen[name] >= limit and not self.reason:
                self.reason = f"{name} has been {done:g} for {limit} epochs"
                log.info("Training ends: %s", self.reason)
        if self.reason:
            trainer.should_stop = True

    def state_dict(self) -> dict[str, Any]:
        """Return what the checkpoint keeps."""
        return {"seen": self.seen, "reason": self.reason}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take what the checkpoint kept."""
        self.seen, self.reason = dict(state_dict["seen"]), state_dict["reason"]
