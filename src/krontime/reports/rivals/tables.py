"""Tables of standings: Markdown, LaTeX and CSV."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from krontime.reports.comparison.tables import write_csv
from krontime.reports.markup import Cell, Line, Mark, Table, latex, markdown
from krontime.reports.rivals.standing import LEVEL, Pairing, Standing, pairings, resample_numbers
from krontime.storage import replacing

RIVALS = "rivals"

_TITLES = {
    "accuracy": "Accuracy",
    "balanced_accuracy": "Balanced accuracy",
    "nll": "Log loss",
    "auroc": "Area under the ROC curve",
}

_CAPTION = (
    "Means and mean ranks (1 is best) over the same data sets and resamples for all; resample 0 is the official split, "
    "the others are aeon's with their number as seed. Below the rule: published by others, not run here. Wins, draws "
    "and losses count data sets; a difference has its 95 % interval, of a paired bootstrap over data sets; p-values "
    "are of Wilcoxon's signed-rank test over data sets, two-sided, corrected by Holm's method over all others, bold "
    f"below {LEVEL}."
)

_CLIPS = (
    "Log loss is in natural logarithms; ours has probabilities of at least 1.2e-38 (the smallest of float32), "
    "tsml-eval's of at least 2.2e-16. The area under the ROC curve is one class against the rest: ours is the mean over"
    " classes, tsml-eval's is weighted by their series."
)


def write_rivals(
    standings: Sequence[Standing], against: str, source: str, folder: Path, agreement: Table | None = None
) -> list[str]:
    """Write `rivals.md`, `.tex` and `.csv`.

    Args:
        standings: one for each metric, at least one.
        against: our model that is held against each of the others.
        source: where the published figures come from.
        folder: where the files go.
        agreement: of what was run here with the same as published; None where nothing was.

    Returns:
        Names of the files.
    """
    paired = [(one, pairings(one, against) if against in one.ours else []) for one in standings]
    tables = [_table(one, pairs, against) for one, pairs in paired]
    if agreement is not None:
        tables.append(agreement)
    notes = [f"Published: {source}", _CLIPS, *_gaps(standings)]
    for suffix, form in (("md", markdown), ("tex", latex)):
        with replacing(folder / f"{RIVALS}.{suffix}") as temporary:
            temporary.write_text(form(tables, _CAPTION, notes), encoding="utf-8")
    write_csv([row for one, pairs in paired for row in _rows(one, pairs, against)], folder / f"{RIVALS}.csv")
    return [f"{RIVALS}.{suffix}" for suffix in ("md", "tex", "csv")]


def _table(standing: Standing, pairs: Sequence[Pairing], against: str) -> Table:
    """Ours by rank, then the others by rank, below a rule."""
    ranks, means = standing.ranks(), standing.means.mean(axis=0)
    by_name = {pair.other: pair for pair in pairs}
    ours = range(len(standing.ours))
    others = range(len(standing.ours), len(standing.names))
    order = [*sorted(ours, key=ranks.__getitem__), *sorted(others, key=ranks.__getitem__)]
    marks: tuple[Mark, ...] = ("best", "second")
    best: dict[int, Mark] = dict(zip(np.argsort(ranks, kind="stable").tolist(), marks, strict=False))
    header = ["classifier", "mean", "mean rank"]
    if pairs:
        header += [f"wins/draws/losses of {against}", "difference", "p (Holm)"]
    body: list[list[str | Cell]] = []
    for number in order:
        rank = Cell((Line(f"{ranks[number]:.2f}", best.get(number)),))
        row: list[str | Cell] = [
            standing.names[number],
            f"{means[number]:.3f}",
            rank,
        ]
        if pairs:
            row += _against(by_name.get(standing.names[number]))
        body.append(row)
    where = f"{len(standing.data_sets)} data sets, {resample_numbers(standing.places)}"
    return Table(f"{_TITLES[standing.metric]} over {where}", header, body, rule_above=len(standing.ours))


def _against(pair: Pairing | None) -> list[str | Cell]:
    if pair is None:
        return ["-", "-", "-"]
    mark: Mark | None = "best" if pair.p_holm < LEVEL else None
    return [
        f"{pair.wins}/{pair.draws}/{pair.losses}",
        f"{pair.difference:+.3f} [{pair.low:+.3f}, {pair.high:+.3f}]",
        Cell((Line(f"{pair.p_holm:.2g}", mark),)),
    ]


def _gaps(standings: Sequence[Standing]) -> list[str]:
    """Who is not compared, and why."""
    notes = []
    for standing in standings:
        title = _TITLES[standing.metric]
        if standing.left_out:
            names = ", ".join(standing.left_out)
            notes.append(f"{title}: without a figure for each data set and resample, and left out: {names}.")
        if standing.not_ours:
            notes.append(f"{title}: not defined for {', '.join(standing.not_ours)}.")
    return notes


def _rows(standing: Standing, pairs: Sequence[Pairing], against: str) -> list[Mapping[str, Any]]:
    ranks, means = standing.ranks(), standing.means.mean(axis=0)
    by_name = {pair.other: pair for pair in pairs}
    rows: list[Mapping[str, Any]] = []
    for number, name in enumerate(standing.names):
        pair = by_name.get(name)
        rows.append(
            {
                "metric": standing.metric,
                "classifier": name,
                "origin": "krontime" if number < len(standing.ours) else "elsewhere",
                "mean": f"{means[number]:.6g}",
                "mean_rank": f"{ranks[number]:.6g}",
                "num_data_sets": len(standing.data_sets),
                "num_places": len(standing.places),
                "against": against if pair else None,
                "wins": pair.wins if pair else None,
                "draws": pair.draws if pair else None,
                "losses": pair.losses if pair else None,
                "difference": f"{pair.difference:.6g}" if pair else None,
                "low": f"{pair.low:.6g}" if pair else None,
                "high": f"{pair.high:.6g}" if pair else None,
                "p_holm": f"{pair.p_holm:.6g}" if pair else None,
            }
        )
    return rows
