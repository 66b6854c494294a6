"""Rows of numbers: what NumPy's parser gives is what Python's gives, and it is told which field is none."""

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from krontime.data.sources import text
from krontime.data.sources.text import MISSING, blocks_of, numbers

FIELDS = st.one_of(
    st.floats(allow_nan=False, width=64).map(repr),
    st.integers(-(10**20), 10**20).map(str),
    st.sampled_from(MISSING),
    st.sampled_from(["NaN", " ?", "NULL ", " ", "+3", ".5", "5.", "-0", "1E5", "inf", "-Infinity", " 7", "7 "]),
)


@pytest.fixture(params=[text.BLOCK, 1], scope="module", autouse=True)
def block(request) -> Iterator[None]:
    """A row is taken apart at once, or field by field."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text, "BLOCK", request.param)
        yield


@given(st.lists(FIELDS, min_size=1), st.sampled_from([",", "\t"]))
def test_a_row_is_what_python_makes_of_its_fields(fields, separator):
    row = separator.join(fields)
    expected = [np.nan if field.strip().lower() in MISSING else float(field) for field in fields] if row.strip() else []
    np.testing.assert_array_equal(numbers(row, separator), expected)


@pytest.mark.parametrize("field", ["x", "1_0", "0x1", "1,0", "1 2", "1-", "nanx", "1e", "٣x", "\0", "--1", "1;2"])
@pytest.mark.parametrize("separator", [",", "\t"])
def test_a_field_that_is_none_is_told(field, separator):
    if separator in field:
        field = "1.0.0"
    with pytest.raises(ValueError, match=r"value 2 is .*: expected a number"):
        numbers(separator.join(["1", "2", field, "4", "y"]), separator)


@pytest.mark.parametrize("row", ["1, ,3, ", " ,\t,3,  ", "1,\x0b,3,\x0c", "1\t \t3\t "])
def test_a_field_of_white_space_is_missing(row):
    separator = "\t" if "," not in row else ","
    assert np.isnan(numbers(row, separator)).tolist() == [field.strip() == "" for field in row.split(separator)]


def test_spaces_are_no_separators():
    with pytest.raises(ValueError, match="value 0 is '1 2'"):
        numbers("1 2\t\t3", "\t")


def test_a_long_field_is_cut_short_in_the_message():
    with pytest.raises(ValueError, match=r"value 0 is 'x{40}\.\.\.'"):
        numbers("x" * 10**6)


def test_white_space_takes_no_time():
    """An expression that tries every way to share the spaces would take minutes."""
    with pytest.raises(ValueError, match="value 1"):
        numbers("1," + " " * 10**6 + "x")


def test_a_long_field_in_quotes_takes_no_time():
    """Counting its quotes from the row's start at each separator in it would take minutes."""
    row = '1,"' + ',""' * 300_000
    assert ",".join(blocks_of(row, ",")) == row
