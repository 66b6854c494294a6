"""Holds what plots of several variants share: how each is drawn, and how a figure is saved."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from krontime.storage import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#56B4E9", "#E69F00")  # Okabe and Ito's
_MARKERS = "os^Dv<>PX*hpd"
_DASHES = ("-", "--", ":", "-.")


def style(number: int) -> dict[str, Any]:
    """Choose colour, marker and dash of the variant of that number; no two differ in colour alone."""
    return {
        "color": _COLOURS[number % len(_COLOURS)],
        "marker": _MARKERS[number % len(_MARKERS)],
        "linestyle": _DASHES[number // len(_COLOURS) % len(_DASHES)],
    }


def save(figure: "Figure", folder: Path, name: str, *, words: str, **options: Any) -> None:
    """Write `NAME.svg` with a description in words; the same figure gives the same file."""
    from matplotlib import rc_context

    with replacing(folder / f"{name}.svg") as temporary, rc_context({"svg.hashsalt": name}):
        figure.savefig(temporary, format="svg", metadata={"Description": words, "Date": None}, **options)
