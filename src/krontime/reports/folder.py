"""A folder of results: what its tables are made from, and the tables and plots beside it.

A folder of tables holds `tables.yaml`, their options, and where it was published `records/`; that of a benchmark holds
`benchmark.csv` and `environment.json`, that of a probe `probe.csv`. Everything else in it is generated and can be made
again from these. In a folder without `tables.yaml`, files with the names of tables and plots are someone else's.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from krontime.errors import Problems, UserError
from krontime.metrics import METRICS
from krontime.reports import probes
from krontime.reports.benchmark import report
from krontime.reports.comparison.collect import Damaged, Stored, collect
from krontime.reports.comparison.compare import AUTO, Comparison, compare
from krontime.reports.comparison.intervals import intervals
from krontime.reports.comparison.plots import (
    CRITICAL_DIFFERENCE,
    PARETO,
    SCALING,
    plot_critical_difference,
    plot_pareto,
    plot_scaling,
)
from krontime.reports.comparison.significance import SIGNIFICANCE, write_significance
from krontime.reports.comparison.statistics import mean_ranks, on_each_data_set, over_data_sets
from krontime.reports.comparison.tables import SCORES, write_scores
from krontime.reports.published import read_published
from krontime.reports.rivals.write import STANDINGS, write_standings
from krontime.runs.remarks import Remarks, read_remarks
from krontime.storage import replacing

RECORDS = "records"
OPTIONS = "tables.yaml"
SOURCES = (RECORDS, report.CSV, probes.CSV)
"""What generated files are made from."""

_GENERATED = tuple(
    f"{name}.{suffix}"
    for name in (SCORES, SIGNIFICANCE, CRITICAL_DIFFERENCE, SCALING, *PARETO, *STANDINGS)
    for suffix in ("md", "tex", "csv", "svg")
)
"""Names of the files that `write_results` writes or removes."""


@dataclass(frozen=True)
class TableOptions:
    """What tables to make.

    Attributes:
        metric: name of a metric, or `auto`.
        rows: config keys that tell variants apart; None: the model's name.
        seeds: that every entry should have; None for those that any has.
        published: CSV file of scores from elsewhere, or a folder of published figures; in `tables.yaml` relative to its
            folder.
        models: names of those to compare; None for all.
        against: our model that is held against each published classifier; None for `krontime`, or the best where it is
            not there.
        scatter: published classifier that a plot holds it against; None for the best.
        superseded: why the tables must no longer be read as a comparison, to stand above them; None where they may be.
    """

    metric: str = AUTO
    rows: list[str] | None = None
    seeds: list[int] | None = None
    published: str | None = None
    superseded: str | None = None
    models: list[str] | None = None
    against: str | None = None
    scatter: str | None = None

    @property
    def published_folder(self) -> Path | None:
        """`published`, where it is a folder."""
        return Path(self.published) if self.published and Path(self.published).is_dir() else None

    def problems(self) -> list[str]:
        """A line for each option that cannot work."""
        problems = Problems()
        if self.metric not in (AUTO, *METRICS):
            problems.add("metric", self.metric, f"one of {', '.join((AUTO, *METRICS))}")
        kinds = (("rows", str, "config keys"), ("seeds", int, "whole numbers"), ("models", str, "names"))
        for key, kind, what in kinds:
            value = getattr(self, key)
            if value is not None and not (
                isinstance(value, list) and value and all(type(item) is kind for item in value)
            ):
                problems.add(key, value, f"a list of {what}, or null")
            elif value and len(set(value)) < len(value):
                problems.add(key, value, f"a list of different {what}, or null")
        if not isinstance(self.published, str | None):
            problems.add("published", self.published, "a CSV file or a folder, or null")
        elif self.published and self.rows:
            problems.add("published", self.published, "null where rows are variants of our own models")
        if not isinstance(self.superseded, str | None):
            problems.add("superseded", self.superseded, "a sentence, or null")
        for key in ("against", "scatter"):
            if not isinstance(value := getattr(self, key), str | None):
                problems.add(key, value, "the name of a model, or null")
            elif value is not None and self.published_folder is None:
                problems.add(key, value, "null without published=FOLDER")
        return problems.lines


def write_options(options: TableOptions, folder: Path) -> None:
    """Keep the options of a folder's tables in it."""
    from omegaconf import OmegaConf

    published = options.published
    if published is not None:
        published = Path(os.path.relpath(published, folder)).as_posix()
    kept = {**asdict(options), "published": published}
    with replacing(folder / OPTIONS) as temporary:
        OmegaConf.save(OmegaConf.create(kept), temporary)


def read_options(folder: Path) -> TableOptions:
    """The options that a folder keeps, or the defaults where it keeps none.

    Raises:
        UserError: the file is damaged, or an option in it cannot work.
    """
    path = folder / OPTIONS
    if not path.is_file():
        return TableOptions()
    values = _kept_values(path)
    if isinstance(published := values.get("published"), str):
        values["published"] = str(folder / published)
    options = TableOptions(**values)
    if problems := options.problems():
        raise UserError([f"{path}: {problem}" for problem in problems])
    return options


def _kept_values(path: Path) -> dict[str, Any]:
    """The options in a file, as they stand there."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    try:
        kept = OmegaConf.to_container(OmegaConf.load(path))
    except (OSError, ValueError, YAMLError, OmegaConfBaseException) as error:
        raise UserError(f"{path}: not a readable YAML file ({str(error).splitlines()[0]})") from error
    names = [field.name for field in fields(TableOptions)]
    if not isinstance(kept, Mapping) or not set(kept) <= set(names):
        raise UserError(f"{path}: expected keys and values, with the keys {', '.join(names)}")
    return {str(key): value for key, value in kept.items()}


def files_problem(folder: Path, more: Sequence[str] = ()) -> str | None:
    """A line where tables in this folder would replace or remove what no tables were written to before.

    Args:
        folder: to be written to.
        more: names of what is written there besides tables and plots.
    """
    if (folder / OPTIONS).is_file():
        try:
            _kept_values(folder / OPTIONS)
        except UserError as error:
            return error.problems[0]
        return None
    for name in (*_GENERATED, *more):
        if os.path.lexists(folder / name):
            return (
                f"{folder / name}: would be lost; expected another folder, or one that `krontime tables` wrote, which "
                f"holds {OPTIONS}"
            )
    return None


def runs_of(models: Sequence[str], runs: Sequence[Stored]) -> list[Stored]:
    """The runs of some models.

    Raises:
        UserError: there is none of one of them.
    """
    chosen = [run for run in runs if run.record.model in models]
    if missing := sorted(set(models) - {run.record.model for run in chosen}):
        raise UserError(f"models: no record is of {', '.join(missing)}")
    return chosen


def compared(runs: Sequence[Stored], damaged: Sequence[Damaged], options: TableOptions, remarks: Remarks) -> Comparison:
    """The runs put side by side as the options say.

    Raises:
        UserError: no record has one of the keys of `rows`, or is of one of the models.
    """
    keys = options.rows or ()
    if options.models is not None:
        runs = runs_of(options.models, runs)
        unrecorded = tuple(job for job in remarks.unrecorded if job.model in options.models)
        remarks = replace(remarks, unrecorded=unrecorded)
    return compare(runs, metric=options.metric, keys=keys, seeds=options.seeds, damaged=damaged, remarks=remarks)


def write_results(
    runs: Sequence[Stored], damaged: Sequence[Damaged], options: TableOptions, folder: Path, remarks: Remarks
) -> Comparison:
    """Write every table and plot that the runs allow into a folder, and remove those of earlier that they don't.

    See `files_problem` for what has to be asked before.

    Raises:
        UserError: no record has one of the keys of `rows`, or the file of published scores is wrong.
    """
    beside = options.published_folder
    published = read_published(Path(options.published)) if options.published and not beside else []
    comparison = compared(runs, damaged, options, remarks)
    write_scores(comparison, folder, published)
    written = {f"{SCORES}.{suffix}" for suffix in ("md", "tex", "csv")}
    ranks, scores, left_out = mean_ranks(comparison)
    on_each, notes = on_each_data_set(comparison)
    single, more = intervals(comparison)
    notes = list(dict.fromkeys(left_out + notes + more))
    plots = plot_pareto(comparison, folder)
    if scaling := plot_scaling(comparison, folder):
        plots.append(scaling)
    if reason := plot_critical_difference(list(ranks), scores, folder):
        notes.append(reason)
    else:
        plots.append(CRITICAL_DIFFERENCE)
    if write_significance(ranks, len(scores), over_data_sets(comparison), on_each, single, folder, notes):
        written |= {f"{SIGNIFICANCE}.{suffix}" for suffix in ("md", "tex", "csv")}
    written |= {f"{name}.svg" for name in plots}
    if beside:
        written |= set(write_standings(comparison, beside, folder, against=options.against, scatter=options.scatter))
    for name in _GENERATED:
        if name not in written:
            (folder / name).unlink(missing_ok=True)
    if options.superseded is not None:
        for path in (folder / f"{SCORES}.md", folder / f"{SIGNIFICANCE}.md"):
            if path.is_file():
                _write_above(path, f"> **Superseded.** {options.superseded}")
    return comparison


def _write_above(path: Path, line: str) -> None:
    text = path.read_text(encoding="utf-8")
    with replacing(path) as temporary:
        temporary.write_text(f"{line}\n\n{text}", encoding="utf-8")


def refresh(root: Path) -> dict[Path, tuple[Comparison | None, list[Damaged]]]:
    """Make the tables and plots of every folder of results at or below `root` again.

    Returns:
        Each folder, with its comparison (None where there are no records) and its damaged records.

    Raises:
        UserError: there is no such folder, or one of them can't be read; names every problem.
    """
    files = [path for name in SOURCES for path in root.rglob(name)]
    folders = {path.parent for path in files if RECORDS not in path.relative_to(root).parts[:-1]}
    if not folders:
        raise UserError(f"refresh={str(root)!r}: expected a folder with one of {', '.join(SOURCES)} in it or below")
    done: dict[Path, tuple[Comparison | None, list[Damaged]]] = {}
    problems: list[str] = []
    for folder in sorted(folders):
        try:
            done[folder] = _refresh(folder)
        except UserError as error:
            problems += error.problems
    if problems:
        raise UserError(problems)
    return done


def _refresh(folder: Path) -> tuple[Comparison | None, list[Damaged]]:
    if (folder / report.CSV).is_file():
        report.write_report(folder)
    if (folder / probes.CSV).is_file():
        probes.write_plot(folder)
    if not (folder / RECORDS).is_dir():
        return None, []
    if problem := files_problem(folder):
        raise UserError(problem)
    options = read_options(folder)
    runs, damaged = collect([folder / RECORDS])
    remarks = read_remarks([folder / RECORDS])
    compared(runs, damaged, options, remarks)  # refuses what can't be written, before anything is
    if not (folder / OPTIONS).is_file():
        write_options(options, folder)
    return write_results(runs, damaged, options, folder, remarks), damaged


def as_options(values: Mapping[str, Any]) -> TableOptions:
    """The options among the values of a config."""
    return TableOptions(**{field.name: values[field.name] for field in fields(TableOptions) if field.name in values})
