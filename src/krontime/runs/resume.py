"""Finds where a run that was cut off resumes: its last good checkpoint, with the best one that belongs to it."""

import logging
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from krontime.errors import UserError
from krontime.runs import load
from krontime.runs.record import Protocol
from krontime.storage import remove_unfinished
from krontime.training.checkpoint import previous
from krontime.training.csv_log import CsvLogger

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

log = logging.getLogger(__name__)


class Resumed(NamedTuple):
    """A checkpoint to resume from.

    Attributes:
        path: of the checkpoint.
        num_steps: optimiser steps that were done when it was written.
        history: metrics of the epochs before it.
        steps_in_time: optimiser steps that the limit on time was turned into; None without one.
    """

    path: Path
    num_steps: int
    history: list[dict[str, float]]
    steps_in_time: int | None


def resume_from(run_dir: Path, protocol: Protocol, world_size: int, *, repair: bool) -> Resumed | None:
    """Find the last good checkpoint of a run that was cut off, where it is of the same data.

    A best checkpoint is written before the last one that knows of it; where the run was cut off between the two, the
    best one before takes its place again. So what is resumed is one state, not parts of two.

    Args:
        run_dir: folder of the run.
        protocol: of the data now.
        world_size: number of processes now.
        repair: whether this process is the one that puts the best checkpoint back.

    Raises:
        UserError: the run is of another number of processes, which would see other series in what is left of it.
    """
    last = run_dir / load.CHECKPOINTS / load.LAST
    best = run_dir / load.CHECKPOINTS / load.BEST
    for path in (last, previous(last)):
        if not path.is_file():
            continue
        try:
            checkpoint = load.load_checkpoint(path)
        except UserError as error:
            log.warning("%s; it is left out", error)
            continue
        about = checkpoint["krontime"]
        if about["protocol"]["data_sha256"] != protocol.data_sha256:
            log.warning("%s is of data that has changed since", path)
            continue
        if (begun_on := about.get("world_size", world_size)) != world_size:
            raise UserError(
                f"{run_dir}: the run there was begun on {begun_on} processes and can't resume on {world_size}; "
                "expected as many (trainer.devices, trainer.num_nodes), or force=true to train again from the start"
            )
        if not _has_its_best(checkpoint, best, repair=repair):
            log.warning("%s: the best checkpoint that belongs to it is gone or damaged; it is left out", path)
            continue
        log.info("Resuming from %s", path)
        return Resumed(path, checkpoint["global_step"], _history(checkpoint), about.get("steps_in_time"))
    return None


def was_begun(run_dir: Path) -> bool:
    """Say whether there is a checkpoint, good or not, that a run was to resume from."""
    last = run_dir / load.CHECKPOINTS / load.LAST
    return last.is_file() or previous(last).is_file()


def set_aside(run_dir: Path, *, level: int, why: str) -> None:
    """Rename a run folder that is not empty, so that an earlier run is kept.

    Args:
        run_dir: the folder.
        level: of the message in the log.
        why: begins the message.
    """
    if run_dir.is_dir() and any(run_dir.iterdir()):
        kept = run_dir.with_name(f"{run_dir.name}.until-{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}")
        run_dir.rename(kept)
        log.log(level, "%s: the earlier run is kept in %s", why, kept)


def keep_logged(trainer: "Trainer", resumed: Resumed) -> None:
    """Let the logger of `metrics.csv`, where there is one, append to the rows of the earlier part of the run."""
    for logger in trainer.loggers:
        if isinstance(logger, CsvLogger):
            logger.resume(resumed.num_steps, resumed.history)


def clear_unfinished(run_dir: Path) -> None:
    """Remove the files that the run was writing when it was killed."""
    for folder in (run_dir, run_dir / load.CHECKPOINTS):
        remove_unfinished(folder)


def clear_spares(run_dir: Path) -> None:
    """Remove what only a resumed run would need, once the run is completed."""
    clear_unfinished(run_dir)
    folder = run_dir / load.CHECKPOINTS
    for path in (previous(folder / load.LAST), previous(folder / load.BEST)):
        path.unlink(missing_ok=True)


def _has_its_best(checkpoint: dict[str, Any], best: Path, *, repair: bool) -> bool:
    """Say whether the best checkpoint that a state knows of exists, by its score, which no other one has.

    Args:
        checkpoint: the state.
        best: path of the best checkpoint; the one before it is tried too.
        repair: whether to put that one back where it is the right one.
    """
    expected = _best_score(checkpoint)
    if expected is None:
        return True
    for path in (best, previous(best)):
        try:
            score = _best_score(load.load_checkpoint(path))
        except UserError:
            continue
        if score == expected:
            if repair and path != best:
                path.replace(best)
            return True
    return False


def _best_score(checkpoint: dict[str, Any]) -> float | None:
    """Return the score of the best checkpoint up to a state; None where nothing selects or was validated yet."""
    scores = [
        float(state["best_model_score"])
        for key, state in checkpoint.get("callbacks", {}).items()
        if key.startswith("ModelCheckpoint")
        and Path(state.get("best_model_path", "")).name == load.BEST
        and state.get("best_model_score") is not None
    ]
    return scores[0] if scores else None


def _history(checkpoint: dict[str, Any]) -> list[dict[str, float]]:
    return checkpoint.get("callbacks", {}).get("History", {}).get("rows", [])
