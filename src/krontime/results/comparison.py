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
from datetime import timedelta
from functools import cached_property
from typing import Any

from krontime.errors import UserError
from krontime.results.collect import Damaged, Stored, newest
from krontime.results.record import METRICS, MetricName, Protocol, Record, Status, config_hash, job_identity
from krontime.results.remarks import Note, Remarks, Unrecorded, Variant

AUTO = "auto"
"""Accuracy; balanced accuracy where a training class has at most half the series of another."""

LOWER_IS_BETTER = ("nll", "ece")

_COUNTS = ("num_train", "num_val", "train_class_counts", "groups_in_train_and_validation")
"""These may follow the seed of a split by group."""

_SEEDS = ("split_seed", "fold")
_BLANK: dict[str, Any] = {
    "split_seed": 0,
    "fold": None,
    "num_train": 0,
    "num_val": 0,
    "train_class_counts": {},
    "groups_in_train_and_validation": None,
}


@dataclass(frozen=True)
class Entry:
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
        found = (run.record.metrics.test.get(self.metric) for run in self.scored)
        return [score for score in found if score is not None]

    @property
    def mean(self) -> float | None:
        """Of the scores; None without any."""
        return statistics.fmean(self.scores) if self.scores else None

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
        found = {option(record.config, "trainer.max_epochs") for record in self.completed}
        return {value for value in found if isinstance(value, int)}

    @cached_property
    def num_out_of_time(self) -> int:
        """Completed runs that trained for all of the time that `trainer.max_time` allowed."""
        budgets = [(record.train_time_s, _time_budget_s(record.config)) for record in self.completed]
        return sum(time_s is not None and budget_s is not None and time_s >= budget_s for time_s, budget_s in budgets)


@dataclass(frozen=True)
class Comparison:
    """What tables, tests and plots are made from.

    Attributes:
        keys: config keys that tell variants apart; empty where the model's name does.
        variants: all of them, in the order of the tables.
        rows: data set and protocol, in the order of the tables.
        entries: by row, then variant; more than one of the same where configs differ.
        notes: on what was kept apart, is missing, or was left out.
    """

    keys: tuple[str, ...]
    variants: tuple[Variant, ...]
    rows: tuple[tuple[str, int], ...]
    entries: tuple[Entry, ...]
    notes: tuple[Note, ...]

    def of(self, data: str, protocol: int, variant: Variant) -> list[Entry]:
        """The entries of one cell; several where configs differ."""
        return [e for e in self.entries if (e.data, e.protocol, e.variant) == (data, protocol, variant)]

    def only(self, data: str, variant: Variant) -> Entry | None:
        """The entry with a score under a data set's first protocol; None where there is none, or not one alone."""
        found = self.of(data, 0, variant)
        return found[0] if len(found) == 1 and found[0].scores else None

    @property
    def data_sets(self) -> list[str]:
        """Names of the rows that are data sets of their own: not those for fewer training series of one."""
        return list(dict.fromkeys(entry.data for entry in self.entries if entry.origin[2] == math.inf))

    def mean_over_data_sets(self, variant: Variant) -> tuple[float, MetricName] | None:
        """Of the mean scores, and their metric; None without one for each of at least two data sets, all the same."""
        found = [entry for data in self.data_sets if (entry := self.only(data, variant))]
        means = [entry.mean for entry in found if entry.mean is not None]
        metrics = {entry.metric for entry in found}
        if len(means) == len(self.data_sets) > 1 and len(metrics) == 1:
            return statistics.fmean(means), metrics.pop()
        return None

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
        keys: config keys that tell variants apart; empty: the model's name.
        seeds: that every entry should have; None for those that any under the same protocol has.
        damaged: records that were left out.
        remarks: what the records do not tell.

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
    entries: list[Entry] = []
    for data, found in by_data.items():
        groups = _by_protocol(found)
        notes += _several_protocols(data, found, keys)
        if len(groups) > 1:
            protocols = [p.model_dump(exclude=set(_SEEDS)) for group in groups if (p := _protocol(group)) is not None]
            notes.append(Note(f"{data}: protocols differ ({_differing(protocols)}); kept apart, not comparable.", data))
        for number, group in enumerate(groups):
            entries += _entries(data, number, group, chosen(found[0].record.data), keys, seeds, notes)
    for (data_set, most, model), jobs in _alike(remarks.unrecorded).items():
        data = _row_name(data_set, most)
        if keys:  # which of the variants they are is not known
            notes.append(Note(f"{data}, {model}: {_num_jobs(jobs)} left no record.", data))
        else:
            _add_unrecorded(entries, Entry(data, 0, (model,), chosen(data_set), (), tuple(jobs)))
    told = {note.text for note in notes}
    notes += [note for note in remarks.notes if note.text not in told]
    variants = sorted({entry.variant for entry in entries}, key=lambda variant: [*map(_order, variant)])
    place = {variant: number for number, variant in enumerate(variants)}
    entries.sort(key=lambda entry: (*entry.origin, entry.protocol, place[entry.variant]))
    rows = tuple(dict.fromkeys((entry.data, entry.protocol) for entry in entries))
    return Comparison(tuple(keys), tuple(variants), rows, tuple(entries), tuple(notes))


def _alike(unrecorded: Iterable[Unrecorded]) -> dict[tuple[str, float, str], list[Unrecorded]]:
    """Jobs by data set, limit of training series and model."""
    found: dict[tuple[str, float, str], list[Unrecorded]] = defaultdict(list)
    for job in unrecorded:
        found[job.data, job.most_to_train, job.model].append(job)
    return found


def _num_jobs(jobs: Sequence[Unrecorded]) -> str:
    failed = sum(job.is_failed for job in jobs)
    return f"{len(jobs)} job{'s' if len(jobs) > 1 else ''}" + (f" ({failed} failed)" if failed else "")


def _add_unrecorded(entries: list[Entry], added: Entry) -> None:
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
    most = option(record.config, "data.validation.max_train")
    return most if isinstance(most, int) else math.inf


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
) -> list[Entry]:
    """Those of one data set under one protocol."""
    expected = {run.record.seed for run in group} if seeds is None else set(seeds)
    by_variant: dict[Variant, list[Stored]] = defaultdict(list)
    for run in group:
        by_variant[_variant(run.record, keys)].append(run)
    found = []
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
            by_config[config_hash(_without_seeds(kept.record.config))].append(kept)
        if len(by_config) > 1:
            configs = [job_identity(_without_seeds(runs[0].record.config)) for runs in by_config.values()]
            note(f"configs differ ({_differing(configs)}); one line each.")
        for alike in by_config.values():
            alike.sort(key=lambda run: run.record.seed)
            if missing := expected - {run.record.seed for run in alike}:
                note(f"no run with seed {', '.join(map(str, sorted(missing)))}.")
            if differing := _differing_software(alike):
                note(f"runs of several versions ({differing}).")
            found.append(Entry(data, number, variant, metric, tuple(alike)))
    return found


def _several_protocols(data: str, runs: Sequence[Stored], keys: Sequence[str]) -> list[Note]:
    """Notes on jobs whose runs differ in their protocol, though data and config are the same."""
    jobs: dict[tuple[str, str, Variant], list[Record]] = defaultdict(list)
    for run in runs:
        if (protocol := run.record.protocol) is not None:
            jobs[run.record.config_hash, protocol.data_sha256, _variant(run.record, keys)].append(run.record)
    notes = []
    for (_, _, variant), job in jobs.items():
        if differing := _differing([record.protocol.model_dump() for record in job if record.protocol]):
            text = f"{data}, {' '.join(variant)}: runs of seed {job[0].seed} differ in their protocol ({differing})."
            notes.append(Note(text, data, 0, variant, is_lost=True))
    return notes


def _differing_software(runs: Sequence[Stored]) -> str:
    """Where completed runs are not of one commit and one version of each package."""
    completed = [run.record for run in runs if run.record.status is Status.COMPLETED]
    software = [{"commit": record.git.short if record.git else "none", **record.versions} for record in completed]
    return _differing([item for number, item in enumerate(software) if item not in software[:number]])


def _by_protocol(runs: Sequence[Stored]) -> list[list[Stored]]:
    """Runs on one data set, grouped by what their protocols share, the largest group first.

    The seed of a split may differ within a group, and with it the sizes of train and validation; with one seed
    the sizes must agree. Runs that failed before they had a protocol go with the largest group.
    """
    groups: dict[str, list[Stored]] = defaultdict(list)
    lost = []
    usual = _usual_selection(runs)
    for run in runs:
        if run.record.protocol is None:
            lost.append(run)
        else:
            blank = _BLANK
            if run.record.protocol.fitted_on is not None:  # a reference, which selects nothing where networks select
                blank = {**_BLANK, "fitted_on": None, "series_length": None, "selection_metric": usual}
            groups[run.record.protocol.model_copy(update=blank).model_dump_json()].append(run)
    apart: list[list[Stored]] = []
    for group in groups.values():
        sizes: dict[str, set[str]] = defaultdict(set)
        for run in group:
            sizes[_dump(run, _SEEDS)].add(_dump(run, _COUNTS))
        if all(len(found) == 1 for found in sizes.values()):
            apart.append(group)
        else:
            by_size: dict[str, list[Stored]] = defaultdict(list)
            for run in group:
                by_size[_dump(run, _COUNTS)].append(run)
            apart += by_size.values()
    apart.sort(key=len, reverse=True)
    if not apart:
        return [lost]
    apart[0] += lost
    return apart


def _usual_selection(runs: Sequence[Stored]) -> str | None:
    """The metric that most networks were selected on, whose rows reference classifiers are shown in."""
    protocols = [run.record.protocol for run in runs if run.record.protocol and not run.record.protocol.fitted_on]
    return statistics.mode(protocol.selection_metric for protocol in protocols) if protocols else None


def _dump(run: Stored, fields: Iterable[str]) -> str:
    assert run.record.protocol is not None
    return run.record.protocol.model_dump_json(include=set(fields))


def _protocol(group: Sequence[Stored]) -> Protocol | None:
    return next((run.record.protocol for run in group if run.record.protocol is not None), None)


def _check_keys(keys: Iterable[str], runs: Sequence[Stored]) -> None:
    missing = [key for key in keys if all(option(run.record.config, key, _NONE) is _NONE for run in runs)]
    if missing:
        raise UserError([f"rows: {key!r}: expected a config key that a record has" for key in missing])


_NONE = object()


def option(config: Mapping[str, Any], key: str, default: Any = None) -> Any:
    """The value of a dotted key of a config."""
    value: Any = config
    for part in key.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return default
        value = value[part]
    return value


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


def _time_budget_s(config: Mapping[str, Any]) -> float | None:
    """`trainer.max_time` in seconds: Lightning takes DD:HH:MM:SS or the arguments of a timedelta."""
    budget = option(config, "trainer.max_time")
    if isinstance(budget, Mapping):
        with suppress(TypeError):  # no arguments that Lightning would have taken
            return timedelta(**budget).total_seconds()
    if isinstance(budget, str) and (found := re.fullmatch(r"(\d+):(\d\d):(\d\d):(\d\d)", budget.strip())):
        days, hours, minutes, seconds = map(int, found.groups())
        return timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds).total_seconds()
    return None


def _without_seeds(value: Any) -> Any:
    """`value` without the keys that only say which repetition a run is."""
    if isinstance(value, Mapping):
        return {
            key: _without_seeds(item)
            for key, item in value.items()
            if key not in ("seed", "fold") and not key.endswith("_seed")
        }
    return [_without_seeds(item) for item in value] if isinstance(value, list) else value


def _differing(values: Sequence[Mapping[str, Any]]) -> str:
    """The dotted keys at which mappings do not all agree, with their values in the mappings' order."""
    flat = [dict(_flatten(value)) for value in values]
    keys = sorted(set().union(*flat))
    parts = []
    for key in keys:
        found = [_short(item[key]) if key in item else "none" for item in flat]
        if any(item.get(key, _NONE) != flat[0].get(key, _NONE) for item in flat):
            parts.append(f"{key}: {' / '.join(found)}")
    return ", ".join(parts)


def _short(value: Any) -> str:
    text = str(value)
    return f"{text[:8]}..." if re.fullmatch("[0-9a-f]{64}", text) else text


def _flatten(value: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, item in value.items():
        if isinstance(item, Mapping) and item:
            yield from _flatten(item, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", item
