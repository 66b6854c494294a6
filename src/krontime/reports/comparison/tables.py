"""Tables of scores and costs: Markdown, LaTeX and CSV, made from records and from nothing else."""

import csv
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from krontime.reports.comparison.compare import LOWER_IS_BETTER, Comparison, RunGroup, Variant
from krontime.reports.markup import Cell, Line, Mark, Table, latex, markdown
from krontime.reports.published import Published
from krontime.runs.record import Status
from krontime.runs.screen import format_bytes, format_milliseconds
from krontime.storage import replacing

SCORES = "scores"
MISSING = "missing"
_MEAN = "mean over data sets"
_ENDINGS = {
    Status.FAILED: "failed",
    Status.OUT_OF_MEMORY: "out of memory",
    Status.INTERRUPTED: "interrupted",
}


def write_scores(comparison: Comparison, folder: Path, published: Sequence[Published] = ()) -> None:
    """Write `scores.md`, `scores.tex` and, one row for each entry, `scores.csv`.

    Args:
        comparison: rows of the tables are data sets and columns variants; the other way round where config keys
            distinguish variants.
        folder: where the files go.
        published: scores from elsewhere, which get columns of their own behind a rule.
    """
    numbering = _Numbering(comparison)
    shown = [item for item in published if _metric_of(comparison, item.data) == item.metric]
    tables = [_scores(comparison, numbering, shown), _costs(comparison)]
    if (winners := _winners(comparison)).body:
        tables.append(winners)
    caption = _caption(comparison, shown)
    for suffix, form in (("md", markdown), ("tex", latex)):
        with replacing(folder / f"{SCORES}.{suffix}") as temporary:
            temporary.write_text(form(tables, caption, numbering.texts), encoding="utf-8")
    write_csv([*_tidy(comparison), *_tidy_published(comparison, published)], folder / f"{SCORES}.csv")


def write_csv(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write rows of the same keys as CSV, with a header; None is an empty field."""
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(key for row in rows for key in row)), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


class _Numbering:
    """The notes with their numbers: those of the comparison first, then those added while a table is set."""

    def __init__(self, comparison: Comparison) -> None:
        self.comparison = comparison
        self.texts = [note.text for note in comparison.notes]

    def of(self, data: str, protocol: int | None = None, variant: Variant | None = None) -> tuple[int, ...]:
        """Numbers of the notes on exactly this data set or entry."""
        place = (data, protocol, variant)
        notes = enumerate(self.comparison.notes, start=1)
        return tuple(n for n, note in notes if (note.data, note.protocol, note.variant) == place)

    def add(self, text: str) -> int:
        """The number of a note, added unless it is there."""
        if text not in self.texts:
            self.texts.append(text)
        return self.texts.index(text) + 1


def _scores(comparison: Comparison, numbering: _Numbering, published: Sequence[Published]) -> Table:
    models = sorted({item.model for item in published}, key=str.casefold)
    by_place = {(item.data, item.model): item for item in published}
    marks = {
        row: _marks(entry for entry in comparison.entries if (entry.data, entry.protocol) == row)
        for row in comparison.rows
    }

    def cell(row: tuple[str, int], variant: Variant) -> Cell:
        entries = comparison.of(*row, variant)
        lines = [_score_line(entry, marks[row]) for entry in entries]
        return Cell(tuple(lines) or (Line(_absent(row)),), numbering.of(*row, variant))

    def elsewhere(data: str, model: str) -> Cell:
        if (item := by_place.get((data, model))) is None:
            return Cell((Line("-"),))
        note = f"From elsewhere: {item.source}. Protocol: {item.protocol}."
        return Cell((Line(item.value),), (numbering.add(note),))

    metrics = {row: _metric(comparison, row).replace("_", " ") for row in comparison.rows}
    means = [comparison.mean_over_data_sets(variant) for variant in comparison.variants]
    shown = ["-" if mean is None else f"{mean[0]:.3f}" for mean in means] if any(means) else []
    header: list[str | Cell]
    body: list[list[str | Cell]]
    if comparison.keys:
        header = [*map(_last_part(comparison.keys), comparison.keys)]
        header += [Cell((Line(row[0]), Line(f"({metrics[row]})")), numbering.of(row[0])) for row in comparison.rows]
        body = [[*variant, *(cell(row, variant) for row in comparison.rows)] for variant in comparison.variants]
        if shown:
            header.append(_MEAN)
            for line, mean in zip(body, shown, strict=True):
                line.append(mean)
        return Table("Test score", header, body, num_left=len(comparison.keys))
    header = ["data set", "score", *(" ".join(variant) for variant in comparison.variants), *models]
    body = [
        [
            Cell((Line(row[0]),), numbering.of(row[0])),
            metrics[row],
            *(cell(row, variant) for variant in comparison.variants),
            *(elsewhere(row[0], model) if row[1] == 0 else Cell((Line("-"),)) for model in models),
        ]
        for row in comparison.rows
    ]
    if shown:
        (metric,) = {mean[1].replace("_", " ") for mean in means if mean is not None}
        body.append([_MEAN, metric, *shown, *("-" for _ in models)])
    own = len(header) - len(models)
    return Table("Test score", header, body, num_left=2, rule_before=own if models else None)


def _costs(comparison: Comparison) -> Table:
    cost = _cost(comparison)

    def cell(row: tuple[str, int], variant: Variant) -> Cell:
        lines = [Line(cost(entry)) for entry in comparison.of(*row, variant)]
        return Cell(tuple(lines) or (Line("-"),))

    def epochs(entries: Iterable[RunGroup]) -> str:
        return " or ".join(map(str, sorted(set().union(*(entry.max_epochs for entry in entries))))) or "-"

    title = f"Cost: {', '.join(_costs_known(comparison).values())}"
    header: list[str]
    body: list[list[str | Cell]]
    if comparison.keys:
        header = [*map(_last_part(comparison.keys), comparison.keys), "most epochs"]
        header += [data for data, _ in comparison.rows]
        body = [
            [
                *variant,
                epochs(entry for entry in comparison.entries if entry.variant == variant),
                *(cell(row, variant) for row in comparison.rows),
            ]
            for variant in comparison.variants
        ]
        return Table(title, header, body, num_left=len(comparison.keys) + 1)
    header = ["data set", "most epochs", *(" ".join(variant) for variant in comparison.variants)]
    body = [
        [
            row[0],
            epochs(entry for entry in comparison.entries if (entry.data, entry.protocol) == row),
            *(cell(row, variant) for variant in comparison.variants),
        ]
        for row in comparison.rows
    ]
    return Table(title, header, body, num_left=2)


def _winners(comparison: Comparison) -> Table:
    """The best two values of each key on each data set, among variants that are alike in all other keys."""
    cost = _cost(comparison)
    keys = list(map(_last_part(comparison.keys), comparison.keys))
    data_sets = [data for data, protocol in comparison.rows if protocol == 0]

    def cell(data: str, variants: Iterable[Variant], position: int) -> Cell | None:
        scored = [(variant, entry) for variant in variants if (entry := comparison.only(data, variant))]
        if len(scored) < 2:
            return None
        marks = _marks(entry for _, entry in scored)
        lines = [
            (marks[score], Line(variant[position], marks[score], f" {score} ({cost(entry)})"))
            for variant, entry in scored
            if (score := _score(entry)) in marks
        ]
        return Cell(tuple(line for _, line in sorted(lines, key=lambda pair: pair[0])) or (Line("no difference"),))

    body: list[list[str | Cell]] = []
    for position, key in enumerate(keys if len(keys) > 1 else ()):
        alike: dict[Variant, list[Variant]] = defaultdict(list)
        for variant in comparison.variants:
            alike[variant[:position] + variant[position + 1 :]].append(variant)
        for rest, variants in alike.items():
            cells = [cell(data, variants, position) for data in data_sets]
            if any(cells):
                others = zip(keys[:position] + keys[position + 1 :], rest, strict=True)
                values = ", ".join(variant[position] for variant in variants)
                all_else = ", ".join(f"{name} {value}" for name, value in others)
                body.append([key, values, all_else, *(shown or Cell((Line("-"),)) for shown in cells)])
    header = ["option", "values", "all else", *data_sets]
    return Table("Which value of an option wins, and which comes second, at which cost", header, body, num_left=3)


def _score_line(entry: RunGroup, marks: Mapping[str, Mark]) -> Line:
    score = _score(entry)
    rest = [] if entry.mean is None else [f"(n={len(entry.scores)})"]
    if entry.metric == "balanced_accuracy" and (accuracy := entry.mean_score("accuracy")) is not None:
        rest.append(f"accuracy {accuracy:.3f}")
    if undefined := len(entry.completed) - len(entry.scores):
        rest.append(f"{undefined} without this score")
    rest += [f"{count} {ending}" for status, ending in _ENDINGS.items() if (count := entry.count(status))]
    if entry.num_missing:
        rest.append(f"{entry.num_missing} {MISSING}")
    if entry.num_out_of_time:
        rest.append(f"{entry.num_out_of_time} out of time")
    after = ", ".join(rest)
    return Line(score, marks.get(score), f" {after}") if score else Line(after)


def _score(entry: RunGroup) -> str:
    if entry.mean is None:
        return ""
    return f"{entry.mean:.3f}" + (f" ± {entry.deviation:.3f}" if entry.deviation is not None else "")


def _marks(entries: Iterable[RunGroup]) -> dict[str, Mark]:
    """Which mark a score gets among those of one metric; scores whose means look the same share it."""
    entries = [entry for entry in entries if entry.mean is not None]
    is_lower_better = any(entry.metric in LOWER_IS_BETTER for entry in entries)
    means = sorted({f"{entry.mean:.3f}" for entry in entries}, key=float, reverse=not is_lower_better)
    if len(means) < 2:
        return {}
    places: dict[str, Mark] = {means[0]: "best", means[1]: "second"}
    return {_score(e): places[mean] for e in entries if (mean := f"{e.mean:.3f}") in places}


def _seconds(s: float) -> str:
    return f"{s:,.0f} s" if s >= 9.95 else f"{s:.1f} s"


_COSTS: dict[str, tuple[str, Callable[[float], str]]] = {
    "train_time_s": ("training time", _seconds),
    "train_cpu_s": ("processor time of training", _seconds),
    "inference_ms_per_series": ("time to classify a series", format_milliseconds),
    "peak_memory_bytes": ("peak memory", lambda num_bytes: format_bytes(round(num_bytes))),
    "num_parameters": ("parameters", lambda num: f"{num:,.0f}"),
}
"""What a cell of costs holds, by field of the record: its name, and how it is shown."""


def _costs_known(comparison: Comparison) -> dict[str, str]:
    """Names of the costs by field; records of earlier versions do not all have the time to classify."""
    left_out = {"train_time_s", "train_cpu_s"} - {comparison.train_field}
    if all(record.inference_ms_per_series is None for record in comparison.records):
        left_out.add("inference_ms_per_series")
    return {field: name for field, (name, _) in _COSTS.items() if field not in left_out}


def _cost(comparison: Comparison) -> Callable[[RunGroup], str]:
    """How the costs of an entry are shown beside those of the others."""
    fields = _costs_known(comparison)

    def shown(entry: RunGroup) -> str:
        values = {field: entry.mean_of(field) for field in fields}
        if all(value is None for value in values.values()):
            return "-"
        return ", ".join("-" if value is None else _COSTS[field][1](value) for field, value in values.items())

    return shown


def _absent(row: tuple[str, int]) -> str:
    return "-" if row[1] else MISSING  # a rarer protocol is no gap


def _metric(comparison: Comparison, row: tuple[str, int]) -> str:
    return next(entry.metric for entry in comparison.entries if (entry.data, entry.protocol) == row)


def _metric_of(comparison: Comparison, data: str) -> str | None:
    return _metric(comparison, (data, 0)) if (data, 0) in comparison.rows else None


def _last_part(keys: Sequence[str]) -> Any:
    """Names for columns: the last part of each key, the whole key where two share it."""
    last = [key.rpartition(".")[2] for key in keys]
    return lambda key: name if last.count(name := key.rpartition(".")[2]) == 1 else key


def _caption(comparison: Comparison, published: Sequence[Published]) -> str:
    records = comparison.records
    devices = sorted({f"{r.device.count} x {r.device.name}, {r.device.num_threads} threads" for r in records})
    where = f"Computed on {'; '.join(devices)}"
    if len(devices) > 1:
        where += " (times are not comparable)"
    torch = sorted({record.versions["torch"] for record in records if "torch" in record.versions})
    where += f"; torch {', '.join(torch)}" if torch else ""
    commits = sorted({record.git.short for record in records if record.git is not None})
    where += f"; commit {', '.join(commits)}" if commits else ""
    lower = any(entry.metric in LOWER_IS_BETTER for entry in comparison.entries)
    repeated = "seeds and resamples" if any(r.protocol and r.protocol.resample for r in records) else "seeds"
    parts = [
        f"Mean ± sample standard deviation over n {repeated}; {'lower' if lower else 'higher'} is better, "
        "best in bold, second best underlined.",
        "Costs are means over the completed runs.",
    ]
    if any(entry.num_out_of_time for entry in comparison.entries):
        parts.append("Runs out of time count; they trained for all of the time that trainer.max_time allowed.")
    whose = {record.memory_of for record in records if record.device.kind == "cpu"}
    if "job" in whose:
        parts.append("Peak memory on a CPU is what a run took beyond what its process held before.")
    if "process" in whose:
        older = "of runs that were recorded before krontime told it apart " if "job" in whose else ""
        parts.append(f"Peak memory on a CPU {older}is that of the process, libraries included.")
    if published:
        parts.append("Scores behind the rule are not ours; the notes give source and protocol.")
    return " ".join([*parts, f"{where}."])


def _tidy(comparison: Comparison) -> list[dict[str, Any]]:
    names = [f"config.{key}" for key in comparison.keys] or ["model"]
    return [
        {
            "origin": "krontime",
            "data": entry.data,
            "protocol": entry.protocol,
            **dict(zip(names, entry.variant, strict=True)),
            "metric": entry.metric,
            "mean": entry.mean,
            "standard_deviation": entry.deviation,
            "n": len(entry.scores),
            "seeds": " ".join(str(run.record.seed) for run in entry.scored),
            **{status.value: entry.count(status) for status in Status},
            "missing": entry.num_missing,
            "out_of_time": entry.num_out_of_time,
            "max_epochs": " ".join(map(str, sorted(entry.max_epochs))),
            "train_time_s": entry.mean_of("train_time_s"),
            "train_cpu_s": entry.mean_of("train_cpu_s"),
            "inference_ms_per_series": entry.mean_of("inference_ms_per_series"),
            "peak_memory_bytes": entry.mean_of("peak_memory_bytes"),
            "num_parameters": entry.mean_of("num_parameters"),
            "source": None,
            "source_protocol": None,
        }
        for entry in comparison.entries
    ]


def _tidy_published(comparison: Comparison, published: Sequence[Published]) -> list[dict[str, Any]]:
    return [
        {
            "origin": "elsewhere",
            "data": item.data,
            "model": item.model,
            "metric": item.metric,
            "mean": item.value,
            "source": item.source,
            "source_protocol": item.protocol,
        }
        for item in published
        if _metric_of(comparison, item.data) is not None
    ]
