"""The command `report`: a finished run, all runs below a folder, or published results, as one HTML page."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from krontime.commands.options import folder_of, output_problems
from krontime.config import resolve
from krontime.console import show
from krontime.errors import Problems, UserError
from krontime.reports.comparison.collect import collect, named
from krontime.reports.folder import TableOptions, compared, read_options
from krontime.reports.page.content import archived_content, run_content
from krontime.reports.page.render import check_installed
from krontime.reports.page.run_page import write_run_page
from krontime.reports.page.sweep_page import write_sweep_page
from krontime.runs.record import Status
from krontime.runs.remarks import read_remarks
from krontime.runs.screen import format_bytes
from krontime.storage import RECORD


def report(config: DictConfig) -> Path:
    """Write the page.

    Raises:
        UserError: there is no completed run, the page can't be written, or the extra is not installed.
    """
    options = resolve.plain(config)
    output = folder_of(options["output"])
    problems = Problems()
    problems.lines += output_problems("output", output, is_folder=False, force=options["force"], ending=".html")
    for key in ("run", "table"):
        if not isinstance(options[key], str | None):
            problems.add(key, options[key], "text")
    if options["run"] is None and options["table"] is None:
        problems.add("run", None, "the folder of a finished run, or one with runs below it; or table=FOLDER")
    for key in ("run",) if options["table"] is None else ("table",):
        if options[key] is not None and not folder_of(options[key]).is_dir():
            what = "a finished run, or one with runs below it" if key == "run" else "published results"
            problems.add(key, str(folder_of(options[key])), f"the folder of {what}")
    problems.raise_if_any()
    check_installed("report")
    if options["table"] is not None:
        _write_on_table(folder_of(options["table"]), options["run"], output)
    else:
        _write_on_runs(folder_of(options["run"]), options["paths"], output)
    show(f"written: {output} ({format_bytes(output.stat().st_size)}; open it in a browser)")
    return output


def _write_on_runs(folder: Path, paths: Mapping[str, Any], output: Path) -> None:
    """Write the page on a run, or on all runs below a folder.

    Raises:
        UserError: there is no completed run.
    """
    if (folder / RECORD).is_file():
        write_run_page(run_content(folder, paths, explain=True), output)
        return
    expected = f"run={str(folder)!r}: expected the folder of a finished run, or one with finished runs below it"
    if next(folder.rglob(RECORD), None) is None:
        raise UserError(expected)
    runs, damaged = collect([folder])
    if all(run.record.status is not Status.COMPLETED for run in runs):
        raise UserError(expected)
    write_sweep_page(compared(runs, damaged, TableOptions(), read_remarks([folder])), folder.name, output)


def _write_on_table(folder: Path, run: str | None, output: Path) -> None:
    """Write the page on published results, or on one run of theirs.

    Raises:
        UserError: they can't be read, or there is no such run.
    """
    runs, damaged = collect([folder])
    if run is not None:
        write_run_page(archived_content(named(runs, run), folder), output)
        return
    options = replace(read_options(folder), published=None)
    comparison = compared(runs, damaged, options, read_remarks([folder]))
    above = f"Superseded: {options.superseded}" if options.superseded else None
    write_sweep_page(comparison, folder.name, output, table=folder, above=above)
