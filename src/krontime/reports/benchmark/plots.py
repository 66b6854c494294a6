"""Log-log plots of a benchmark: time and memory against length, as SVG.

A cell without a number is missing from its line, and the table says why.
"""

import textwrap
from collections.abc import Sequence
from pathlib import Path

from krontime.reports.benchmark.tables import REPORTS, Row
from krontime.runs.plot.figures import save, style

_WIDTH_PER_LETTER = 0.071  # inches, of the caption's font


def write_plots(rows: Sequence[Row], folder: Path, *, caption: str) -> None:
    """Write `NAME.svg` of each report that has numbers.

    Args:
        rows: of the benchmark.
        folder: where the files go.
        caption: hardware, versions and date; put under the panels and into the files' description.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, NullFormatter

    variants = list(dict.fromkeys(row.variant for row in rows))
    lengths = sorted({row.length for row in rows})
    for name, quantities in REPORTS.items():
        panels = [quantity for quantity in quantities if any(quantity.of(row) for row in rows)]
        if not panels:
            continue
        width = 4.6 * len(panels) + 2.2
        figure = Figure(figsize=(width, 4.6), dpi=150, layout="constrained")
        for axes, quantity in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
            for number, variant in enumerate(variants):
                measured = sorted((row.length, quantity.of(row)) for row in rows if row.variant == variant)
                points = [(length, value) for length, value in measured if value]
                axes.plot(
                    [length for length, _ in points],
                    [value for _, value in points],
                    label=variant,
                    markersize=4,
                    linewidth=1.3,
                    **style(number),
                )
            axes.set_xscale("log", base=2)
            axes.set_yscale("log")
            axes.set_xticks(lengths, [f"{length:,}" for length in lengths], fontsize=7, rotation=45)
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
            axes.yaxis.set_minor_formatter(NullFormatter())
            axes.set_xlabel("length (time points)")
            axes.set_ylabel(quantity.title)
            axes.grid(color="#E5E5E5", linewidth=0.6)
            axes.spines[["top", "right"]].set_visible(False)
        figure.legend(*axes.get_legend_handles_labels(), loc="outside right upper", fontsize=7, frameon=False)
        figure.supxlabel(
            "\n".join(textwrap.wrap(caption, int(width / _WIDTH_PER_LETTER))), fontsize=7, x=0.02, ha="left"
        )
        words = f"{' and '.join(quantity.title for quantity in panels)} against length, log-log. {caption}"
        save(figure, folder, name, words=words)
