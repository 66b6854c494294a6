"""Fits classifiers of aeon as references, once, under the protocol of the networks.

Shape letters: n series, C channels, L time points, K classes.
"""

import inspect
import logging
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from krontime.config import targets
from krontime.console import progress
from krontime.data.datamodule import SeriesDataset
from krontime.data.normalizer import Normalizer, Scaling
from krontime.data.series import SeriesData
from krontime.errors import UserError
from krontime.metrics import MetricName
from krontime.models.aeon import AeonClassifier
from krontime.runs.fit import Fit
from krontime.runs.memory import PeakMemory
from krontime.runs.prepare import PreparedData
from krontime.runs.record import Protocol
from krontime.training import equipment

log = logging.getLogger(__name__)

NEEDS_PROBABILITIES: tuple[MetricName, ...] = ("auroc", "nll", "ece")
"""Metrics that say nothing of a classifier which only names a class."""

WARM_UP_SERIES = 3
"""Number of series of each class that numba compiles on, at most."""

WARM_UP_CLASSES = 4
"""Number of these classes, at most."""

WARM_UP_POINTS = 512
"""Number of points of each of these series, at most."""

SHORTEST = 3
"""Number of points that any of aeon's classifiers needs: the difference of a series and one more."""

_REFUSALS = (ValueError, TypeError, ArithmeticError, LookupError)
"""Errors that aeon raises for data or options that it can't work with; its own checks come late, or not at all."""


class Arrays:
    """Series as aeon takes them: scaled, 0 where missing, and all of one length.

    Args:
        data: all series.
        fitted_on: positions of those that the classifier is fitted on, which scaling statistics are taken from.
        scaling: see `Normalizer`.
        length: L; shorter series are padded with zeros, longer ones cut. None where all have the same length.
        batch_size: series read at once.
    """

    def __init__(
        self, data: SeriesData, fitted_on: np.ndarray, *, scaling: Scaling, length: int | None, batch_size: int
    ) -> None:
        self.data = data
        self.normalizer = Normalizer(scaling=scaling, num_channels=data.num_channels)
        self.normalizer.fit(data, fitted_on)
        self.length = length or data.spec.length
        self.batch_size = batch_size

    def read(self, indices: np.ndarray) -> np.ndarray:
        """Read series as float64 `(len(indices), C, L)`, in that order; some features of aeon take nothing else."""
        dataset = SeriesDataset(self.data, self.data.needs_mask(indices))  # no other series changes these
        out = np.zeros((len(indices), self.data.num_channels, self.length))
        for start in range(0, len(indices), self.batch_size):
            batch = dataset.__getitems__(indices[start : start + self.batch_size].tolist())
            scaled = self.normalizer(batch.x, batch.mask).numpy()[..., : self.length]
            out[start : start + len(scaled), :, : scaled.shape[2]] = scaled
        return out


class ClassicalFit(Fit):
    """Fits a classifier of aeon; see `Fit`. It is kept in memory alone, since it can only be stored as pickle."""

    def __init__(self, config: Mapping[str, Any], job: PreparedData, run_dir: Path, *, is_first: bool) -> None:
        super().__init__(config, job, run_dir, is_first=is_first)
        self._began_s = self._ended_s = 0.0
        self._cpu_s: float | None = None
        self._warm_up_s: float | None = None

    @property
    def warm_up_s(self) -> float | None:
        """Seconds of compiling before fitting, by numba, of what it has not compiled before."""
        return self._warm_up_s

    @property
    def train_time_s(self) -> float:
        """Seconds of fitting."""
        return (self._ended_s or time.perf_counter()) - self._began_s if self._began_s else 0.0

    @property
    def part_times_s(self) -> dict[str, float]:
        """Seconds of fitting, of the classifier as the one part."""
        return {"classifier": self.train_time_s}

    @property
    def train_cpu_s(self) -> float | None:
        """Processor seconds of fitting, in all threads; None before its end."""
        return self._cpu_s

    @property
    def has_begun(self) -> bool:
        """Whether fitting has begun."""
        return self._began_s > 0

    @property
    def memory_advice(self) -> str:
        """What was too large: the classifier holds features of all series."""
        return f"{self.config['model']['classifier']}: expected fewer kernels or features, or a smaller data set"

    def run(self) -> None:
        """Fit the classifier on the series that the protocol names.

        Raises:
            UserError: series are too short, or aeon refuses the data or the options.
        """
        if (longest := self.job.spec.length) < SHORTEST:
            raise UserError(
                f"model={self.config['model']['name']}: expected series of at least {SHORTEST} points; the longest of "
                f"{self.config['data']['name']} has {longest}"
            )
        reference = aeon_classifier(self.config, num_jobs=torch.get_num_threads())
        split, options = self.job.split, self.config["data"]
        fitted_on = fitted_indices(self.job.protocol, split.train, split.validation)
        self.loggers = equipment.loggers(self.config, self.run_dir)
        self.open_folder()
        for logger in self.loggers:
            logger.log_hyperparams(dict(self.config))
        self._arrays = Arrays(
            self.job.data,
            fitted_on,
            scaling=options["scaling"],
            length=self.job.protocol.series_length,
            batch_size=options["eval_batch_size"],
        )
        self._estimator = reference.estimator
        self._warm_up_s = self._warm_up(fitted_on)
        self._memory = PeakMemory()
        self._began_s, cpu_s = time.perf_counter(), time.process_time()
        log.info("Fitting to %d series", len(fitted_on))
        series, labels = self._arrays.read(fitted_on), self.job.data.labels[fitted_on]
        try:
            with _contained():
                self._estimator.fit(series, labels)
        except _REFUSALS as error:
            raise UserError(f"model.classifier={reference.classifier!r}: {error}") from error
        self._ended_s, self._cpu_s = time.perf_counter(), time.process_time() - cpu_s
        self.ended()

    def _warm_up(self, fitted_on: np.ndarray) -> float | None:
        """Let numba compile on a few short series what fitting and predicting use.

        It takes seconds to minutes once in a process, and memory that stays: neither is a cost of the classifier.

        Returns:
            The seconds that it took; None where so few series are not enough, so that compiling counts as fitting.
        """
        labels = self.job.data.labels[fitted_on]
        few_each = [np.flatnonzero(labels == label)[:WARM_UP_SERIES] for label in np.unique(labels)[:WARM_UP_CLASSES]]
        few = np.concatenate(few_each)
        started_s = time.perf_counter()
        state = np.random.get_state()  # noqa: NPY002  # what some classifiers draw from
        try:
            with _contained():
                series = np.ascontiguousarray(self._arrays.read(fitted_on[few])[..., :WARM_UP_POINTS])
                estimator = self._estimator.clone()
                estimator.fit(series, labels[few])
                estimator.predict_proba(series[:1])
        except Exception as error:  # whatever too few series lead to; what is wrong with the data shows in fitting
            log.debug("Not warmed up: %s", error)
            return None
        finally:
            np.random.set_state(state)  # noqa: NPY002
        return time.perf_counter() - started_s

    def probabilities(self, indices: np.ndarray) -> torch.Tensor:
        """See `Fit`; 0 and 1 where the classifier only names a class."""
        answers = np.zeros((len(indices), self.job.spec.num_classes), np.float32)
        batch_size = self._arrays.batch_size
        with progress("predicting", len(indices)) as step:
            for start in range(0, len(indices), batch_size):
                rows = slice(start, start + batch_size)
                with _contained():
                    probability = self._estimator.predict_proba(self._arrays.read(indices[rows]))
                answers[rows, self._estimator.classes_] = probability
                step(len(probability))
        return torch.from_numpy(answers)

    def scores(self, probability: torch.Tensor, labels: np.ndarray) -> dict[MetricName, float | None]:
        """Every metric by name; those of probabilities are not defined where all of them are 0 or 1."""
        scores = super().scores(probability, labels)
        only_names = bool(((probability == 0) | (probability == 1)).all())
        return {name: None if only_names and name in NEEDS_PROBABILITIES else scores[name] for name in scores}


@contextmanager
def _contained() -> Iterator[None]:
    """Undo what some classifiers of aeon set for the whole process, and hide what numba says of their code."""
    from numba.core.errors import NumbaWarning

    num_threads = torch.get_num_threads()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NumbaWarning)
            yield
    finally:
        torch.set_num_threads(num_threads)


def fitted_indices(protocol: Protocol, train: np.ndarray, validation: np.ndarray) -> np.ndarray:
    """Return the positions of the series that a reference classifier is fitted on, rising."""
    return train if protocol.fitted_on == "train" else np.sort(np.concatenate([train, validation]))


def aeon_classifier(config: Mapping[str, Any], *, num_jobs: int) -> AeonClassifier:
    """Build the reference classifier of a plain config, with the run's seed and `num_jobs` threads if it takes them."""
    from hydra.utils import get_class

    options = {key: value for key, value in config["model"].items() if key != "name"}
    if problems := targets.target_problems(options):
        raise UserError(problems)
    takes = inspect.signature(get_class(options["estimator"]["_target_"])).parameters
    shared = {"random_state": config["seed"], "n_jobs": num_jobs}
    estimator = {**{key: value for key, value in shared.items() if key in takes}, **options["estimator"]}
    return targets.instantiate({**options, "estimator": estimator}, "model")
