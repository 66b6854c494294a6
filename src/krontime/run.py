"""The verb `train`: one config, one run folder, one record."""

import gc
import logging
import os
import sys
import time
import traceback
from collections.abc import Mapping
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from omegaconf import DictConfig, OmegaConf

from krontime import build, experiment
from krontime.checks import check_train
from krontime.errors import UserError
from krontime.experiment import Experiment
from krontime.lit.divergence import StopOnDivergence
from krontime.lit.progress import Bar, EpochLines, History
from krontime.lit.quiet import quiet_lightning
from krontime.lit.resume import StayStopped, keep_rows
from krontime.lock import Busy, alone
from krontime.results.console import show
from krontime.results.environment import environment, peak_memory_bytes, reset_peak_memory
from krontime.results.files import CONFUSION_MATRIX, LEARNING_CURVES, PREDICTIONS, RECORD
from krontime.results.predictions import write_predictions
from krontime.results.record import MetricName, Metrics, Protocol, Record, Status, config_hash
from krontime.results.report import already_done, final_screen

if TYPE_CHECKING:
    from lightning.pytorch import Callback, Trainer

    from krontime.lit.module import SeriesClassifier

log = logging.getLogger(__name__)

CONFIG = "config.yaml"


def train(config: DictConfig) -> float | None:
    """Train, select on validation, score the test split once, and leave a record.

    Returns:
        The validation score that selected the checkpoint; None on any rank but the first.

    Raises:
        UserError: something the user gave cannot work; no record is written.
        Busy: another process is training in the run's folder.
    """
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    hydra = HydraConfig.get()
    run_dir = Path(hydra.runtime.output_dir)
    try:
        options = build.plain(config)
        check_train(options, is_multirun=hydra.mode == RunMode.MULTIRUN)
        record = train_in(options, run_dir)
    except Busy:
        raise  # the folder is another process's
    except BaseException:
        _remove_empty(run_dir, Path(str(config.paths.output)))
        raise
    metric = record.protocol.selection_metric if record and record.protocol else None
    return record.metrics.val.get(metric.removeprefix("val/")) if record and metric else None  # type: ignore[call-overload]


def _remove_empty(run_dir: Path, output: Path) -> None:
    """Remove the folders that Hydra makes before anything is checked, where nothing came into them."""
    for folder in (run_dir, *run_dir.parents):
        if not folder.resolve().is_relative_to(output.resolve()):
            return
        try:
            folder.rmdir()
        except OSError:  # something is in it, or another process of a sweep was faster
            return


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
    with alone(run_dir) if is_first else nullcontext():
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
    from lightning.pytorch.callbacks import Timer

    quiet_lightning()
    seed_everything(config["seed"], verbose=False)
    started_at = datetime.now(UTC)
    job = experiment.prepare(config)
    module: SeriesClassifier | None = None
    trainer: Trainer | None = None
    timer, history = Timer(), History()
    fit_tokens_s = 0.0
    peak_bytes: int | None = None
    is_trained = is_scored = False

    def record(status: Status, *, metrics: Metrics | None = None, error: str | None = None) -> Record | None:
        if not is_first:
            return None
        device = trainer.strategy.root_device if trainer else torch.device("cpu")
        written = Record(
            status=status,
            model=config["model"]["name"],
            data=config["data"]["name"],
            seed=config["seed"],
            config=dict(config),
            config_hash=config_hash(config),
            protocol=job.protocol,
            metrics=metrics or Metrics(),
            num_parameters=sum(parameter.numel() for parameter in module.network.parameters()) if module else None,
            train_time_s=timer.time_elapsed("train") + fit_tokens_s,
            peak_memory_bytes=peak_bytes if is_trained else peak_memory_bytes(device),
            started_at=started_at,
            finished_at=datetime.now(UTC),
            error=error,
            **environment(device, trainer.world_size if trainer else 1),
        )
        written.write(run_dir / RECORD)
        show(final_screen(written, run_dir))
        return written

    try:
        started_s = time.perf_counter()
        module = experiment.fitted_module(config, job)
        fit_tokens_s = time.perf_counter() - started_s
        if config["compile"]:
            module.network.compile()
        loggers = build.loggers(config, run_dir)
        callbacks = [
            *_callbacks(config, run_dir, has_logger=bool(loggers)),
            timer,
            history,
            StayStopped(),
            StopOnDivergence(),
        ]
        trainer = build.trainer(config, run_dir, callbacks, loggers)
        resumed = None if config["force"] else _resume_from(run_dir, job.protocol, trainer.world_size)
        run_dir.mkdir(parents=True, exist_ok=True)
        if is_first:
            OmegaConf.save(OmegaConf.create(dict(config)), run_dir / CONFIG)
            if resumed:
                _keep_rows(trainer, resumed)
            for logger in loggers:
                logger.log_hyperparams(dict(config))
        device = trainer.strategy.root_device
        reset_peak_memory(device)
        trainer.fit(
            module,
            datamodule=job.batches(config),
            ckpt_path=resumed.path if resumed else None,
            weights_only=True,
        )
        peak_bytes, is_trained = peak_memory_bytes(device), True
        metrics = _write_results(config, job, history, run_dir, device) if is_first else None
        if metrics:
            _log_scores(trainer, metrics)
        is_scored = True
    except UserError as error:
        if trainer is not None and trainer.global_step:  # else it is known before the first step
            record(Status.FAILED, error=str(error))
        raise
    except (KeyboardInterrupt, SystemExit):  # the latter is Lightning's answer to the former
        record(Status.INTERRUPTED, error="interrupted by the user")
        raise KeyboardInterrupt from None
    except Exception as error:
        if not _is_out_of_memory(error):
            record(Status.FAILED, error=f"{type(error).__name__}: {error}")
            raise
        record(Status.OUT_OF_MEMORY, error=(str(error).splitlines() or ["out of memory"])[0])
        raise UserError(
            f"out of memory with data.batch_size={config['data']['batch_size']}: expected a smaller batch or fewer "
            "tokens (krontime plan estimates the memory)"
        ) from error
    finally:
        if "wandb" in sys.modules:  # else the next run of this process would log into this one's
            sys.modules["wandb"].finish(exit_code=int(not is_scored))
    return record(Status.COMPLETED, metrics=metrics)


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


def _log_scores(trainer: "Trainer", metrics: Metrics) -> None:
    """Give the loggers the scores of the selected checkpoint, as `final/val/NAME` and `final/test/NAME`."""
    scores = {
        f"final/{split}/{name}": score
        for split, found in (("val", metrics.val), ("test", metrics.test))
        for name, score in found.items()
        if score is not None
    }
    for logger in trainer.loggers:
        logger.log_metrics(scores, step=trainer.global_step)
        logger.finalize("success")


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


def _is_out_of_memory(error: BaseException) -> bool:
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


def _write_results(
    config: Mapping[str, Any], job: Experiment, history: History, run_dir: Path, device: torch.device
) -> Metrics:
    """Score the selected checkpoint on validation and, this once, on test; write predictions and plots."""
    from krontime.results.plots import plot_confusion_matrix, plot_learning_curves
    from krontime.score import Scorer, named, scores

    module = experiment.load_run(run_dir).module
    scorer = Scorer.of(config, index=device.index if device.type == "cuda" else None)
    split, labels = job.split, job.data.labels
    validation = scores(scorer.probabilities(module, job.data, split.validation), labels[split.validation])
    test: dict[MetricName, float | None] = {}
    if len(split.test):
        probability = scorer.probabilities(module, job.data, split.test)
        test = scores(probability, labels[split.test])
        predictions = named(probability, job.data, split.test)
        write_predictions(predictions, run_dir / PREDICTIONS)
        plot_confusion_matrix(predictions, run_dir / CONFUSION_MATRIX)
    plot_learning_curves(history.rows, run_dir / LEARNING_CURVES, selection_metric=job.protocol.selection_metric)
    return Metrics(val=validation, test=test)
