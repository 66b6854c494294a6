"""Tables and plots of standings: what they say, and what they are refused for."""

import xml.etree.ElementTree as ElementTree

import pandas as pd
import pytest

from krontime.errors import UserError
from krontime.reports.rivals.plots import time_to_accuracy
from krontime.reports.rivals.write import keep_published, write_standings

DATA = [f"D{number}" for number in range(6)]


@pytest.fixture
def published(tmp_path):
    folder = tmp_path / "published"
    folder.mkdir()
    rows = [f"{data},{name},{0.5 + 0.01 * i + shift:.3f},{0.6 + shift:.3f}"
            for i, data in enumerate(DATA) for name, shift in (("HC2", 0.1), ("TSF", -0.2))]  # fmt: skip
    (folder / "accuracy.csv").write_text("\n".join(["dataset,classifier,r0,r1", *rows]) + "\n")
    (folder / "README.md").write_text("From elsewhere.\n")
    return folder


@pytest.fixture
def ours(beside):
    own = {data: [0.5 + 0.02 * i, 0.6] for i, data in enumerate(DATA)}
    return beside({"krontime": own, "tcn": {data: [0.4, 0.4] for data in DATA}})


def test_tables_hold_ours_above_the_rule_and_others_below(ours, published, tmp_path):
    written = write_standings(ours, published, tmp_path)
    assert set(written) == {
        *(f"rivals.{suffix}" for suffix in ("md", "tex", "csv")),
        "rivals_summary.md",
        "rivals_critical_difference.svg",
        "rivals_scatter.svg",
    }
    page = (tmp_path / "rivals.md").read_text()
    names = [line.split("|")[1].strip() for line in page.splitlines() if line.startswith("| ")]
    assert names == ["classifier", "krontime", "tcn", "═", "HC2", "TSF"]
    assert "Accuracy over 6 data sets, resamples 0 to 1" in page
    assert "Published: From elsewhere." in page
    assert "at least 1.2e-38" in page
    assert "\\midrule" in (tmp_path / "rivals.tex").read_text().partition("tcn")[2]
    rows = pd.read_csv(tmp_path / "rivals.csv").set_index("classifier")
    assert rows.loc["HC2", "origin"] == "elsewhere"
    assert rows.loc["krontime", "mean"] == pytest.approx(0.575)
    assert rows.loc["HC2", ["wins", "draws", "losses"]].tolist() == [0, 0, 6]
    for name in ("rivals_critical_difference", "rivals_scatter"):
        assert ElementTree.parse(tmp_path / f"{name}.svg").getroot().tag.endswith("svg")


def test_who_is_held_against_whom_can_be_chosen(ours, published, tmp_path):
    write_standings(ours, published, tmp_path, against="tcn", scatter="TSF")
    assert "wins/draws/losses of tcn" in (tmp_path / "rivals.md").read_text()
    assert "tcn against TSF" in (tmp_path / "rivals_scatter.svg").read_text()
    for wrong in ({"against": "HC2"}, {"scatter": "tcn"}):
        with pytest.raises(UserError, match=f"{next(iter(wrong))}="):
            write_standings(ours, published, tmp_path, **wrong)


def test_nothing_in_common_is_a_mistake(beside, published, tmp_path):
    with pytest.raises(UserError, match="expected figures of data sets and resamples that all of our models have"):
        write_standings(beside({"krontime": {"FSDD": [0.5]}}), published, tmp_path)


def test_kept_figures_are_those_of_our_data_sets_and_give_the_same_table(ours, published, tmp_path):
    with (published / "accuracy.csv").open("a") as file:
        file.write("Other,HC2,0.1,0.1\n")
    kept = keep_published(published, tmp_path / "kept", set(DATA))
    assert "Other" not in (kept / "accuracy.csv").read_text()
    pages = []
    for folder in (published, kept):
        write_standings(ours, folder, tmp_path / "out")
        pages.append((tmp_path / "out/rivals.md").read_text())
    assert pages[0] == pages[1]


def test_a_profile_counts_data_sets_on_which_the_accuracy_was_reached(beside):
    reference = "aeon_multirocket_hydra"
    scores = {reference: {"D": [0.8], "E": [0.8], "F": [0.8]}, "fast": {"D": [0.9], "E": [0.7], "F": [0.8]}}
    comparison = beside(scores, train_time_s={reference: 8.0, "fast": 2.0})
    factors = time_to_accuracy(comparison)
    assert factors == {reference: [1.0, 1.0, 1.0], "fast": [0.25, float("inf"), 0.25]}
    assert time_to_accuracy(beside({"fast": {"D": [0.9]}})) == {}


def test_times_are_the_processors_where_all_runs_have_them(beside):
    reference = "aeon_multirocket_hydra"
    scores = {reference: {"D": [0.8]}, "fast": {"D": [0.9]}}
    times = {"train_time_s": {reference: 8.0, "fast": 2.0}, "train_cpu_s": {reference: 4.0, "fast": 2.0}}
    assert time_to_accuracy(beside(scores, **times))["fast"] == [0.5]
    times["train_cpu_s"].pop("fast")
    assert time_to_accuracy(beside(scores, **times))["fast"] == [0.25]
