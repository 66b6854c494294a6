"""The verb `train`: one config, one run folder, one record."""

import gc
import logging
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from omegaconf import DictConfig, OmegaConf

from krontime import build, experiment, failures
from krontime.checks import check_train
from krontime.errors import Terminated, UserError
from krontime.experiment import Experiment
from krontime.lit.divergence import StopOnDivergence
from krontime.lit.progress import EpochLines, History
from krontime.lit.quiet import quiet_lightning
from krontime.lit.resume import GoOn
from krontime.results.console import show
from krontime.results.environment import environment, peak_memory_bytes, reset_peak_memory
from krontime.results.files import CONFUSION_MATRIX, LEARNING_CURVES, PREDICTIONS, RECORD, replacing
from krontime.results.predictions import write_predictions
from krontime.results.record import MetricName, Metrics, Record, Status, config_hash
from krontime.results.report import already_done, final_screen
from krontime.resume import clear_spares, clear_unfinished, keep_logged, resume_from, was_begun

if TYPE_CHECKING:
    from lightning.pytorch import Callback, Trainer

    from krontime.lit.module import SeriesClassifier

log = logging.getLogger(__name__)

CONFIG = "config.yaml"
BY_SIGTERM = "ended by SIGTERM; the same command goes on"


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
        Terminated: a SIGTERM came; the record says so.
    """
    is_first = _is_first_rank()
    with _ending_on_sigterm(), _alone(run_dir) if is_first else nullcontext():
        if is_first and config["force"]:
            _set_aside(run_dir, level=logging.INFO, why="force=true")
        # With force, another rank may still see the folder that the first one sets aside.
        if (is_first or not config["force"]) and (found := _completed(run_dir)):
            if not is_first:
                return None
            _refuse_other_data(config, found, run_dir)
            clear_spares(run_dir)  # a run can be killed between its record and this
            show(already_done(found, run_dir))
            return found
        try:
            return _train_in(config, run_dir, is_first=is_first)
        except Exception as error:
            _release(error)
            if not isinstance(error, UserError) and (told := failures.explained(error, config, run_dir)):
                raise told from error  # where nothing was begun that a record could tell of
            raise


def _is_first_rank() -> bool:
    """Whether this process is the one that writes, as far as its launcher has told it."""
    from lightning.fabric.utilities.rank_zero import _get_rank

    # A launcher that knows no global rank gives that within the node, and which node it is.
    return not _get_rank() and ("RANK" in os.environ or int(os.environ.get("NODE_RANK", 0)) == 0)


@contextmanager
def _ending_on_sigterm() -> Iterator[None]:
    """Let a SIGTERM end the run as an interruption does: with a record, and without the lock left behind."""

    def end(*_: object) -> None:
        raise Terminated

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _alone(run_dir: Path) -> Iterator[None]:
    """Keep other processes from training in the same folder; the operating system's lock ends with the process.

    Raises:
        UserError: one is at it.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(run_dir.with_name(f"{run_dir.name}.lock"))
    try:
        run_dir.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)  # refused too where the file was opened before, and locked after, it was removed below
    except Timeout:
        raise UserError(
            f"{run_dir}: another process is training there; expected to be the only one, or another seed or config"
        ) from None
    except OSError as error:
        raise UserError(
            f"paths.output: {error.filename or run_dir} can't be written ({error.strerror or error}); expected a "
            "folder that can"
        ) from error
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
        try:
            written.write(run_dir / RECORD)
        except OSError as unwritable:
            if status is Status.COMPLETED:
                raise
            log.warning("%s: the record can't be written either (%s)", run_dir, unwritable)
            return written
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
            GoOn(),
            StopOnDivergence(),
        ]
        trainer = build.trainer(config, run_dir, callbacks, loggers)
        resumed = None if config["force"] else resume_from(run_dir, job.protocol, trainer.world_size, mend=is_first)
        if is_first and not resumed and was_begun(run_dir):
            _set_aside(run_dir, level=logging.WARNING, why="The run starts anew")
        run_dir.mkdir(parents=True, exist_ok=True)
        if is_first:
            clear_unfinished(run_dir)
            with replacing(run_dir / CONFIG) as temporary:
                OmegaConf.save(OmegaConf.create(dict(config)), temporary)
            if resumed:
                keep_logged(trainer, resumed)
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
        completed = record(Status.COMPLETED, metrics=metrics)
    except UserError as error:
        if trainer is not None and trainer.global_step:  # else it is known before the first step
            record(Status.FAILED, error=str(error))
        raise
    except Terminated:
        record(Status.INTERRUPTED, error=BY_SIGTERM)
        raise
    except (KeyboardInterrupt, SystemExit):  # the latter is Lightning's answer to the former
        record(Status.INTERRUPTED, error="interrupted by the user")
        raise KeyboardInterrupt from None
    except Exception as error:
        if failures.was_terminated(error):
            record(Status.INTERRUPTED, error=BY_SIGTERM)
            raise Terminated from error
        told = failures.explained(error, config, run_dir)
        what = (str(error).splitlines() or ["out of memory"])[0] if told else f"{type(error).__name__}: {error}"
        record(failures.status_of(error), error=what)
        if told is None:
            raise
        raise told from error
    finally:
        if "wandb" in sys.modules:  # else the next run of this process would log into this one's
            sys.modules["wandb"].finish(exit_code=int(not is_scored))
    if is_first:
        clear_spares(run_dir)
    return completed


def _set_aside(run_dir: Path, *, level: int, why: str) -> None:
    """Keep what is in a run folder, whole or not, under another name."""
    if run_dir.is_dir() and any(run_dir.iterdir()):
        aside = run_dir.with_name(f"{run_dir.name}.until-{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}")
        run_dir.rename(aside)
        log.log(level, "%s: the earlier run is kept in %s", why, aside)


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
    from lightning.pytorch.callbacks import LearningRateMonitor, RichProgressBar

    callbacks = build.callbacks(config, run_dir)
    if has_logger and not any(isinstance(callback, LearningRateMonitor) for callback in callbacks):
        callbacks.append(LearningRateMonitor())
    if config["trainer"]["enable_progress_bar"]:
        callbacks.append(RichProgressBar(leave=False) if sys.stderr.isatty() else EpochLines())
    return callbacks


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
