"""The command `predict`: classify the series of new files with a finished run."""

import logging
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig

from krontime.commands.following import STDOUT, follow
from krontime.commands.new_input import new_input
from krontime.commands.options import check_options, folder_of, output_problems
from krontime.config import resolve
from krontime.console import is_json, show
from krontime.errors import Problems, UserError
from krontime.runs.decisions import Rules, rule_problems
from krontime.runs.predictions import ENDINGS, named, prediction_table, write_table
from krontime.runs.recordings import gather, of_recordings, segment_table
from krontime.training.predict import Scorer

log = logging.getLogger(__name__)


BROKEN_FILES = 3
"""Exit code where files that can't be read were skipped."""

_MAX_NAMED = 5


def predict(config: DictConfig) -> Path | None:
    """Classify the series of new files with the selected checkpoint of a run.

    Returns:
        The file of predictions; None where they were printed.

    Raises:
        UserError: the run or a file cannot be read, or the series do not fit the model.
        SystemExit: files that cannot be read were skipped, with code 3, after all others were classified.
    """
    options = resolve.plain(config)
    check_options(options)
    if options.get("follow"):
        follow(options)
        return None
    given, output = folder_of(options["input"]), folder_of(options["output"])
    problems = Problems()
    problems.lines += _option_problems(options)
    problems.lines += rule_problems(options.get("coverage"), options.get("threshold") or {})
    segments = folder_of(options["segments"]) if options.get("segments") is not None else None
    written = [("output", output)] if str(options["output"]) != STDOUT else []
    if segments is not None:
        written.append(("segments", segments))
        if segments == output:
            problems.add("segments", str(segments), "another file than output")
    for key, path in written:
        problems.lines += _output_problems(key, path, given, force=options["force"])
    skip = options.get("on_error", "refuse") == "skip"
    with new_input(options, problems, written=written, skip=skip) as (run, new, data, num_files, names_matter):
        if problem := _windows_problem(options, is_cut=data.windows is not None):
            raise UserError(problem)
        rules = Rules.of(options.get("coverage"), options.get("threshold") or {}, run.held_out)
        indices = np.arange(len(data))
        scorer = Scorer.of(run.config, options["accelerator"])
        probability = scorer.probabilities(run.module, data, indices)
        if data.windows is not None:
            gathered = gather(data, indices, probability.numpy(), run.module.prior.cpu().numpy())
            predictions = of_recordings(data, gathered, run.module.prior.cpu().numpy())
        else:
            predictions = replace(named(probability, data, indices, run.module.prior.cpu()), observed=data.observed())
    if segments is not None:
        write_table(segment_table(data, gathered), segments)
    table = prediction_table(
        rules.applied(predictions),
        files=new.names if names_matter else None,
        broken=list(new.broken.items()) if skip else None,
    )
    for name, (reason, _) in new.broken.items():
        log.warning("%s: left out (%s)", name, reason)
    what = "series" if data.windows is None else "recordings"
    empty = np.flatnonzero(~predictions.observed) if predictions.observed is not None else np.empty(0, np.int64)
    if empty.size:
        shown = ", ".join(map(str, empty[:_MAX_NAMED]))
        log.warning("%d %s have no value and get no class (at index %s)", empty.size, what, shown)
    for sentence in rules.sentences():
        log.info("%s", sentence)
    said = f"{len(predictions.index) - empty.size} {what} of {given} classified"
    if str(options["output"]) == STDOUT:
        table.to_pandas().to_csv(sys.stdout, index=False, lineterminator="\n")
        log.info("%s", said)
    else:
        try:
            write_table(table, output)
        except OSError as error:
            raise UserError(f"output={str(output)!r}: can't be written ({error.strerror or error})") from error
        show(f"{said}: {output}")
    if new.broken:
        log.warning("%d of %d files can't be read and are marked", len(new.broken), num_files)
        sys.exit(BROKEN_FILES)
    return None if str(options["output"]) == STDOUT else output


def _windows_problem(options: Mapping[str, Any], *, is_cut: bool) -> str | None:
    """A line where an option is for runs that were trained on windows of recordings, or for others alone."""
    if not is_cut and options.get("segments") is not None:
        return f"segments={options['segments']!r}: expected null, since the run was not trained on windows"
    if is_cut and (options.get("coverage") is not None or any((options.get("threshold") or {}).values())):
        return "coverage, threshold: expected null, since what is known of held-out windows says nothing of recordings"
    return None


def _option_problems(options: Mapping[str, Any]) -> list[str]:
    problems = Problems()
    if options.get("on_error", "refuse") not in ("refuse", "skip"):
        problems.add("on_error", options["on_error"], "refuse or skip")
    if (said := options.get("latency")) or any(value is not None for value in (options.get("window") or {}).values()):
        problems.add("latency" if said else "window", said or options["window"], "nothing without follow=true")
    if str(options["output"]) == STDOUT and is_json():
        problems.add("output", STDOUT, "a file where json=true, which prints an object of its own")
    return problems.lines


def _output_problems(key: str, path: Path, given: Path, *, force: bool) -> list[str]:
    if path.suffix.lower() not in ENDINGS:
        return [f"{key}={str(path)!r}: expected a file name that ends in {' or '.join(ENDINGS)}"]
    return output_problems(key, path, is_folder=False, force=force, given=given)
