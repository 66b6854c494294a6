"""Plots of standings, as SVG: mean ranks with their critical difference, one model against another, and a profile."""

from pathlib import Path

import numpy as np

from krontime.reports.comparison.compare import Comparison
from krontime.reports.comparison.plots import plot_critical_difference
from krontime.reports.rivals.standing import Standing, our_scores
from krontime.runs.plot.figures import save, style

RANKS = "rivals_critical_difference"
SCATTER = "rivals_scatter"
PROFILE = "time_to_accuracy"
NUM_SHOWN = 10
"""Published classifiers in a diagram of ranks: those that stand best."""

NUM_NAMED = 5
"""Data sets that are named in a scatter plot: those that differ most."""

REFERENCE = "aeon_multirocket_hydra"
"""The model whose accuracy and fit time the profile is measured in."""

_FACTORS = (1 / 16, 16.0)


def plot_ranks(standing: Standing, folder: Path) -> str | None:
    """The critical-difference diagram of ours and the best of the others.

    Returns:
        Why nothing was written; None where it was.
    """
    ranks = standing.ranks()
    others = sorted(range(len(standing.ours), len(standing.names)), key=ranks.__getitem__)[:NUM_SHOWN]
    chosen = [*range(len(standing.ours)), *others]
    variants = [(standing.names[number],) for number in chosen]
    return plot_critical_difference(variants, standing.higher[:, chosen], folder, name=RANKS)


def plot_scatter(standing: Standing, own: str, other: str, folder: Path) -> None:
    """Each data set's mean score of one model against that of another."""
    from matplotlib.figure import Figure

    x, y = (standing.means[:, standing.names.index(name)] for name in (other, own))
    figure = Figure(figsize=(4.2, 4.2), dpi=150, layout="constrained")
    axes = figure.subplots()
    low, high = min(x.min(), y.min()), max(x.max(), y.max())
    margin = 0.05 * (high - low) or 0.05
    axes.plot([low - margin, high + margin], [low - margin, high + margin], color="#999999", linewidth=0.8, zorder=0)
    axes.plot(x, y, **{**style(0), "linestyle": ""}, alpha=0.8)
    for place in np.argsort(-np.abs(y - x), kind="stable")[:NUM_NAMED]:
        at = (x[place], y[place])
        axes.annotate(standing.data_sets[place], at, fontsize=6, xytext=(3, 3), textcoords="offset points")
    axes.set_xlabel(other, fontsize=8)
    axes.set_ylabel(own, fontsize=8)
    axes.set_aspect("equal")
    axes.tick_params(labelsize=7)
    axes.grid(color="#E5E5E5", linewidth=0.6)
    metric = standing.metric.replace("_", " ")
    words = f"Mean {metric} of {own} against {other} on {len(standing.data_sets)} data sets."
    save(figure, folder, SCATTER, words=words)


def time_to_accuracy(comparison: Comparison) -> dict[str, list[float]]:
    """By model, how many times the reference's fit time it took to reach its accuracy on each data set.

    Infinite where it did not reach it, or has no score; empty without the reference. A Dolan-More profile is the
    fraction of data sets up to each number.
    """
    scores = our_scores(comparison, "accuracy")
    data_sets = sorted({data for data, _ in scores.get(REFERENCE, {})})
    factors: dict[str, list[float]] = {}
    for variant in comparison.variants if data_sets else ():
        name = " ".join(variant)
        factors[name] = []
        for data in data_sets:
            entry, reference = comparison.only(data, variant), comparison.only(data, (REFERENCE,))
            times = [e.mean_of(comparison.train_field) if e else None for e in (entry, reference)]
            places = [place for place in scores[REFERENCE] if place[0] == data and place in scores.get(name, {})]
            reached = bool(places) and np.mean([scores[name][p] - scores[REFERENCE][p] for p in places]) > -1e-9
            factors[name].append(times[0] / times[1] if reached and times[0] and times[1] else np.inf)
    return factors


def plot_time_to_accuracy(comparison: Comparison, folder: Path) -> bool:
    """The profile of each model but the reference, from 1/16 of the reference's fit time to 16 times as much.

    Returns:
        Whether there was something to plot.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, NullLocator

    factors = {name: ratios for name, ratios in time_to_accuracy(comparison).items() if name != REFERENCE}
    if not factors:
        return False
    figure = Figure(figsize=(5.6, 3.4), dpi=150, layout="constrained")
    axes = figure.subplots()
    grid = np.geomspace(*_FACTORS, 257)
    for number, (name, ratios) in enumerate(factors.items()):
        fractions = (np.array(ratios)[:, None] <= grid).mean(axis=0)
        axes.step(grid, fractions, where="post", label=name, linewidth=1.2, **{**style(number), "marker": ""})
    axes.set_xscale("log", base=2)
    axes.set_xticks(2.0 ** np.arange(-4, 5))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}" if value >= 1 else f"1/{1 / value:g}"))
    axes.set_ylim(-0.02, 1.02)
    axes.set_xlabel(f"time, in fit times of {REFERENCE}", fontsize=8)
    axes.set_ylabel("fraction of data sets", fontsize=8)
    axes.tick_params(labelsize=7)
    axes.grid(color="#E5E5E5", linewidth=0.6)
    figure.legend(loc="outside right upper", fontsize=7, frameon=False)
    words = f"Fraction of data sets on which each model reached the accuracy of {REFERENCE}, by training time."
    save(figure, folder, PROFILE, words=words)
    return True
