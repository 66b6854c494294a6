"""Plots are readable PNG files that say what the numbers say, for any classes and any history."""

import math
import sys

import matplotlib
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from krontime.errors import UserError
from krontime.runs.plot import curves
from krontime.runs.plot.curves import plot_confusion_matrix, plot_learning_curves
from krontime.runs.predictions import Predictions


@pytest.fixture
def figures(monkeypatch) -> list[Figure]:
    """The figures that were saved, in order."""
    saved: list[Figure] = []
    save = curves._save

    def keep(figure, path, description):
        saved.append(figure)
        save(figure, path, description)

    monkeypatch.setattr(curves, "_save", keep)
    return saved


def predictions(labels: list[int], predicted: list[int], names: tuple[str, ...]) -> Predictions:
    probabilities = np.eye(len(names), dtype=np.float32)[predicted]
    return Predictions.from_codes(np.arange(len(labels)), np.array(labels, dtype=int), probabilities, names)


def description(path) -> str:
    with Image.open(path) as image:
        image.load()
        assert image.format == "PNG"
        return image.info["Description"]


def overlap(figure: Figure) -> bool:
    """Whether two class names on an axis run into each other."""
    renderer = FigureCanvasAgg(figure).get_renderer()
    for axis in (figure.axes[0].xaxis, figure.axes[0].yaxis):
        boxes = [label.get_window_extent(renderer) for label in axis.get_majorticklabels()]
        if any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i]):
            return True
    return False


@pytest.mark.parametrize(
    "names",
    [
        ("no", "yes"),
        ("normal", "pathological heart rate of the fetus"),
        tuple("NSVFQ"),
        ("dog", "chainsaw", "crackling fire", "helicopter", "rain", "rooster", "sneezing", "sea waves"),
        tuple(f"class number {i}" for i in range(50)),
    ],
    ids=len,
)
def test_every_cell_is_written_and_no_name_covers_another(tmp_path, figures, names):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, len(names), 200)
    predicted = np.where(rng.random(200) < 0.7, labels, rng.integers(0, len(names), 200))
    plot_confusion_matrix(predictions(labels.tolist(), predicted.tolist(), names), tmp_path / "a.png")
    axes = figures[0].axes[0]
    written = {tuple(map(int, text.get_position()[::-1])): int(text.get_text()) for text in axes.texts}
    pairs, counts = np.unique(np.stack([labels, predicted]), axis=1, return_counts=True)
    assert written == {(int(a), int(b)): int(c) for (a, b), c in zip(pairs.T, counts, strict=True)}
    assert not overlap(figures[0])
    right = int((labels == predicted).sum())
    assert f"accuracy {right / 200:.3f} ({right} of 200)" in description(tmp_path / "a.png")


def test_names_that_fonts_or_formulas_would_spoil(tmp_path, figures):
    names = ("日本", "$x_{$", "a\nb", "", "Größe", "$1$")
    plot_confusion_matrix(predictions([0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 4, 5], names), tmp_path / "a.png")
    shown = [label.get_text() for label in figures[0].axes[0].get_yticklabels()]
    assert shown == ["class 0", "$x_{$", "a b", "class 3", "Größe", "$1$"]


def test_a_missing_class_and_unknown_labels(tmp_path, figures):
    plot_confusion_matrix(predictions([0, 0, -1, 2], [0, 2, 1, 2], ("a", "b", "c")), tmp_path / "a.png")
    shares = figures[0].axes[0].images[0].get_array()
    np.testing.assert_array_equal(shares, [[0.5, 0, 0.5], [0, 0, 0], [0, 0, 1]])
    plot_confusion_matrix(predictions([-1], [0], ("a", "b")), tmp_path / "b.png")
    assert "no labelled series" in description(tmp_path / "b.png")


HISTORY = [
    {"epoch": 0, "step": 4, "train/loss": 2.0, "train/accuracy": 0.3},
    {"epoch": 0, "step": 5, "train/loss": 1.0},
    {"epoch": 0, "step": 5, "val/loss": 1.8, "val/accuracy": 0.5},
    {"epoch": 1, "step": 9, "train/loss": 0.5, "train/accuracy": 0.9},
    {"epoch": 1, "step": 9, "val/loss": 1.7, "val/accuracy": 0.7},
    {"epoch": 2, "step": 14, "train/loss": 0.4, "val/loss": math.nan, "val/accuracy": 0.6},
    {"epoch": 2, "step": 14, "test/accuracy": 0.1, "val/loss": None},
]
LINES = {
    "train loss": ([0, 1, 2], [1.5, 0.5, 0.4]),
    "validation loss": ([0, 1], [1.8, 1.7]),
    "train accuracy": ([0, 1], [0.3, 0.9]),
    "validation accuracy": ([0, 1, 2], [0.5, 0.7, 0.6]),
}


def lines(figure: Figure) -> dict[str, tuple[list[float], list[float]]]:
    return {
        line.get_label(): (list(line.get_xdata()), list(line.get_ydata()))
        for axes in figure.axes
        for line in axes.lines
        if line.get_label() != "epoch kept"
    }


def test_curves_hold_the_logged_numbers_and_never_the_test_split(tmp_path, figures):
    plot_learning_curves(HISTORY, tmp_path / "a.png", selection_metric="val/accuracy")
    assert lines(figures[0]) == LINES
    kept = [line for axes in figures[0].axes for line in axes.lines if line.get_label() == "epoch kept"]
    assert [list(line.get_xdata()) for line in kept] == [[1, 1], [1, 1]]
    assert "val accuracy ends at 0.600" in description(tmp_path / "a.png")


def test_a_metric_to_be_lowered_keeps_the_lowest_epoch(tmp_path, figures):
    plot_learning_curves(HISTORY, tmp_path / "a.png", selection_metric="val/loss")
    kept = [line for axes in figures[0].axes for line in axes.lines if line.get_label() == "epoch kept"]
    assert list(kept[0].get_xdata()) == [1, 1]


def test_the_csv_of_the_logger_gives_the_same_curves(tmp_path, figures):
    keys = sorted({key for row in HISTORY for key in row})
    rows = [",".join("" if row.get(key) is None else str(row[key]) for key in keys) for row in HISTORY]
    (tmp_path / "metrics.csv").write_text("\n".join([",".join(keys), *rows]) + "\n")
    plot_learning_curves(tmp_path / "metrics.csv", tmp_path / "a.png")
    assert lines(figures[0]) == LINES


def test_two_kinds_of_line_differ_in_more_than_colour(tmp_path, figures):
    plot_learning_curves(HISTORY, tmp_path / "a.png")
    for axes in figures[0].axes:
        assert len({(line.get_linestyle(), line.get_marker()) for line in axes.lines}) == len(axes.lines)


@pytest.mark.parametrize("history", [[], [{"epoch": 0, "lr": 0.1}], [{"train/loss": 1.0}]])
def test_a_run_without_an_epoch_says_so(tmp_path, history):
    plot_learning_curves(history, tmp_path / "a.png", selection_metric="val/accuracy")
    assert "no epoch was logged" in description(tmp_path / "a.png")


def test_a_partial_csv_still_plots_and_a_missing_one_is_a_user_error(tmp_path, figures):
    (tmp_path / "metrics.csv").write_text("epoch,train/loss,val/loss\n0,1.5,\n0,,1.4\n1,0.")
    plot_learning_curves(tmp_path / "metrics.csv", tmp_path / "a.png")
    assert lines(figures[0])["validation loss"] == ([0], [1.4])
    with pytest.raises(UserError, match=r"none\.csv"):
        plot_learning_curves(tmp_path / "none.csv", tmp_path / "b.png")
    assert not (tmp_path / "b.png").exists()


def test_nothing_global_changes(tmp_path):
    before = dict(matplotlib.rcParams)
    loaded = "matplotlib.pyplot" in sys.modules
    plot_learning_curves(HISTORY, tmp_path / "a.png")
    assert dict(matplotlib.rcParams) == before
    assert ("matplotlib.pyplot" in sys.modules) == loaded
