"""Scores from elsewhere are read whole, or every mistake in them is told."""

from pathlib import Path

import pytest

from krontime.errors import UserError
from krontime.reports.published import Published, read_published

HEADER = "data,model,metric,value,source,protocol\n"
COMMITTED = Path(__file__).parents[3] / "docs" / "results" / "published.csv"


def test_rows_keep_the_digits_that_were_stated(tmp_path):
    path = tmp_path / "p.csv"
    path.write_text(HEADER + 'A,Rocket,accuracy,0.90,"a paper, 2020",its own\n', encoding="utf-8")
    assert read_published(path) == [Published("A", "Rocket", "accuracy", "0.90", "a paper, 2020", "its own")]


def test_every_mistake_is_told(tmp_path):
    path = tmp_path / "p.csv"
    lines = ["A,M,accuracy,high,s,p", "A,N,acc,0.9,s,p", "A,O,accuracy,0.9,,p", "A,O,accuracy,0.9,s", "B,O,nll,1,s,p,x"]
    path.write_text(HEADER + "\n".join([*lines, "A,P,nll,1,s,p", "A,P,nll,2,s,p"]), encoding="utf-8")
    with pytest.raises(UserError) as caught:
        read_published(path)
    told = [problem.removeprefix(f"{path}: ") for problem in caught.value.problems]
    assert [problem.split(":")[0] for problem in told] == [f"line {number}" for number in (2, 3, 4, 5, 6, 8)]
    assert "value='high'" in told[0]
    assert "metric='acc'" in told[1]
    assert "there is one already" in told[-1]


@pytest.mark.parametrize("text", ["", "data,model,value\n", HEADER.replace("source", "origin")])
def test_other_columns_are_refused(tmp_path, text):
    path = tmp_path / "p.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match="expected the columns data,model,metric,value,source,protocol"):
        read_published(path)
    with pytest.raises(UserError, match="not a readable CSV file"):
        read_published(tmp_path / "none.csv")


def test_the_committed_file_is_whole():
    assert all(row.source and row.protocol for row in read_published(COMMITTED))
