"""Tables as a data set: the same values and classes as the other formats give."""

import contextlib
import csv
import io
import tracemalloc
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from krontime.data.guess import guess
from krontime.data.sources import text
from krontime.data.sources.table import TableSource, UcrTextSource
from krontime.data.sources.table_body import fields_of
from krontime.data.sources.ts import TsSource
from krontime.errors import UserError

TRAIN = "t0,label,t1,t2\n1,a,,3\n4,b,5\n-7e-3,a,?,9\n0.1,b,1,1\n"


@pytest.fixture(params=[text.BLOCK, 1], scope="module")
def block(request) -> Iterator[None]:
    """A row is taken apart at once, or field by field."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text, "BLOCK", request.param)
        yield


@pytest.mark.usefixtures("block")
@given(st.lists(st.text(st.sampled_from('a"\t, ')), min_size=1), st.sampled_from([",", "\t"]))
def test_the_fields_of_a_row_are_those_that_were_written(fields, separator):
    line = io.StringIO()
    csv.writer(line, delimiter=separator, lineterminator="").writerow(fields)
    assert list(fields_of(line.getvalue(), separator)) == fields


@pytest.mark.usefixtures("block")
@given(st.text(st.sampled_from('a", '), min_size=1))
def test_quotes_within_a_field_are_read_as_the_csv_module_does(row):
    assert list(fields_of(row, ",")) == next(csv.reader([row]))


@pytest.mark.usefixtures("block")
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


@pytest.mark.usefixtures("block")
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


LENGTH = 20_000
ROW = ",".join(["1", "-2.5", "nan", "4"] * (LENGTH // 4)) + ",5"
WIDE = {
    "label in quotes": ("csv", f'"a",{ROW}\n"b",{ROW}\n', lambda path: TableSource(path, label=0).load()),
    "label last": ("csv", f"{ROW},a\n{ROW},b\n", lambda path: TableSource(path, header=False, label=-1).load()),
    "spaces": ("txt", f"1,{ROW}\n2,{ROW}\n".replace(",", " "), lambda path: UcrTextSource(path).load()),
    "a wrong field": ("csv", f"a,{ROW}\nb,{ROW},x\n", lambda path: TableSource(path, header=False, label=0).load()),
    "guessed": ("tsv", f"1,{ROW}\n2,{ROW}\n".replace(",", "\t"), guess),
}


@pytest.mark.parametrize(("suffix", "content", "read"), WIDE.values(), ids=WIDE)
def test_the_fields_of_a_wide_row_are_not_held_as_text(suffix, content, read, tmp_path, monkeypatch):
    monkeypatch.setattr(text, "BLOCK", 1 << 10)
    path = tmp_path / f"a.{suffix}"
    path.write_text(content)
    tracemalloc.start()
    try:
        with contextlib.suppress(UserError):
            read(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 60 * LENGTH
