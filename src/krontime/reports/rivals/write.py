"""From a comparison and a folder of published figures to tables and plots."""

import shutil
from pathlib import Path

from krontime.errors import UserError
from krontime.reports.comparison.compare import Comparison
from krontime.reports.rivals.plots import PROFILE, RANKS, SCATTER, plot_ranks, plot_scatter, plot_time_to_accuracy
from krontime.reports.rivals.read import MEASURES, read_published_folder
from krontime.reports.rivals.standing import Standing, our_scores, standing
from krontime.reports.rivals.summary import SUMMARY, agreement, write_summary
from krontime.reports.rivals.tables import RIVALS, write_rivals

STANDINGS = (RIVALS, SUMMARY, RANKS, SCATTER, PROFILE)
"""Names of all files that may be written."""

PUBLISHED = "published"
"""Folder in a folder of results that keeps the published figures its tables are made from."""

_OURS = "krontime"


def write_standings(
    comparison: Comparison, published: Path, folder: Path, *, against: str | None = None, scatter: str | None = None
) -> list[str]:
    """Write how our models stand among published ones, on the data sets and resamples that all compared have.

    Args:
        comparison: of our models.
        published: folder of published figures.
        folder: where the files go.
        against: our model that is held against each of the others; None for `krontime`, or the best of ours.
        scatter: published classifier that a plot holds it against; None for the best.

    Returns:
        Names of the files that were written.

    Raises:
        UserError: the folder cannot be read, nothing in it is on our data sets and resamples, or a name is of no model.
    """
    elsewhere = read_published_folder(published)
    ours = {metric: our_scores(comparison, metric) for metric in MEASURES}
    theirs = {metric: elsewhere.scores.get(metric, {}) for metric in MEASURES}
    compared = (standing(metric, ours[metric], theirs[metric]) for metric in MEASURES)
    standings = [one for one in compared if one is not None]
    if not standings:
        raise UserError(
            f"published={str(published)!r}: expected figures of data sets and resamples that all of our models have; "
            f"ours are on {', '.join(comparison.data_sets)}"
        )
    first = standings[0]
    own = _chosen("against", against, first.ours, first, _OURS)
    other = _chosen("scatter", scatter, first.others, first, None)
    alike = agreement(comparison, ours["accuracy"], theirs["accuracy"])
    written = write_rivals(standings, own, elsewhere.source, folder, alike)
    written.append(write_summary(standings, comparison, folder))
    if plot_ranks(first, folder) is None:
        written.append(f"{RANKS}.svg")
    plot_scatter(first, own, other, folder)
    written.append(f"{SCATTER}.svg")
    if plot_time_to_accuracy(comparison, folder):
        written.append(f"{PROFILE}.svg")
    return written


def _chosen(key: str, name: str | None, names: tuple[str, ...], first: Standing, usual: str | None) -> str:
    """The name that was asked for, else the usual one, else the one that stands best."""
    if name is not None and name not in names:
        raise UserError(f"{key}={name!r}: expected one of {', '.join(names)}")
    if name or usual in names:
        return name or str(usual)
    ranks = dict(zip(first.names, first.ranks().tolist(), strict=True))
    return min(names, key=ranks.__getitem__)


def keep_published(published: Path, folder: Path, data_sets: set[str]) -> Path:
    """Copy the figures of some data sets, and where they come from, so that tables can be made again without the rest.

    Args:
        published: folder of published figures.
        folder: new folder; what was there before does not stay.
        data_sets: names of those to keep.

    Returns:
        `folder`.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for path in sorted(published.rglob("*.csv")):
        header, *lines = path.read_text(encoding="utf-8").splitlines()
        kept = [line for line in lines if line.split(",", 1)[0] in data_sets]
        if kept:
            (folder / path.name).write_text("\n".join([header, *kept]) + "\n", encoding="utf-8")
    if (published / "README.md").is_file():
        shutil.copyfile(published / "README.md", folder / "README.md")
    return folder
