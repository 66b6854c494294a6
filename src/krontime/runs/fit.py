"""Defines what a run does between its data and its scores, for networks and reference classifiers alike."""

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from omegaconf import OmegaConf

from krontime.metrics import MetricName
from krontime.runs.memory import PeakMemory
from krontime.runs.predictions import Predictions
from krontime.runs.prepare import PreparedData
from krontime.runs.record import LimitedBy
from krontime.runs.resume import clear_unfinished
from krontime.storage import CONFIG, replacing
from krontime.training.predict import scores

if TYPE_CHECKING:
    from lightning.pytorch.loggers import Logger


class Fit(ABC):
    """One fit in one run folder; its attributes are what the record says of it, however it ends.

    Args:
        config: resolved and checked, in plain types.
        job: the data and the protocol.
        run_dir: folder that everything is written to.
        is_first: whether this process is the one that writes.

    Attributes:
        loggers: of the config, once they are built.
        num_parameters: None where there is no such count.
        world_size: processes that fit together.
    """

    def __init__(self, config: Mapping[str, Any], job: PreparedData, run_dir: Path, *, is_first: bool) -> None:
        self.config = config
        self.job = job
        self.run_dir = run_dir
        self.is_first = is_first
        self.loggers: list[Logger] = []
        self.num_parameters: int | None = None
        self.world_size = 1
        self._memory: PeakMemory | None = None
        self._peak_bytes: int | None = None
        self._is_fitted = False

    @property
    def device(self) -> torch.device:
        """Device that the fit is computed on."""
        return torch.device("cpu")

    @property
    @abstractmethod
    def train_time_s(self) -> float:
        """Wall-clock seconds of fitting up to now."""

    @property
    @abstractmethod
    def part_times_s(self) -> dict[str, float]:
        """Seconds of `train_time_s` by what was fitted."""

    @property
    def train_cpu_s(self) -> float | None:
        """Processor seconds of fitting, in all threads of this process; None where that is not known."""
        return None

    @property
    def warm_up_s(self) -> float | None:
        """Seconds of compiling before fitting; None where that is not measured apart."""
        return None

    @property
    def has_begun(self) -> bool:
        """Whether the first step was done; what fails before is a mistake in the config."""
        return self.num_steps > 0

    @property
    def history(self) -> list[dict[str, float]]:
        """Metrics of each epoch; empty where there are none."""
        return []

    @property
    def num_steps(self) -> int:
        """Optimiser steps done."""
        return 0

    @property
    def max_steps(self) -> int | None:
        """Optimiser steps that the run may have; None where there are none, or it is not known yet."""
        return None

    @property
    def limited_by(self) -> LimitedBy | None:
        """What `max_steps` comes from; None where that is None."""
        return None

    @property
    def peak_memory_bytes(self) -> int | None:
        """Peak memory of fitting beyond what the process held before, in bytes; scoring doesn't count."""
        return self._peak_bytes if self._is_fitted else self._peak_bytes_now()

    @property
    @abstractmethod
    def memory_advice(self) -> str:
        """Text for a run out of memory: what was too large, and what would be smaller."""

    @abstractmethod
    def run(self) -> None:
        """Fit.

        Raises:
            UserError: something the user gave cannot work.
        """

    @abstractmethod
    def probabilities(self, indices: np.ndarray) -> torch.Tensor:
        """Compute the class probabilities `(len(indices), num_classes)`, float32, of series, in their order."""

    def timed_probabilities(self, indices: np.ndarray) -> tuple[torch.Tensor, float]:
        """Compute `probabilities`, and its seconds, reading included, after a first series that is not timed."""
        self.probabilities(indices[:1])
        started_s = time.perf_counter()
        probability = self.probabilities(indices)
        return probability, time.perf_counter() - started_s

    def held_out(self, validation: torch.Tensor) -> Predictions | None:
        """Return the predictions for series by fits without them; None where there are none, or no use for them.

        Args:
            validation: class probabilities of the validation series, as `probabilities` gives them.
        """
        return None

    def scores(self, probability: torch.Tensor, labels: np.ndarray) -> dict[MetricName, float | None]:
        """Compute every metric, from what `probabilities` returned; None where one is not defined."""
        return scores(probability, labels, torch.tensor(self.job.protocol.prior))

    def attention(self) -> list[list[np.ndarray]]:
        """Return, for each layer, the mean attention map of each level; empty where there are none."""
        return []

    def open_folder(self) -> None:
        """Make the run folder, clear it of half-written files, and write the config."""
        self.run_dir.mkdir(parents=True, exist_ok=True)
        if self.is_first:
            clear_unfinished(self.run_dir)
            with replacing(self.run_dir / CONFIG) as temporary:
                OmegaConf.save(OmegaConf.create(dict(self.config)), temporary)

    def ended(self) -> None:
        """Note that fitting is over, so that memory that is taken from now on does not count."""
        self._peak_bytes, self._is_fitted = self._peak_bytes_now(), True

    def _peak_bytes_now(self) -> int | None:
        return None if self._memory is None else self._memory.num_bytes(self.device)
