"""The command `report`: a finished run, or all runs below a folder, as one HTML page."""

from pathlib import Path

from omegaconf import DictConfig

from krontime.commands.options import folder_of
from krontime.config import resolve
from krontime.console import show
from krontime.errors import Problems, UserError
from krontime.reports.page.content import run_content
from krontime.reports.page.render import check_installed
from krontime.reports.page.run_page import write_run_page
from krontime.reports.page.sweep_page import write_sweep_page
from krontime.runs.record import Record, Status
from krontime.storage import RECORD, writing_problem


def report(config: DictConfig) -> Path:
    """Write the page.

    Raises:
        UserError: there is no completed run, the page can't be written, or the extra is not installed.
    """
    options = resolve.plain(config)
    folder, output = folder_of(options["run"]), folder_of(options["output"])
    problems = Problems()
    if output.is_dir():
        problems.add("output", str(output), "a file; this is a folder")
    elif output.exists() and not options["force"]:
        problems.add("output", str(output), "a new name, or force=true to overwrite; the file exists")
    elif problem := writing_problem(output):
        problems.add("output", str(output), f"a place that can be written to ({problem})")
    if not folder.is_dir():
        problems.add("run", str(folder), "the folder of a finished run, or one with runs below it")
    problems.raise_if_any()
    check_installed("report")
    if (folder / RECORD).is_file():
        write_run_page(run_content(folder, options["paths"], explain=True), output)
    else:
        write_sweep_page([run_content(run, options["paths"]) for run in _completed(folder)], folder, output)
    show(f"written: {output} ({output.stat().st_size / 2**20:.1f} MiB; open it in a browser)")
    return output


def _completed(folder: Path) -> list[Path]:
    """The folders of completed runs below a folder.

    Raises:
        UserError: there is none.
    """
    runs = [path.parent for path in sorted(folder.rglob(RECORD))]
    completed = [run for run in runs if Record.read(run / RECORD).status is Status.COMPLETED]
    if not completed:
        raise UserError(
            f"run={str(folder)!r}: expected the folder of a finished run, or one with finished runs below it"
        )
    return completed
