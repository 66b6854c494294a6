"""The plot of `krontime probe`: how well each level tells each pattern, against chance."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from krontime.results.files import replacing

if TYPE_CHECKING:
    from krontime.probe import Probe

_STYLES = {"short": ("#D55E00", "s", "--"), "long": ("#0072B2", "o", "-")}


def plot_probes(probes: "Sequence[Probe]", path: Path) -> None:
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
