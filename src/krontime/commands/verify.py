"""The command `verify`: a run of a published table, trained again."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig

from krontime.commands.options import folder_of
from krontime.config import resolve
from krontime.config.schema import check_train
from krontime.console import show
from krontime.errors import Problems, UserError
from krontime.reports.comparison.collect import Stored, collect, named
from krontime.reports.verification import Verification, here, verified
from krontime.runs.record import Record, Status
from krontime.storage import RECORD

EXIT_NOT_MET = 1


def verify(config: DictConfig) -> Verification:
    """Train a run of a table again and say whether its record is met; ends the process with 1 where it is not.

    Raises:
        UserError: an option cannot work, there is no such run, or its config can't be run here.
    """
    options = resolve.plain(config)
    problems = Problems()
    if not isinstance(options["run"], str | None):
        problems.add("run", options["run"], "the name of a run, or null")
    seed = options["seed"]
    if seed is not None and (type(seed) is not int or seed < 0):
        problems.add("seed", seed, "a whole number of at least 0, or null")
    problems.raise_if_any()
    runs, _ = collect([folder_of(options["table"])])
    chosen = _chosen(runs, options)
    run_dir = folder_of(options["output"]) / chosen.job
    if held := {run.folder.resolve() for run in runs} & {run_dir.resolve(), *run_dir.resolve().parents}:
        raise UserError(f"output={options['output']!r}: expected another folder; {held.pop()} is a run of the table")
    paths = {**options["paths"], "output": str(folder_of(options["output"]))}
    again_config = in_steps(here(chosen.record.config, paths), chosen.record)
    try:
        check_train(again_config, is_multirun=False)
    except UserError as error:
        why = f"{chosen.job}: it was run with another version of krontime, whose options this one does not take:"
        raise UserError([why, *error.problems]) from error
    show(f"Training {chosen.job} again")

    from krontime.runs.run import train_in

    again = train_in({**again_config, "force": _is_finished(run_dir)}, run_dir)
    assert again is not None  # one process
    comparison = verified(chosen.record, again, runs)
    for metric in sorted(comparison.recorded.keys() | comparison.again.keys()):
        show(f"  {metric}: recorded {comparison.recorded.get(metric)}, now {comparison.again.get(metric)}")
    show(f"{chosen.job}: {comparison.verdict}")
    if not comparison.met:
        sys.exit(EXIT_NOT_MET)
    return comparison


def _is_finished(run_dir: Path) -> bool:
    """Whether a finished run lies in a folder, which would be taken for the one that is trained again."""
    return (run_dir / RECORD).is_file() and Record.read(run_dir / RECORD).status is Status.COMPLETED


def in_steps(config: dict[str, Any], record: Record) -> dict[str, Any]:
    """The config with the number of steps that a limit on time was turned into, where there was one."""
    if record.limited_by != "seconds":
        return config
    trainer = {key: value for key, value in config["trainer"].items() if key != "max_time"}
    return {**config, "trainer": {**trainer, "max_steps": record.max_steps}}


def _chosen(runs: Sequence[Stored], options: Mapping[str, Any]) -> Stored:
    """The completed run that was asked for, or one that is drawn."""
    completed = [run for run in runs if run.record.status is Status.COMPLETED and run.record.metrics.test]
    if options["run"] is not None:
        return named(completed, options["run"])
    if not completed:
        raise UserError(f"table={options['table']!r}: expected a completed run with test scores")
    return completed[int(np.random.default_rng(options["seed"]).integers(len(completed)))]
