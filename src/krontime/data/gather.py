"""What a model says of windows, gathered by recording and by time.

Shape letters: n windows, R recordings, K classes, S stretches of time.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from krontime.data.series import UNKNOWN_LABEL, Windows
from krontime.data.windows import RECORDING, START, STOP, labels_of, points_covered


class Recordings(NamedTuple):
    """What windows say of the recordings that they are of.

    Attributes:
        recording: int64 `(R,)`, rising positions of those that have windows.
        probability: float64 `(R, K)`, the mean over the windows of each that have a value; NaN where none has.
        num_windows: int64 `(R,)`, how many those are.
        position: int64 `(n,)`, row of each window's recording in these.
    """

    recording: np.ndarray
    probability: np.ndarray
    num_windows: np.ndarray
    position: np.ndarray


def by_recording(windows: Windows, probability: np.ndarray, observed: np.ndarray) -> Recordings:
    """The mean of the probabilities `(n, K)` of each recording's windows, those left out that have no value `(n,)`."""
    recording, position = np.unique(windows.recording, return_inverse=True)
    total = np.zeros((len(recording), probability.shape[1]))
    np.add.at(total, position[observed], probability[observed])
    counts = np.bincount(position[observed], minlength=len(recording))
    mean = np.divide(total, counts[:, None], out=np.full_like(total, np.nan), where=counts[:, None] > 0)
    return Recordings(recording, mean, counts, position)


def most_frequent(windows: Windows, labels: np.ndarray, num_classes: int) -> np.ndarray:
    """int64 `(R,)`: the class that most windows `(n,)` of each recording have, or `UNKNOWN_LABEL`."""
    recording, position = np.unique(windows.recording, return_inverse=True)
    counts = np.zeros((len(recording), num_classes), np.int64)
    known = labels != UNKNOWN_LABEL
    np.add.at(counts, (position[known], labels[known]), 1)
    return np.where(counts.any(axis=1), counts.argmax(axis=1), UNKNOWN_LABEL)


class Stretch(NamedTuple):
    """Neighbouring points of a recording that the same windows cover.

    Attributes:
        recording: its position.
        start: first point, `(S,)` of one recording.
        stop: the point after the last.
        probability: float64 `(S, K)`, the mean over the windows that cover it.
    """

    recording: int
    start: np.ndarray
    stop: np.ndarray
    probability: np.ndarray


def by_time(windows: Windows, probability: np.ndarray) -> Iterator[Stretch]:
    """For each recording, what the windows say of each stretch of it; stretches that no window covers are left out."""
    order = np.lexsort((windows.start, windows.recording))
    starts_of = np.unique(windows.recording[order], return_index=True)
    borders = [*starts_of[1].tolist(), len(order)]
    for number, recording in enumerate(starts_of[0].tolist()):
        mine = order[borders[number] : borders[number + 1]]
        start, stop = windows.start[mine], windows.start[mine] + windows.length[mine]
        times = np.unique(np.concatenate([start, stop]))
        change = np.zeros((len(times), probability.shape[1] + 1))
        said = np.concatenate([probability[mine], np.ones((len(mine), 1))], axis=1)
        np.add.at(change, np.searchsorted(times, start), said)
        np.add.at(change, np.searchsorted(times, stop), -said)
        total = np.cumsum(change, axis=0)[:-1]
        covered = np.rint(total[:, -1]) > 0
        mean = np.clip(total[covered, :-1] / total[covered, -1:], 0.0, 1.0)
        yield Stretch(recording, times[:-1][covered], times[1:][covered], mean)


def split_at(stretch: Stretch, annotations: np.ndarray) -> Stretch:
    """The same stretches, divided where annotations start or stop, so that each has the same classes throughout."""
    mine = annotations[annotations[:, RECORDING] == stretch.recording]
    times = np.unique(np.concatenate([stretch.start, stretch.stop, mine[:, START], mine[:, STOP]]))
    part_of = np.searchsorted(stretch.start, times[:-1], side="right") - 1
    inside = (part_of >= 0) & (times[:-1] < stretch.stop[part_of])
    return Stretch(stretch.recording, times[:-1][inside], times[1:][inside], stretch.probability[part_of[inside]])


def labels_over_time(stretch: Stretch, annotations: np.ndarray, num_classes: int) -> np.ndarray:
    """int64 `(S,)`: the class that annotations give to most of each stretch, or `UNKNOWN_LABEL`."""
    mine = annotations[annotations[:, RECORDING] == stretch.recording]
    return labels_of(_as_windows(stretch), mine, num_classes, rule="majority")


def are_annotated_as(stretch: Stretch, classes: np.ndarray, annotations: np.ndarray) -> np.ndarray:
    """bool `(S,)`: whether an annotation of its class `(S,)` touches each stretch, whatever others do."""
    mine = annotations[annotations[:, RECORDING] == stretch.recording]
    where = _as_windows(stretch)
    touched = np.zeros(len(classes), bool)
    for label in np.unique(classes).tolist():
        touched |= (classes == label) & (points_covered(where, mine, label) > 0)
    return touched


def _as_windows(stretch: Stretch) -> Windows:
    return Windows(np.full(len(stretch.start), stretch.recording), stretch.start, stretch.stop - stretch.start)


def segments(stretch: Stretch, classes: np.ndarray) -> Stretch:
    """Neighbouring stretches of one decided class `(S,)` joined; probabilities are means over their points."""
    if not len(stretch.start):
        return stretch
    opens = np.concatenate([[True], (classes[1:] != classes[:-1]) | (stretch.start[1:] != stretch.stop[:-1])])
    first = np.flatnonzero(opens)
    points = (stretch.stop - stretch.start)[:, None]
    mean = np.add.reduceat(stretch.probability * points, first) / np.add.reduceat(points, first)
    last = np.concatenate([first[1:] - 1, [len(opens) - 1]])
    return Stretch(stretch.recording, stretch.start[first], stretch.stop[last], mean)
