"""Writes the one screen of text that ends a run."""

import shlex
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.text import Text

from krontime.console import format_duration
from krontime.metrics import METRIC_TITLES, METRICS, MetricName
from krontime.runs.record import Protocol, Record, Status
from krontime.storage import (
    ATTENTION,
    CONFUSION_MATRIX,
    HELD_OUT,
    LEARNING_CURVES,
    PREDICTIONS,
    RECORD,
    RECORDINGS,
    RECORDINGS_PLOT,
    SEGMENTS,
    VALIDATION_PREDICTIONS,
)

_WIDTH = 96
_MARGIN = 11
_STYLES = {
    Status.COMPLETED: "bold green",
    Status.FAILED: "bold red",
    Status.OUT_OF_MEMORY: "bold red",
    Status.INTERRUPTED: "bold yellow",
}
_ADVICE = {
    Status.FAILED: "fix the cause above, then run the same command again",
    Status.OUT_OF_MEMORY: "take a smaller batch or fewer tokens (krontime plan estimates the memory), then run again",
    Status.INTERRUPTED: "run the same command again; it resumes from the last checkpoint if there is one",
}
_NAME_WIDTH = 28
"""Characters of the name of a file, at least."""

_FILES = (
    (RECORD, "all numbers, with config, protocol and versions"),
    (PREDICTIONS, "class probabilities of every test series"),
    (VALIDATION_PREDICTIONS, "class probabilities of every validation series"),
    (HELD_OUT, "class probabilities of series by fits without them"),
    (RECORDINGS, "each recording's class, from its windows of the test split"),
    (SEGMENTS, "stretches of one predicted class of each recording"),
    (RECORDINGS_PLOT, "recordings, with true and predicted classes over time"),
    (CONFUSION_MATRIX, "confusion matrix of the test split"),
    (LEARNING_CURVES, "loss and accuracy over epochs"),
    (ATTENTION, "mean attention map of each layer and level"),
    ("config.yaml", "the resolved config"),
    ("**/best.ckpt", "checkpoint that was selected"),
    ("**/last.ckpt", "checkpoint to resume from"),
)


def final_screen(record: Record, run_dir: Path) -> Text:
    """Write what was trained on what, under which protocol, with which scores and cost, and where the files are.

    Print it with `Console().print(text, soft_wrap=True, highlight=False)`: paths then stay on one line, and styles
    vanish where the output is no terminal.

    Args:
        record: of the run, however it ended.
        run_dir: its folder; the files named are those that lie there.
    """
    screen = Text()
    screen.append(f"{record.model} on {record.data}, seed {record.seed}: ", style="bold")
    screen.append(record.status.replace("_", " "), style=_STYLES[record.status])
    screen.append("\n\n")
    if record.error is not None:
        _paragraph(screen, "Error", record.error)
    if record.protocol is not None:
        _paragraph(screen, "Data", _data_line(record.protocol))
        _paragraph(screen, "Protocol", _protocol_line(record.protocol))
    by_recording = {"recordings": record.metrics.recordings} if record.metrics.recordings else {}
    _scores(screen, validation=record.metrics.val, test=record.metrics.test, **by_recording)
    if record.metrics.accuracy_over_time is not None:
        _paragraph(
            screen,
            "Over time",
            f"{record.metrics.accuracy_over_time:.1%} of the labelled time in windows is predicted right",
        )
    _paragraph(screen, "Cost", _cost_line(record))
    _paragraph(screen, "Computed", _device_line(record))
    _line(screen, "Folder", str(run_dir))
    files = _files(run_dir)
    width = max(_NAME_WIDTH, *(len(name) for name, _ in files)) if files else _NAME_WIDTH
    for name, what in files:
        _line(screen, "", f"{name:<{width}} {what}")
    if record.status is Status.COMPLETED and record.protocol is not None and record.protocol.fitted_on is not None:
        _paragraph(screen, "Next", "compare: the classifier itself is not kept, so that it can't predict new files")
    elif record.status is Status.COMPLETED:
        commands = [f"krontime predict {typed('run', run_dir)} input=FILE output=FILE"]
        if record.protocol is not None and record.protocol.num_test:
            commands.insert(0, f"krontime evaluate {typed('run', run_dir)}")
        for number, command in enumerate(commands):
            _line(screen, "" if number else "Next", command)
    else:
        _paragraph(screen, "Next", _ADVICE[record.status])
    if any(run_dir.glob("wandb/offline-run-*")):
        _line(screen, "", sync_command(run_dir))
    screen.rstrip()
    return screen


def evaluation(record: Record, run_dir: Path, again: Mapping[MetricName, float | None]) -> Text:
    """Write the test scores of a run that were computed again, beside those in its record.

    Args:
        record: of the run.
        run_dir: its folder.
        again: score by metric name.
    """
    screen = Text()
    screen.append(f"{record.model} on {record.data}, seed {record.seed}: ", style="bold")
    screen.append("test split scored again", style="bold green")
    screen.append("\n")
    _scores(screen, recorded=record.metrics.test, now=again)
    _line(screen, "Folder", str(run_dir))
    screen.rstrip()
    return screen


def already_done(record: Record, run_dir: Path) -> Text:
    """Write two lines for a job that has a completed record: its test accuracy, and how to run it all the same."""
    accuracy = record.metrics.test.get("accuracy")
    balanced = record.metrics.test.get("balanced_accuracy")
    screen = Text()
    screen.append(f"{record.model} on {record.data}, seed {record.seed}: ", style="bold")
    screen.append("already done", style=_STYLES[Status.COMPLETED])
    screen.append(f", test accuracy {_score(accuracy)} (balanced {_score(balanced)})")
    if record.finished_at is not None:
        screen.append(f", finished {record.finished_at:%Y-%m-%d %H:%M}")
    screen.append(f"\n{run_dir}  (force=true runs it again)")
    return screen


def format_milliseconds(duration_ms: float) -> str:
    """Format a duration as `0.24 ms`, `3.1 ms` or `120 ms`."""
    return f"{duration_ms:,.0f} ms" if duration_ms >= 9.95 else f"{duration_ms:.{1 if duration_ms >= 0.995 else 2}f} ms"


def format_bytes(num_bytes: int) -> str:
    """Format a number of bytes in KiB below one MiB, in MiB below one GiB, else in GiB."""
    mebibytes = num_bytes / 2**20
    if mebibytes < 1:
        return f"{num_bytes / 1024:.0f} KiB"
    return f"{mebibytes:.0f} MiB" if mebibytes < 1024 else f"{mebibytes / 1024:.2f} GiB"


def typed(key: str, path: Path | str) -> str:
    """Return `key=path` as it is typed in a shell."""
    return shlex.quote(f"{key}={path}")


def _line(screen: Text, head: str, text: str) -> None:
    screen.append(f"{head:<{_MARGIN}}" if text else head, style="bold")
    screen.append(text + "\n")


def _paragraph(screen: Text, head: str, text: str) -> None:
    """Append `text` beside `head`, wrapped; its own line breaks are kept."""
    for paragraph in text.splitlines() or [""]:
        for part in textwrap.wrap(paragraph, _WIDTH - _MARGIN, break_long_words=False) or [""]:
            _line(screen, head, part)
            head = ""


def _data_line(protocol: Protocol) -> str:
    counts = protocol.train_class_counts
    line = (
        f"{protocol.num_train:,} training, {protocol.num_val:,} validation and {protocol.num_test:,} test series; "
        f"{len(counts)} classes"
    )
    if protocol.imbalanced:
        rarest, commonest = min(counts, key=counts.__getitem__), max(counts, key=counts.__getitem__)
        line += (
            f", imbalanced: {counts[commonest]:,} training series of {commonest!r}, {counts[rarest]:,} of {rarest!r}"
        )
    return line


def _protocol_line(protocol: Protocol) -> str:
    split = f"validation carved from train ({protocol.split_method}"
    if protocol.group is not None:
        split += f" by {protocol.group}"
    if protocol.fold is not None:
        split += f", fold {protocol.fold}"
    selection = (
        f"checkpoint with the best {protocol.selection_metric}" if protocol.selection_metric else "last checkpoint"
    )
    if protocol.fitted_on is not None:
        selection = f"fitted on {protocol.fitted_on.replace('_', ' ')}, nothing selected"
    resample = []
    if protocol.resample:
        by = "whole groups" if protocol.resampled_by == "group" else "class"
        resample = [f"resample {protocol.resample} of train and test, by {by}"]
    parts = [
        *resample,
        f"{split}, seed {protocol.split_seed})",
        selection,
        f"scaling {protocol.scaling.replace('_', ' ')}",
    ]
    parts += [f"{name.replace('_', ' ')} {value}" for name, value in protocol.preparation.items()]
    if protocol.series_length is not None:
        parts.append(f"series padded or cut to {protocol.series_length:,} points")
    if protocol.windowing is not None:
        parts.append("windows of " + ", ".join(f"{name} {value}" for name, value in protocol.windowing.items()))
    for other, shared in (
        ("validation", protocol.groups_in_train_and_validation),
        ("test", protocol.groups_in_train_and_test),
    ):
        if shared:
            parts.append(f"{shared:,} groups have series in both train and {other}")
    parts.append("test split read once, at the end" if protocol.num_test else "no test split")
    return "; ".join(parts)


def _scores(screen: Text, **columns: Mapping[Any, float | None]) -> None:
    """Append a table of metrics, one column for each mapping from metric name to score."""
    shown = [name for name in METRICS if any(name in scores for scores in columns.values())]
    if not shown:
        return
    screen.append("\n")
    heads = "".join(f"{title:>12}" for title in columns)
    screen.append(f"{'':<{_MARGIN}}{'':<24}{heads}\n", style="bold")
    for name in shown:
        screen.append(f"{'':<{_MARGIN}}{METRIC_TITLES[name]:<24}")
        *others, last = (f"{_score(scores.get(name)):>12}" for scores in columns.values())
        screen.append("".join(others))
        screen.append(f"{last}\n", style="bold")
    screen.append("\n")


def _score(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _cost_line(record: Record) -> str:
    parts = []
    if record.train_time_s is not None:
        parts.append(f"{format_duration(record.train_time_s)} of training")
    if record.warm_up_s is not None:
        parts.append(f"{format_duration(record.warm_up_s)} of compiling before it")
    if record.inference_ms_per_series is not None:
        parts.append(f"{format_milliseconds(record.inference_ms_per_series)} to classify a series")
    if record.peak_memory_bytes is not None:
        whose = "device" if record.device.kind != "cpu" else "process" if record.memory_of == "process" else "job"
        parts.append(f"peak {whose} memory {format_bytes(record.peak_memory_bytes)}")
    if record.num_parameters is not None:
        parts.append(f"{record.num_parameters:,} parameters")
    return ", ".join(parts) or "not measured"


def _device_line(record: Record) -> str:
    device = record.device
    several = f"{device.count} x " if device.count > 1 else ""
    line = f"on {several}{device.name} ({device.kind}), {device.num_threads} CPU threads"
    if "torch" in record.versions:
        line += f", torch {record.versions['torch']}"
    line += f", config {record.config_hash}"
    if record.git is not None:
        line += f", commit {record.git.commit[:10]}{' with changes' if record.git.dirty else ''}"
    return line


def _files(run_dir: Path) -> list[tuple[str, str]]:
    is_tested = not (run_dir / VALIDATION_PREDICTIONS).is_file()
    return [
        (path.relative_to(run_dir).as_posix(), what if is_tested else what.replace("test split", "validation series"))
        for pattern, what in _FILES
        for path in sorted(run_dir.glob(pattern))
    ]


def sync_command(folder: Path) -> str:
    """Return the command that sends the runs that Weights & Biases wrote offline into a folder."""
    return f"wandb sync {shlex.quote(str(folder / 'wandb'))}/offline-run-*"
