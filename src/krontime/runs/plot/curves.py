"""Plots of one run as PNG files: the confusion matrix and the learning curves.

Figures are drawn without pyplot, so that nothing global changes. No fact is shown by colour alone: cells hold
their counts, lines differ in dash and marker, and each file carries a description in words.
"""

import csv
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from krontime.errors import UserError
from krontime.runs.predictions import Predictions
from krontime.storage import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_TRAIN, _VAL = "#D55E00", "#0072B2"  # two colours of Okabe and Ito's that every reader can tell apart
_LOWER_IS_BETTER = ("loss", "nll", "ece")
_LONGEST_NAME = 24
_ACCURACIES = ("accuracy", "network_accuracy", "closed_form_accuracy")
_MARKERS = {"network": "^", "closed_form": "x"}
"""Markers of the parts of a mixture, which are validated apart."""


def plot_confusion_matrix(predictions: Predictions, path: Path, *, title: str = "Test split") -> None:
    """Write the confusion matrix as PNG: counts in the cells, the fraction of each true class as shade.

    Legible for 2 to about 50 classes. Series whose label is not known are left out; a class without
    series keeps its empty row.
    """
    from matplotlib.figure import Figure

    num_classes = len(predictions.class_names)
    code = {name: position for position, name in enumerate(predictions.class_names)}
    counts = np.zeros((num_classes, num_classes), dtype=np.int64)
    for label, predicted in zip(predictions.labels, predictions.predicted, strict=True):
        if label is not None:
            assert label in code, f"label {label!r} is not a class of the model"
            counts[code[label], code[predicted]] += 1
    totals = counts.sum(axis=1, keepdims=True)
    fractions = counts / np.maximum(totals, 1)

    names = [_drawable(name, position) for position, name in enumerate(predictions.class_names)]
    few = num_classes <= 12
    margin = 1.1 + 0.08 * max(map(len, names))
    side = max(2.6, num_classes * (0.55 if few else 0.34))
    figure = Figure(figsize=(side + margin + 0.9, side + margin), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(fractions, cmap="Blues", vmin=0, vmax=1)
    name_size = 9 if few else 7
    axes.set_xticks(
        range(num_classes),
        names,
        parse_math=False,
        fontsize=name_size,
        rotation=90 if max(map(len, names)) > 4 else 0,
    )
    axes.set_yticks(range(num_classes), names, parse_math=False, fontsize=name_size)
    for row, column in np.argwhere(counts):
        count = int(counts[row, column])
        axes.text(
            column,
            row,
            str(count),
            ha="center",
            va="center",
            fontsize=(9 if few else 7) - (count >= 1000),
            color="white" if fractions[row, column] > 0.55 else "black",
        )
    axes.set_xticks(np.arange(num_classes + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(num_classes + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="#DDDDDD", linewidth=0.5)
    axes.tick_params(which="minor", length=0)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    total, right = int(counts.sum()), int(counts.trace())
    accuracy = f"accuracy {right / total:.3f} ({right} of {total})" if total else "no labelled series"
    axes.set_title(f"{title}: {accuracy}", parse_math=False, fontsize=10)
    figure.colorbar(image, ax=axes, label="fraction of the true class", shrink=min(1.0, 4 / side))
    _save(figure, path, f"Confusion matrix, {num_classes} classes. {title}: {accuracy}.")


def plot_learning_curves(
    history: Path | Iterable[Mapping[str, Any]], path: Path, *, selection_metric: str | None = None
) -> None:
    """Write loss and accuracy over epochs, train and validation, as PNG.

    Args:
        history: the `metrics.csv` of Lightning's CSVLogger, or its rows: mappings with `epoch` and any of
            `train/<metric>` and `val/<metric>` (also written with `_`, or ending in `_epoch`). Empty cells,
            None and NaN are skipped; several values in one epoch are averaged.
        path: where the PNG goes.
        selection_metric: the `val/<metric>` whose best epoch was kept; that epoch is marked.

    Raises:
        UserError: `history` is no readable file.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    curves = _curves(_rows(history) if isinstance(history, Path) else history)
    chosen = _split_and_metric(selection_metric or "")
    losses = [key for key in curves if key[1] == "loss" or key[1].endswith("nll")]
    scores = [key for key in curves if key[1] in _ACCURACIES or (key == chosen and key not in losses)]
    panels = [(keys, label) for keys, label in ((losses, "loss (nats)"), (scores, "score (0 to 1)")) if keys]

    figure = Figure(figsize=(5.2 * max(1, len(panels)), 3.8), dpi=120, layout="constrained")
    best_epoch = _best_epoch(curves, chosen)
    words = []
    for position, (keys, label) in enumerate(panels):
        axes = figure.add_subplot(1, len(panels), position + 1)
        for split, metric in sorted(keys):
            epochs, values = zip(*sorted(curves[split, metric].items()), strict=True)
            lead = metric in ("loss", "accuracy") or (split, metric) == chosen
            axes.plot(
                epochs,
                values,
                label=f"{'validation' if split == 'val' else 'train'} {metric.replace('_', ' ')}",
                color=_VAL if split == "val" else _TRAIN,
                linestyle=("-" if split == "val" else "--") if lead else ":",
                marker=_MARKERS.get(metric.rpartition("_")[0], {"val": "o", "train": "s"}[split]),
                markersize=3.5,
                markevery=max(1, len(epochs) // 20),
                linewidth=1.6,
            )
            words.append(f"{split} {metric} ends at {values[-1]:.3f}")
        if best_epoch is not None:
            axes.axvline(best_epoch, color="#555555", linewidth=1, linestyle="-.", label="epoch kept")
        axes.set_xlabel("epoch")
        axes.set_ylabel(label)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(color="#E5E5E5", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(fontsize=8, frameon=False)
    if not panels:
        axes = figure.add_subplot()
        axes.axis("off")
        axes.text(0.5, 0.5, "no epoch was logged", ha="center", va="center")
        words = ["no epoch was logged"]
    _save(figure, path, f"Learning curves: {'; '.join(words)}.")


def _save(figure: "Figure", path: Path, description: str) -> None:
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", metadata={"Description": description})


def _drawable(name: str, position: int) -> str:
    """Cut a class name to a printable length, or return its number where the plot's font lacks a letter of it."""
    from matplotlib.font_manager import FontProperties, findfont, get_font

    name = " ".join(name.split())
    if len(name) > _LONGEST_NAME:
        name = name[: _LONGEST_NAME - 1] + "…"
    font = get_font(findfont(FontProperties()))
    if not name or not all(font.get_char_index(ord(letter)) for letter in name):
        return f"class {position}"
    return name


def _rows(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"{path}: not a readable metrics file ({error})") from error


def _split_and_metric(key: str) -> tuple[str, str]:
    """Split a column's name, such as `val/loss` or `train_loss_epoch`; the split is empty for other columns."""
    for split in ("train", "val"):
        for separator in "/_":
            if key.startswith(split + separator):
                return split, key[len(split) + 1 :].removesuffix("_epoch")
    return "", key


def _curves(rows: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str], dict[int, float]]:
    """`{(split, metric): {epoch: mean value}}` of the train and validation columns of `rows`."""
    values: dict[tuple[str, str], dict[int, list[float]]] = {}
    for row in rows:
        epoch = _number(row.get("epoch"))
        if epoch is None:
            continue
        for key, cell in row.items():
            split, metric = _split_and_metric(key or "")
            value = _number(cell)
            if split and value is not None:
                values.setdefault((split, metric), {}).setdefault(int(epoch), []).append(value)
    return {
        key: {epoch: sum(cells) / len(cells) for epoch, cells in by_epoch.items()} for key, by_epoch in values.items()
    }


def _number(cell: Any) -> float | None:
    """Parse a finite number; None for anything else."""
    try:
        value = float(cell)
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None


def _best_epoch(curves: Mapping[tuple[str, str], Mapping[int, float]], chosen: tuple[str, str]) -> int | None:
    """Return the first epoch with the best value of `chosen`; None where that was not logged."""
    curve = curves.get(chosen)
    if not curve:
        return None
    sign = 1 if chosen[1] in _LOWER_IS_BETTER else -1
    return min(curve, key=lambda epoch: (sign * curve[epoch], epoch))
