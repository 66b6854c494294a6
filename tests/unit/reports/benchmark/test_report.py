"""The tables and plots of a benchmark come from its two files alone."""

import json
from dataclasses import asdict, fields

import pytest

from krontime.errors import UserError
from krontime.reports.benchmark.report import write_report
from krontime.reports.benchmark.summary import write_summary
from krontime.reports.benchmark.tables import Row, read_rows, write_rows

ABOUT = {
    "device": {"kind": "cpu", "name": "A Processor", "count": 1, "num_threads": 2, "platform": "Linux 6 x86_64"},
    "versions": {"python": "3.11.9", "torch": "2.13.0", "krontime": "0.1.0"},
    "git": {"commit": "0123456789" * 4, "dirty": True},
    "first_result_at": "2026-01-02T03:04:05+00:00",
    "last_result_at": "2026-01-03T03:04:05+00:00",
    "settings": {
        "batch_size": 4,
        "num_channels": 1,
        "precision": "32-true",
        "steps": 5,
        "reference": "b",
        "growth_from": 10,
    },
}


def row(variant: str, length: int, train_step_ms: float | None, **changes) -> Row:
    blank = {field.name: None for field in fields(Row)}
    spread = {"train_step_ms_min": train_step_ms, "train_step_ms_max": train_step_ms and train_step_ms * 1.25}
    known = {"model": variant, "variant": variant, "length": length, "batch_size": 4, "status": "ok", "num_rounds": 3}
    return Row(**{**blank, **known, "train_step_ms": train_step_ms, **spread, **changes})


ROWS = [
    row("a", 10, 0.1 + 0.2, attention="full", forward_flops=2**60),
    row("a", 20, None, status="timeout", message='no result, "sorry"\nafter 3 s'),
    row("b", 10, 1e-7, peak_memory_bytes=2**20, estimated_memory_bytes=2**19),
    row("b", 20, 3.0),
]


@pytest.fixture
def folder(tmp_path):
    write_rows(ROWS, tmp_path / "benchmark.csv")
    (tmp_path / "environment.json").write_text(json.dumps(ABOUT))
    return tmp_path


def test_rows_come_back_as_they_were(folder):
    assert list(map(asdict, read_rows(folder / "benchmark.csv"))) == list(map(asdict, ROWS))


def test_the_report(folder):
    assert write_report(folder) == ["runtime", "memory"]
    text = (folder / "runtime.md").read_text()
    assert "| a | 0.30 (3,000,000.0) | timeout | - |" in text
    assert text.endswith(
        "Batch of 4 series, 1 x length points each, float32; median over 3 round(s) of the median of up to 5 steps; a "
        "cell's slowest round over its fastest: +25% as a rule, +25% at most; 1 x A Processor, 2 threads, Linux; torch "
        "2.13.0, Python 3.11.9, krontime 0.1.0 (commit 0123456, with changes); 2026-01-02 to 2026-01-03.\n"
    )
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert {f"{name}.{end}" for name in ("runtime", "memory") for end in ("md", "tex", "csv", "svg")} < set(before)
    write_report(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize(
    ("name", "old", "new", "problem"),
    [
        ("benchmark.csv", "num_rounds", "rounds", "expected at least one row, and the columns"),
        ("benchmark.csv", ",3.0,", ",fast,", "row 4: train_step_ms='fast': expected a value of type float"),
        ("benchmark.csv", "timeout", "late", "row 2: status='late': expected one of"),
        ("environment.json", "growth_from", "growth", r"environment\.json: not a readable environment"),
        ("environment.json", "{", "", r"environment\.json: not a readable environment"),
    ],
)
def test_damaged_files_are_told(folder, name, old, new, problem):
    path = folder / name
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(UserError, match=problem):
        write_report(folder)
    path.unlink()
    with pytest.raises(UserError, match=f"{name}: not a readable"):
        write_report(folder)


def test_a_summary_is_of_the_longest_length_of_the_reference_and_of_all(tmp_path):
    rows = [
        row("krontime_d2", 10, 2.0, peak_memory_bytes=2**20),
        row("krontime_d2", 40, 8.0, peak_memory_bytes=2**22),
        row("patchtst_naive", 10, 4.0, peak_memory_bytes=2**21),
        row("patchtst_naive", 40, None, status="out_of_memory"),
        row("mine", 40, 1.0),
    ]
    assert write_summary(rows, tmp_path, caption="On a machine.", reference="patchtst_naive")
    text = (tmp_path / "summary.md").read_text()
    assert "10 points | Training step (ms a batch), 40 points |" in text
    assert "| krontime_d2 | 2.00 | 8.00 | 1.00 | 4.00 |" in text
    assert "| patchtst_naive | 4.00 | out of memory | 2.00 | out of memory |" in text
    assert "mine" not in text
    assert not write_summary(rows[-1:], tmp_path, caption="", reference=None)
