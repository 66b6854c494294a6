"""What a benchmark gives: one row for each variant and length, as CSV and as tables of time and memory."""

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_type_hints

import numpy as np

from krontime.errors import UserError
from krontime.reports.markup import Table, latex, markdown
from krontime.storage import replacing

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T")


@dataclass(frozen=True)
class Row:
    """One variant at one length; None where there is no such number.

    Attributes:
        model: config name of the model.
        attention: its kind of attention.
        depth: number of levels.
        length: time points of a series.
        num_tokens: tokens of a series.
        batch_size: series in a batch.
        train_step_ms: forward, backward and optimiser step of a batch: median over rounds of the median over steps.
        inference_ms: forward pass of a batch without gradients, likewise.
        peak_memory_bytes: of a training step, above what libraries, parameters, gradients, the optimiser and data take.
        num_parameters: learned parameters.
        status: `ok`, `out_of_memory`, `timeout` or `failed`.
        variant: name of the model variant.
        train_step_ms_min, train_step_ms_max: lowest and highest of the rounds' medians; of one round, of its steps.
        inference_ms_min, inference_ms_max: likewise.
        train_ms_per_series, train_series_per_s, inference_ms_per_series, inference_series_per_s: the same medians.
        inference_peak_memory_bytes: as `peak_memory_bytes`, of a forward pass without gradients.
        estimated_memory_bytes: what `krontime plan` says of activations in training; it plans for a CPU alone.
        forward_flops: of a forward pass of a batch; a multiply-add counts as two.
        num_rounds: timing processes that finished.
        message: why the status is not `ok`.
    """

    model: str
    attention: str | None
    depth: int | None
    length: int
    num_tokens: int | None
    batch_size: int
    train_step_ms: float | None
    inference_ms: float | None
    peak_memory_bytes: int | None
    num_parameters: int | None
    status: str
    variant: str
    train_step_ms_min: float | None
    train_step_ms_max: float | None
    inference_ms_min: float | None
    inference_ms_max: float | None
    train_ms_per_series: float | None
    train_series_per_s: float | None
    inference_ms_per_series: float | None
    inference_series_per_s: float | None
    inference_peak_memory_bytes: int | None
    estimated_memory_bytes: int | None
    forward_flops: int | None
    num_rounds: int
    message: str | None


@dataclass(frozen=True)
class Quantity:
    """A column of `Row` that has a table and a panel of a plot.

    Attributes:
        key: name of the column.
        title: in words, with its unit.
        scale: what one unit of the table is in the column's own.
    """

    key: str
    title: str
    scale: float = 1.0

    def of(self, row: Row) -> float | None:
        """The row's value in the table's unit."""
        value = getattr(row, self.key)
        return None if value is None else value / self.scale


TRAIN = Quantity("train_step_ms", "Training step (ms a batch)")
INFERENCE = Quantity("inference_ms", "Inference (ms a batch)")
MEMORY = Quantity("peak_memory_bytes", "Peak memory of a training step (MiB)", scale=2**20)
INFERENCE_MEMORY = Quantity("inference_peak_memory_bytes", "Peak memory of inference (MiB)", scale=2**20)
REPORTS = {"runtime": (TRAIN, INFERENCE), "memory": (MEMORY, INFERENCE_MEMORY)}
"""Quantities of each report, by the name of its files."""

_MEMORY_LEGEND = (
    " Memory: most in use during a step (host: resident set; GPU: allocator) above what libraries, parameters, "
    "gradients, the optimiser's state and the batch take."
)
STATUS_WORDS = {"out_of_memory": "out of memory", "timeout": "timeout", "failed": "failed", "ok": "-"}


def growth_exponent(lengths: Sequence[int], values: Sequence[float]) -> float | None:
    """The p of the least-squares fit `value = c * length ** p`; None for fewer than two lengths."""
    if len(set(lengths)) < 2:
        return None
    return float(np.polyfit(np.log(lengths), np.log(values), 1)[0])


def growth(rows: Sequence[Row], quantity: Quantity, *, variant: str, growth_from: int) -> float | None:
    """The growth exponent of one variant over the lengths from `growth_from` that have a value."""
    points = [
        (row.length, value)
        for row in rows
        if row.variant == variant and row.length >= growth_from and (value := quantity.of(row))
    ]
    return growth_exponent([length for length, _ in points], [value for _, value in points])


def ratio(rows: Sequence[Row], quantity: Quantity, row: Row, *, reference: str | None) -> float | None:
    """The row's value over that of the reference variant at the same length; None where either is missing."""
    value = quantity.of(row)
    for other in rows:
        if other.variant == reference and other.length == row.length and (base := quantity.of(other)):
            return None if value is None else value / base
    return None


def write_rows(rows: Sequence["DataclassInstance"], path: Path) -> None:
    """Write at least one row, all of one kind, with every column as CSV."""
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(rows[0])])
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)


def read_rows(path: Path, kind: type[T]) -> list[T]:
    """The rows of a kind that `write_rows` left.

    Raises:
        UserError: the file is missing, has other columns, or a value is of another type; names every such value.
    """
    types = get_type_hints(kind)
    try:
        with path.open(newline="", encoding="utf-8") as file:
            lines = list(csv.DictReader(file))
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"{path}: not a readable file of measurements ({error})") from error
    if not lines or set(lines[0]) != set(types):
        raise UserError(f"{path}: expected at least one row, and the columns {', '.join(types)}")
    problems, rows = [], []
    for number, line in enumerate(lines, start=1):
        values: dict[str, Any] = {}
        for key, annotation in types.items():
            kinds = get_args(annotation) or (annotation,)
            text = line[key]
            try:
                values[key] = None if not text and type(None) in kinds else kinds[0](text)
            except (TypeError, ValueError):
                problems.append(f"{path}: row {number}: {key}={text!r}: expected a value of type {kinds[0].__name__}")
        if line["status"] not in STATUS_WORDS:
            known = ", ".join(STATUS_WORDS)
            problems.append(f"{path}: row {number}: status={line['status']!r}: expected one of {known}")
        rows.append(values)
    if problems:
        raise UserError(problems)
    return [kind(**values) for values in rows]


def write_tables(
    rows: Sequence[Row],
    folder: Path,
    *,
    caption: str,
    reference: str | None,
    growth_from: int,
    peak: Mapping[str, float] | None = None,
) -> list[str]:
    """Write the tables of each report that has numbers: `NAME.md`, `NAME.tex` and, one row a cell, `NAME.csv`.

    Args:
        rows: in the order of the table's rows.
        folder: where the files go.
        caption: hardware, versions and date.
        reference: variant that ratios are taken against; None for no ratios.
        growth_from: shortest length that enters the growth exponents.
        peak: what the machine does at best, see `of_peak`; None where it is not known.

    Returns:
        Names of the reports that were written.
    """
    if reference not in {row.variant for row in rows}:
        reference = None
    written = []
    for name, quantities in REPORTS.items():
        measured = [quantity for quantity in quantities if any(quantity.of(row) is not None for row in rows)]
        if not measured:
            continue
        written.append(name)
        tables = [
            Table(quantity.title, *_table(rows, quantity, reference=reference, growth_from=growth_from))
            for quantity in measured
        ]
        how = _legend(reference, growth_from)
        if TRAIN in measured and peak:
            tables.append(Table("Training step: % of the machine's arithmetic / of its bandwidth", *_peak(rows, peak)))
            how += _peak_legend(peak)
        if MEMORY in measured and any(row.estimated_memory_bytes is not None for row in rows):
            tables.append(
                Table("Memory that `krontime plan` states for a training step, over what was measured", *_plan(rows))
            )
        if MEMORY in measured:
            how += _MEMORY_LEGEND
        write_page(tables, f"{how} {caption}", folder, name)
        _write_tidy(rows, measured, folder / f"{name}.csv", reference=reference, growth_from=growth_from)
    return written


def write_page(tables: Sequence[Table], caption: str, folder: Path, name: str) -> None:
    """Write tables as `NAME.md` and `NAME.tex`."""
    for suffix, text in {"md": markdown(tables, caption), "tex": latex(tables, caption)}.items():
        with replacing(folder / f"{name}.{suffix}") as temporary:
            temporary.write_text(text, encoding="utf-8")


def of_peak(row: Row, peak: Mapping[str, float]) -> tuple[float | None, float | None]:
    """The fractions of a machine's arithmetic and bandwidth that a training step makes use of.

    Args:
        row: of the benchmark. Its step is taken to compute three times what the forward pass does, and to write and
            read once what it holds at most: less than it does.
        peak: `gemm_flops_per_s` and `stream_bytes_per_s`.

    Returns:
        Each of them, None where the row lacks the number.
    """
    if not row.train_step_ms:
        return None, None
    step_s = row.train_step_ms / 1000
    computed = None if row.forward_flops is None else 3 * row.forward_flops / step_s / peak["gemm_flops_per_s"]
    moved = None if row.peak_memory_bytes is None else 2 * row.peak_memory_bytes / step_s / peak["stream_bytes_per_s"]
    return computed, moved


def _peak(rows: Sequence[Row], peak: Mapping[str, float]) -> tuple[list[str], list[list[str]]]:
    def cell(row: Row) -> str:
        if row.train_step_ms is None:
            return STATUS_WORDS[row.status]
        return " / ".join("-" if fraction is None else f"{100 * fraction:.0f}" for fraction in of_peak(row, peak))

    return _grid(rows, cell)


def _peak_legend(peak: Mapping[str, float]) -> str:
    return (
        " Percentages: three times the operations of the forward pass, of what a product of large matrices reaches "
        f"({peak['gemm_flops_per_s'] / 1e9:,.0f} GFLOP/s); the memory of the step, written and read once, of what a "
        f"copy reaches ({peak['stream_bytes_per_s'] / 1e9:,.0f} GB/s)."
    )


def _legend(reference: str | None, growth_from: int) -> str:
    ratios = f" In brackets: ratio to {reference} at the same length." if reference else ""
    return (
        f"Columns are lengths in time points.{ratios} Growth: exponent p of the fit c * length^p from "
        f"{growth_from:,} points."
    )


def _table(
    rows: Sequence[Row], quantity: Quantity, *, reference: str | None, growth_from: int
) -> tuple[list[str], list[list[str]]]:
    """Header and body: a row for each variant, a column for each length, and the growth."""

    def cell(row: Row) -> str:
        value = quantity.of(row)
        if value is None:
            return STATUS_WORDS[row.status]
        quotient = ratio(rows, quantity, row, reference=reference)
        return format_number(value) + (f" ({format_ratio(quotient)})" if quotient is not None else "")

    header, body = _grid(rows, cell)
    for line in body:
        exponent = growth(rows, quantity, variant=line[0], growth_from=growth_from)
        line.append("-" if exponent is None else f"{exponent:.2f}")
    return [*header, "growth"], body


def _plan(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    return _grid(
        rows,
        lambda row: (
            f"{row.estimated_memory_bytes / row.peak_memory_bytes:.2f}"
            if row.estimated_memory_bytes is not None and row.peak_memory_bytes
            else STATUS_WORDS[row.status]
        ),
    )


def _grid(rows: Sequence[Row], cell: Callable[[Row], str]) -> tuple[list[str], list[list[str]]]:
    lengths = sorted({row.length for row in rows})
    cells = {(row.variant, row.length): cell(row) for row in rows}
    body = [
        [variant, *(cells.get((variant, length), "-") for length in lengths)]
        for variant in dict.fromkeys(row.variant for row in rows)
    ]
    return ["variant", *(f"{length:,}" for length in lengths)], body


def format_number(value: float) -> str:
    """About three digits, never an exponent."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def format_ratio(value: float) -> str:
    """Three decimals below 0.1995, two below ten."""
    return f"{value:.3f}" if value < 0.1995 else f"{value:.2f}" if value < 9.995 else f"{value:,.1f}"


def _write_tidy(
    rows: Sequence[Row], quantities: Sequence[Quantity], path: Path, *, reference: str | None, growth_from: int
) -> None:
    lines: list[dict[str, Any]] = []
    for row in rows:
        line: dict[str, Any] = {"variant": row.variant, "length": row.length, "status": row.status}
        for quantity in quantities:
            line[quantity.key] = getattr(row, quantity.key)
            if hasattr(row, f"{quantity.key}_min"):  # the spread
                line |= {f"{quantity.key}_{end}": getattr(row, f"{quantity.key}_{end}") for end in ("min", "max")}
            if reference:
                line[f"{quantity.key}_ratio"] = ratio(rows, quantity, row, reference=reference)
            exponent = growth(rows, quantity, variant=row.variant, growth_from=growth_from)
            # A fit's last digits depend on the processor.
            line[f"{quantity.key}_growth"] = None if exponent is None else f"{exponent:.6g}"
        if MEMORY in quantities:
            line["estimated_memory_bytes"] = row.estimated_memory_bytes
        lines.append(line)
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)
