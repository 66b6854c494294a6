"""Growth, ratios and what stands where there is no number."""

from dataclasses import fields

import pytest

from krontime.reports.benchmark.tables import (
    TRAIN,
    Row,
    format_number,
    format_ratio,
    growth,
    growth_exponent,
    ratio,
    write_tables,
)


def row(variant, length, **values):
    blank = {field.name: None for field in fields(Row)}
    return Row(**{**blank, "variant": variant, "length": length, "status": "ok", "num_rounds": 1, **values})


@pytest.mark.parametrize("exponent", [0.0, 1.0, 1.37, 2.0])
def test_the_growth_exponent_of_a_power_is_its_exponent(exponent):
    lengths = [1024 * 2**step for step in range(6)]
    assert growth_exponent(lengths, [0.3 * length**exponent for length in lengths]) == pytest.approx(exponent)


def test_growth_needs_two_lengths_and_leaves_short_ones_and_gaps_out():
    assert growth_exponent([1024], [1.0]) is None
    rows = [row("a", 512, train_step_ms=500.0), row("a", 1024, train_step_ms=1.0), row("a", 2048)]
    rows += [row("a", 4096, train_step_ms=16.0), row("b", 4096, train_step_ms=7.0)]
    assert growth(rows, TRAIN, variant="a", growth_from=1024) == pytest.approx(2)
    assert growth(rows, TRAIN, variant="b", growth_from=1024) is None


def test_a_ratio_compares_the_same_length():
    rows = [row("a", length, train_step_ms=float(length)) for length in (10, 20)]
    rows += [row("b", 10, train_step_ms=40.0), row("b", 20)]
    assert ratio(rows, TRAIN, rows[0], reference="b") == pytest.approx(0.25)
    assert ratio(rows, TRAIN, rows[1], reference="b") is None  # the reference has no number
    assert ratio(rows, TRAIN, rows[3], reference="a") is None  # nor has this row
    assert ratio(rows, TRAIN, rows[0], reference="c") is None


def test_a_cell_without_a_number_says_why(tmp_path):
    rows = [row("a", 10, train_step_ms=1.0), row("a", 20, status="out_of_memory"), row("a", 30, status="timeout")]
    assert write_tables(rows, tmp_path, caption="c", reference=None, growth_from=1) == ["runtime"]
    assert "| a | 1.00 | out of memory | timeout | - |" in (tmp_path / "runtime.md").read_text()
    assert "ratio" not in (tmp_path / "runtime.csv").read_text()


def test_numbers_keep_about_three_digits():
    assert [format_number(value) for value in (0.123, 1.234, 12.34, 12345.6)] == ["0.12", "1.23", "12.3", "12,346"]
    assert [format_ratio(value) for value in (0.0412, 0.5, 1.0, 123.4)] == ["0.041", "0.50", "1.00", "123.4"]
