"""The page on several runs: what each model or variant reached on each data set, and at what cost."""

from collections.abc import Sequence
from pathlib import Path

from krontime.metrics import METRIC_TITLES, METRICS, MetricName
from krontime.reports.comparison.collect import Stored
from krontime.reports.comparison.compare import LOWER_IS_BETTER, Comparison, RunGroup, Variant, resample_of
from krontime.reports.comparison.intervals import Interval, intervals
from krontime.reports.page import figures
from krontime.reports.page.render import Code, Section, Table, write_page
from krontime.runs.record import Record, Status
from krontime.runs.screen import typed

MAX_LINES = 6
"""Variants that the figure of all data sets can tell apart."""

SCORES: tuple[MetricName, ...] = ("accuracy", "balanced_accuracy", "nll")
COSTS = {"train_cpu_s": "training (processor time)", "train_time_s": "training"}


def write_sweep_page(
    comparison: Comparison, name: str, path: Path, *, table: Path | None = None, above: str | None = None
) -> None:
    """Write the page, whole or not at all.

    Args:
        comparison: of the runs.
        name: of the folder that they lie in.
        path: the page.
        table: folder of published results, where the runs are its archive's.
        above: what has to be known before the scores are read; None for nothing.
    """
    single, problems = intervals(comparison)
    data_sets = list(dict.fromkeys(entry.data for entry in comparison.entries))
    sections = [_overview(comparison, data_sets)] if len(data_sets) > 1 and len(comparison.variants) > 1 else []
    for data in data_sets:
        sections.append(_data_set(comparison, data, [it for it in single if it.data == data]))
    sections += [_notes([note.text for note in comparison.notes] + problems)]
    sections += [_reproduce(comparison, table)] if table is not None else []
    completed = [record for record in comparison.records if record.status is Status.COMPLETED]
    models = ", ".join(sorted({record.model for record in completed}))
    words = [
        f"{len(completed)} completed runs of {models} on {_number(len(data_sets), 'data set')}.",
        "Where intervals overlap, these test series can't tell which is better.",
    ]
    write_page(f"Runs of {name}", " ".join([*words, *([above] if above else [])]), sections, path)


def _number(count: int, what: str) -> str:
    return f"{count} {what}{'s' if count != 1 else ''}"


def _varying(comparison: Comparison) -> list[int]:
    """Positions of the keys in which variants differ."""
    return [place for place in range(len(comparison.keys)) if len({it[place] for it in comparison.variants}) > 1]


def _named(comparison: Comparison, variant: Variant) -> list[str]:
    """What sets a variant apart: the values of the keys in which variants differ, or the name of the model."""
    return [variant[place] for place in _varying(comparison)] or [" ".join(variant)]


def _keys(comparison: Comparison) -> list[str]:
    return [comparison.keys[place].rpartition(".")[2] for place in _varying(comparison)]


def _overview(comparison: Comparison, data_sets: Sequence[str]) -> Section:
    """Scores of all variants on all data sets; a column for each of few, a row for each of many."""
    names = [" ".join(_named(comparison, variant)) for variant in comparison.variants]
    entries = [[comparison.only(data, variant) for variant in comparison.variants] for data in data_sets]
    means = [comparison.mean_over_data_sets(variant) for variant in comparison.variants]
    shown = ["" if mean is None else f"{mean[0]:.3f}" for mean in means]
    drawn_again = "resamples" if _is_resampled(comparison) else "seeds"
    words = [f"Mean over {drawn_again} (± standard deviation) on the test split."]
    if len(names) > MAX_LINES:
        header = [*(_keys(comparison) or ["model"]), *map(_titled, data_sets, entries), "mean"]
        rows = [
            [*_named(comparison, variant), *(_mean(line[place]) for line in entries), shown[place]]
            for place, variant in enumerate(comparison.variants)
        ]
        return Section("All data sets", words, [Table("Scores", header, rows)])
    rows = [[_titled(data, line), *map(_mean, line)] for data, line in zip(data_sets, entries, strict=True)]
    if all(shown):
        rows.append(["mean", *shown])
    lines = {
        name: [
            (data, it.mean)
            for data, line in zip(data_sets, entries, strict=True)
            if (it := line[place]) and it.mean is not None
        ]
        for place, name in enumerate(names)
    }
    drawn = [figures.points("Test score", lines)]
    return Section("All data sets", words, [Table("Scores", ["data set", *names], rows)], drawn)


def _titled(data: str, entries: Sequence[RunGroup | None]) -> str:
    """A data set, with its score where that is not accuracy."""
    metric: MetricName = next((entry.metric for entry in entries if entry is not None), "accuracy")
    return data if metric == "accuracy" else f"{data} ({METRIC_TITLES[metric]})"


def _mean(entry: RunGroup | None) -> str:
    if entry is None or entry.mean is None:
        return ""
    return f"{entry.mean:.3f}" + ("" if entry.deviation is None else f" ± {entry.deviation:.3f}")


def _data_set(comparison: Comparison, data: str, known: Sequence[Interval]) -> Section:
    """The runs on one data set, the best first, and the scores of their variants with intervals."""
    entries = [entry for entry in comparison.entries if entry.data == data]
    field = comparison.train_field
    scores = [METRIC_TITLES[name] for name in SCORES]
    which = ["resample", "seed"] if _is_resampled(comparison) else ["seed"]
    header = [*(_keys(comparison) or ["model"]), *which, *scores, COSTS[field], "parameters", "run"]
    ordered = sorted(entries, key=_standing)
    rows = [
        [
            *_named(comparison, entry.variant),
            *([str(resample_of(run))] if _is_resampled(comparison) else []),
            *_scores(run),
            *_costs(run, field),
            run.job.removeprefix(f"{data}/"),
        ]
        for entry in ordered
        for run in sorted(entry.runs, key=lambda run: (resample_of(run), run.record.seed))
    ]
    variants = list(dict.fromkeys(entry.variant for entry in ordered))
    drawn = [
        (" ".join(_named(comparison, variant)), it.mean, it.low, it.high)
        for variant in variants
        for it in known
        if it.variant == variant
    ]
    metric = next((METRIC_TITLES[name] for name in METRICS if known and name == known[0].metric), "")
    tables = [Table(f"Runs on {data}", header, rows)]
    return Section(data, [], tables, [figures.scores(f"Test {metric}", drawn)] if drawn else [])


def _standing(entry: RunGroup) -> tuple[bool, float]:
    """By which entries are sorted, the best first and those without a score last."""
    mean = entry.mean or 0.0
    return entry.mean is None, mean if entry.metric in LOWER_IS_BETTER else -mean


def _is_resampled(comparison: Comparison) -> bool:
    return any(resample_of(run) for entry in comparison.entries for run in entry.runs)


def _scores(run: Stored) -> list[str]:
    record = run.record
    if record.status is not Status.COMPLETED:
        return [str(record.seed), record.status.replace("_", " "), "", ""]
    test = [record.metrics.test.get(metric) for metric in SCORES]
    return [str(record.seed), *("" if score is None else f"{score:.4f}" for score in test)]


def _costs(run: Stored, field: str) -> list[str]:
    seconds, size = getattr(run.record, field), run.record.num_parameters
    return ["" if seconds is None else f"{seconds:.1f} s", "" if size is None else f"{size:,}"]


def _notes(texts: Sequence[str]) -> Section:
    if not texts:
        return Section("Notes", ["Nothing was left out, and no run is missing."])
    return Section("Notes", [], [Table("Notes", ["number", "note"], [[str(n), it] for n, it in enumerate(texts, 1)])])


def _reproduce(comparison: Comparison, table: Path) -> Section:
    (example, *_) = (run.job for entry in comparison.entries for run in entry.runs)
    of_run = f"{typed('table', table)} {typed('run', example)}"
    codes = [
        Code("Train one of these runs again, and compare", f"krontime verify {of_run}"),
        Code("A page on one of them", f"krontime report {of_run}"),
    ]
    words = f"On {', '.join(sorted({_machine(record) for record in comparison.records}))}."
    return Section("Use it, and make it again", [words], code=codes)


def _machine(record: Record) -> str:
    threads = _number(record.device.num_threads, "thread")
    return f"{record.device.name} ({threads}, torch {record.versions.get('torch', 'unknown')})"
