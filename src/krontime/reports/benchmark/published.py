"""Training steps beside figures that others published for the same shape of series, behind a rule."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from krontime.reports.benchmark.tables import STATUS_WORDS, Row, format_number, write_page
from krontime.reports.markup import Table

THOUSAND_STEPS = "thousand_steps"
_KEYS = {"model": str, "seconds": int | float, "memory_mb": int | float, "source": str}


def published_problem(published: Any) -> str | None:
    """What is expected instead of the option `published_steps`; None where it is as it should be."""
    expected = f"a list of mappings with {', '.join(_KEYS)}"
    if not isinstance(published, list):
        return expected
    for figures in published:
        if not isinstance(figures, Mapping) or set(figures) != set(_KEYS):
            return expected
        if not all(isinstance(figures[key], kind) for key, kind in _KEYS.items()):
            return f"{expected}; seconds and memory_mb are numbers"
    return None


def write_thousand_steps(
    rows: Sequence[Row], published: Sequence[Mapping[str, Any]], folder: Path, *, caption: str
) -> bool:
    """Write what 1,000 training steps take at the longest length, as `thousand_steps.md` and `.tex`.

    Args:
        rows: of the benchmark.
        published: `model`, `seconds`, `memory_mb` and `source` of each figure from elsewhere.
        folder: where the files go.
        caption: hardware, versions and date of the rows.

    Returns:
        Whether there was anything to write.
    """
    longest = max(row.length for row in rows)
    own = [row for row in rows if row.length == longest]
    if not any(row.train_step_ms or row.peak_memory_bytes for row in own):
        return False
    body = [[row.variant, _seconds(row), _memory(row)] for row in own]
    rule_above = len(body)
    body += [[each["model"], f"{each['seconds']:,}", f"{each['memory_mb']:,}"] for each in published]
    table = Table(
        f"1,000 training steps on series of {longest:,} points",
        ["variant", "Seconds", "Peak memory (MB)"],
        body,
        rule_above=rule_above,
    )
    sources = "; ".join(dict.fromkeys(each["source"] for each in published))
    how = f"Below the rule, as published, on other hardware and with batches of their own: {sources}. Above it:"
    write_page([table], f"{how} {caption[0].lower()}{caption[1:]}", folder, THOUSAND_STEPS)
    return True


def _seconds(row: Row) -> str:
    return STATUS_WORDS[row.status] if row.train_step_ms is None else format_number(row.train_step_ms)  # ms x 1,000 / s


def _memory(row: Row) -> str:
    return STATUS_WORDS[row.status] if row.peak_memory_bytes is None else format_number(row.peak_memory_bytes / 1e6)
