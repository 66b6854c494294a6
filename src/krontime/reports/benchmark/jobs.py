"""Whole trainings of a benchmark: seconds of fitting and of predicting, and memory, for each job at each length."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from krontime.reports.benchmark.tables import STATUS_WORDS, format_number, write_page
from krontime.reports.markup import Table

JOBS = "jobs"
JOBS_CSV = "jobs.csv"


@dataclass(frozen=True)
class JobRow:
    """One job at one length; None where there is no such number.

    Attributes:
        job: its name.
        model: config name of the model.
        length: time points of a series.
        num_series: for training, validation included, and as many for testing.
        fit_s: seconds of fitting, without compiling that is kept for later runs.
        closed_form_s: those of them that a closed form took.
        predict_ms_per_series: milliseconds for each test series, reading included.
        whole_s: seconds of the whole command after its imports.
        peak_memory_bytes: the most that fitting held, beyond what the process held before.
        status: `ok`, `out_of_memory`, `timeout` or `failed`.
        message: why the status is not `ok`.
    """

    job: str
    model: str
    length: int
    num_series: int
    fit_s: float | None
    closed_form_s: float | None
    predict_ms_per_series: float | None
    whole_s: float | None
    peak_memory_bytes: int | None
    status: str
    message: str | None


@dataclass(frozen=True)
class _Column:
    key: str
    title: str
    scale: float = 1.0


_COLUMNS = (
    _Column("fit_s", "Fitting (s)"),
    _Column("closed_form_s", "Fitting the closed form (s)"),
    _Column("predict_ms_per_series", "Predicting (ms a series)"),
    _Column("peak_memory_bytes", "Peak memory of fitting (MiB)", 2**20),
)


def write_jobs(rows: Sequence[JobRow], folder: Path, *, caption: str) -> None:
    """Write `jobs.md` and `jobs.tex`.

    Args:
        rows: in the order of the tables' rows.
        folder: where the files go.
        caption: hardware, versions and date.
    """
    lengths = sorted({row.length for row in rows})
    by_cell = {(row.job, row.length): row for row in rows}
    tables = []
    for column in _COLUMNS:
        body = [
            [job, *(_cell(by_cell.get((job, length)), column) for length in lengths)]
            for job in dict.fromkeys(row.job for row in rows)
        ]
        tables.append(Table(column.title, ["job", *(f"{length:,}" for length in lengths)], body))
    series = " or ".join(f"{number:,}" for number in sorted({row.num_series for row in rows}))
    how = (
        f"Each job is one `krontime train` on {series} generated series for training and as many for testing; columns "
        "are their lengths in time points. A network's time depends on how soon it has learned them."
    )
    write_page(tables, f"{how} {caption}", folder, JOBS)


def _cell(row: JobRow | None, column: _Column) -> str:
    if row is None:
        return "-"
    value = getattr(row, column.key)
    return STATUS_WORDS[row.status] if value is None else format_number(value / column.scale)
