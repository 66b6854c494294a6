"""The verb `data`: list the data sets, or look into one."""

from pathlib import Path

from omegaconf import DictConfig

from krontime import build, configs
from krontime.errors import Problems, UserError
from krontime.results.console import show


def data(config: DictConfig) -> None:
    """Without a choice of `data` list the data sets; with one, show what it holds, and plot it where asked.

    Raises:
        UserError: the data set cannot be read or split, or the plot cannot be written.
    """
    options = build.plain(config)
    plot_file = options["plot"]
    if options.get("data") is None:
        if plot_file is not None:
            raise UserError(f"plot={plot_file!r}: has no effect without data=NAME")
        _list()
        return
    problems = Problems()
    if plot_file is not None and Path(plot_file).suffix.lower() != ".png":
        problems.add("plot", plot_file, "a file name that ends in .png")
    if plot_file is not None and Path(plot_file).exists():
        problems.add("plot", plot_file, "a new file name; this one exists")
    if not isinstance(options["series_per_class"], int) or options["series_per_class"] < 1:
        problems.add("series_per_class", options["series_per_class"], "a whole number of at least 1")
    problems.raise_if_any()

    from krontime.data.cache import load_cached
    from krontime.data.inspect import plot, summary
    from krontime.data.prepare import Prepare
    from krontime.data.split import split_indices

    chosen = options["data"]
    found = load_cached(build.source(chosen), Prepare(**chosen["prepare"]), options["paths"]["cache"])
    split = split_indices(found, **chosen["validation"], seed=options["seed"])
    show(summary(found, name=chosen["name"], split=split))
    if plot_file is not None:
        plot(found, split, Path(plot_file), series_per_class=options["series_per_class"])
        show(f"plot: {plot_file}")


def _list() -> None:
    from rich.table import Table

    table = Table("data=", "what it is", title="krontime data data=NAME shows one", title_justify="left")
    for name in configs.options("data"):
        table.add_row(name, configs.summary(configs.config_dir() / "data" / f"{name}.yaml"))
    show(table)
