"""What the plots of a comparison show, and when there are none."""

from pathlib import Path

import numpy as np
import pytest

from krontime.reports.comparison import plots
from krontime.reports.comparison.collect import Stored
from krontime.reports.comparison.compare import compare
from krontime.reports.comparison.plots import plot_critical_difference, plot_pareto, plot_scaling

VARIANTS = [("krontime",), ("patchtst",), ("a $strange_ name",)]
SCORES = np.array([[0.9, 0.8, 0.7], [0.95, 0.85, 0.9], [0.8, 0.7, 0.6], [0.7, 0.75, 0.5]])


def comparison(make_record, **options):
    costs = {"a": (10, 0.5), "b": (20, 0.9), "c": (30, 0.8), "d": (15, 0.4)}
    records = [
        make_record(model=model, data=data, seed=seed, accuracy=accuracy + seed / 100, train_time_s=float(time_s))
        for model, (time_s, accuracy) in costs.items()
        for data in ("A", "B_1", "C", "D $x")
        for seed in (0, 1)
    ]
    return compare([Stored(record, Path()) for record in records], **options)


def test_a_panel_for_each_data_set_and_the_front(make_record, tmp_path, monkeypatch):
    figures = {}
    monkeypatch.setattr(plots, "save", lambda figure, folder, name, *, words: figures.update({name: (figure, words)}))
    assert plot_pareto(comparison(make_record), tmp_path) == ["pareto_time", "pareto_memory"] == list(figures)
    figure, words = figures["pareto_time"]
    assert "A, B_1, C, D $x" in words
    panels = [axes for axes in figure.axes if axes.axison]
    assert [axes.get_title() for axes in panels] == ["A", "B_1", "C", "D $x"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "b", "c", "d"]
    front = next(line for line in panels[0].lines if line.get_color() == "#999999")
    assert front.get_xydata() == pytest.approx(np.array([[10, 0.505], [20, 0.905]]))
    assert {"10", "20"} <= {panels[0].xaxis.get_major_formatter()(value) for value in panels[0].get_xticks()}


def test_a_line_for_each_variant_against_the_number_of_training_series(
    make_record, make_protocol, tmp_path, monkeypatch
):
    figures = {}
    monkeypatch.setattr(plots, "save", lambda figure, folder, name, *, words: figures.update({name: (figure, words)}))
    records = [make_record(data="alone")] + [
        make_record(
            data="Many",
            model=model,
            seed=seed,
            accuracy=accuracy + seed / 100,
            train_time_s=float(size),
            config={"seed": seed, "data": {"validation": {"max_train": size if size < 900 else None}}},
            protocol=make_protocol(num_train=size),
        )
        for model, size, accuracy in (("a", 30, 0.5), ("a", 900, 0.9), ("b", 900, 0.8), ("b", 30, 0.6))
        for seed in (0, 1)
    ]
    assert plot_scaling(compare([Stored(record, Path()) for record in records]), tmp_path) == "scaling"
    figure, words = figures["scaling"]
    assert words.endswith("mean over seeds: Many.")
    scores, times = figure.axes
    result = {line.get_color(): line.get_xydata() for line in times.lines}
    assert [points.tolist() for points in result.values()] == [[[30, 30], [900, 900]]] * 2
    first, second = (container.lines[0].get_xydata() for container in scores.containers)
    assert first == pytest.approx(np.array([[30, 0.505], [900, 0.905]]))
    assert second == pytest.approx(np.array([[30, 0.605], [900, 0.805]]))
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "b"]
    assert plot_scaling(comparison(make_record), tmp_path) is None


def test_files_are_the_same_every_time(make_record, tmp_path):
    result = compare([Stored(make_record(), Path()), Stored(make_record(model="tcn"), Path())])
    for folder in ("one", "two"):
        plot_pareto(result, tmp_path / folder)
        assert plot_critical_difference(VARIANTS, SCORES, tmp_path / folder) is None
    names = {path.name for path in (tmp_path / "one").iterdir()}
    assert names == {f"{n}.{s}" for n in ("pareto_time", "pareto_memory", "critical_difference") for s in ("svg",)}
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name


@pytest.mark.parametrize(
    ("variants", "scores", "reason"),
    [
        (VARIANTS[:2], SCORES[:, :2], "at most 2 and 4"),
        (VARIANTS, SCORES[:2], "at most 3 and 2"),
        (VARIANTS, np.repeat(SCORES[:, :1], 3, axis=1), "all variants have the same scores"),
    ],
)
def test_no_diagram_and_why(tmp_path, variants, scores, reason):
    assert reason in plot_critical_difference(variants, scores, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_two_variants_with_the_same_scores_are_no_trouble(tmp_path):
    scores = np.array([[0.9, 0.9, 0.1]] * 9)
    assert plot_critical_difference(VARIANTS, scores, tmp_path) is None


def test_without_costs_there_is_no_plot(make_record, tmp_path):
    record = make_record(peak_memory_bytes=None, train_time_s=0.0)
    assert plot_pareto(compare([Stored(record, Path())]), tmp_path) == []
