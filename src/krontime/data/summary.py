"""What a data set holds, as text and as a picture."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from krontime.data.assemble import also_trained_on
from krontime.data.series import SeriesData
from krontime.data.split import Split

if TYPE_CHECKING:
    from rich.console import Group

MAX_PLOTTED_POINTS = 800
MAX_PLOTTED_CLASSES = 12
MAX_NAMES = 8
"""Maximum number of classes that the line on what was read names."""

MAX_NAME = 30
"""Longest name of a class there."""


def what_was_read(data: SeriesData, *, name: str, split: Split | None = None) -> str:
    """One line on series that were read, whatever from: how many, how long, of what, and what the reader left out.

    Args:
        data: the series.
        name: what to call them.
        split: their train, validation and test parts; None for new files.
    """
    lengths = data.lengths
    low, high = int(lengths.min()), int(lengths.max())
    length = f"{high:,} points" if low == high else f"{low:,} to {high:,} points"
    if data.sampling_rate_hz is not None:
        seconds = f"{high / data.sampling_rate_hz:.4g} s"
        if low != high:
            seconds = f"{low / data.sampling_rate_hz:.4g} to {seconds}"
        length += f" ({seconds} at {data.sampling_rate_hz:,.6g} Hz)"
    elif data.rates_hz is not None:
        length += f" ({data.rates_hz.min():,.6g} to {data.rates_hz.max():,.6g} Hz)"
    parts = [f"{_count(len(data), 'series', 'series')} of {length}, {_count(data.num_channels, 'channel')}"]
    if data.has_missing:
        parts.append("some values missing")
    if split is not None:
        alike = Counter(name.casefold() for name in data.class_names)
        same = [name for name in data.class_names if alike[name.casefold()] > 1]
        names = [name if len(name) <= MAX_NAME else f"{name[: MAX_NAME - 3]}..." for name in data.class_names]
        more = ", ..." if len(names) > MAX_NAMES else ""
        parts.append(f"{_count(len(names), 'class', 'classes')} ({', '.join(names[:MAX_NAMES])}{more})")
        sizes = (("train", split.train), ("validation", split.validation), ("test", split.test))
        parts.append(", ".join(f"{len(indices):,} {part}" for part, indices in sizes))
        if same:
            parts.append(f"classes that differ in case alone: {', '.join(same[:MAX_NAMES])}")
    return f"{name}: " + "; ".join([*parts, *data.notes])


def _count(number: int, one: str, several: str | None = None) -> str:
    return f"{number:,} {one if number == 1 else several or f'{one}s'}"


def summary(data: SeriesData, *, name: str, split: Split) -> "Group":
    """Counts, lengths, classes, missing fraction, groups, rate and checksum, to be printed on a rich console.

    Args:
        data: the data set.
        name: what to call it.
        split: its train, validation and test parts.
    """
    from rich.console import Group
    from rich.table import Table

    lengths = data.lengths
    facts = Table(title=name, show_header=False, title_justify="left")
    facts.add_column()
    facts.add_column(overflow="fold")
    low, middle, high = (f"{n:,.0f}" for n in (lengths.min(), np.median(lengths), lengths.max()))
    equal = lengths.min() == lengths.max()
    shared = also_trained_on(data)
    rate = data.sampling_rate_hz
    protocol = ", ".join(f"{key} {value}" for key, value in split.protocol.items() if value is not None)
    for key, value in (
        ("series", f"{len(data):,}"),
        ("length", f"{high} points" if equal else f"{low} to {high} points, median {middle}"),
        ("channels", str(data.num_channels)),
        ("classes", str(len(data.class_names))),
        (
            "sampling rate",
            "not known" if rate is None else f"{rate:g} Hz ({high} points are {lengths.max() / rate:.4g} s)",
        ),
        ("missing values", f"{missing_share(data):.2%}" if data.has_missing else "none"),
        ("groups", "none" if data.groups is None else f"{len(np.unique(data.groups))} ({data.group_name})"),
        (
            "tested and trained on",
            f"{len(shared):,} series, such as {', '.join(map(str, shared[:5]))}" if shared.size else "none",
        ),
        ("validation", protocol),
        ("checksum", data.sha256 or "not cached"),
    ):
        facts.add_row(key, value)

    parts = {"train": split.train, "validation": split.validation, "test": split.test}
    counts = Table(title="series of each class", title_justify="left")
    counts.add_column("class", overflow="fold")
    for part in parts:
        counts.add_column(part, justify="right")
    per_class = {
        part: np.bincount(data.labels[indices], minlength=len(data.class_names)) for part, indices in parts.items()
    }
    for label, class_name in enumerate(data.class_names):
        counts.add_row(class_name, *(f"{per_class[part][label]:,}" for part in parts), end_section=False)
    counts.add_section()
    counts.add_row("all", *(f"{len(indices):,}" for indices in parts.values()))
    return Group(facts, counts)


def missing_share(data: SeriesData) -> float:
    """Fraction of values that are NaN, read in chunks so that a large memory map is never held at once."""
    step = 1 << 22
    missing = 0
    for start in range(0, len(data.values), step):
        chunk = data.values[start : start + step]
        missing += int((np.isnan(chunk) if data.scale is None else chunk == data.missing_code).sum())
    return missing / len(data.values)


def plot(data: SeriesData, split: Split, path: Path, *, series_per_class: int = 3) -> None:
    """Draw a few training series of each class, one row for each class (the first dozen), as a PNG file.

    Long series are drawn as the band between the smallest and largest value of each stretch of points, so that bursts
    stay visible. Channels lie over each other in different colours.

    Args:
        data: the data set.
        split: its parts; only training series are drawn.
        path: PNG file to write.
        series_per_class: columns.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    classes = range(min(len(data.class_names), MAX_PLOTTED_CLASSES))
    figure = Figure(figsize=(3.2 * series_per_class, 1.4 * len(classes) + 0.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(classes), series_per_class, squeeze=False)
    unit = 1.0 if data.sampling_rate_hz is None else data.sampling_rate_hz
    for row, label in enumerate(classes):
        chosen = split.train[data.labels[split.train] == label][:series_per_class]
        for column in range(series_per_class):
            axis = axes[row, column]
            axis.tick_params(labelsize=7)
            if column >= len(chosen):
                axis.axis("off")
                continue
            for channel, values in enumerate(data.series(int(chosen[column]))):
                time, low, high = envelope(values, MAX_PLOTTED_POINTS)
                if len(time) == len(values):
                    axis.plot(time / unit, low, linewidth=0.8, color=f"C{channel % 10}")
                else:
                    axis.fill_between(time / unit, low, high, linewidth=0.3, color=f"C{channel % 10}", alpha=0.8)
            if column == 0:
                axis.set_title(data.class_names[label], fontsize=8, loc="left")
    axes[-1, 0].set_xlabel("time point" if data.sampling_rate_hz is None else "seconds", fontsize=8)
    figure.savefig(path, format="png", dpi=120)


def envelope(values: np.ndarray, max_points: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """First point, smallest and largest value of at most `max_points` equal stretches of `(L,)` values.

    A stretch without any observed value is NaN.
    """
    stretch = -(-len(values) // max_points)
    padded = np.full(-(-len(values) // stretch) * stretch, np.nan, np.float32)
    padded[: len(values)] = values
    blocks = padded.reshape(-1, stretch)
    return np.arange(len(blocks)) * stretch, np.fmin.reduce(blocks, axis=1), np.fmax.reduce(blocks, axis=1)
