"""The small tables: ours beside the best-known others, and what was run here beside the same as published."""

import pytest

from krontime.reports.rivals.standing import our_scores, standing
from krontime.reports.rivals.summary import agreement, write_summary

MINIROCKET = "aeon.classification.convolution_based.MiniRocketClassifier"


@pytest.fixture
def ours(beside):
    scores = {"krontime": {"D": [0.9, 0.7], "E": [0.5, 0.5]}, "mine": {"D": [0.8, 0.6], "E": [0.6, 0.6]}}
    return beside(scores, train_cpu_s={"krontime": 12.25, "mine": 3.0}, classifier={"mine": MINIROCKET})


def test_ours_stand_above_the_rule_with_what_they_cost(ours, tmp_path):
    theirs = {name: {("D", 0): x, ("D", 1): x, ("E", 0): x, ("E", 1): x} for name, x in (("HC2", 0.9), ("TSF", 0.1))}
    found = standing("accuracy", our_scores(ours, "accuracy"), theirs)
    losses = standing("nll", {"krontime": {("D", 0): 0.25}}, {"HC2": {("D", 0): 0.125}})
    assert write_summary([found, losses], ours, tmp_path) == "rivals_summary.md"
    page = (tmp_path / "rivals_summary.md").read_text()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines() if line.startswith("| ")]
    assert rows == [
        ["classifier", "accuracy", "mean rank", "log loss", "seconds to train"],
        ["krontime", "0.650", "2.50", "0.250", "12.2"],
        ["mine", "0.650", "2.50", "-", "3.0"],
        ["═"] * 5,
        ["HC2", "0.900", "1.00", "0.125", "-"],
    ]
    assert "Means over 2 data sets, resamples 0 to 1" in page
    assert "among all 4 that are compared" in page
    assert "mean over runs, processor time on" in page


def test_what_was_run_here_is_held_against_the_same_as_published(ours):
    theirs = {"MiniROCKET": {("D", 0): 0.8, ("D", 1): 0.5, ("E", 0): 0.6}, "HC2": {("D", 0): 1.0}}
    table = agreement(ours, our_scores(ours, "accuracy"), theirs)
    assert table.body == [
        ["mine", "MiniROCKET", "2 data sets, resamples 0 to 1", "0.6500", "0.6250", "+0.0250", "2 of 3", "D +0.050"]
    ]
    assert agreement(ours, our_scores(ours, "accuracy"), {"HC2": {("D", 0): 1.0}}) is None
