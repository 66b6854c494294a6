"""What the probes of a run report, as a table and a plot: how well each level knows each pattern, against chance.

The plot can be made again from the table.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from krontime.errors import UserError
from krontime.storage import replacing

CSV = "probe.csv"
PLOT = "probe.png"

_STYLES = {"short": ("#D55E00", "s", "--"), "long": ("#0072B2", "o", "-")}


class Probe(NamedTuple):
    """How well one level knows one pattern.

    Attributes:
        level: 0 for the maximum over tokens, h for the mean over all; see `level_features`.
        group_size: tokens that are averaged at this level.
        pattern: `short` or `long`.
        accuracy: mean over the folds.
        deviation: standard deviation over the folds.
        chance: of a classifier that sees nothing.
    """

    level: int
    group_size: int
    pattern: str
    accuracy: float
    deviation: float
    chance: float


def write_probes(probes: Sequence[Probe], folder: Path) -> None:
    """Write the table and the plot into a folder."""
    import pandas as pd

    with replacing(folder / CSV) as temporary:
        pd.DataFrame(probes).to_csv(temporary, index=False, lineterminator="\n")
    _plot(probes, folder / PLOT)


def write_plot(folder: Path) -> None:
    """Make the plot of the table in a folder again.

    Raises:
        UserError: the table is missing or damaged.
    """
    import pandas as pd

    path = folder / CSV
    try:
        table = pd.read_csv(path, dtype=Probe.__annotations__)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not a readable file of probes ({error})") from error
    if tuple(table) != Probe._fields or table.empty or table.isna().any(axis=None):
        raise UserError(f"{path}: expected at least one row, and the columns {', '.join(Probe._fields)}")
    _plot([Probe(*row) for row in table.itertuples(index=False)], folder / PLOT)


def _plot(probes: Sequence[Probe], path: Path) -> None:
    """Write the accuracy of the probes by level as PNG; error bars are the standard deviation over folds."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.6, 4), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    words = []
    for pattern, (colour, marker, dash) in _STYLES.items():
        chosen = [probe for probe in probes if probe.pattern == pattern]
        axes.errorbar(
            [probe.level for probe in chosen],
            [probe.accuracy for probe in chosen],
            [probe.deviation for probe in chosen],
            label=f"{pattern}-range pattern",
            color=colour,
            marker=marker,
            linestyle=dash,
            capsize=3,
        )
        words.append(f"{pattern} range: " + ", ".join(f"{probe.accuracy:.3f}" for probe in chosen))
    levels = sorted({(probe.level, probe.group_size) for probe in probes})
    axes.axhline(probes[0].chance, color="#555555", linewidth=1, linestyle="-.", label="chance")
    axes.set_xticks([level for level, _ in levels], [f"{level}\n({size:,})" for level, size in levels])
    axes.set_xlabel("level (tokens averaged)")
    axes.set_ylabel("accuracy of a linear probe")
    axes.set_ylim(0, 1.02)
    axes.grid(color="#E5E5E5", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, frameon=False)
    description = f"Probe accuracy by level, lowest first. {'; '.join(words)}; chance {probes[0].chance:.3f}."
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", metadata={"Description": description})
