"""Gathers what a model says of windows into a table of recordings, a table of segments, and scores of both.

Shape letters: n windows, R recordings, K classes, m annotations.
"""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from krontime.data.gather import (
    Stretch,
    are_annotated_as,
    by_recording,
    by_time,
    labels_over_time,
    most_frequent,
    segments,
    split_at,
)
from krontime.data.series import UNKNOWN_LABEL, SeriesData, Windows
from krontime.data.windows import LABEL
from krontime.metrics import decide
from krontime.runs.predictions import Predictions

if TYPE_CHECKING:
    from pyarrow import Table

MAX_DRAWN = 4
"""Number of recordings that are plotted, at most."""


class Gathered(NamedTuple):
    """What a model says of recordings.

    Attributes:
        recording: int64 `(R,)`, positions of those that have windows.
        names: of each.
        labels: int64 `(R,)`, the class that most of their windows have, or `UNKNOWN_LABEL`.
        probability: float64 `(R, K)`, the mean over their windows that have a value; NaN where none has.
        num_windows: int64 `(R,)`, how many those are.
        are_of_one_class: whether all windows of each have the same class, so that scores of recordings mean something.
        segments: their stretches of one predicted class, and the predicted class of each.
        timelines: the stretches that were decided, divided where the true class changes, with both classes of each.
        accuracy_over_time: of the points in windows that have a known class, the fraction where the predicted class is
            it, or one of several; None where there are none.
    """

    recording: np.ndarray
    names: list[str]
    labels: np.ndarray
    probability: np.ndarray
    num_windows: np.ndarray
    are_of_one_class: bool
    segments: list[tuple[Stretch, np.ndarray]]
    timelines: list[tuple[Stretch, np.ndarray, np.ndarray]]
    accuracy_over_time: float | None


def gather(data: SeriesData, indices: np.ndarray, probability: np.ndarray, prior: np.ndarray) -> Gathered:
    """Gather probabilities `(n, K)` of the windows at `indices`; see `decide` for the prior `(K,)`."""
    assert data.windows is not None
    windows = Windows(*(column[indices] for column in data.windows))
    observed = data.observed(indices)
    means = by_recording(windows, probability, observed)
    annotations = _annotations(data)
    labels = most_frequent(windows, data.labels[indices], len(data.class_names))
    joined, timelines = [], []
    right = known = 0
    seen = Windows(*(column[observed] for column in windows))
    for alike in by_time(seen, np.asarray(probability, np.float64)[observed]):
        stretch = split_at(alike, annotations)
        predicted = decide(stretch.probability, prior)
        truth = labels_over_time(stretch, annotations, len(data.class_names))
        truth = np.where(are_annotated_as(stretch, predicted, annotations), predicted, truth)  # one of several
        whole = segments(stretch, predicted)
        joined.append((whole, predicted[np.searchsorted(stretch.start, whole.start)]))
        timelines.append((stretch, predicted, truth))
        points = stretch.stop - stretch.start
        known += int(points[truth != UNKNOWN_LABEL].sum())
        right += int(points[truth == predicted].sum())
    return Gathered(
        recording=means.recording,
        names=[_name(data, number) for number in means.recording.tolist()],
        labels=labels,
        probability=means.probability,
        num_windows=means.num_windows,
        are_of_one_class=bool((data.labels[indices] == labels[means.position]).all()),
        segments=joined,
        timelines=timelines,
        accuracy_over_time=right / known if known else None,
    )


def segment_table(data: SeriesData, gathered: Gathered) -> "Table":
    """Make the table of segments, a row each.

    Columns: the recording, where the segment starts and stops (in points, and in seconds where the sampling rate is
    known), its predicted class, and the mean probability of every class over it.
    """
    import pyarrow as pa

    columns: dict[str, list[object]] = {name: [] for name in ("recording", "start", "stop")}
    rate = data.sampling_rate_hz
    for name in (*(("start_s", "stop_s") if rate else ()), "predicted", *(f"p_{name}" for name in data.class_names)):
        columns[name] = []
    for stretch, classes in gathered.segments:
        columns["recording"] += [_name(data, stretch.recording)] * len(classes)
        columns["start"] += stretch.start.tolist()
        columns["stop"] += stretch.stop.tolist()
        if rate:
            columns["start_s"] += (stretch.start / rate).round(6).tolist()
            columns["stop_s"] += (stretch.stop / rate).round(6).tolist()
        columns["predicted"] += [data.class_names[code] for code in classes.tolist()]
        for code, name in enumerate(data.class_names):
            columns[f"p_{name}"] += stretch.probability[:, code].round(6).tolist()
    return pa.table(columns)


def of_recordings(data: SeriesData, gathered: Gathered, prior: np.ndarray) -> Predictions:
    """Make predictions of recordings, by their position; those without any window that has a value get no class."""
    predictions = Predictions.from_codes(
        gathered.recording, gathered.labels, gathered.probability, data.class_names, prior
    )
    return replace(predictions, observed=gathered.num_windows > 0)


def recording_table(data: SeriesData, gathered: Gathered, prior: np.ndarray) -> "Table":
    """Make the table of recordings: true and predicted class, number of windows, and mean probabilities of each."""
    import pyarrow as pa

    names = data.class_names
    return pa.table(
        {
            "recording": gathered.names,
            "label": pa.array([names[code] if code >= 0 else None for code in gathered.labels.tolist()], pa.string()),
            "predicted": [names[code] for code in decide(gathered.probability, prior).tolist()],
            "num_windows": gathered.num_windows,
            **{f"p_{name}": gathered.probability[:, code].round(6) for code, name in enumerate(names)},
        }
    )


def plot_recordings(data: SeriesData, gathered: Gathered, path: Path) -> None:
    """Draw the first few recordings, with the true and the predicted class at each time beneath, as PNG."""
    from matplotlib.figure import Figure

    from krontime.data.summary import MAX_PLOTTED_POINTS, envelope
    from krontime.storage import replacing

    chosen = gathered.timelines[:MAX_DRAWN]
    unit = data.sampling_rate_hz or 1.0
    figure = Figure(figsize=(9, 3.2 * len(chosen)), dpi=120, layout="constrained")
    axes = figure.subplots(2 * len(chosen), 1, squeeze=False, height_ratios=[2, 1] * len(chosen))[:, 0]
    for row, (stretch, predicted, true) in enumerate(chosen):
        above, beneath = axes[2 * row], axes[2 * row + 1]
        for channel, values in enumerate(data.stretch(stretch.recording)):
            place, low, high = envelope(values, MAX_PLOTTED_POINTS)
            above.fill_between(place / unit, low, high, linewidth=0.4, color=f"C{channel % 10}", alpha=0.7)
        above.set_title(_name(data, stretch.recording), fontsize=9, loc="left", parse_math=False)
        for classes, label, options in (
            (true, "true", {"linewidth": 5, "color": "#BBBBBB"}),
            (predicted, "predicted", {"linewidth": 1.4, "color": "#0072B2", "linestyle": "--"}),
        ):
            times, levels = _steps(stretch, classes)
            beneath.plot(times / unit, levels, label=label, **options)
        beneath.set_yticks(range(len(data.class_names)), data.class_names, fontsize=8, parse_math=False)
        beneath.set_ylim(-0.5, len(data.class_names) - 0.5)
        beneath.set_xlim(above.get_xlim())
        beneath.legend(fontsize=7, loc="upper right", ncols=2)
    axes[-1].set_xlabel("time point" if data.sampling_rate_hz is None else "seconds", fontsize=8)
    words = "Recordings, and beneath each its true (grey, thick) and predicted (blue, dashed) class over time."
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", metadata={"Description": words})


def _steps(stretch: Stretch, classes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the times and levels of a stepped line that is broken where no class is known."""
    times = np.stack([stretch.start, stretch.stop], axis=1).ravel().astype(float)
    levels = np.repeat(np.where(classes == UNKNOWN_LABEL, np.nan, classes), 2)
    return times, levels


def _annotations(data: SeriesData) -> np.ndarray:
    """Return rows of recording, start, stop and label; a labelled recording has one row over all of it."""
    if data.annotations is not None:
        return data.annotations[data.annotations[:, LABEL] != UNKNOWN_LABEL]
    assert data.windows is not None
    recording, first = np.unique(data.windows.recording, return_index=True)
    labels = data.labels[first]
    rows = np.stack([recording, np.zeros_like(recording), np.diff(data.offsets)[recording], labels], axis=1)
    return rows[labels != UNKNOWN_LABEL]


def _name(data: SeriesData, recording: int) -> str:
    return data.recording_names[recording] if data.recording_names else str(recording)
