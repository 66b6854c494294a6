"""Tables as a data set: the same values and classes as the other formats give."""

import numpy as np
import pytest

from krontime.data.sources.table import TableSource
from krontime.data.sources.ts import TsSource
from krontime.errors import UserError

TRAIN = "t0,label,t1,t2\n1,a,,3\n4,b,5\n-7e-3,a,?,9\n0.1,b,1,1\n"


def test_a_table_is_what_the_same_series_are_in_a_ts_file(tmp_path):
    (tmp_path / "a.csv").write_text(TRAIN)
    (tmp_path / "b.tsv").write_text("y\tt0\tt1\nb\t1\t2\na\t3\t\n")
    header = "@univariate true\n@equalLength false\n@classLabel true a b\n@data\n"
    (tmp_path / "a.ts").write_text(header + "1,?,3:a\n4,5:b\n-7e-3,?,9:a\n0.1,1,1:b\n")
    (tmp_path / "b.ts").write_text(header + "1,2:b\n3:a\n")
    table = TableSource(str(tmp_path / "a.csv"), str(tmp_path / "b.tsv")).load()
    ts = TsSource(str(tmp_path / "a.ts"), str(tmp_path / "b.ts")).load()
    np.testing.assert_array_equal(table.values, ts.values)
    for name in ("offsets", "labels", "is_test"):
        assert getattr(table, name).tolist() == getattr(ts, name).tolist()
    assert table.class_names == ts.class_names == ("a", "b")
    assert table.has_missing


def test_a_label_may_stand_in_quotes_and_hold_the_separator(tmp_path):
    (tmp_path / "a.csv").write_text('label,x\n"left, upper",1\n"right ""R""",2\n"left, upper",3\n')
    data = TableSource(str(tmp_path / "a.csv")).load()
    assert data.class_names == ("left, upper", 'right "R"')
    assert data.labels.tolist() == [0, 1, 0]


def test_every_wrong_row_is_told_up_to_a_few(tmp_path):
    (tmp_path / "a.csv").write_text("label,x\n" + "a,1\na,x\n" * 30)
    with pytest.raises(UserError, match="series 1: value 0 is 'x'") as caught:
        TableSource(str(tmp_path / "a.csv")).load()
    assert len(caught.value.problems) == 11
    assert "30 in all" in caught.value.problems[-1]


def test_both_files_are_told_of(tmp_path):
    (tmp_path / "a.csv").write_text("1,2\n")
    (tmp_path / "b.csv").write_text("label,x\na,y\n")
    with pytest.raises(UserError) as caught:
        TableSource(str(tmp_path / "a.csv"), str(tmp_path / "b.csv")).load()
    assert len(caught.value.problems) == 2
    assert "label, class, y" in caught.value.problems[0]
