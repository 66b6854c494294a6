"""Finds how many optimiser steps a run has: a limit on time is turned into a number once, before the first step."""

import copy
import logging
import math
import statistics
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Checkpoint, WeightAveraging

from krontime.data.datamodule import SeriesDataModule
from krontime.training import equipment
from krontime.training.clock import now_s
from krontime.training.module import SeriesClassifier

log = logging.getLogger(__name__)

MEASURED_BATCHES = 5
"""Number of batches of each of two short epochs: the first compiles and warms up, the second is measured."""

MEASURED_VALIDATION = 2
"""Number of validation batches after each of the two epochs."""


class EndAtLastStep(pl.Callback):
    """Lets a run that ends within an epoch be validated there: Lightning would end it without.

    Attributes:
        total_steps: optimiser steps that the run may have, which its schedule is made for; None before it starts.
    """

    def __init__(self) -> None:
        self.total_steps: int | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note how many steps the schedule is made for."""
        self.total_steps = int(trainer.estimated_stepping_batches)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Ask Lightning to stop once the last step is done, which validates first."""
        if 0 <= trainer.max_steps <= trainer.global_step:
            trainer.should_stop = True

    def state_dict(self) -> dict[str, Any]:
        """Return what the checkpoint keeps: a run that resumes after its last step starts no training."""
        return {"total_steps": self.total_steps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take what the checkpoint kept."""
        self.total_steps = state_dict["total_steps"]


def measured_steps(
    config: Mapping[str, Any], module: SeriesClassifier, batches: SeriesDataModule, *, limit_s: float
) -> int:
    """Measure how many optimiser steps there is time for; all ranks get the same number.

    A copy of the module is trained for two short epochs, with the run's own trainer and callbacks and in a folder of
    its own: what is measured is a step with its loading, and all that comes after an epoch. The first of the two is
    left out, since it compiles. The module itself is not changed.

    Args:
        config: of the run, in plain types.
        module: before its first step.
        batches: a data module that nothing else uses.
        limit_s: seconds left of the limit, measuring included, on the clock of `krontime.training.clock`; further
            processes may start before they count.

    Returns:
        At least 1.
    """
    log.info("Measuring how many steps there is time for")
    short_options = dict(config["trainer"]) | {
        "max_epochs": 2,
        "limit_train_batches": MEASURED_BATCHES,
        "limit_val_batches": MEASURED_VALIDATION,
        "enable_progress_bar": False,
        "enable_checkpointing": True,
        "accumulate_grad_batches": 1,
        "check_val_every_n_epoch": 1,
    }
    for key in ("max_time", "max_steps", "val_check_interval"):
        short_options.pop(key, None)
    timer = _StepTimer(config["trainer"], batches, limit_s=limit_s)
    with tempfile.TemporaryDirectory() as folder:
        built = equipment.callbacks(config, Path(folder))
        timed = [callback for callback in built if isinstance(callback, Checkpoint | WeightAveraging)]
        trainer = equipment.trainer({**config, "trainer": short_options}, Path(folder), [*timed, timer], [])
        copied = copy.deepcopy(module)
        if config["compile"]:
            assert copied.network is not None
            copied.network.compile()
        trainer.fit(copied, datamodule=batches)
    assert timer.steps is not None
    return timer.steps


class _StepTimer(pl.Callback):
    """Times the batches and the validation of the second epoch, and finds how many steps there is time for.

    Args:
        options: of the run's own trainer.
        batches: the data module.
        limit_s: see `measured_steps`.

    Attributes:
        steps: the number that was found; None before the end.
    """

    def __init__(self, options: Mapping[str, Any], batches: SeriesDataModule, *, limit_s: float) -> None:
        self.options = options
        self.batches = batches
        self.limit_s = limit_s
        self.steps: int | None = None
        self._batch_s: list[float] = []
        self._validation_s: list[float] = []
        self._started_s = self._ended_s = self._validation_began_s = 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin to count the time that measuring takes."""
        self._started_s = self._now_s(trainer)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Forget the epoch before, which compiled."""
        self._batch_s, self._validation_s = [], []
        self._ended_s = self._now_s(trainer)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Note the time from the end of one batch to that of the next: loading is included."""
        ended_s = self._now_s(trainer)
        self._batch_s.append(ended_s - self._ended_s)
        self._ended_s = ended_s

    def on_validation_batch_start(self, trainer: pl.Trainer, *_: Any, **__: Any) -> None:
        """Note when the batch began."""
        self._validation_began_s = self._now_s(trainer)

    def on_validation_batch_end(self, trainer: pl.Trainer, *_: Any, **__: Any) -> None:
        """Keep the seconds that the batch took."""
        self._validation_s.append(self._now_s(trainer) - self._validation_began_s)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Divide the time that is left by that of a step, with its fraction of what comes after an epoch."""
        ended_s = self._now_s(trainer)
        num_batches = _limited(len(self.batches.train_dataloader()), self.options.get("limit_train_batches"))
        num_validation = _limited(len(self.batches.val_dataloader()), self.options.get("limit_val_batches"))
        after_epoch_s = ended_s - self._ended_s
        if self._validation_s:
            after_epoch_s += (num_validation - len(self._validation_s)) * statistics.median(self._validation_s)
        epoch_s = num_batches * statistics.median(self._batch_s) + max(after_epoch_s, 0.0)
        steps_per_epoch = math.ceil(num_batches / self.options["accumulate_grad_batches"])
        per_step_s = epoch_s / steps_per_epoch
        steps = max(1, int((self.limit_s - (ended_s - self._started_s)) / per_step_s))
        self.steps = int(trainer.strategy.broadcast(steps))
        log.info("%d step(s) of %.3g s fit into the time, validation included", self.steps, per_step_s)
        if self.steps < steps_per_epoch:
            log.warning(
                "the network is trained for less than an epoch, of %d steps: trainer.max_time counts what comes before "
                "it too, such as a closed form; give more, or use model=closed_form",
                steps_per_epoch,
            )

    def _now_s(self, trainer: pl.Trainer) -> float:
        """Read the clock that the limit is kept with."""
        num_processes = max(trainer.world_size, 1 + self.batches.num_workers)
        return now_s(trainer.strategy.root_device, num_processes=num_processes)


def _limited(num_batches: int, limit: int | float | None) -> int:
    """Return how many of `num_batches` Lightning takes under a limit, which is a number of them or a fraction."""
    if limit is None:
        return num_batches
    return min(num_batches, limit) if isinstance(limit, int) else int(num_batches * limit)
