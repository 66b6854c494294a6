"""Training of a network by Lightning, in one run folder."""

import logging
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from krontime.runs import fitted_module, load
from krontime.runs.environment import reset_peak_memory
from krontime.runs.fit import Fit
from krontime.runs.prepare import PreparedData
from krontime.runs.resume import keep_logged, resume_from, set_aside, was_begun
from krontime.training import build
from krontime.training.attention_maps import mean_factors
from krontime.training.divergence import StopOnDivergence
from krontime.training.predict import Scorer
from krontime.training.progress import Bar, EpochLines, History
from krontime.training.restore import RestoreStopState

if TYPE_CHECKING:
    from lightning.pytorch import Callback, Trainer

    from krontime.training.module import SeriesClassifier


class NetworkFit(Fit):
    """See `Fit`: training by Lightning, which goes on from the last checkpoint of a run that was cut off.

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
        # It has to know `max_time` itself: Lightning adds no second timer that would.
        self._timer, self._history = Timer(duration=config["trainer"].get("max_time")), History()
        self._fitted_before_s = 0.0
        self._left_out: dict[int, torch.Tensor] = {}

    @property
    def device(self) -> torch.device:
        """That of this rank."""
        return self.trainer.strategy.root_device if self.trainer else torch.device("cpu")

    @property
    def train_time_s(self) -> float:
        """Seconds of training, validation included, and of fitting what is fitted before it."""
        return self._timer.time_elapsed("train") + self._fitted_before_s

    @property
    def num_steps(self) -> int:
        """Optimiser steps done."""
        return self.trainer.global_step if self.trainer else 0

    @property
    def history(self) -> list[dict[str, float]]:
        """Metrics of each epoch."""
        return self._history.rows

    @property
    def memory_advice(self) -> str:
        """The batch decides."""
        return (
            f"data.batch_size={self.config['data']['batch_size']}: expected a smaller batch or fewer tokens (krontime "
            "plan estimates the memory)"
        )

    def run(self) -> None:
        """Train, and keep the checkpoint that validation selects."""
        from lightning.pytorch.callbacks import Timer

        config, job, run_dir = self.config, self.job, self.run_dir
        started_s = time.perf_counter()
        module = fitted_module.fitted_module(config, job)
        self._fitted_before_s = time.perf_counter() - started_s
        if (limit_s := self._timer.time_remaining()) is not None:  # what came before counts too
            self._timer = Timer(duration=timedelta(seconds=max(1.0, limit_s - self._fitted_before_s)))
        self._left_out = module.left_out
        self.num_parameters = sum(parameter.numel() for parameter in module.network.parameters())
        if module.read_out is not None:
            self.num_parameters += module.read_out.num_fitted
        if config["compile"]:
            module.network.compile()
        self.loggers = build.loggers(config, run_dir)
        callbacks = [
            *_callbacks(config, run_dir, has_logger=bool(self.loggers)),
            self._timer,
            self._history,
            RestoreStopState(),
            StopOnDivergence(),
            *self._callbacks,
        ]
        trainer = self.trainer = build.trainer(config, run_dir, callbacks, self.loggers)
        self.world_size = trainer.world_size
        resumed = None
        if not config["force"]:
            resumed = resume_from(run_dir, job.protocol, trainer.world_size, mend=self.is_first)
        if self.is_first and not resumed and was_begun(run_dir):
            set_aside(run_dir, level=logging.WARNING, why="The run starts anew")
        self.open_folder()
        if self.is_first:
            if resumed:
                keep_logged(trainer, resumed)
            for logger in self.loggers:
                logger.log_hyperparams(dict(config))
        reset_peak_memory(self.device)
        trainer.fit(
            module,
            datamodule=job.batches(config),
            ckpt_path=resumed.path if resumed else None,
            weights_only=True,
        )
        self.ended()

    def probabilities(self, indices: np.ndarray) -> torch.Tensor:
        """Those of the checkpoint that validation selected."""
        scorer = Scorer.of(self.config, index=self.device.index if self.device.type == "cuda" else None)
        return scorer.probabilities(self._selected, self.job.data, indices)

    def attention(self) -> list[list[np.ndarray]]:
        """Those of a few validation series."""
        return mean_factors(self._selected, self.job.data, self.job.split.validation)

    @cached_property
    def _selected(self) -> "SeriesClassifier":
        module = load.load_run(self.run_dir).module
        module.left_out = self._left_out
        return module


def _callbacks(config: Mapping[str, Any], run_dir: Path, *, has_logger: bool) -> list["Callback"]:
    """The config's callbacks, and what shows progress: a bar on a terminal, a line an epoch elsewhere.

    Loggers are given the learning rate too; by no callback of the config, since that is part of what names a run.
    """
    from lightning.pytorch.callbacks import LearningRateMonitor

    callbacks = build.callbacks(config, run_dir)
    if has_logger and not any(isinstance(callback, LearningRateMonitor) for callback in callbacks):
        callbacks.append(LearningRateMonitor())
    if config["trainer"]["enable_progress_bar"]:
        callbacks.append(Bar() if sys.stderr.isatty() else EpochLines())
    return callbacks
