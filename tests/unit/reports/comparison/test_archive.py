"""An archive gives back what was put into it, and says what is wrong with it."""

import numpy as np
import pytest

from krontime.errors import UserError
from krontime.reports.comparison.archive import ArchivedRun, read_lines, read_outcomes, write_archive
from krontime.runs.predictions import Outcomes
from krontime.runs.record import Record

LABELS = np.array(["NA", "", "a, b", "NA"], dtype=object)


@pytest.fixture
def archive(make_record, tmp_path):
    """Three runs: two classes with probabilities, classes alone, and nothing known."""
    probability = np.array([0.1 + 0.2, 1e-30, 1.0, 0.5])
    runs = [
        ArchivedRun("B/x/seed1-0", make_record(seed=1), Outcomes(np.array([3, 5, 7, 9]), LABELS, LABELS[::-1].copy())),
        ArchivedRun("A/x/seed0-0", make_record(seed=0), Outcomes(np.arange(4), LABELS, LABELS, "a, b", probability)),
        ArchivedRun("C/x/seed2-0", make_record(seed=2), None),
    ]
    write_archive(runs, tmp_path)
    return {run.name: run for run in runs}


def test_a_round_trip_is_exact(archive, tmp_path):
    lines = list(read_lines(tmp_path / "records.jsonl"))
    assert [line.name for line in lines] == sorted(archive)
    assert [line.number for line in lines] == [1, 2, 3]
    for line in lines:
        assert Record.parse(line.record, "here") == archive[line.name].record
    outcomes = read_outcomes(tmp_path)
    assert set(outcomes) == {"A/x/seed0-0", "B/x/seed1-0"}
    for name, read in outcomes.items():
        written = archive[name].outcomes
        assert read.positive == written.positive
        assert (read.probability is None) == (written.probability is None)
        for field in ("index", "labels", "predicted", "probability"):
            if getattr(written, field) is not None:
                assert getattr(read, field).tolist() == getattr(written, field).tolist()


def test_the_same_runs_give_the_same_bytes(archive, tmp_path):
    before = [(tmp_path / name).read_bytes() for name in ("records.jsonl", "predictions.parquet")]
    write_archive(reversed(archive.values()), tmp_path)
    assert [(tmp_path / name).read_bytes() for name in ("records.jsonl", "predictions.parquet")] == before


def test_no_outcomes_no_file(make_record, tmp_path):
    write_archive([ArchivedRun("A", make_record(), None)], tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["records.jsonl"]
    assert read_outcomes(tmp_path) == {}


@pytest.mark.parametrize(
    "line", ["{", "[]", "3", '{"record": {}}', '{"run": 3, "record": {}}', '{"run": "A/x/seed0-0"}']
)
def test_a_broken_line_is_named(archive, tmp_path, line):
    path = tmp_path / "records.jsonl"
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(UserError, match=r"records\.jsonl: line 4"):
        list(read_lines(path))


def test_two_runs_of_one_name_are_refused(archive, tmp_path):
    path = tmp_path / "records.jsonl"
    path.write_text(path.read_text() * 2)
    with pytest.raises(UserError, match=r"line 4: expected the name of a run that no line before has"):
        list(read_lines(path))


def test_damaged_predictions_are_named(archive, tmp_path):
    (tmp_path / "predictions.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match=r"predictions\.parquet: not a readable file of predictions"):
        read_outcomes(tmp_path)
