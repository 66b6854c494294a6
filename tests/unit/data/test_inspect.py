"""The summary states what the data holds; the plot keeps every burst."""

import io
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from krontime.data.split import split_indices
from krontime.data.summary import envelope, missing_share, plot, summary, what_was_read


@pytest.fixture
def data(make_data):
    lengths = [40, 2000, 30] * 8
    is_test = [False] * 18 + [True] * 6
    return make_data(
        lengths=lengths, labels=[0, 1, 2] * 8, is_test=is_test, num_channels=2, groups=list(range(24)), missing=0.25
    )


def test_summary_states_counts_lengths_and_missing_share(data):
    out = io.StringIO()
    Console(file=out, width=120).print(summary(data, name="demo", split=split_indices(data)))
    text = out.getvalue()
    for expected in ("demo", "30 to 2,000 points, median 40", "24 (speaker)", "not known", "class 1", "method group"):
        assert expected in text
    assert f"{missing_share(data):.2%}" in text
    assert missing_share(data) == pytest.approx(0.25, abs=0.01)
    all_row = next(line for line in text.splitlines() if "all " in line)
    assert sum(int(field) for field in all_row.split() if field.isdigit()) == 24


def test_plot_is_a_png_with_classes_of_few_series(data, tmp_path):
    plot(data, split_indices(data), tmp_path / "plot", series_per_class=7)
    assert (tmp_path / "plot").read_bytes().startswith(b"\x89PNG")


@given(length=st.integers(1, 3000), max_points=st.integers(1, 500))
def test_the_envelope_holds_every_value_and_few_points(length, max_points):
    values = np.random.default_rng(length).standard_normal(length).astype(np.float32)
    time, low, high = envelope(values, max_points)
    assert len(time) <= max_points
    block = np.searchsorted(time, np.arange(length), side="right") - 1
    assert (low[block] <= values).all()
    assert (values <= high[block]).all()
    assert low.min() == values.min()
    assert high.max() == values.max()


def test_the_envelope_of_a_missing_stretch_is_missing():
    values = np.ones(100, np.float32)
    values[20:50] = np.nan
    _, low, _ = envelope(values, 10)
    assert np.isnan(low).tolist() == [False, False, True, True, True] + [False] * 5


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "demo: 24 series of 30 to 2,000 points, 2 channels; some values missing; 3 classes (class 0, class 1, "),
        ({"sampling_rate_hz": 100.0}, "30 to 2,000 points (0.3 to 20 s at 100 Hz), 2 channels"),
        ({"rates_hz": np.linspace(8000, 16000, 24)}, "points (8,000 to 16,000 Hz), 2 channels"),
        ({"notes": ("3 files beside", "and more")}, " test; 3 files beside; and more"),
        ({"class_names": ("Dog", "dog", "cat")}, " test; classes that differ in case alone: Dog, dog"),
        ({"class_names": ("a" * 99, "b", "c")}, f"({'a' * 27}..., b, c)"),
    ],
)
def test_one_line_says_what_was_read(data, changes, said):
    line = what_was_read(replace(data, **changes), name="demo", split=split_indices(data))
    assert said in line
    assert "\n" not in line
    assert " 6 test" in line


def test_the_line_on_new_files_has_no_split(make_data):
    data = make_data(lengths=[7], labels=[0])
    assert what_was_read(data, name="new.csv") == "new.csv: 1 series of 7 points, 1 channel"
