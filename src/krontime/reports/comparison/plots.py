"""Plots of a comparison, as SVG: score against cost, score and time against the number of training series, and
the critical-difference diagram."""

import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from krontime.reports.comparison.compare import LOWER_IS_BETTER, UNBOUNDED, Comparison, RunGroup, Variant
from krontime.reports.comparison.series_bootstrap import LEVEL
from krontime.runs.plot.figures import save, style

CRITICAL_DIFFERENCE = "critical_difference"
SCALING = "scaling"
PARETO = {
    "pareto_time": ("train_time_s", "training time (s)", 1.0),
    "pareto_memory": ("peak_memory_bytes", "peak memory (MiB)", 2.0**20),
}
"""Name of the files: field of the record, its title, and what one unit of the axis is in the field's own."""

_COLUMNS = 3


def plot_pareto(comparison: Comparison, folder: Path) -> list[str]:
    """Score against training time and against peak memory: a panel for each data set, a point for each variant.

    A line joins the variants that no other beats in both.

    Returns:
        Names of the plots that were written: those that have a point.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    written = []
    for name, (field, title, unit) in PARETO.items():
        if name == "pareto_time" and comparison.train_field == "train_cpu_s":
            field, title = "train_cpu_s", "processor time of training (s)"
        panels: dict[str, list[tuple[int, RunGroup, float]]] = {}
        for data in dict.fromkeys(data for data, _ in comparison.rows):
            for number, variant in enumerate(comparison.variants):
                entry = comparison.only(data, variant)
                if entry is not None and (cost := entry.mean_of(field)):
                    panels.setdefault(data, []).append((number, entry, cost / unit))
        if not panels:
            continue
        columns = min(_COLUMNS, len(panels))
        lines = math.ceil(len(panels) / columns)
        figure = Figure(figsize=(3.4 * columns + 1.8, 3.0 * lines + 0.3), dpi=150, layout="constrained")
        axes_of = figure.subplots(lines, columns, squeeze=False).flatten()
        handles: dict[str, Any] = {}
        for axes, (data, points) in zip(axes_of, panels.items(), strict=False):
            for number, entry, cost in points:
                drawn = axes.errorbar(
                    *(cost, entry.mean),
                    **{"yerr": _error_bars([entry]), "capsize": 2, "linewidth": 1, **style(number), "linestyle": ""},
                )
                handles.setdefault(" ".join(entry.variant), drawn)
            front = _front(points)
            axes.plot([x for x, _ in front], [y for _, y in front], color="#999999", linewidth=0.8, zorder=0)
            costs = [cost for *_, cost in points]
            axes.set_xscale("log")
            axes.set_xlim(min(costs) / 2, max(costs) * 2)
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
            axes.xaxis.set_minor_locator(NullLocator())
            axes.set_title(data, parse_math=False, fontsize=9)
            axes.set_xlabel(title, fontsize=8)
            axes.set_ylabel(points[0][1].metric.replace("_", " "), fontsize=8)
            _dress(axes)
        for axes in axes_of[len(panels) :]:
            axes.axis("off")
        _legend(figure, handles)
        save(figure, folder, name, words=f"Test score against {title}, mean over seeds: {', '.join(panels)}.")
        written.append(name)
    return written


def plot_scaling(comparison: Comparison, folder: Path) -> str | None:
    """Score and training time against the number of training series, where a data set was trained on several numbers.

    A column of panels for each such data set, a line for each variant.

    Returns:
        Name of the plot; None where there is nothing to plot.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, NullFormatter

    lines: dict[str, dict[int, list[tuple[float, RunGroup]]]] = {}
    for data in dict.fromkeys(data for data, _ in comparison.rows):
        for number, variant in enumerate(comparison.variants):
            if (entry := comparison.only(data, variant)) is not None:
                sizes = [record.protocol.num_train for record in entry.completed if record.protocol]
                points = lines.setdefault(entry.runs[0].record.data, {}).setdefault(number, [])
                points.append((fmean(sizes), entry))
    lines = {data: by_variant for data, by_variant in lines.items() if max(map(len, by_variant.values())) > 1}
    if not lines:
        return None
    figure = Figure(figsize=(3.4 * len(lines) + 1.8, 5.6), dpi=150, layout="constrained")
    columns = figure.subplots(2, len(lines), squeeze=False, sharex="col").T
    handles: dict[str, Any] = {}
    for (score_axes, time_axes), (data, by_variant) in zip(columns, lines.items(), strict=True):
        for number, points in by_variant.items():
            points.sort(key=lambda point: point[0])
            x, entries = zip(*points, strict=True)
            drawn = score_axes.errorbar(
                x, [e.mean for e in entries], yerr=_error_bars(entries), capsize=2, **style(number)
            )
            handles.setdefault(" ".join(entries[0].variant), drawn)
            time_axes.plot(x, [e.mean_of("train_time_s") or math.nan for e in entries], **style(number))
        score_axes.set_title(data, parse_math=False, fontsize=9)
        score_axes.set_ylabel(entries[0].metric.replace("_", " "), fontsize=8)
        time_axes.set_ylabel("training time (s)", fontsize=8)
        time_axes.set_yscale("log")
        time_axes.set_xlabel("training series", fontsize=8)
        ticks = sorted({size for points in by_variant.values() for size, _ in points})
        for axes in (score_axes, time_axes):
            axes.set_xscale("log")
            axes.set_xticks(ticks)
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
            axes.xaxis.set_minor_formatter(NullFormatter())
            _dress(axes)
    _legend(figure, handles)
    words = f"Test score and training time against the number of training series, mean over seeds: {', '.join(lines)}."
    save(figure, folder, SCALING, words=words)
    return SCALING


def plot_critical_difference(
    variants: Sequence[Variant], scores: np.ndarray, folder: Path, *, name: str = CRITICAL_DIFFERENCE
) -> str | None:
    """aeon's diagram of mean ranks; bars join variants that its test does not tell apart.

    The test is Friedman's and after it Wilcoxon's signed-rank test, one-sided, at the level over the number of variants
    less one.

    Args:
        variants: three or more; with fewer there is no such diagram.
        scores: `(data sets, variants)`, higher is better.
        folder: where the file goes.
        name: of the file.

    Returns:
        Why nothing was written; None where it was.
    """
    if len(variants) < 3 or len(scores) < 3:
        return (
            "No critical-difference diagram: it takes three variants and three data sets on which all have a score; "
            f"there are at most {len(variants)} and {len(scores)}."
        )
    if np.all(scores == scores[:, :1]):
        return "No critical-difference diagram: all variants have the same scores."
    from aeon.visualisation import plot_critical_difference
    from matplotlib import pyplot

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Estimators .* have the same performance", category=UserWarning)
        names = [" ".join(variant) for variant in variants]
        longest = max(map(len, names))
        figure, _ = plot_critical_difference(
            scores, names, alpha=LEVEL, width=6 + 0.12 * longest, textspace=1.5 + 0.06 * longest
        )
    try:
        words = f"Mean ranks of {', '.join(names)} over {len(scores)} data sets; 1 is best."
        save(figure, folder, name, words=words, bbox_inches="tight", dpi=150)
    finally:
        pyplot.close(figure)
    return None


def _error_bars(entries: Sequence[RunGroup]) -> np.ndarray:
    """Lengths below and above the means `(2, n)` of one standard deviation, within what a score can be."""
    bars = []
    for entry in entries:
        mean, deviation = entry.mean or 0.0, entry.deviation or 0.0
        above = deviation if entry.metric in UNBOUNDED else min(deviation, max(0.0, 1 - mean))
        bars.append((min(deviation, max(0.0, mean)), above))
    return np.array(bars).T


def _dress(axes: Any) -> None:
    """Small ticks, a faint grid, no frame on two sides."""
    axes.tick_params(labelsize=7, which="both")
    axes.grid(color="#E5E5E5", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def _legend(figure: Any, handles: dict[str, Any]) -> None:
    figure.legend(list(handles.values()), list(handles), loc="outside right upper", fontsize=7, frameon=False)


def _front(points: Sequence[tuple[int, RunGroup, float]]) -> list[tuple[float, float]]:
    """Cost and score of the points that no cheaper one equals or beats, from the cheapest on."""
    sign = -1 if points[0][1].metric in LOWER_IS_BETTER else 1
    front: list[tuple[float, float]] = []
    pairs = [(cost, entry.mean) for _, entry, cost in points if entry.mean is not None]
    for cost, mean in sorted(pairs, key=lambda pair: (pair[0], -sign * pair[1])):
        if not front or sign * mean > sign * front[-1][1]:
            front.append((cost, mean))
    return front
