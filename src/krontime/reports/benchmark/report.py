"""Tables and plots of a benchmark, from the two files that it leaves: the measurements and what they were made on.

The benchmark itself calls this, so that what it shows can be made again from those files without measuring.
"""

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from krontime.errors import UserError
from krontime.reports.benchmark.jobs import JOBS, JOBS_CSV, JobRow, write_jobs
from krontime.reports.benchmark.published import THOUSAND_STEPS, write_thousand_steps
from krontime.reports.benchmark.tables import Row, read_rows, write_tables

CSV = "benchmark.csv"
ENVIRONMENT = "environment.json"


def write_report(folder: Path) -> list[str]:
    """Write the tables and plots of the measurements in a folder beside them.

    Returns:
        Names of the reports that were written.

    Raises:
        UserError: one of the two files is missing or damaged.
    """
    from krontime.reports.benchmark.plots import write_plots
    from krontime.reports.benchmark.summary import write_summary

    rows = read_rows(folder / CSV, Row)
    path = folder / ENVIRONMENT
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        settings = about["settings"]
        reference, growth_from = settings["reference"], settings["growth_from"]
        published, peak = settings.get("published_steps"), about.get("peak")
        caption = _caption(rows, about)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not a readable environment of a benchmark ({error!r})") from error
    names = write_tables(rows, folder, caption=caption, reference=reference, growth_from=growth_from, peak=peak)
    write_plots(rows, folder, caption=caption)
    write_summary(rows, folder, caption=caption, reference=reference)
    if published and write_thousand_steps(rows, published, folder, caption=caption):
        names.append(THOUSAND_STEPS)
    if (folder / JOBS_CSV).is_file():
        write_jobs(read_rows(folder / JOBS_CSV, JobRow), folder, caption=_environment(about))
        names.append(JOBS)
    return names


def _caption(rows: Sequence[Row], about: Mapping[str, Any]) -> str:
    settings = about["settings"]
    points = settings.get("points_per_batch")
    batch = f"Batches of {points:,} values," if points else f"Batch of {settings['batch_size']} series,"
    precision = "float32" if settings["precision"] == "32-true" else "bfloat16 autocast"
    parts = [f"{batch} {settings['num_channels']} x length points each, {precision}"]
    timed = [row for row in rows if row.train_step_ms_min and row.train_step_ms_max]
    if timed:
        rounds = max(row.num_rounds for row in timed)
        parts.append(f"median over {rounds} round(s) of the median of up to {settings['steps']} steps")
        alike = [row for row in timed if rounds == 1 or row.num_rounds > 1]  # of one round, the spread is that of steps
        spreads = [row.train_step_ms_max / row.train_step_ms_min - 1 for row in alike]  # type: ignore[operator]
        what, middle, most = "round" if rounds > 1 else "step", statistics.median(spreads), max(spreads)
        parts.append(f"a cell's slowest {what} over its fastest: +{middle:.0%} as a rule, +{most:.0%} at most")
    return "; ".join([*parts, _environment(about)])


def _environment(about: Mapping[str, Any]) -> str:
    """What the numbers were measured on, with which versions, and when."""
    device, versions, git = (about[key] for key in ("device", "versions", "git"))
    days = sorted({moment[:10] for moment in (about["first_result_at"], about["last_result_at"])})
    commit = f" (commit {git['commit'][:7]}{', with changes' if git['dirty'] else ''})" if git else ""
    parts = [
        f"{device['count']} x {device['name']}, {device['num_threads']} threads, {device['platform'].split()[0]}",
        f"torch {versions['torch']}, Python {versions['python']}, krontime {versions.get('krontime', '?')}{commit}",
        " to ".join(days),
    ]
    return "; ".join(parts) + "."
