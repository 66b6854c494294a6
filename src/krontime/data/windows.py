"""Recordings cut into windows, each of which is a series with a class of its own.

A window is a place in what is stored; nothing is copied. What annotations say of its stretch gives its class, or the
class of the recording where that has one as a whole. Windows keep to the split of their recording, and windows of one
recording, patient or machine are a group that no validation split divides.

Shape letters: n windows, R recordings, K classes, m annotations.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, get_args

import numpy as np

from krontime.data.assemble import encode_groups, unseen_problems
from krontime.data.series import UNKNOWN_LABEL, SeriesData, Windows
from krontime.errors import UserError

Rule = Literal["majority", "any", "start", "center", "end"]
RECORDING, START, STOP, LABEL = range(4)
"""Columns of `SeriesData.annotations`."""


def is_cut(window: Mapping[str, Any]) -> bool:
    """Whether the options `data.window` make series of windows; else a network that has windows averages over them."""
    return window.get("label") is not None


def cut_as(data: SeriesData, window: Mapping[str, Any]) -> SeriesData:
    """The data as the options `data.window` say: cut into windows, or as it is.

    Raises:
        UserError: recordings are to be cut and it is not said how, or no split is left that can be trained on.
    """
    if not is_cut(window):
        if data.annotations is not None:
            raise UserError(
                f"data.window.label=None: expected {', '.join(get_args(Rule))}, since recordings with annotations are "
                "cut into windows, and data.window.length=POINTS"
            )
        return data
    return cut(
        data,
        length=window["length"],
        stride=window.get("stride") or window["length"],
        rule=window["label"],
        min_overlap=window.get("min_overlap", 0.0),
        unlabelled=window.get("unlabelled"),
    )


def cut(
    data: SeriesData,
    *,
    length: int,
    stride: int,
    rule: Rule = "majority",
    min_overlap: float = 0.0,
    unlabelled: str | None = None,
) -> SeriesData:
    """Windows of recordings as series.

    Args:
        data: recordings with annotations, or labelled series, which are recordings of one class each.
        length: points of a window; a shorter recording is one window of its own length.
        stride: points from the start of one window to the next.
        rule: the class of a window: `majority` (that which covers most of it, no label counting as one), `any` (of
            those that touch it, the one that covers fewest points of the training recordings), or that at its `start`,
            `center` or `end`.
        min_overlap: fraction of a window that its class has to cover, from 0 to 1; else it is unlabelled.
        unlabelled: class of the windows that have none; None leaves them out.

    Windows without any value are left out, whatever their class.

    Raises:
        UserError: nothing is left to train on, a class is validated or tested on and not trained on, windows have
            several classes at once, or would see what follows the point that says their class.
    """
    if data.by_time and rule != "end":
        raise UserError(
            f"data.window.label={rule!r}: expected end, since a window that goes on sees what its class says"
        )
    windows = index_of(np.diff(data.offsets), length=length, stride=stride)
    names = list(data.class_names)
    if data.annotations is None:
        labels = data.labels[windows.recording]
    else:
        if rule != "any" and _overlap(data.annotations):
            _refuse_several(data, windows, rule)
        known = data.annotations[~data.is_test[data.annotations[:, RECORDING]]]
        rarest = np.argsort(_points(known, len(names)), kind="stable")
        labels = labels_of(
            windows, data.annotations, len(names), rule=rule, min_overlap=min_overlap, rarest_first=rarest
        )
    missing = labels == UNKNOWN_LABEL
    if unlabelled is not None and missing.any():
        if unlabelled not in names:
            names.append(unlabelled)
        labels = np.where(missing, names.index(unlabelled), labels)
        missing = labels == UNKNOWN_LABEL
    observed = replace(data, labels=labels, windows=windows).observed()
    kept = Windows(*(column[observed & ~missing] for column in windows))
    labels = labels[observed & ~missing]
    is_test = data.is_test[kept.recording]
    groups, group_name = _groups(data)
    is_validation = None if data.is_validation is None else data.is_validation[kept.recording]
    position, class_names = _classes(
        replace(data, labels=labels, is_test=is_test, is_validation=is_validation, class_names=tuple(names))
    )
    labels, annotations = position[labels], data.annotations
    if annotations is not None:
        annotations = annotations.copy()
        annotations[:, LABEL] = position[annotations[:, LABEL]]
    notes = [f"windows of {length:,} points every {stride:,}, of {len(data.offsets) - 1:,} recordings"]
    if missing.any():
        notes.append(f"{int(missing.sum()):,} windows without a label left out")
    if not observed.all():
        notes.append(f"{int((~observed).sum()):,} windows without any value left out")
    if annotations is not None and (outside := _labelled_outside(annotations, kept)):
        notes.append(f"{outside:.1%} of the labelled time in no window that is left")
    if (num_short := int((kept.length < length).sum())) > 0:
        notes.append(f"{num_short:,} recordings shorter than a window")
    return replace(
        data,
        labels=labels,
        is_test=is_test,
        is_validation=is_validation,
        class_names=class_names,
        groups=groups[kept.recording],
        group_name=group_name,
        rates_hz=None if data.rates_hz is None else data.rates_hz[kept.recording],
        given_lengths=None,
        windows=kept,
        annotations=annotations,
        digests=None,
        notes=(*data.notes, *notes),
    )


def cut_new(data: SeriesData, *, length: int, stride: int) -> SeriesData:
    """Windows of new recordings, whose classes are to be found."""
    windows = index_of(np.diff(data.offsets), length=length, stride=stride)
    return replace(
        data,
        labels=data.labels[windows.recording],
        is_test=np.ones(len(windows.start), bool),
        rates_hz=None if data.rates_hz is None else data.rates_hz[windows.recording],
        given_lengths=None,
        windows=windows,
    )


def index_of(lengths: np.ndarray, *, length: int, stride: int) -> Windows:
    """All windows of recordings of `(R,)` points, in order; those at the end that would run over it are left out."""
    counts = np.maximum((lengths - length) // stride + 1, 1)
    recording = np.repeat(np.arange(len(lengths)), counts)
    first = np.repeat(np.cumsum(counts) - counts, counts)
    start = (np.arange(len(recording)) - first) * stride
    return Windows(recording, start, np.minimum(lengths[recording], length))


def labels_of(
    windows: Windows,
    annotations: np.ndarray,
    num_classes: int,
    *,
    rule: Rule,
    min_overlap: float = 0.0,
    rarest_first: Sequence[int] | np.ndarray = (),
) -> np.ndarray:
    """int64 `(n,)`, the class of each window, or `UNKNOWN_LABEL`; see `cut`."""
    covered_KN = np.stack([points_covered(windows, annotations, label) for label in range(num_classes)])
    if rule == "majority":
        labels = covered_KN.argmax(axis=0)
        unlabelled = windows.length - points_covered(windows, annotations, None)
        labels[covered_KN.max(axis=0) < np.maximum(unlabelled, 1)] = UNKNOWN_LABEL
    elif rule == "any":
        order = np.asarray(rarest_first if len(rarest_first) else np.arange(num_classes))
        touched_KN = covered_KN[order] > 0
        labels = np.where(touched_KN.any(axis=0), order[touched_KN.argmax(axis=0)], UNKNOWN_LABEL)
    else:
        point = _decided_at(windows, rule)
        at_KN = np.stack([points_covered(point, annotations, label) for label in range(num_classes)])
        labels = np.where(at_KN.any(axis=0), at_KN.argmax(axis=0), UNKNOWN_LABEL)
    fraction = np.take_along_axis(covered_KN, np.maximum(labels, 0)[None], axis=0)[0] / windows.length
    return np.where(fraction < min_overlap, UNKNOWN_LABEL, labels).astype(np.int64)


def _labelled_outside(annotations: np.ndarray, windows: Windows) -> float:
    """Fraction of the points of annotations with a class that no window covers."""
    annotations = annotations[annotations[:, LABEL] != UNKNOWN_LABEL]
    stretches = np.stack([windows.recording, windows.start, windows.start + windows.length, windows.start], axis=1)
    labelled = Windows(annotations[:, RECORDING], annotations[:, START], annotations[:, STOP] - annotations[:, START])
    return 1 - points_covered(labelled, stretches, None).sum() / labelled.length.sum()


def _decided_at(windows: Windows, rule: Rule) -> Windows:
    """What of each window says its class by a rule but `any`: the point of it that is meant, or all of it."""
    if rule == "majority":
        return windows
    offset = {"start": 0, "center": (windows.length - 1) // 2, "end": windows.length - 1}[rule]
    return Windows(windows.recording, windows.start + offset, np.ones_like(windows.length))


def _overlap(annotations: np.ndarray) -> bool:
    """Say whether any two annotations of a recording do."""
    ordered = annotations[np.lexsort((annotations[:, START], annotations[:, RECORDING]))]
    is_next = ordered[1:, RECORDING] == ordered[:-1, RECORDING]
    return bool((is_next & (ordered[1:, START] < ordered[:-1, STOP])).any())  # the first to overlap, with its neighbour


def _refuse_several(data: SeriesData, windows: Windows, rule: Rule) -> None:
    """Refuse windows of which two classes cover more than half, or the point that decides."""
    assert data.annotations is not None
    at = _decided_at(windows, rule)
    covered = [2 * points_covered(at, data.annotations, label) > at.length for label in range(len(data.class_names))]
    is_most_KN = np.stack(covered)
    several = np.flatnonzero(is_most_KN.sum(axis=0) > 1)
    if not len(several):
        return
    first = int(several[0])
    one, other = (data.class_names[label] for label in np.flatnonzero(is_most_KN[:, first])[:2])
    recording = int(windows.recording[first])
    name = data.recording_names[recording] if data.recording_names else recording
    raise UserError(
        f"data.window.label={rule!r}: {len(several):,} of {len(windows.start):,} windows have several classes at once, "
        f"as {one!r} and {other!r} from point {windows.start[first]:,} of recording {name}; several labels "
        "(multi-label) are not supported: expected annotations that do not overlap, or data.window.label=any, which "
        "takes the rarer"
    )


def points_covered(windows: Windows, annotations: np.ndarray, label: int | None) -> np.ndarray:
    """int64 `(n,)`: points of each window that annotations of a class cover, or those of any class for None."""
    chosen = annotations if label is None else annotations[annotations[:, LABEL] == label]
    if not len(chosen):
        return np.zeros(len(windows.start), np.int64)
    # All recordings one after the other on one line, so far apart that no window reaches another.
    room = int(max(chosen[:, STOP].max(), (windows.start + windows.length).max())) + 1
    starts, stops = _united(
        chosen[:, START] + room * chosen[:, RECORDING], chosen[:, STOP] + room * chosen[:, RECORDING]
    )
    before = np.concatenate([[0], np.cumsum(stops - starts)])

    def covered_before(point: np.ndarray) -> np.ndarray:
        position = np.searchsorted(starts, point, side="right") - 1
        inside = np.minimum(point, stops[position]) - starts[position]
        return np.where(position < 0, 0, before[position] + inside)

    first = windows.start + room * windows.recording
    return covered_before(first + windows.length) - covered_before(first)


def _united(starts: np.ndarray, stops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same stretches, rising, without overlaps."""
    order = np.argsort(starts, kind="stable")
    starts, stops = starts[order], np.maximum.accumulate(stops[order])
    opens = np.concatenate([[True], starts[1:] > stops[:-1]])
    return starts[opens], stops[np.concatenate([np.flatnonzero(opens)[1:] - 1, [len(stops) - 1]])]


def _points(annotations: np.ndarray, num_classes: int) -> np.ndarray:
    """`(K,)`: points that annotations of each class cover."""
    spans = annotations[:, STOP] - annotations[:, START]
    return np.bincount(annotations[:, LABEL], weights=spans, minlength=num_classes)


def _groups(data: SeriesData) -> tuple[np.ndarray, str]:
    """`(R,)` codes of what must not straddle a split, and its name: the data's own, or else the recordings.

    Labelled series may have groups on both sides of their official split; what is kept apart is each series then.
    """
    recordings = np.arange(len(data.offsets) - 1)
    if data.groups is None or np.isin(data.groups[data.is_test], data.groups[~data.is_test]).any():
        return recordings, "recording"
    return encode_groups(data.groups), data.group_name or "group"


def _classes(data: SeriesData) -> tuple[np.ndarray, tuple[str, ...]]:
    """The new label of each old one (`UNKNOWN_LABEL` for none), and the names of the classes of training windows.

    Raises:
        UserError: those are fewer than two, or validation or test windows have others.
    """
    names, used = data.class_names, np.unique(data.labels[data.is_training])
    if len(used) < 2:
        what = f"are all of class {names[used[0]]!r}" if len(used) else "are none"
        raise UserError(
            f"data.window: the training windows {what}; expected windows of at least two classes (another "
            "data.window.length, label or min_overlap, or data.window.unlabelled=NAME for a class of those without)"
        )
    if problems := unseen_problems(data, "windows"):
        raise UserError(
            f"data.window: {problem}; expected other recordings there (data.source.test_groups=[NAME,...]) or another "
            "data.window.label"
            for problem in problems
        )
    position = np.full(len(names), UNKNOWN_LABEL, np.int64)
    position[used] = np.arange(len(used))
    return position, tuple(names[label] for label in used)
