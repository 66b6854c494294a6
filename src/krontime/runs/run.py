"""Does one run in one folder: trains, selects on validation, scores the test split once, and leaves a record."""

import logging
import time
from collections.abc import Mapping
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from signal import Signals
from typing import TYPE_CHECKING, Any

import numpy as np

from krontime.config import targets
from krontime.config.identity import config_hash
from krontime.console import show, without_progress
from krontime.data.series import SeriesData
from krontime.errors import Terminated, UserError
from krontime.metrics import MetricName
from krontime.runs import failures, prepare
from krontime.runs.classical_fit import ClassicalFit
from krontime.runs.environment import environment
from krontime.runs.fit import Fit
from krontime.runs.lock import run_lock
from krontime.runs.network_fit import NetworkFit
from krontime.runs.predictions import named, write_predictions, write_table
from krontime.runs.prepare import PreparedData
from krontime.runs.record import Metrics, Record, Status
from krontime.runs.recordings import Gathered, gather, plot_recordings, recording_table, segment_table
from krontime.runs.resume import clear_spares, set_aside
from krontime.runs.screen import already_done, final_screen
from krontime.runs.signals import ending_on_signals, free_memory_of, holding_back, is_first_rank
from krontime.storage import (
    ATTENTION,
    CONFUSION_MATRIX,
    HELD_OUT,
    LEARNING_CURVES,
    PREDICTIONS,
    RECORD,
    RECORDINGS,
    RECORDINGS_PLOT,
    SEGMENTS,
    VALIDATION_PREDICTIONS,
)
from krontime.training import equipment
from krontime.training.quiet import quiet_lightning

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger(__name__)


def train_in(config: Mapping[str, Any], run_dir: Path, data: SeriesData | None = None) -> Record | None:
    """Train in a folder, or return the record of the finished run that is there.

    Args:
        config: resolved and checked, in plain types.
        run_dir: folder that everything is written to. A run that was cut off there resumes from its last checkpoint.
        data: series that are in memory already; None to read what the config names.

    Returns:
        The record; None on any rank but the first.

    Raises:
        UserError: something the user gave cannot work.
        KeyboardInterrupt: the user interrupted; the record says so.
        Terminated: a SIGTERM or SIGHUP came; the record says so.
    """
    is_first = is_first_rank()
    with ending_on_signals() as signals, run_lock(run_dir) if is_first else nullcontext():
        if is_first and config["force"]:
            set_aside(run_dir, level=logging.INFO, why="force=true")
        # With force, another rank may still see the folder that the first one sets aside.
        if (is_first or not config["force"]) and (finished := _completed(run_dir)):
            if not is_first:
                return None
            _refuse_other_data(config, finished, run_dir)
            clear_spares(run_dir)  # a run can be killed between its record and this
            show(already_done(finished, run_dir))
            return finished
        try:
            with without_progress(not config["trainer"]["enable_progress_bar"]):
                return _train_in(config, run_dir, signals, data, is_first=is_first)
        except Exception as error:
            free_memory_of(error)
            if not isinstance(error, UserError) and (explained := failures.explained(error, config, run_dir)):
                raise explained from error  # no record says so: nothing was begun
            raise


def _train_in(
    config: Mapping[str, Any], run_dir: Path, signals: list[int], data: SeriesData | None, *, is_first: bool
) -> Record | None:
    """Train in a folder that holds no finished run; see `train_in`."""
    from lightning.pytorch import seed_everything

    quiet_lightning()
    if is_first and equipment.wandb_options(config) is not None:
        from krontime.runs.wandb_log import check_online

        check_online(config)
    seed_everything(config["seed"], verbose=False)
    started_at = datetime.now(UTC)
    reading_began_s = time.perf_counter()
    job = prepare.prepare(config, data)
    part_times_s = {"reading": time.perf_counter() - reading_began_s}
    fit = (ClassicalFit if targets.is_aeon(config) else NetworkFit)(config, job, run_dir, is_first=is_first)
    is_scored = False
    scoring_time_s: dict[str, float] = {}

    def record(
        status: Status,
        *,
        metrics: Metrics | None = None,
        inference_ms: float | None = None,
        error: str | None = None,
    ) -> Record | None:
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
            num_steps=fit.num_steps if fit.max_steps else None,
            max_steps=fit.max_steps,
            warm_up_s=fit.warm_up_s,
            limited_by=fit.limited_by,
            train_time_s=fit.train_time_s,
            train_cpu_s=fit.train_cpu_s,
            part_times_s={**part_times_s, **fit.part_times_s, **scoring_time_s},
            peak_memory_bytes=fit.peak_memory_bytes,
            memory_of="job",
            inference_ms_per_series=inference_ms,
            started_at=started_at,
            finished_at=datetime.now(UTC),
            error=error,
            **environment(fit.device, fit.world_size),
        )
        try:
            written.write(run_dir / RECORD)
        except OSError as unwritable:
            if status is Status.COMPLETED:
                raise
            log.warning("%s: the record can't be written either (%s)", run_dir, unwritable)
            return written
        if status is not Status.COMPLETED:
            show(final_screen(written, run_dir))
        return written

    def ended(error: BaseException) -> BaseException:
        """Record how the run ended by an error, and return what to raise; the error itself is a fault of ours."""
        number = signals[0] if signals else failures.terminated_by(error)  # compiled code may turn it into any error
        if number is not None:
            record(Status.INTERRUPTED, error=f"ended by {Signals(number).name}; the same command resumes it")
            return Terminated(number)
        if isinstance(error, KeyboardInterrupt | SystemExit):  # the latter is Lightning's answer to the former
            record(Status.INTERRUPTED, error="interrupted by the user")
            return KeyboardInterrupt()
        if isinstance(error, UserError):
            if fit.has_begun:  # else it is known before the first step
                record(Status.FAILED, error=str(error))
            return error
        explained = failures.explained(error, config, run_dir, memory_advice=fit.memory_advice)
        first_line = next(iter(str(error).splitlines()), "out of memory" if failures.is_out_of_memory(error) else "")
        message = first_line if explained and first_line else f"{type(error).__name__}: {error}".removesuffix(": ")
        record(failures.status_of(error), error=message)
        return explained or error

    try:
        fit.run()
        scoring_began_s = time.perf_counter()
        metrics, inference_ms = _write_results(job, fit, run_dir) if is_first else (None, None)
        scoring_time_s["scoring"] = time.perf_counter() - scoring_began_s
        if metrics:
            _log_scores(fit, metrics)
        is_scored = True
        completed = record(Status.COMPLETED, metrics=metrics, inference_ms=inference_ms)
    except BaseException as error:
        if is_first and _completed(run_dir):  # a signal came after the record was written
            raise
        with holding_back(signals):  # a launcher may send one as soon as another process has ended
            ending = ended(error)
        if signals and not isinstance(ending, Terminated):
            log.error("%s", ending)
            ending = Terminated(signals[0])
        if ending is error:
            raise
        raise ending from (None if isinstance(ending, KeyboardInterrupt) else error)
    finally:
        equipment.finish_wandb(exit_code=int(not is_scored))
    if completed is not None:
        clear_spares(run_dir)
        show(final_screen(completed, run_dir))  # outside of `try`: a completed run can't fail any more
    return completed


def _completed(run_dir: Path) -> Record | None:
    """Read the record of a completed run in this folder; None where there is none."""
    if not (run_dir / RECORD).is_file():
        return None
    record = Record.read(run_dir / RECORD)
    return record if record.status is Status.COMPLETED else None


def _refuse_other_data(config: Mapping[str, Any], record: Record, run_dir: Path) -> None:
    """Refuse to reuse a completed run whose data has changed since; data that can't be read is not refused.

    Raises:
        UserError: the data set is another one now.
    """
    try:
        protocol = prepare.prepare(config).protocol
    except UserError:
        return
    if record.protocol and record.protocol.data_sha256 != protocol.data_sha256:
        raise UserError(
            f"{run_dir}: the data set {record.data!r} has changed since this run was completed; expected force=true to "
            "train again (the folder is kept under another name), or the data of then"
        )


def _log_scores(fit: Fit, metrics: Metrics) -> None:
    """Give the loggers the scores of what was selected, as `final/val/NAME` and `final/test/NAME`."""
    scores = {
        f"final/{split}/{name}": score
        for split, scores in (("val", metrics.val), ("test", metrics.test))
        for name, score in scores.items()
        if score is not None
    }
    for logger in fit.loggers:
        logger.log_metrics(scores, step=fit.num_steps)
        logger.finalize("success")


def _write_results(job: PreparedData, fit: Fit, run_dir: Path) -> tuple[Metrics, float | None]:
    """Score on validation, unless it was fitted on, and, this once, on test; write predictions and plots.

    Returns:
        The scores, and the milliseconds that a test series took; None without test series.
    """
    import torch

    from krontime.runs.plot.attention import plot_attention
    from krontime.runs.plot.curves import plot_confusion_matrix, plot_learning_curves
    from krontime.runs.wandb_log import log_run, of_wandb

    split, labels, prior = job.split, job.data.labels, torch.tensor(job.protocol.prior)
    validation: dict[MetricName, float | None] = {}
    if job.protocol.fitted_on != "train_and_validation":
        probability_val = fit.probabilities(split.validation)
        validation = fit.scores(probability_val, labels[split.validation])
        if (held_out := fit.held_out(probability_val)) is not None:
            write_predictions(held_out, run_dir / HELD_OUT)
    test: dict[MetricName, float | None] = {}
    inference_ms = None
    if len(split.test):
        probability, inference_s = fit.timed_probabilities(split.test)
        inference_ms = 1000 * inference_s / len(split.test)
        test = fit.scores(probability, labels[split.test])
        predictions = named(probability, job.data, split.test, prior)
        write_predictions(predictions, run_dir / PREDICTIONS)
        plot_confusion_matrix(predictions, run_dir / CONFUSION_MATRIX)
    elif validation:  # nothing to test on: what it says of validation series takes the place
        predictions = named(probability_val, job.data, split.validation, prior)
        write_predictions(predictions, run_dir / VALIDATION_PREDICTIONS)
        plot_confusion_matrix(predictions, run_dir / CONFUSION_MATRIX)
    metrics = Metrics(val=validation, test=test)
    if job.data.windows is not None and (test or validation):
        gathered = _write_recordings(
            job, split.test if test else split.validation, probability if test else probability_val, run_dir
        )
        of_recordings: dict[MetricName, float | None] = {}
        if gathered.are_of_one_class:
            of_recordings = fit.scores(torch.from_numpy(gathered.probability).float(), gathered.labels)
        metrics = Metrics(
            val=validation, test=test, recordings=of_recordings, accuracy_over_time=gathered.accuracy_over_time
        )
    if attention := fit.attention():
        plot_attention(attention, run_dir / ATTENTION)
    for logger in of_wandb(fit.loggers):
        log_run(logger, run_dir, attention)
    if fit.history:
        plot_learning_curves(fit.history, run_dir / LEARNING_CURVES, selection_metric=job.protocol.selection_metric)
    return metrics, inference_ms


def _write_recordings(job: PreparedData, indices: np.ndarray, probability: "Tensor", run_dir: Path) -> Gathered:
    """Gather probabilities `(n, K)` of windows by recording and by time, and write tables and a plot."""
    prior = np.array(job.protocol.prior)
    gathered = gather(job.data, indices, probability.numpy(), prior)
    write_table(recording_table(job.data, gathered, prior), run_dir / RECORDINGS)
    write_table(segment_table(job.data, gathered), run_dir / SEGMENTS)
    plot_recordings(job.data, gathered, run_dir / RECORDINGS_PLOT)
    return gathered
