"""Draws attention maps: one for each layer and level, together in a file or one by one."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from krontime.storage import replacing

_COLOURS = "viridis"
_LEAST_PIXELS = 256


def plot_attention(layers: Sequence[Sequence[np.ndarray]], path: Path) -> None:
    """Write a PNG with a row for each layer and a column for each level, lowest first.

    Args:
        layers: for each layer, the map `(k_i, k_i)` of each level; rows (queries) sum to 1.
        path: of the file.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    num_levels = len(layers[0])
    figure = Figure(figsize=(2.9 * num_levels + 0.6, 2.6 * len(layers) + 0.3), dpi=120, layout="constrained")
    grid = figure.subplots(len(layers), num_levels, squeeze=False)
    for number, (row, maps) in enumerate(zip(grid, layers, strict=True), start=1):
        for level, (axes, factor) in enumerate(zip(row, maps, strict=True), start=1):
            image = axes.imshow(factor, cmap=_COLOURS)
            figure.colorbar(image, ax=axes, shrink=0.85)
            axes.set_title(f"layer {number}, level {level} ({len(factor)} x {len(factor)})", fontsize=8)
            axes.set_xlabel("key", fontsize=7)
            axes.set_ylabel("query", fontsize=7)
            axes.tick_params(labelsize=6)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    words = f"Mean attention maps of {len(layers)} layers and {num_levels} levels, lowest level first."
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", metadata={"Description": words})


def picture(factor: np.ndarray) -> np.ndarray:
    """Draw a map `(k, k)` as RGB uint8, dark where small and bright where large, of 256 pixels a side or more."""
    import matplotlib as mpl

    fraction = (factor - factor.min()) / max(np.ptp(factor), np.finfo(np.float32).tiny)
    coloured = mpl.colormaps[_COLOURS](fraction)[..., :3]
    pixels_per_cell = -(-_LEAST_PIXELS // len(factor))
    return np.kron((coloured * 255).astype(np.uint8), np.ones((pixels_per_cell, pixels_per_cell, 1), np.uint8))
