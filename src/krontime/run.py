"""The verb `train`: one config, one run folder, one record."""

import gc
import logging
import os
import sys
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from omegaconf import DictConfig

from krontime import build, experiment
from krontime.attention_maps import mean_factors
from krontime.checks import check_train
from krontime.errors import UserError
from krontime.experiment import Experiment
from krontime.fit import Fit, is_out_of_memory
from krontime.lit.divergence import StopOnDivergence
from krontime.lit.progress import EpochLines, History
from krontime.lit.quiet import quiet_lightning
from krontime.lit.resume import StayStopped, keep_rows
from krontime.reference import ReferenceFit
from krontime.results.console import show
from krontime.results.environment import environment, reset_peak_memory
from krontime.results.files import ATTENTION, CONFUSION_MATRIX, LEARNING_CURVES, PREDICTIONS, RECORD
from krontime.results.predictions import write_predictions
from krontime.results.record import MetricName, Metrics, Protocol, Record, Status, config_hash
from krontime.results.report import already_done, final_screen
from krontime.score import Scorer, named

if TYPE_CHECKING:
    from lightning.pytorch import Callback, Trainer

    from krontime.lit.module import SeriesClassifier

log = logging.getLogger(__name__)


def train(config: DictConfig) -> float | None:
    """Train, select on validation, score the test split once, and leave a record.

    Returns:
        The validation score that selected the checkpoint; None on any rank but the first.

    Raises:
        UserError: something the user gave cannot work; no record is written.
    """
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    hydra = HydraConfig.get()
    run_dir = Path(hydra.runtime.output_dir)
    try:
        options = build.plain(config)
        check_train(options, is_multirun=hydra.mode == RunMode.MULTIRUN)
        record = train_in(options, run_dir)
    finally:
        _remove_empty(run_dir, Path(str(config.paths.output)))
    metric = record.protocol.selection_metric if record and record.protocol else None
    return record.metrics.val.get(metric.removeprefix("val/")) if record and metric else None  # type: ignore[call-overload]


def _remove_empty(run_dir: Path, output: Path) -> None:
    """Remove the folders that Hydra makes before anything is checked, where nothing came into them."""
    for folder in (run_dir, *run_dir.parents):
        if not folder.resolve().is_relative_to(output.resolve()) or not folder.is_dir() or any(folder.iterdir()):
            return
        folder.rmdir()


def train_in(config: Mapping[str, Any], run_dir: Path) -> Record | None:
    """Train in a folder, or return the record of the finished run that is there.

    Args:
        config: resolved and checked, in plain types.
        run_dir: where everything goes. A run that was cut off there goes on from its last checkpoint.

    Returns:
        The record; None on any rank but the first.

    Raises:
        UserError: something the user gave cannot work.
        KeyboardInterrupt: the user interrupted; the record says so.
    """
    is_first = _is_first_rank()
    with _alone(run_dir) if is_first else nullcontext():
        if is_first and config["force"]:
            _set_aside(run_dir)
        # With force, another rank may still see the folder that the first one sets aside.
        if (is_first or not config["force"]) and (found := _completed(run_dir)):
            if not is_first:
                return None
            _refuse_other_data(config, found, run_dir)
            show(already_done(found, run_dir))
            return found
        try:
            return _train_in(config, run_dir, is_first=is_first)
        except Exception as error:
            _release(error)
            raise


def _is_first_rank() -> bool:
    """Whether this process is the one that writes, as far as its launcher has told it."""
    from lightning.fabric.utilities.rank_zero import _get_rank

    # A launcher that knows no global rank gives that within the node, and which node it is.
    return not _get_rank() and ("RANK" in os.environ or int(os.environ.get("NODE_RANK", 0)) == 0)


@contextmanager
def _alone(run_dir: Path) -> Iterator[None]:
    """Keep other processes from training in the same folder; the operating system's lock ends with the process.

    Raises:
        UserError: one is at it.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(run_dir.with_name(f"{run_dir.name}.lock"))
    run_dir.parent.mkdir(parents=True, exist_ok=True)
    try:
        lock.acquire(timeout=0)  # refused too where the file was opened before, and locked after, it was removed below
    except Timeout:
        raise UserError(
            f"{run_dir}: another process is training there; expected to be the only one, or another seed or config"
        ) from None
    try:
        yield
    finally:
        with suppress(OSError):  # open files can't be removed everywhere
            Path(lock.lock_file).unlink()
        lock.release()


def _release(error: BaseException) -> None:
    """Free what the frames of an error hold, the network and its gradients above all, for the next job of a process."""
    chain: list[BaseException | None] = [error]
    seen: set[int] = set()  # an error that is raised again can stand in its own chain
    while chain:
        if (link := chain.pop()) is not None and id(link) not in seen:
            seen.add(id(link))
            traceback.clear_frames(link.__traceback__)
            chain += (link.__cause__, link.__context__)
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def _train_in(config: Mapping[str, Any], run_dir: Path, *, is_first: bool) -> Record | None:
    """Train in a folder that holds no finished run; see `train_in`."""
    from lightning.pytorch import seed_everything

    quiet_lightning()
    seed_everything(config["seed"], verbose=False)
    started_at = datetime.now(UTC)
    job = experiment.prepare(config)
    fit = (ReferenceFit if build.is_reference(config) else NetworkFit)(config, job, run_dir, is_first=is_first)
    is_scored = False

    def record(status: Status, *, metrics: Metrics | None = None, error: str | None = None) -> Record | None:
        if not is_first:
            return None
        written = Record(
            status=status,
            model=config["model"]["name"],
            data=config["data"]["name"],
            seed=config["seed"],
            config=dict(config),
            config_hash=config_hash(config),
            protocol=job.protocol,
            metrics=metrics or Metrics(),
            num_parameters=fit.num_parameters,
            train_time_s=fit.train_time_s,
            peak_memory_bytes=fit.peak_memory_bytes,
            started_at=started_at,
            finished_at=datetime.now(UTC),
            error=error,
            **environment(fit.device, fit.world_size),
        )
        written.write(run_dir / RECORD)
        show(final_screen(written, run_dir))
        return written

    try:
        fit.run()
        metrics = _write_results(job, fit, run_dir) if is_first else None
        if metrics:
            _log_scores(fit, metrics)
        is_scored = True
    except UserError as error:
        if fit.has_begun:  # else it is known before the first step
            record(Status.FAILED, error=str(error))
        raise
    except (KeyboardInterrupt, SystemExit):  # the latter is Lightning's answer to the former
        record(Status.INTERRUPTED, error="interrupted by the user")
        raise KeyboardInterrupt from None
    except Exception as error:
        if not is_out_of_memory(error):
            record(Status.FAILED, error=f"{type(error).__name__}: {error}")
            raise
        record(Status.OUT_OF_MEMORY, error=(str(error).splitlines() or ["out of memory"])[0])
        raise UserError(f"out of memory with {fit.memory_advice}") from error
    finally:
        if "wandb" in sys.modules:  # else the next run of this process would log into this one's
            sys.modules["wandb"].finish(exit_code=int(not is_scored))
    return record(Status.COMPLETED, metrics=metrics)


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
        job: Experiment,
        run_dir: Path,
        *,
        is_first: bool,
        callbacks: Sequence["Callback"] = (),
    ) -> None:
        from lightning.pytorch.callbacks import Timer

        super().__init__(config, job, run_dir, is_first=is_first)
        self._callbacks = callbacks
        self._timer, self._history = Timer(), History()
        self._fit_tokens_s = 0.0

    @property
    def device(self) -> torch.device:
        """That of this rank."""
        return self.trainer.strategy.root_device if self.trainer else torch.device("cpu")

    @property
    def train_time_s(self) -> float:
        """Seconds of training, validation included, and of fitting the tokenizer."""
        return self._timer.time_elapsed("train") + self._fit_tokens_s

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
        config, job, run_dir = self.config, self.job, self.run_dir
        started_s = time.perf_counter()
        module = experiment.fitted_module(config, job)
        self._fit_tokens_s = time.perf_counter() - started_s
        self.num_parameters = sum(parameter.numel() for parameter in module.network.parameters())
        if config["compile"]:
            module.network.compile()
        self.loggers = build.loggers(config, run_dir)
        callbacks = [
            *_callbacks(config, run_dir, has_logger=bool(self.loggers)),
            self._timer,
            self._history,
            StayStopped(),
            StopOnDivergence(),
            *self._callbacks,
        ]
        trainer = self.trainer = build.trainer(config, run_dir, callbacks, self.loggers)
        self.world_size = trainer.world_size
        resumed = None if config["force"] else _resume_from(run_dir, job.protocol, trainer.world_size)
        self.open_folder()
        if self.is_first:
            if resumed:
                _keep_rows(trainer, resumed)
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
        return experiment.load_run(self.run_dir).module


def _set_aside(run_dir: Path) -> None:
    """Keep what is in a run folder, whole or not, under another name."""
    if run_dir.is_dir() and any(run_dir.iterdir()):
        aside = run_dir.with_name(f"{run_dir.name}.until-{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}")
        run_dir.rename(aside)
        log.info("force=true: the earlier run is kept in %s", aside)


def _completed(run_dir: Path) -> Record | None:
    """The record of a completed run in this folder."""
    if not (run_dir / RECORD).is_file():
        return None
    found = Record.read(run_dir / RECORD)
    return found if found.status is Status.COMPLETED else None


def _refuse_other_data(config: Mapping[str, Any], found: Record, run_dir: Path) -> None:
    """Scores of a completed run say nothing of data that has changed since; where it can't be read, nothing is known.

    Raises:
        UserError: the data set is another one now.
    """
    try:
        protocol = experiment.prepare(config).protocol
    except UserError:
        return
    if found.protocol and found.protocol.data_sha256 != protocol.data_sha256:
        raise UserError(
            f"{run_dir}: the data set {found.data!r} has changed since this run was completed; expected force=true to "
            "train again (the folder is kept under another name), or the data of then"
        )


class _Resumed(NamedTuple):
    """A checkpoint to go on from, and the optimiser steps that it is after."""

    path: Path
    num_steps: int


def _resume_from(run_dir: Path, protocol: Protocol, world_size: int) -> _Resumed | None:
    """The last checkpoint of a run that was cut off, where it can be read and is of the same data.

    Raises:
        UserError: it is of another number of processes, which would see other series in what is left of it.
    """
    last = run_dir / experiment.CHECKPOINTS / experiment.LAST
    if not last.is_file():
        return None
    try:
        checkpoint = experiment.load_checkpoint(last)
    except UserError as error:
        log.warning("%s; the run starts anew", error)
        return None
    about = checkpoint["krontime"]
    if about["protocol"]["data_sha256"] != protocol.data_sha256:
        log.warning("%s is of data that has changed since; the run starts anew", last)
        return None
    if (begun_on := about.get("world_size", world_size)) != world_size:
        raise UserError(
            f"{run_dir}: the run there was begun on {begun_on} processes and can't go on with {world_size}; expected "
            "as many (trainer.devices, trainer.num_nodes), or force=true to train again from the start"
        )
    log.info("Going on from %s", last)
    return _Resumed(last, checkpoint["global_step"])


def _keep_rows(trainer: "Trainer", resumed: _Resumed) -> None:
    """Let the logger of `metrics.csv`, where there is one, append to what is there."""
    from lightning.pytorch.loggers import CSVLogger

    for logger in trainer.loggers:
        if isinstance(logger, CSVLogger):
            keep_rows(logger, resumed.num_steps)


def _log_scores(fit: Fit, metrics: Metrics) -> None:
    """Give the loggers the scores of what was selected, as `final/val/NAME` and `final/test/NAME`."""
    scores = {
        f"final/{split}/{name}": score
        for split, found in (("val", metrics.val), ("test", metrics.test))
        for name, score in found.items()
        if score is not None
    }
    for logger in fit.loggers:
        logger.log_metrics(scores, step=fit.num_steps)
        logger.finalize("success")


def _callbacks(config: Mapping[str, Any], run_dir: Path, *, has_logger: bool) -> list["Callback"]:
    """The config's callbacks, and what shows progress: a bar on a terminal, a line an epoch elsewhere.

    Loggers are given the learning rate too; by no callback of the config, since that is part of what names a run.
    """
    from lightning.pytorch.callbacks import LearningRateMonitor, RichProgressBar

    callbacks = build.callbacks(config, run_dir)
    if has_logger and not any(isinstance(callback, LearningRateMonitor) for callback in callbacks):
        callbacks.append(LearningRateMonitor())
    if config["trainer"]["enable_progress_bar"]:
        callbacks.append(RichProgressBar(leave=False) if sys.stderr.isatty() else EpochLines())
    return callbacks


def _write_results(job: Experiment, fit: Fit, run_dir: Path) -> Metrics:
    """Score on validation what was not fitted on it and, this once, on test; write predictions and plots."""
    from krontime.results.attention_plot import plot_attention
    from krontime.results.plots import plot_confusion_matrix, plot_learning_curves
    from krontime.results.wandb_log import log_run, of_wandb

    split, labels = job.split, job.data.labels
    validation: dict[MetricName, float | None] = {}
    if job.protocol.fitted_on != "train_and_validation":
        validation = fit.scores(fit.probabilities(split.validation), labels[split.validation])
    test: dict[MetricName, float | None] = {}
    if len(split.test):
        probability = fit.probabilities(split.test)
        test = fit.scores(probability, labels[split.test])
        predictions = named(probability, job.data, split.test)
        write_predictions(predictions, run_dir / PREDICTIONS)
        plot_confusion_matrix(predictions, run_dir / CONFUSION_MATRIX)
    if attention := fit.attention():
        plot_attention(attention, run_dir / ATTENTION)
    for logger in of_wandb(fit.loggers):
        log_run(logger, run_dir, attention)
    if fit.history:
        plot_learning_curves(fit.history, run_dir / LEARNING_CURVES, selection_metric=job.protocol.selection_metric)
    return Metrics(val=validation, test=test)
