"""Windows gathered by recording and by time, against what single points say."""

import numpy as np

from krontime.data.gather import (
    are_annotated_as,
    by_recording,
    by_time,
    labels_over_time,
    most_frequent,
    segments,
    split_at,
)
from krontime.data.series import UNKNOWN_LABEL
from krontime.data.windows import index_of


def test_means_over_windows_and_over_time():
    rng = np.random.default_rng(0)
    windows = index_of(np.array([37, 12, 50]), length=12, stride=5)
    probability = rng.dirichlet([1, 1, 1], len(windows.start))
    means = by_recording(windows, probability, np.ones(len(probability), bool))
    assert means.num_windows.tolist() == [6, 1, 8]
    np.testing.assert_allclose(means.probability[0], probability[:6].mean(axis=0))
    for stretch in by_time(windows, probability):
        for start, stop, row in zip(stretch.start, stretch.stop, stretch.probability, strict=True):
            for point in (start, stop - 1):
                covers = (
                    (windows.recording == stretch.recording)
                    & (windows.start <= point)
                    & (point < windows.start + windows.length)
                )
                np.testing.assert_allclose(row, probability[covers].mean(axis=0))
    assert [stretch.stop[-1] for stretch in by_time(windows, probability)] == [37, 12, 47]


def test_windows_without_a_value_do_not_count():
    windows = index_of(np.array([30, 10]), length=10, stride=10)
    probability = np.array([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5], [1.0, 0.0]])
    means = by_recording(windows, probability, np.array([True, False, True, False]))
    assert means.num_windows.tolist() == [2, 0]
    np.testing.assert_array_equal(means.probability, [[0.75, 0.25], [np.nan, np.nan]])


def test_segments_join_neighbours_of_one_class():
    windows = index_of(np.array([40]), length=10, stride=10)
    stretch = next(iter(by_time(windows, np.array([[0.9, 0.1], [0.7, 0.3], [0.2, 0.8], [0.6, 0.4]]))))
    joined = segments(stretch, stretch.probability.argmax(axis=1))
    assert joined.start.tolist() == [0, 20, 30]
    assert joined.stop.tolist() == [20, 30, 40]
    np.testing.assert_allclose(joined.probability[0], [0.8, 0.2])


def test_segments_end_where_no_window_is():
    windows = index_of(np.array([50]), length=10, stride=20)
    stretch = next(iter(by_time(windows, np.tile([0.9, 0.1], (3, 1)))))
    assert segments(stretch, np.zeros(3, int)).start.tolist() == [0, 20, 40]


def test_the_true_class_of_recordings_and_of_stretches():
    windows = index_of(np.array([40, 20]), length=10, stride=10)
    labels = np.array([1, 1, 0, UNKNOWN_LABEL, UNKNOWN_LABEL, UNKNOWN_LABEL])
    assert most_frequent(windows, labels, 2).tolist() == [1, UNKNOWN_LABEL]
    stretch = next(iter(by_time(windows, np.ones((6, 1)))))
    assert labels_over_time(stretch, np.array([[0, 5, 22, 1], [1, 0, 20, 0]]), 2).tolist() == [1, 1, -1, -1]


def test_stretches_are_divided_where_annotations_start_or_stop():
    windows = index_of(np.array([60]), length=10, stride=20)
    stretch = next(iter(by_time(windows, np.array([[0.9], [0.7], [0.2]]))))
    annotations = np.array([[0, 4, 23, 0], [0, 23, 35, 1], [0, 40, 50, 1], [1, 2, 3, 0]])
    parts = split_at(stretch, annotations)
    assert parts.start.tolist() == [0, 4, 20, 23, 40]
    assert parts.stop.tolist() == [4, 10, 23, 30, 50]
    assert parts.probability[:, 0].tolist() == [0.9, 0.9, 0.7, 0.7, 0.2]
    assert labels_over_time(parts, annotations, 2).tolist() == [-1, 0, 0, 1, 1]
    classes = np.array([0, 0, 1, 1, 0])
    assert are_annotated_as(parts, classes, annotations).tolist() == [False, True, False, True, False]
    of_another = split_at(stretch, annotations[annotations[:, 0] == 1])
    assert of_another.start.tolist() == [0, 20, 40]
