"""The page on several runs: what each of them reached, and at what cost."""

from collections.abc import Sequence
from pathlib import Path

from krontime.reports.page import figures
from krontime.reports.page.content import RunContent
from krontime.reports.page.render import Section, Table, write_page


def write_sweep_page(contents: Sequence[RunContent], folder: Path, path: Path) -> None:
    """Write the page on the runs below a folder, whole or not at all."""
    sections = []
    for data in sorted({content.record.data for content in contents}):
        sections.append(_data_set(data, [content for content in contents if content.record.data == data], folder))
    models = sorted({content.record.model for content in contents})
    verdict = (
        f"{len(contents)} completed runs of {', '.join(models)} on {len(sections)} data set"
        f"{'s' if len(sections) > 1 else ''}. Runs with overlapping intervals are not told apart by these test splits."
    )
    write_page(f"Runs below {folder.name}", verdict, sections, path)


def _data_set(data: str, contents: Sequence[RunContent], folder: Path) -> Section:
    ordered = sorted(contents, key=lambda content: -(content.record.metrics.test.get("accuracy") or 0))
    header = ["run", "accuracy", "balanced accuracy", "log-likelihood (negative)", "training", "parameters"]
    rows, drawn = [], []
    for content in ordered:
        record = content.record
        name = str(content.folder.relative_to(folder)) if content.folder.is_relative_to(folder) else str(content.folder)
        short = f"{record.model} {content.folder.name}"
        test = record.metrics.test
        rows.append(
            [
                name,
                *(_shown(test.get(metric)) for metric in ("accuracy", "balanced_accuracy", "nll")),
                "" if record.train_time_s is None else f"{record.train_time_s:.1f} s",
                "" if record.num_parameters is None else f"{record.num_parameters:,}",
            ]
        )
        score, interval = test.get("accuracy"), content.intervals.get("accuracy")
        if score is not None and interval is not None:
            drawn.append((short, score, interval.low, interval.high))
    plots = [figures.scores("test accuracy", drawn)] if drawn else []
    return Section(data, [], [Table(f"Runs on {data}", header, rows)], plots)


def _shown(score: float | None) -> str:
    return "" if score is None else f"{score:.4f}"
