"""Runs put side by side: what may be averaged is, and everything else is kept apart and noted.

Runs are averaged only when all that sets them apart is the seed. Where protocols or configs differ they stay apart, and
a note says how they differ.
"""

import math
import re
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

from krontime.config.identity import config_hash, job_identity
from krontime.config.time_limit import limit_seconds
from krontime.errors import UserError
from krontime.metrics import METRICS, MetricName
from krontime.reports.comparison.collect import Damaged, Stored, newest
from krontime.reports.comparison.differences import NONE, differing, option, shortly, without_seeds
from krontime.reports.comparison.protocols import SEEDS, by_protocol, first_protocol
from krontime.runs.record import Record, Status
from krontime.runs.remarks import Note, Remarks, Unrecorded, Variant

AUTO = "auto"
"""Accuracy; balanced accuracy where a training class has at most half the series of another."""

LOWER_IS_BETTER = ("nll", "ece")

UNBOUNDED = ("nll",)
"""Scores that may be above 1."""


@dataclass(frozen=True)
class RunGroup:
    """Runs of one variant on one data set, under one protocol, that differ in the seed alone.

    Attributes:
        data: name of the data set, with the number of training series where that was limited.
        protocol: number among the protocols of that data set; 0 for the one with most runs.
        variant: see `Variant`.
        metric: that its score is.
        runs: one for each seed (or fold, or seed of the split), ascending; none where no job left a record.
        unrecorded: jobs of a sweep that left no record.
    """

    data: str
    protocol: int
    variant: Variant
    metric: MetricName
    runs: tuple[Stored, ...]
    unrecorded: tuple[Unrecorded, ...] = ()

    def count(self, status: Status) -> int:
        """How many runs ended so, with those that failed before they could leave a record."""
        num_unrecorded = sum(job.is_failed for job in self.unrecorded) if status is Status.FAILED else 0
        return sum(run.record.status is status for run in self.runs) + num_unrecorded

    @property
    def num_missing(self) -> int:
        """Jobs that were not run, or cut off without a record."""
        return sum(not job.is_failed for job in self.unrecorded)

    @property
    def origin(self) -> tuple[str, str, float]:
        """The data set, by which entries are sorted, and to how many of its training series they were limited."""
        if self.runs:
            record = self.runs[0].record
            return record.data.casefold(), record.data, _most_to_train(record)
        job = self.unrecorded[0]
        return job.data.casefold(), job.data, job.most_to_train

    @cached_property
    def completed(self) -> list[Record]:
        """Records of the runs that were completed."""
        return [run.record for run in self.runs if run.record.status is Status.COMPLETED]

    @cached_property
    def scored(self) -> list[Stored]:
        """Completed runs whose test score is defined."""
        completed = (run for run in self.runs if run.record.status is Status.COMPLETED)
        return [run for run in completed if run.record.metrics.test.get(self.metric) is not None]

    @cached_property
    def scores(self) -> list[float]:
        """Test scores of `scored`."""
        values = (run.record.metrics.test.get(self.metric) for run in self.scored)
        return [score for score in values if score is not None]

    @property
    def newest_start(self) -> float:
        """When the newest of the scored runs was started, in seconds."""
        return max(run.record.started_at.timestamp() for run in self.scored)

    @property
    def mean(self) -> float | None:
        """Of the scores; None without any."""
        return statistics.fmean(self.scores) if self.scores else None

    def mean_score(self, metric: MetricName) -> float | None:
        """Mean of another test score of the same runs; None where one has none."""
        scores = [score for run in self.scored if (score := run.record.metrics.test.get(metric)) is not None]
        return statistics.fmean(scores) if scores and len(scores) == len(self.scored) else None

    @property
    def deviation(self) -> float | None:
        """Sample standard deviation of the scores; None for fewer than two."""
        return statistics.stdev(self.scores) if len(self.scores) > 1 else None

    def mean_of(self, field: str) -> float | None:
        """Mean of a number of the completed records, such as `train_time_s`; None where none has it."""
        values = [value for record in self.completed if (value := getattr(record, field)) is not None]
        return statistics.fmean(values) if values else None

    @cached_property
    def max_epochs(self) -> set[int]:
        """Epochs that the completed runs were allowed."""
        values = {option(record.config, "trainer.max_epochs") for record in self.completed}
        return {value for value in values if isinstance(value, int)}

    @cached_property
    def num_out_of_time(self) -> int:
        """Completed runs that trained for all of the time that `trainer.max_time` allowed."""
        return sum(map(_is_out_of_time, self.completed))


@dataclass(frozen=True)
class Comparison:
    """What tables, tests and plots are made from.

    Attributes:
        keys: config keys that distinguish variants; empty where the model's name does.
        variants: all of them, in the order of the tables.
        rows: data set and protocol, in the order of the tables.
        entries: by row, then variant; more than one of the same where configs differ.
        notes: on what was kept apart, is missing, or was left out.
    """

    keys: tuple[str, ...]
    variants: tuple[Variant, ...]
    rows: tuple[tuple[str, int], ...]
    entries: tuple[RunGroup, ...]
    notes: tuple[Note, ...]

    def of(self, data: str, protocol: int, variant: Variant) -> list[RunGroup]:
        """The entries of one cell; several where configs differ."""
        return [e for e in self.entries if (e.data, e.protocol, e.variant) == (data, protocol, variant)]

    def only(self, data: str, variant: Variant) -> RunGroup | None:
        """The entry with a score under a data set's first protocol; None where there is none.

        Where configs differ it is the one of most runs, and of those the newest.
        """
        scored = [entry for entry in self.of(data, 0, variant) if entry.scores]
        return max(scored, key=lambda entry: (len(entry.scores), entry.newest_start), default=None)

    @property
    def data_sets(self) -> list[str]:
        """Names of the rows that are data sets of their own: not those for fewer training series of one."""
        return list(dict.fromkeys(entry.data for entry in self.entries if entry.origin[2] == math.inf))

    def mean_over_data_sets(self, variant: Variant) -> tuple[float, MetricName] | None:
        """Of the mean scores, and their metric; None without one for each of at least two data sets, all the same."""
        groups = [entry for data in self.data_sets if (entry := self.only(data, variant))]
        means = [entry.mean for entry in groups if entry.mean is not None]
        metrics = {entry.metric for entry in groups}
        if len(means) == len(self.data_sets) > 1 and len(metrics) == 1:
            return statistics.fmean(means), metrics.pop()
        return None

    @cached_property
    def train_field(self) -> Literal["train_cpu_s", "train_time_s"]:
        """The field of records that times are compared by: processor time, where every completed run has it."""
        completed = [record for record in self.records if record.status is Status.COMPLETED]
        known = bool(completed) and all(record.train_cpu_s is not None for record in completed)
        return "train_cpu_s" if known else "train_time_s"

    @property
    def records(self) -> list[Record]:
        """Of all runs."""
        return [run.record for entry in self.entries for run in entry.runs]


def compare(
    runs: Sequence[Stored],
    *,
    metric: str = AUTO,
    keys: Sequence[str] = (),
    seeds: Iterable[int] | None = None,
    damaged: Sequence[Damaged] = (),
    remarks: Remarks | None = None,
) -> Comparison:
    """Sort runs into entries; a job that was run again counts once, by its newest completed run.

    Args:
        runs: at least one.
        metric: name of a metric, or `auto`.
        keys: config keys that distinguish variants; empty: the model's name.
        seeds: that every entry should have; None for those that any under the same protocol has.
        damaged: records that were left out.
        remarks: what the records do not say.

    Raises:
        UserError: no record has one of the keys.
    """
    _check_keys(keys, runs)
    notes = [Note(f"Left out, damaged: {item.place}: {'; '.join(item.problems)}.") for item in damaged]
    remarks = remarks or Remarks()
    imbalanced = _imbalanced(runs)

    def chosen(data_set: str) -> MetricName:
        automatic: MetricName = "balanced_accuracy" if data_set in imbalanced else "accuracy"
        return next((name for name in METRICS if name == metric), automatic)

    by_data: dict[str, list[Stored]] = defaultdict(list)
    for run in sorted(runs, key=lambda run: (run.record.data.casefold(), run.record.data, _most_to_train(run.record))):
        by_data[_row_name(run.record.data, _most_to_train(run.record))].append(run)
    entries: list[RunGroup] = []
    for data, same_data in by_data.items():
        groups = by_protocol(same_data)
        notes += _several_protocols(data, same_data, keys)
        if len(groups) > 1:
            protocols = [
                p.model_dump(exclude=set(SEEDS)) for group in groups if (p := first_protocol(group)) is not None
            ]
            notes.append(Note(f"{data}: protocols differ ({differing(protocols)}); kept apart, not comparable.", data))
        for number, group in enumerate(groups):
            entries += _entries(data, number, group, chosen(same_data[0].record.data), keys, seeds, notes)
    for (data_set, max_train, model), jobs in _alike(remarks.unrecorded).items():
        data = _row_name(data_set, max_train)
        if keys:  # which of the variants they are is not known
            notes.append(Note(f"{data}, {model}: {_num_jobs(jobs)} left no record.", data))
        else:
            _add_unrecorded(entries, RunGroup(data, 0, (model,), chosen(data_set), (), tuple(jobs)))
    noted = {note.text for note in notes}
    notes += [note for note in remarks.notes if note.text not in noted]
    variants = sorted({entry.variant for entry in entries}, key=lambda variant: [*map(_order, variant)])
    place = {variant: number for number, variant in enumerate(variants)}
    entries.sort(key=lambda entry: (*entry.origin, entry.protocol, place[entry.variant]))
    rows = tuple(dict.fromkeys((entry.data, entry.protocol) for entry in entries))
    return Comparison(tuple(keys), tuple(variants), rows, tuple(entries), tuple(notes))


def _alike(unrecorded: Iterable[Unrecorded]) -> dict[tuple[str, float, str], list[Unrecorded]]:
    """Jobs by data set, limit of training series and model."""
    alike: dict[tuple[str, float, str], list[Unrecorded]] = defaultdict(list)
    for job in unrecorded:
        alike[job.data, job.most_to_train, job.model].append(job)
    return alike


def _num_jobs(jobs: Sequence[Unrecorded]) -> str:
    failed = sum(job.is_failed for job in jobs)
    return f"{len(jobs)} job{'s' if len(jobs) > 1 else ''}" + (f" ({failed} failed)" if failed else "")


def _add_unrecorded(entries: list[RunGroup], added: RunGroup) -> None:
    """Add the jobs of an entry without runs to the first that stands in its cell, or the entry itself."""
    for number, entry in enumerate(entries):
        if (entry.data, entry.protocol, entry.variant) == (added.data, added.protocol, added.variant):
            entries[number] = replace(entry, unrecorded=added.unrecorded)
            return
    entries.append(added)


def _imbalanced(runs: Iterable[Stored]) -> set[str]:
    """Data sets with a class of twice the series of another, by their largest training part: small ones are rounded."""
    largest: dict[str, float] = defaultdict(float)
    for run in runs:
        largest[run.record.data] = max(largest[run.record.data], _most_to_train(run.record))
    return {
        run.record.data
        for run in runs
        if run.record.protocol
        and run.record.protocol.imbalanced
        and _most_to_train(run.record) == largest[run.record.data]
    }


def _most_to_train(record: Record) -> float:
    """To how many training series a run was limited."""
    max_train = option(record.config, "data.validation.max_train")
    return max_train if isinstance(max_train, int) else math.inf


def _row_name(data: str, most: float) -> str:
    return data if most == math.inf else f"{data}, at most {most:,} training series"


def _entries(
    data: str,
    number: int,
    group: Sequence[Stored],
    metric: MetricName,
    keys: Sequence[str],
    seeds: Iterable[int] | None,
    notes: list[Note],
) -> list[RunGroup]:
    """Those of one data set under one protocol."""
    expected = {run.record.seed for run in group} if seeds is None else set(seeds)
    resamples = {resample_of(run) for run in group}
    by_variant: dict[Variant, list[Stored]] = defaultdict(list)
    for run in group:
        by_variant[_variant(run.record, keys)].append(run)
    groups = []
    for variant, runs in by_variant.items():
        where = f"{data}, {' '.join(variant)}"

        def note(text: str, *, is_lost: bool = False, where: str = where, variant: Variant = variant) -> None:
            notes.append(Note(f"{where}: {text}", data, number, variant, is_lost))

        jobs: dict[str, list[Stored]] = defaultdict(list)
        for run in runs:
            jobs[run.record.config_hash].append(run)
        by_config: dict[str, list[Stored]] = defaultdict(list)
        for job in jobs.values():
            kept = newest(job)
            scores = {run.record.metrics.test.get(metric) for run in job if run.record.status is Status.COMPLETED}
            if len(scores) > 1:
                note(f"runs of seed {kept.record.seed} do not repeat; the newest is shown.", is_lost=True)
            by_config[config_hash(without_seeds(kept.record.config))].append(kept)
        if len(by_config) > 1:
            configs = [job_identity(without_seeds(runs[0].record.config)) for runs in by_config.values()]
            note(f"configs differ ({shortly(configs)}); one line each.")
        for alike in by_config.values():
            alike.sort(key=lambda run: (resample_of(run), run.record.seed))
            if missing := expected - {run.record.seed for run in alike}:
                note(f"no run with seed {', '.join(map(str, sorted(missing)))}.")
            if missing := resamples - {resample_of(run) for run in alike}:
                note(f"no run on resample {', '.join(map(str, sorted(missing)))}.")
            if versions := _differing_software(alike):
                note(f"runs of several versions ({versions}).")
            groups.append(RunGroup(data, number, variant, metric, tuple(alike)))
    return groups


def resample_of(run: Stored) -> int:
    """Which split into train and test a run asked for."""
    resample = option(run.record.config, "data.resample", 0)
    return resample if isinstance(resample, int) else 0


def _several_protocols(data: str, runs: Sequence[Stored], keys: Sequence[str]) -> list[Note]:
    """Notes on jobs whose runs differ in their protocol, though data and config are the same."""
    jobs: dict[tuple[str, str, Variant], list[Record]] = defaultdict(list)
    for run in runs:
        if (protocol := run.record.protocol) is not None:
            jobs[run.record.config_hash, protocol.data_sha256, _variant(run.record, keys)].append(run.record)
    notes = []
    for (_, _, variant), job in jobs.items():
        if fields := differing([record.protocol.model_dump() for record in job if record.protocol]):
            text = f"{data}, {' '.join(variant)}: runs of seed {job[0].seed} differ in their protocol ({fields})."
            notes.append(Note(text, data, 0, variant, is_lost=True))
    return notes


def _differing_software(runs: Sequence[Stored]) -> str:
    """Where completed runs are not of one commit and one version of each package."""
    completed = [run.record for run in runs if run.record.status is Status.COMPLETED]
    software = [{"commit": record.git.short if record.git else "none", **record.versions} for record in completed]
    return differing([item for number, item in enumerate(software) if item not in software[:number]])


def _check_keys(keys: Iterable[str], runs: Sequence[Stored]) -> None:
    missing = [key for key in keys if all(option(run.record.config, key, NONE) is NONE for run in runs)]
    if missing:
        raise UserError([f"rows: {key!r}: expected a config key that a record has" for key in missing])


def _variant(record: Record, keys: Sequence[str]) -> Variant:
    return tuple(_shown(option(record.config, key)) for key in keys) if keys else (record.model,)


def _shown(value: Any) -> str:
    """A value of a config in a table."""
    if isinstance(value, Mapping):
        return str(value.get("_target_", "...")).rpartition(".")[2]
    if isinstance(value, list):
        return " x ".join(map(_shown, value))
    if isinstance(value, bool):
        return str(value).lower()
    return "-" if value is None else str(value)


def _order(text: str) -> tuple[int, float, str]:
    """Numbers by their size, before words."""
    return (0, float(text), "") if re.fullmatch(r"-?\d+(\.\d+)?", text) else (1, 0.0, text.casefold())


def _is_out_of_time(record: Record) -> bool:
    """Whether a run did all steps that there was time for, or in older records took all of the time."""
    if record.limited_by is not None:
        return record.limited_by == "seconds" and record.num_steps == record.max_steps
    with suppress(ValueError):  # Lightning would not have taken it either
        limit_s = limit_seconds(option(record.config, "trainer.max_time"))
        return limit_s is not None and record.train_time_s is not None and record.train_time_s >= limit_s
    return False
