"""Tables of ranks and of tests: Markdown, LaTeX and CSV."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from krontime.reports.comparison.compare import Variant
from krontime.reports.comparison.intervals import Interval
from krontime.reports.comparison.over_groups import MIN_GROUPS
from krontime.reports.comparison.series_bootstrap import LEVEL, NUM_RESAMPLES
from krontime.reports.comparison.statistics import MIN_SEEDS, PairedTest
from krontime.reports.comparison.tables import write_csv
from krontime.reports.markup import Cell, Line, Table, latex, markdown
from krontime.storage import replacing

SIGNIFICANCE = "significance"
_CAPTION = (
    "Differences are of the first variant's mean score less the second's; p-values are two-sided, and corrected by "
    f"Holm's method over all pairs, on each data set apart; bold below {LEVEL}. Over data sets: Wilcoxon's signed-rank "
    f"test on mean scores. On one data set: a paired t-test from {MIN_SEEDS} seeds on, which speaks of other seeds on "
    f"the same series, or from {MIN_SEEDS} resamples on, each with the mean of its seeds and folds; with "
    "fewer seeds, McNemar's exact test or a paired bootstrap over test series, which speaks of other series. Where "
    "configs of a variant differ, that of most runs is taken, and of those the newest. Intervals are of the mean over "
    "the runs, by a bootstrap over test series, or exact where all of them are right or all wrong: they speak of "
    "other series and the same seeds. Where test series come in groups (patients, speakers), tests and intervals "
    "speak of other groups, and n counts groups: tests swap the two variants in some groups, in all ways or in "
    f"{NUM_RESAMPLES:,} drawn ones (sign flips); intervals are from the scores without each group in turn "
    f"(jackknife), by Student's t distribution; with fewer than {MIN_GROUPS} groups there are neither."
)


def write_significance(
    ranks: Mapping[Variant, float],
    num_ranked: int,
    over: Sequence[PairedTest],
    on_each: Sequence[PairedTest],
    single: Sequence[Interval],
    folder: Path,
    notes: Sequence[str] = (),
) -> bool:
    """Write `significance.md`, `.tex` and, one row a test, `.csv`.

    Args:
        ranks: mean ranks.
        num_ranked: data sets that they are means over.
        over: tests over data sets.
        on_each: tests on single data sets.
        single: intervals of single scores.
        folder: where the files go.
        notes: why tests were not made.

    Returns:
        Whether there was anything to write.
    """
    tables = []
    if len(ranks) > 1 and num_ranked > 1:
        rows = [[" ".join(v), f"{rank:.2f}"] for v, rank in sorted(ranks.items(), key=lambda item: item[1])]
        title = f"Mean rank over {num_ranked} data sets, of the variants with a score on each"
        tables.append(Table(title, ["variant", "rank"], rows))
    if over:
        tables.append(_table("Over data sets", over))
    if on_each:
        tables.append(_table("On each data set", on_each))
    if single:
        header = ["data set", "variant", "score", "mean", "95 % interval", "n"]
        rows = [
            [
                i.data,
                " ".join(i.variant),
                i.metric.replace("_", " "),
                f"{i.mean:.3f}",
                f"{i.low:.3f} to {i.high:.3f}",
                str(i.n),
            ]
            for i in single
        ]
        tables.append(Table("Scores on other test series", header, rows, num_left=3))
    if not tables:
        return False
    for suffix, form in (("md", markdown), ("tex", latex)):
        with replacing(folder / f"{SIGNIFICANCE}.{suffix}") as temporary:
            temporary.write_text(form(tables, _CAPTION, notes), encoding="utf-8")
    tests: list[dict[str, Any]] = [
        {
            "data": test.data or "all",
            "first": " ".join(test.first),
            "second": " ".join(test.second),
            "difference": _digits(test.difference),
            "low": _digits(test.low),
            "high": _digits(test.high),
            "n": test.n,
            "test": test.name,
            "p": _digits(test.p),
            "p_holm": _digits(test.p_holm),
        }
        for test in (*over, *on_each)
    ]
    ranked: list[dict[str, Any]] = [
        {"data": "all", "first": " ".join(v), "test": "mean rank", "n": num_ranked, "mean_rank": _digits(rank)}
        for v, rank in ranks.items()
    ]
    alone: list[dict[str, Any]] = [
        {
            "data": i.data,
            "first": " ".join(i.variant),
            "low": _digits(i.low),
            "high": _digits(i.high),
            "n": i.n,
            "test": f"interval, {i.metric}",
            "mean": _digits(i.mean),
        }
        for i in single
    ]
    write_csv([*tests, *ranked, *alone], folder / f"{SIGNIFICANCE}.csv")
    return True


def _digits(value: float | None) -> str | None:
    """Six digits: what another processor's last bits leave alone."""
    return None if value is None else f"{value:.6g}"


def _table(title: str, tests: Sequence[PairedTest]) -> Table:
    single = any(test.data is not None for test in tests)
    header = ["data set"] * single + ["first", "second", "difference"]
    header += ["95 % interval"] * single + ["n", "test", "p", "p (Holm)"]
    body = []
    for test in tests:
        row: list[str | Cell] = [test.data or ""] if single else []
        row += [" ".join(test.first), " ".join(test.second), f"{test.difference:+.3f}"]
        if single:
            row.append("-" if test.low is None else f"{test.low:+.3f} to {test.high:+.3f}")
        corrected = Line(_p(test.p_holm), "best" if test.p_holm < LEVEL else None)
        body.append([*row, str(test.n), test.name, _p(test.p), Cell((corrected,))])
    return Table(title, header, body, num_left=3 if single else 2)


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
