"""A benchmark in one small table, for a page that links to the whole ones."""

from collections.abc import Sequence
from pathlib import Path

from krontime.reports.benchmark.tables import MEMORY, STATUS_WORDS, TRAIN, Quantity, Row, format_number
from krontime.reports.markup import Table, markdown
from krontime.storage import replacing

SUMMARY = "summary.md"
VARIANTS = ("krontime_d2", "krontime_d3", "krontime_full", "patchtst_fused", "patchtst_naive", "tcn")
"""Variants of a summary, as far as a benchmark has them."""


def write_summary(rows: Sequence[Row], folder: Path, *, caption: str, reference: str | None) -> bool:
    """Write `summary.md`: training step and memory at the longest length of `reference`, and at the longest of all.

    Args:
        rows: of the benchmark.
        folder: where the file goes.
        caption: hardware, versions and date.
        reference: variant whose longest timed length is the first of the two; None for the middle one.

    Returns:
        Whether there was anything to write.
    """
    variants = [name for name in VARIANTS if any(row.variant == name for row in rows)]
    lengths = sorted({row.length for row in rows})
    timed = [row.length for row in rows if row.variant == reference and row.train_step_ms is not None]
    chosen = sorted({max(timed, default=lengths[len(lengths) // 2]), lengths[-1]})
    quantities = [quantity for quantity in (TRAIN, MEMORY) if any(quantity.of(row) is not None for row in rows)]
    if not variants or not quantities:
        return False
    columns = [(quantity, length) for quantity in quantities for length in chosen]
    header = ["variant", *(f"{quantity.title}, {length:,} points" for quantity, length in columns)]
    body = [[variant, *(_cell(rows, variant, *column) for column in columns)] for variant in variants]
    with replacing(folder / SUMMARY) as temporary:
        temporary.write_text(markdown([Table("Training step and its memory", header, body)], caption), encoding="utf-8")
    return True


def _cell(rows: Sequence[Row], variant: str, quantity: Quantity, length: int) -> str:
    for row in rows:
        if (row.variant, row.length) == (variant, length):
            value = quantity.of(row)
            return STATUS_WORDS[row.status] if value is None else format_number(value)
    return "-"
