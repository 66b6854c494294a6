"""The page on several runs puts the best first, whichever way a score goes."""

from pathlib import Path

import pytest

from krontime.reports.comparison.collect import Stored
from krontime.reports.comparison.compare import RunGroup
from krontime.reports.page.sweep_page import _standing
from krontime.runs.record import Metrics


@pytest.mark.parametrize(("metric", "order"), [("auroc", [0.9, 0.2, None]), ("nll", [0.2, 0.9, None])])
def test_the_best_stands_first_and_what_has_no_score_last(make_record, metric, order):
    def group(score):
        record = make_record(metrics=Metrics(test={"accuracy": 0.5, metric: score}))
        return RunGroup("A", 0, ("tcn",), metric, (Stored(record, Path("x")),))

    entries = [group(score) for score in (None, 0.9, 0.2)]
    assert [entry.mean for entry in sorted(entries, key=_standing)] == order
