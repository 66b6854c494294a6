"""The command `tables`: records to tables, tests and plots."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from krontime.commands.options import output_problems
from krontime.config import resolve
from krontime.console import show
from krontime.errors import Problems, UserError
from krontime.reports.blocks import fill_blocks
from krontime.reports.comparison.collect import Damaged, Stored, collect, publish
from krontime.reports.comparison.compare import Comparison
from krontime.reports.comparison.significance import SIGNIFICANCE
from krontime.reports.comparison.tables import SCORES
from krontime.reports.folder import (
    OPTIONS,
    RECORDS,
    TableOptions,
    as_options,
    compared,
    files_problem,
    refresh,
    runs_of,
    write_options,
    write_results,
)
from krontime.reports.rivals.export import FOLDER as TSML
from krontime.reports.rivals.export import export_tsml
from krontime.reports.rivals.tables import RIVALS
from krontime.reports.rivals.write import PUBLISHED, keep_published
from krontime.runs.remarks import Remarks, read_remarks
from krontime.runs.sweep import unrecorded
from krontime.storage import expanded

log = logging.getLogger(__name__)


def tables(config: DictConfig) -> list[Path]:
    """Write the tables and plots of some run folders, or those of published results again.

    What was kept apart or left out is a note in the tables and a warning on the screen.

    Returns:
        Folders that were written to.

    Raises:
        UserError: an option cannot work, there is no whole record, a file is damaged that tables are made from, or one
            cannot be written.
    """
    options = resolve.plain(config)
    if problems := _problems(options):
        raise UserError(problems)
    try:
        return _tables(options)
    except OSError as error:
        raise UserError(
            f"{error.filename or options['output']}: cannot be written ({error.strerror or error})"
        ) from error


def _tables(options: Mapping[str, Any]) -> list[Path]:
    if options["refresh"] is not None:
        done = refresh(_path(options["refresh"]))
        for folder, (comparison, damaged) in done.items():
            _warn(comparison, damaged)
            show(f"Made again: {folder}")
        folders = list(done)
    else:
        folders = [_write(options)]
    if options["readme"] is not None:
        for page in map(_path, _listed(options["readme"])):
            for file in fill_blocks(page):
                show(f"{page}: {file}")
    return folders


def _write(options: Mapping[str, Any]) -> Path:
    output = _path(options["output"])
    roots = [_path(root) for root in _listed(options["records"])]
    runs, damaged = collect(roots)
    remarks = _remarks(roots, runs)
    chosen = as_options(options)
    if options["publish"]:
        if damaged:
            raise UserError(
                [f"{item.path}: {'; '.join(item.problems)}" for item in damaged]
                + ["publish=true: expected no damaged record; fix or remove those above, or name other folders"]
            )
        if chosen.models is not None:
            runs = runs_of(chosen.models, runs)
        chosen = _kept(chosen, runs, output)
    said = compared(runs, damaged, chosen, remarks).notes
    if options["publish"]:
        jobs = tuple(job for job in remarks.unrecorded if chosen.models is None or job.model in chosen.models)
        remarks = Remarks(tuple(note for note in said if note.is_lost), jobs)
        publish(runs, output / RECORDS, remarks)
        runs, damaged = collect([output / RECORDS])
    if options["publish"] or not (output / OPTIONS).is_file():
        write_options(chosen, output)
    comparison = write_results(runs, damaged, chosen, output, remarks)
    _warn(None, damaged)  # the notes stand below the tables
    if options["export"] is not None:
        show(f"{len(export_tsml(comparison, output))} files in {output / TSML}")
    for name in (SCORES, SIGNIFICANCE, RIVALS):
        if (output / f"{name}.md").is_file():
            show((output / f"{name}.md").read_text(encoding="utf-8"))
    show(f"Written to {output}")
    return output


def _kept(options: TableOptions, runs: Sequence[Stored], output: Path) -> TableOptions:
    """The options with a copy of the published figures of our data sets in place of a folder that is not published."""
    published = options.published_folder
    if published is None:
        return options
    copy = output / PUBLISHED
    if published.resolve() != copy.resolve():
        keep_published(published, copy, {run.record.data for run in runs})
    return replace(options, published=str(copy))


def _remarks(roots: Sequence[Path], runs: Sequence[Stored]) -> Remarks:
    """What was published with records in some folders, and the jobs of sweeps there that left no record."""
    published = read_remarks(roots)
    jobs = [*published.unrecorded, *(job for root in roots for job in unrecorded(root))]
    recorded = {run.job for run in runs}
    by_folder = {job.folder: job for job in jobs if job.folder not in recorded}
    return Remarks(published.notes, tuple(by_folder[folder] for folder in sorted(by_folder)))


def _warn(comparison: Comparison | None, damaged: Sequence[Damaged]) -> None:
    for item in damaged:
        log.warning("%s: damaged, and left out: %s", item.path, "; ".join(item.problems))
    for note in comparison.notes if comparison else ():
        if note.data is not None:
            log.warning("%s", note.text)


def _problems(options: Mapping[str, Any]) -> list[str]:
    problems = Problems()
    chosen = as_options(options)
    roots = options["records"]
    if not roots or not all(isinstance(root, str) for root in _listed(roots)):
        problems.add("records", roots, "a list of folders")
    if not isinstance(options["output"], str):
        problems.add("output", options["output"], "a folder")
    if not isinstance(options["publish"], bool):
        problems.add("publish", options["publish"], "true or false")
    if not isinstance(options["refresh"], str | None):
        problems.add("refresh", options["refresh"], "a path, or null")
    if options["readme"] is not None and not all(isinstance(page, str) for page in _listed(options["readme"])):
        problems.add("readme", options["readme"], "a list of paths, or null")
    if options["export"] not in (None, "tsml"):
        problems.add("export", options["export"], "tsml, or null")
    if options["refresh"] is not None and (chosen != TableOptions() or options["publish"] or options["export"]):
        keys = "metric, rows, seeds, models, published, against, scatter, export and publish"
        problems.lines.append(f"refresh: {keys} have no effect with it")
    if not problems.lines:
        problems.lines += _output_problems(options)
    return problems.lines + chosen.problems()


def _output_problems(options: Mapping[str, Any]) -> list[str]:
    key = "output" if options["refresh"] is None else "refresh"
    problems = output_problems(key, _path(options[key]), is_folder=True)
    if not problems and key == "output" and (problem := files_problem(_path(options[key]), _more(options))):
        problems.append(f"output: {problem}")
    for page in map(_path, _listed(options["readme"] or [])):
        problems += output_problems("readme", page, is_folder=False)
    return problems


def _more(options: Mapping[str, Any]) -> list[str]:
    """Names of the folders that are written beside the tables."""
    published, copy = as_options(options).published_folder, _path(options["output"]) / PUBLISHED
    is_copied = options["publish"] and published is not None and published.resolve() != copy.resolve()
    return [*([PUBLISHED] if is_copied else []), *([TSML] if options["export"] else [])]


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _path(text: str) -> Path:
    return expanded(text)
