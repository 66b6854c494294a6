"""What windows say of recordings, counted point by point."""

import numpy as np
import pytest

from krontime.data.series import SeriesData
from krontime.data.windows import cut
from krontime.runs.recordings import gather

LENGTH = 10_000


def recordings(annotations) -> SeriesData:
    """A training and a test recording of the same annotations `(start, stop, label)`."""
    rows = [(recording, *row) for recording in (0, 1) for row in annotations]
    return SeriesData(
        values=np.random.default_rng(0).normal(size=2 * LENGTH).astype(np.float32),
        offsets=np.array([0, LENGTH, 2 * LENGTH]),
        labels=np.array([-1, -1]),
        is_test=np.array([False, True]),
        class_names=("a", "b"),
        num_channels=1,
        has_missing=False,
        annotations=np.array(rows),
    )


def right_on_windows(data: SeriesData):
    """What is gathered from a classifier that gives every test window its label."""
    indices = np.flatnonzero(data.is_test)
    return gather(data, indices, np.eye(2)[data.labels[indices]], np.array([0.5, 0.5]))


@pytest.mark.parametrize(("length", "stride"), [(1000, 1000), (1000, 500), (1000, 100), (400, 800), (1000, 1500)])
def test_accuracy_over_time_is_that_of_points(length, stride):
    annotations = [(start, min(start + 700, LENGTH), start // 700 % 2) for start in range(0, LENGTH, 700)]
    data = cut(recordings(annotations), length=length, stride=stride)
    gathered = right_on_windows(data)
    truth, predicted, drawn = (np.full(LENGTH, -1) for _ in range(3))
    for start, stop, label in annotations:
        truth[start:stop] = label
    for stretch, classes in gathered.segments:
        for start, stop, label in zip(stretch.start, stretch.stop, classes, strict=True):
            predicted[start:stop] = label
    covered = predicted >= 0
    assert gathered.accuracy_over_time == (predicted == truth)[covered].mean() < 1
    for stretch, _, true in gathered.timelines:
        for start, stop, label in zip(stretch.start, stretch.stop, true, strict=True):
            drawn[start:stop] = label
    np.testing.assert_array_equal(drawn[covered], truth[covered])
    outside = f"{1 - covered.mean():.1%} of the labelled time in no window that is left"
    assert (outside in data.notes) == (not covered.all())


def test_either_of_two_classes_at_once_is_right():
    data = cut(recordings([(0, LENGTH, 0), (4000, 6000, 1)]), length=1000, stride=1000, rule="any")
    assert right_on_windows(data).accuracy_over_time == 1.0
