"""The command `data`: list the data sets, look into one, or make one from the files of its origin."""

import logging
from typing import Any

from omegaconf import DictConfig

from krontime.commands.data_prepare import KEYS as PREPARE_KEYS
from krontime.commands.data_prepare import prepare
from krontime.commands.options import output_problems
from krontime.config import files as config_files
from krontime.config import resolve
from krontime.config.schema import inspect_problems
from krontime.console import show
from krontime.errors import Problems, UserError
from krontime.storage import expanded

log = logging.getLogger(__name__)


def data(config: DictConfig) -> None:
    """Without a choice of `data` list the data sets; with one, show what it holds, and plot it where asked.

    With `prepare`, make the container of a public data set.

    Raises:
        UserError: the data set cannot be read, split or made, or the plot cannot be written.
    """
    options = resolve.plain(config)
    recipe = {key: options.pop(key) for key in PREPARE_KEYS}
    if recipe != PREPARE_KEYS:
        prepare(recipe, options)
        return
    plot_file = options["plot"]
    if options.get("data") is None:
        if plot_file is not None:
            raise UserError(f"plot={plot_file!r}: has no effect without data=NAME")
        _list()
        return
    if problems := inspect_problems(options) + _plot_problems(plot_file):
        raise UserError(problems)

    from krontime.data.summary import plot, summary, what_was_read
    from krontime.runs.prepare import load_data, split_of

    chosen = options["data"]
    loaded = load_data(options)
    split = split_of(options, loaded)
    log.info("%s", what_was_read(loaded, name=chosen["name"], split=split))
    show(summary(loaded, name=chosen["name"], split=split))
    if plot_file is not None:
        path = expanded(plot_file)
        try:
            plot(loaded, split, path, series_per_class=options["series_per_class"])
        except OSError as error:
            path.unlink(missing_ok=True)
            raise UserError(f"plot={plot_file!r}: cannot be written ({error.strerror or error})") from error
        show(f"plot: {path}")


def _plot_problems(plot_file: Any) -> list[str]:
    problems = Problems()
    if isinstance(plot_file, str):
        path = expanded(plot_file)
        if path.suffix.lower() != ".png":
            problems.add("plot", plot_file, "a file name that ends in .png")
        elif lines := output_problems("plot", path, is_folder=False):
            problems.lines += lines
        elif path.exists():
            problems.add("plot", plot_file, "a new file name; this one exists")
        elif not path.parent.is_dir():
            problems.add("plot", plot_file, f"a file in a folder that exists; {str(path.parent)!r} does not")
    return problems.lines


def _list() -> None:
    from rich.table import Table

    table = Table("data=", "what it is", title="krontime data data=NAME shows one", title_justify="left")
    for name in config_files.options("data"):
        table.add_row(name, config_files.summary(config_files.config_dir() / "data" / f"{name}.yaml"))
    show(table)
