"""The figures of a page, drawn by Bokeh; each has a description in words, and a table of its numbers beside it."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from krontime.data.summary import envelope

if TYPE_CHECKING:
    from krontime.reports.page.content import Bin, Example

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")  # Okabe and Ito's
DASHES = ("solid", "dashed", "dotted", "dotdash", "dashdot", "solid")
MARKERS = ("circle", "square", "triangle", "diamond", "inverted_triangle", "plus")
MAX_POINTS = 1_200
WIDTH = 22
"""Characters of a name beside an axis, after which it goes on in another line."""


class Figure(NamedTuple):
    """A figure of a page.

    Attributes:
        title: above it.
        plot: Bokeh's model.
        words: what it shows, for those who do not see it.
        header: of the table of its numbers.
        rows: of that table.
    """

    title: str
    plot: Any
    words: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]


def _figure(x: str, y: str, *, height: int = 300, **options: Any) -> Any:
    from bokeh.plotting import figure

    plot = figure(
        height=height,
        sizing_mode="stretch_width",
        tools="hover,save,reset,box_zoom",
        x_axis_label=x,
        y_axis_label=y,
        **options,
    )
    plot.toolbar.logo = None
    plot.toolbar.autohide = True
    plot.axis.axis_label_text_font_style = "normal"
    return plot


def _legend_above(plot: Any) -> None:
    """Move the legend out of the plot, where it would hide lines on a narrow screen."""
    legend = plot.legend[0]
    plot.add_layout(legend, "above")
    legend.update(orientation="horizontal", ncols=2, label_text_font_size="11px", border_line_color=None)


def curves(title: str, unit: str, lines: Mapping[str, tuple[Sequence[int], Sequence[float]]]) -> Figure:
    """Metrics against epochs."""
    from bokeh.models import DataRange1d

    plot = _figure("epoch", unit, y_range=DataRange1d(min_interval=0.1))
    for position, (name, (epochs, values)) in enumerate(lines.items()):
        look = {"color": COLOURS[position % 6], "line_dash": DASHES[position % 6]}
        plot.line(list(epochs), list(values), legend_label=name, line_width=2, **look)
    if lines:
        plot.legend.click_policy = "hide"
        _legend_above(plot)
    last = {name: values[-1] for name, (_, values) in lines.items()}
    ends = ", ".join(f"{name} {value:.3g}" for name, value in last.items())
    num_epochs = max((len(epochs) for epochs, _ in lines.values()), default=0)
    words = f"{title} over {num_epochs} epochs; at the end {ends}"
    epochs = sorted({epoch for epochs, _ in lines.values() for epoch in epochs})
    at = [dict(zip(*line, strict=True)) for line in lines.values()]
    rows = [[str(epoch), *(f"{by[epoch]:.4g}" if epoch in by else "" for by in at)] for epoch in epochs]
    return Figure(title, plot, words, ["epoch", *lines], rows)


def reliability(bins: Sequence["Bin"], scored: str) -> Figure:
    """How often the model is right, against how sure it is; `scored` says of which series."""
    plot = _figure("probability of the predicted class", "fraction that is right", x_range=(0, 1), y_range=(0, 1.02))
    plot.line([0, 1], [0, 1], color="#666666", line_dash="dashed", legend_label="as sure as right")
    sizes = [8 + 16 * (each.count / max(other.count for other in bins)) ** 0.5 for each in bins]
    source = {
        "x": [each.confidence for each in bins],
        "y": [each.accuracy for each in bins],
        "series": [each.count for each in bins],
        "size": sizes,
    }
    plot.scatter("x", "y", size="size", source=source, color=COLOURS[0], legend_label=f"{scored} series")
    _legend_above(plot)
    rows = [[f"{each.confidence:.2f}", f"{each.accuracy:.2f}", str(each.count)] for each in bins]
    words = "; ".join(f"where it says {row[0]}, {row[1]} are right ({row[2]} series)" for row in rows)
    return Figure("Calibration", plot, words, ["says", "is right", "series"], rows)


def confusion(counts: np.ndarray, names: Sequence[str], scored: str) -> Figure:
    """True classes against predicted ones; `scored` says of which series."""
    from bokeh.models import BasicTicker, ColumnDataSource, LinearColorMapper
    from bokeh.models.annotations import ColorBar
    from bokeh.palettes import Blues256
    from bokeh.transform import transform

    fraction = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    short = [f"{name[:20]}…" if len(name) > 21 else name for name in names]
    if len(set(short)) < len(short):
        short = [f"{position} {name}" for position, name in enumerate(short)]
    plot = _figure(
        "predicted", "true", height=min(900, 220 + 26 * len(names)), x_range=short, y_range=list(reversed(short))
    )
    rows, columns = np.indices(counts.shape)
    source = {
        "predicted": [short[column] for column in columns.ravel()],
        "true": [short[row] for row in rows.ravel()],
        "series": counts.ravel().tolist(),
        "fraction": fraction.ravel().tolist(),
    }
    data = ColumnDataSource(source)
    mapper = LinearColorMapper(palette=list(reversed(Blues256)), low=0, high=1)
    plot.rect("predicted", "true", 1, 1, source=data, line_color=None, fill_color=transform("fraction", mapper))
    if len(names) <= 12:
        dark = ["#ffffff" if value > 0.5 else "#1a1a1a" for value in fraction.ravel()]
        data.data["ink"] = dark
        plot.text(
            "predicted", "true", "series", source=data, text_align="center", text_baseline="middle", text_color="ink"
        )
    plot.xaxis.major_label_orientation = 0.9
    plot.grid.grid_line_color = None
    plot.add_layout(ColorBar(color_mapper=mapper, ticker=BasicTicker(desired_num_ticks=3), title="fraction"), "right")
    table = [[name, *map(str, row)] for name, row in zip(names, counts.tolist(), strict=True)]
    right = int(np.trace(counts))
    words = f"{right} of {int(counts.sum())} {scored} series lie on the diagonal"
    return Figure(f"Confusion matrix of the {scored} series", plot, words, ["true / predicted", *names], table)


def series(example: "Example", sampling_rate_hz: float | None) -> Figure:
    """A series with what the model says of it."""
    assert example.values is not None
    known = "" if example.label is None else f"{example.label}, "
    name = example.file or f"Series {example.index}"
    title = f"{name}: {known}predicted {example.predicted} ({example.probability:.2f})"
    return drawn(title, example.why, example.values, sampling_rate_hz)


def drawn(title: str, words: str, series: np.ndarray, sampling_rate_hz: float | None) -> Figure:
    """A series `(C, L)` against time; every channel a line, long ones as the envelope of neighbouring points."""
    unit = "time (s)" if sampling_rate_hz else "time (points)"
    plot = _figure(unit, "value", height=220)
    for channel, values in enumerate(series[:6]):
        at, low, high = envelope(values, MAX_POINTS)
        x = np.repeat(at / (sampling_rate_hz or 1), 2)
        y = np.stack([low, high], axis=1).ravel()
        shown = np.isfinite(y)
        options: dict[str, Any] = {"legend_label": f"channel {channel}"} if len(series) > 1 else {}
        plot.line(x[shown], y[shown].astype(float), color=COLOURS[channel % 6], **options)
    if len(series) > 1:
        _legend_above(plot)
    observed = series[np.isfinite(series)]
    extent = f"from {observed.min():.3g} to {observed.max():.3g}" if observed.size else "without an observed point"
    words = f"{words}; " if words else ""
    return Figure(title, plot, f"{words}{series.shape[-1]:,} points, values {extent}", [], [])


def scores(title: str, rows: Sequence[tuple[str, float, float, float]]) -> Figure:
    """A score of each model or variant with its interval: name, score, low, high."""
    names = ["\n".join(textwrap.wrap(row[0], WIDTH)) for row in rows]
    num_lines = max(name.count("\n") + 1 for name in names)
    plot = _figure(title, "", height=120 + (16 + 14 * num_lines) * len(rows), y_range=list(reversed(names)))
    plot.segment([row[2] for row in rows], names, [row[3] for row in rows], names, color=COLOURS[0], line_width=3)
    plot.scatter([row[1] for row in rows], names, size=10, color=COLOURS[1])
    table = [[name, f"{score:.3f}", f"{low:.3f} to {high:.3f}"] for name, score, low, high in rows]
    plot.yaxis.axis_label = None
    words = "; ".join(f"{name} {score:.3f}" for name, score, *_ in rows)
    return Figure(f"{title} with 95 % intervals", plot, words, ["name", title, "interval"], table)


def points(title: str, lines: Mapping[str, Sequence[tuple[str, float]]]) -> Figure:
    """A score on each data set, a marker for each model or variant: by its name, data sets and scores."""
    names = list(dict.fromkeys(name for line in lines.values() for name, _ in line))
    plot = _figure(title, "data set", height=150 + 26 * len(names), y_range=list(reversed(names)))
    for position, (label, line) in enumerate(lines.items()):
        look = {"color": COLOURS[position % 6], "marker": MARKERS[position % 6], "legend_label": label}
        plot.scatter([score for _, score in line], [name for name, _ in line], size=10, fill_alpha=0.6, **look)
    _legend_above(plot)
    at = [dict(line) for line in lines.values()]
    rows = [[name, *(f"{by[name]:.3f}" if name in by else "" for by in at)] for name in names]
    best = {
        label: sum(by.get(name) == max(b[name] for b in at if name in b) for name in names)
        for label, by in zip(lines, at, strict=True)
    }
    words = "; ".join(f"{label} is best on {count} of {len(names)} data sets" for label, count in best.items())
    return Figure(f"{title} on each data set", plot, f"{words}, ties counted for all", ["data set", *lines], rows)


def attributions(
    occlusion: np.ndarray, gradients: np.ndarray, sampling_rate_hz: float | None, x_range: Any = None
) -> Figure:
    """What each stretch of a series adds to the log-odds of the class, and each point to the network's logit."""
    plot = _figure("time (s)" if sampling_rate_hz else "time (points)", "log-odds (nats)", height=220)
    if x_range is not None:
        plot.x_range = x_range
    time = np.arange(len(occlusion)) / (sampling_rate_hz or 1)
    step = max(1, -(-len(time) // MAX_POINTS))
    plot.line(time[::step], occlusion[::step].astype(float), color=COLOURS[0], line_width=2, legend_label="occlusion")
    if gradients.any():
        _add_gradients(plot, time, gradients)
    _legend_above(plot)
    peak = int(np.argmax(occlusion))
    unit = f"{peak / sampling_rate_hz:.3g} s" if sampling_rate_hz else f"point {peak:,}"
    words = f"hiding the stretch around {unit} costs most: {float(occlusion[peak]):.3g} nats of the class's log-odds"
    return Figure("What decided", plot, words, [], [])


def _add_gradients(plot: Any, time: np.ndarray, gradients: np.ndarray) -> None:
    """What each point adds to the network's logit, smoothed, on an axis of its own."""
    from bokeh.models import LinearAxis, Range1d

    step = max(1, -(-len(time) // MAX_POINTS))
    width = max(1, len(time) // 200)
    smooth = np.convolve(gradients, np.ones(width), mode="same")
    extent = float(np.abs(smooth).max()) or 1.0
    plot.extra_y_ranges = {"gradients": Range1d(start=-1.05 * extent, end=1.05 * extent)}
    label = f"network's logit in {width} points"
    axis = LinearAxis(y_range_name="gradients", axis_label=label, axis_label_text_font_style="normal")
    plot.add_layout(axis, "right")
    look = {"color": COLOURS[1], "line_dash": "dashed", "legend_label": "integrated gradients"}
    plot.line(time[::step], smooth[::step].astype(float), y_range_name="gradients", **look)


def attention(received: Sequence[np.ndarray], duration: float, unit: str, x_range: Any = None) -> Figure:
    """For each layer, the fraction of all attention that each stretch of time gets, times the number of stretches."""
    plot = _figure(f"time ({unit})", "attention over its mean", height=200)
    if x_range is not None:
        plot.x_range = x_range
    for layer, fraction in enumerate(received):
        edges = np.linspace(0, duration, len(fraction) + 1)
        look = {"color": COLOURS[layer % 6], "line_dash": DASHES[layer % 6], "legend_label": f"layer {layer + 1}"}
        plot.step(edges[:-1], (fraction * len(fraction)).astype(float), mode="after", line_width=2, **look)
    _legend_above(plot)
    most = [int(np.argmax(fraction)) for fraction in received]
    places = ", ".join(
        f"layer {layer + 1} at {duration * at / len(received[layer]):.3g} {unit}" for layer, at in enumerate(most)
    )
    return Figure("Where the network attends to", plot, f"the most attention lies in {places}", [], [])
