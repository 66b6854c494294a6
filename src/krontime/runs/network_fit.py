"""Trains a network by Lightning, in one run folder."""

import logging
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from krontime.config import targets
from krontime.config.time_limit import limit_seconds
from krontime.console import is_quiet
from krontime.data.series import HeldOut
from krontime.models.kernel_ridge.ranks import Ranks
from krontime.models.kernel_ridge.ridge import can_be_left_out
from krontime.runs import fitted_module, load
from krontime.runs.fit import Fit
from krontime.runs.memory import PeakMemory
from krontime.runs.predictions import Predictions, named
from krontime.runs.prepare import PreparedData
from krontime.runs.record import LimitedBy
from krontime.runs.resume import Resumed, keep_logged, resume_from, set_aside, was_begun
from krontime.training import equipment, strategy
from krontime.training.attention_maps import mean_factors
from krontime.training.budget import EndAtLastStep, measured_steps
from krontime.training.checkpoint import write_checkpoint
from krontime.training.clock import ProcessorTimer, now_s
from krontime.training.divergence import StopOnDivergence
from krontime.training.predict import Scorer
from krontime.training.progress import Bar, EpochLines, History
from krontime.training.restore import RestoreStopState

if TYPE_CHECKING:
    from lightning.pytorch import Callback, Trainer

    from krontime.data.datamodule import SeriesDataModule
    from krontime.training.module import SeriesClassifier


log = logging.getLogger(__name__)


class NetworkFit(Fit):
    """Trains by Lightning, see `Fit`; it resumes from the last checkpoint of a run that was cut off.

    Args:
        config, job, run_dir, is_first: see `Fit`.
        callbacks: beside those of the config.
    """

    trainer: "Trainer | None" = None

    def __init__(
        self,
        config: Mapping[str, Any],
        job: PreparedData,
        run_dir: Path,
        *,
        is_first: bool,
        callbacks: Sequence["Callback"] = (),
    ) -> None:
        from lightning.pytorch.callbacks import Timer

        super().__init__(config, job, run_dir, is_first=is_first)
        self._callbacks = callbacks
        self._timer, self._history, self._end = Timer(), History(), EndAtLastStep()
        self._processor_timer = ProcessorTimer()
        self._steps_in_time: int | None = None
        self._fitted_before_s = self._fitted_before_cpu_s = self._taken_s = 0.0
        self._held_out: HeldOut = {}

    @property
    def device(self) -> torch.device:
        """Device of this rank."""
        return self.trainer.strategy.root_device if self.trainer else torch.device("cpu")

    @property
    def train_time_s(self) -> float:
        """Seconds of training, validation included, and of fitting what is fitted before it."""
        return self._timer.time_elapsed("train") + self._fitted_before_s

    @property
    def part_times_s(self) -> dict[str, float]:
        """Seconds of the closed form, with what else is fitted before the first step, and of the network."""
        times = {"closed_form": self._fitted_before_s} if self.config.get("closed_form") else {}
        if targets.has_network(self.config):
            times["network"] = self.train_time_s - sum(times.values())
        return times

    @property
    def train_cpu_s(self) -> float | None:
        """Processor seconds of fitting; None for several processes."""
        trained_s = self._processor_timer.seconds
        return None if trained_s is None or self.world_size > 1 else self._fitted_before_cpu_s + trained_s

    @property
    def num_steps(self) -> int:
        """Optimiser steps done."""
        return self.trainer.global_step if self.trainer else 0

    @property
    def max_steps(self) -> int | None:
        """Optimiser steps that the run may have; None before the first."""
        return self._end.total_steps

    @property
    def limited_by(self) -> LimitedBy | None:
        """What `max_steps` comes from; None where that is None."""
        if self.max_steps is None:
            return None
        if self.max_steps == self._steps_in_time:
            return "seconds"
        return "steps" if self.max_steps == self.config["trainer"].get("max_steps") else "epochs"

    @property
    def history(self) -> list[dict[str, float]]:
        """Metrics of each epoch."""
        return self._history.rows

    @property
    def memory_advice(self) -> str:
        """What was too large: the batch."""
        return (
            f"data.batch_size={self.config['data']['batch_size']}: expected a smaller batch or fewer tokens (krontime "
            "plan estimates the memory)"
        )

    def run(self) -> None:
        """Train, and keep the checkpoint that validation selects."""
        config, run_dir = self.config, self.run_dir
        self.loggers = equipment.loggers(config, run_dir)
        callbacks = [
            *_callbacks(config, run_dir, has_logger=bool(self.loggers)),
            self._timer,
            self._processor_timer,
            self._history,
            self._end,
            RestoreStopState(),
            StopOnDivergence(),
            *self._callbacks,
        ]
        trainer = self._trainer(callbacks)
        module, ranks = self._fitted_module(trainer)
        resumed = None
        if not config["force"]:
            resumed = resume_from(run_dir, self.job.protocol, trainer.world_size, repair=self.is_first)
        if module.network is not None and (limit_s := limit_seconds(config["trainer"].get("max_time"))) is not None:
            self._steps_in_time = resumed.steps_in_time if resumed else None
            if self._steps_in_time is None:
                self._steps_in_time = self._steps_within(limit_s, module)
            trainer = self._trainer(callbacks)
        module.about["steps_in_time"] = self._steps_in_time
        if config["compile"] and module.network is not None:
            module.network.compile()
        self.trainer = trainer
        self.world_size = ranks.world_size if module.network is None else trainer.world_size
        self._begin_folder(trainer, resumed)
        if module.network is None:
            if self.is_first:
                write_checkpoint(module, run_dir / load.CHECKPOINTS / load.BEST)
        else:
            ckpt_path = resumed.path if resumed else None
            trainer.fit(module, datamodule=self._batches(), ckpt_path=ckpt_path, weights_only=True)
        self.ended()

    def _fitted_module(self, trainer: "Trainer") -> tuple["SeriesClassifier", Ranks]:
        """Build the module, see `fitted_module`, and begin to count time and memory.

        Returns:
            The module, and the processes that fitted the closed form.
        """
        ranks = Ranks()
        began_s = began_cpu_s = began_limit_s = 0.0

        def clock_s() -> float:
            return now_s(self.device, num_processes=ranks.world_size)

        def begin() -> None:
            nonlocal began_s, began_cpu_s, began_limit_s
            self._memory = PeakMemory()
            began_s, began_cpu_s, began_limit_s = time.perf_counter(), time.process_time(), clock_s()

        def join() -> Ranks:
            nonlocal ranks
            ranks = strategy.join(trainer)
            return ranks

        module, self._held_out = fitted_module.fitted_module(
            self.config, self.job, begin, is_first=self.is_first, join=join
        )
        self._fitted_before_s = time.perf_counter() - began_s
        self._fitted_before_cpu_s = time.process_time() - began_cpu_s
        self._taken_s = clock_s() - began_limit_s
        self.num_parameters = sum(parameter.numel() for parameter in module.parameters())
        if module.mixture is not None:
            self.num_parameters += module.mixture.closed_form.num_fitted
        return module, ranks

    def _steps_within(self, limit_s: float, module: "SeriesClassifier") -> int:
        """Measure the steps that fit into the time limit, less the time that was taken before."""
        assert self._memory is not None
        with self._memory.paused():
            return measured_steps(self.config, module, self._batches(), limit_s=limit_s - self._taken_s)

    def _begin_folder(self, trainer: "Trainer", resumed: Resumed | None) -> None:
        """Write what a run folder holds before the first step; set an earlier run aside where this one starts anew."""
        if self.is_first and not resumed and was_begun(self.run_dir):
            set_aside(self.run_dir, level=logging.WARNING, why="The run starts anew")
        self.open_folder()
        if not self.is_first:
            return
        if resumed:
            keep_logged(trainer, resumed)
        for logger in self.loggers:
            logger.log_hyperparams(dict(self.config))

    def _batches(self) -> "SeriesDataModule":
        return self.job.batches(self.config, self._held_out)

    def _trainer(self, callbacks: list["Callback"]) -> "Trainer":
        """Build Lightning's trainer, with the limit on time as one on steps."""
        options = {key: value for key, value in self.config["trainer"].items() if key != "max_time"}
        limits = [limit for limit in (options.get("max_steps"), self._steps_in_time) if limit not in (None, -1)]
        if limits:
            options["max_steps"] = min(limits)
        return equipment.trainer({**self.config, "trainer": options}, self.run_dir, callbacks, self.loggers)

    def probabilities(self, indices: np.ndarray) -> torch.Tensor:
        """See `Fit`; by the checkpoint that validation selected."""
        return self._timed(indices)[0]

    def timed_probabilities(self, indices: np.ndarray) -> tuple[torch.Tensor, float]:
        """See `Fit`; what Lightning sets up is no part of it."""
        self._timed(indices[:1])
        return self._timed(indices)

    def _timed(self, indices: np.ndarray) -> tuple[torch.Tensor, float]:
        scorer = Scorer.of(self.config, index=self.device.index if self.device.type == "cuda" else None)
        masked = self.job.masked_for(indices)
        return scorer.timed(self._selected, self.job.data, indices, masked=masked, held_out=self._held_out)

    def held_out(self, validation: torch.Tensor) -> Predictions:
        """See `Fit`: of all series that the closed form was fitted to, where it answers alone; else of validation."""
        mixture, data, protocol = self._selected.mixture, self.job.data, self.job.protocol
        positions, probability = self.job.split.validation, validation
        if mixture is not None and mixture.mixing.weight == 0:
            positions = np.array(sorted(self._held_out))
            probability = torch.stack([self._held_out[position] for position in positions.tolist()]).softmax(dim=-1)
        fitted = np.concatenate([self.job.split.train, self.job.split.validation])
        groups = self.job.groups_of(fitted)
        has_left_out = fitted[can_be_left_out(torch.from_numpy(data.labels[fitted]), groups).numpy()]
        is_known = np.isin(positions, has_left_out)
        predictions = named(probability[is_known], data, positions[is_known], torch.tensor(protocol.prior))
        return predictions if self.job.is_by_group else replace(predictions, groups=None)

    def attention(self) -> list[list[np.ndarray]]:
        """See `Fit`; the means are over a few validation series."""
        return mean_factors(self._selected, self.job.data, self.job.split.validation, masked=self.job.masked)

    @cached_property
    def _selected(self) -> "SeriesClassifier":
        return load.load_run(self.run_dir).module


def _callbacks(config: Mapping[str, Any], run_dir: Path, *, has_logger: bool) -> list["Callback"]:
    """Build the config's callbacks, and what shows progress: a bar on a terminal, a line per epoch elsewhere.

    Loggers are given the learning rate too; by no callback of the config, since that is part of what names a run.
    """
    from lightning.pytorch.callbacks import LearningRateMonitor

    callbacks = equipment.callbacks(config, run_dir)
    if has_logger and not any(isinstance(callback, LearningRateMonitor) for callback in callbacks):
        callbacks.append(LearningRateMonitor())
    if config["trainer"]["enable_progress_bar"] and not is_quiet():
        callbacks.append(Bar() if sys.stderr.isatty() else EpochLines())
    return callbacks
