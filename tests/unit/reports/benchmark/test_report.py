"""The tables and plots of a benchmark come from its two files alone."""

import json
from dataclasses import asdict, fields

import pytest

from krontime.errors import UserError
from krontime.reports.benchmark.jobs import JobRow
from krontime.reports.benchmark.published import published_problem
from krontime.reports.benchmark.report import write_report
from krontime.reports.benchmark.summary import write_summary
from krontime.reports.benchmark.tables import Row, read_rows, write_rows

KEYS = ("model", "seconds", "memory_mb", "source")
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
    assert list(map(asdict, read_rows(folder / "benchmark.csv", Row))) == list(map(asdict, ROWS))


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


def test_percentages_of_the_machine_stand_where_they_are_known(folder):
    rows = [row("a", 10, 1000.0, forward_flops=10**9, peak_memory_bytes=10**8), row("a", 20, None, status="timeout")]
    write_rows(rows, folder / "benchmark.csv")
    about = {**ABOUT, "peak": {"gemm_flops_per_s": 6e9, "stream_bytes_per_s": 1e9}}
    (folder / "environment.json").write_text(json.dumps(about))
    write_report(folder)
    assert "| a | 50 / 20 | timeout |" in (folder / "runtime.md").read_text()


def test_published_figures_of_a_thousand_steps_stand_below_a_rule(folder):
    write_rows([row("a", 10, 9.0), row("b", 20, 50.0, peak_memory_bytes=2 * 10**6)], folder / "benchmark.csv")
    published = [{"model": "SSM", "seconds": 3.6, "memory_mb": 2685, "source": "a paper"}]
    assert published_problem(published) is None
    about = {**ABOUT, "settings": {**ABOUT["settings"], "published_steps": published}}
    (folder / "environment.json").write_text(json.dumps(about))
    assert "thousand_steps" in write_report(folder)
    text = (folder / "thousand_steps.md").read_text()
    assert "| b | 50.0 | 2.00 |\n| ═ | ═ | ═ |\n| SSM | 3.6 | 2,685 |" in text
    assert "batches of their own: a paper. Above it: batch of 4 series" in text


@pytest.mark.parametrize("published", [None, [3], [{"model": "SSM"}], [dict.fromkeys(KEYS, "fast")]])
def test_published_figures_are_checked(published):
    assert "a list of mappings with model, seconds, memory_mb, source" in published_problem(published)


def test_jobs_come_back_from_their_file_alone(folder):
    missing = dict.fromkeys(("fit_s", "closed_form_s", "predict_ms_per_series", "whole_s", "peak_memory_bytes"))
    rows = [
        JobRow("default", "krontime", 10, 40, 12.5, 3.0, 0.25, 20.0, 2**21, "ok", None),
        JobRow("hydra", "aeon_hydra", 20, 40, **missing, status="timeout", message="late"),
    ]
    write_rows(rows, folder / "jobs.csv")
    assert "jobs" in write_report(folder)
    text = (folder / "jobs.md").read_text()
    assert "| job | 10 | 20 |\n|---|---:|---:|\n| default | 12.5 | - |\n| hydra | - | timeout |" in text
    assert "on 40 generated series" in text


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
