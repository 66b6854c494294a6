"""Tables made from records, and from nothing else.

Runs are averaged only when all that sets them apart is the seed. Where protocols or configs differ the table keeps
them apart and says in a note how they differ.
"""

import argparse
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from krontime.errors import UserError
from krontime.results.files import RECORD, replacing
from krontime.results.record import MetricName, Protocol, Record, Status, config_hash, job_identity

BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"
_COUNTS = (
    "num_train",
    "num_val",
    "train_class_counts",
    "groups_in_train_and_validation",
)  # these may follow the seed of a split by group
_SEEDS = ("split_seed", "fold")


def collect(roots: Iterable[Path]) -> list[Record]:
    """Every record below `roots`, in the order of their paths, each file once.

    Raises:
        UserError: a root is no folder, or a record is damaged; names all of them.
    """
    problems: list[str] = []
    paths: set[Path] = set()
    for root in roots:
        if root.is_dir():
            paths.update(path.resolve() for path in root.rglob(RECORD))
        else:
            problems.append(f"{root}: expected a folder with run folders in it")
    records = []
    for path in sorted(paths):
        try:
            records.append(Record.read(path))
        except UserError as error:
            problems += error.problems
    if problems:
        raise UserError(problems)
    return records


def first_results_table(records: Sequence[Record]) -> str:
    """Markdown: a row per data set and a column per model, with notes on what was kept apart.

    A cell holds the mean test accuracy (balanced accuracy where a training class has at most half the series of
    another), its sample standard deviation over n seeds, the epochs allowed, and the mean training time and parameter
    count. Failed runs are counted, never left out in silence; a job that was run again counts once, by its newest
    completed run.

    Raises:
        UserError: there are no records.
    """
    if not records:
        raise UserError(f"no {RECORD} found: expected at least one finished run")
    notes: list[str] = []
    models = sorted({record.model for record in records})
    by_data: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        by_data[record.data].append(record)

    lines = [
        f"| data set | test score | {' | '.join(map(_escape, models))} |",
        "|---" * (2 + len(models)) + "|",
    ]
    for data in sorted(by_data, key=str.casefold):
        groups = _by_protocol(by_data[data])
        mark = ""
        if len(groups) > 1:
            protocols = [group[0].protocol for group in groups if group[0].protocol is not None]
            fields = _differing([protocol.model_dump(exclude=set(_SEEDS)) for protocol in protocols])
            mark = _note(notes, f"{data}: protocols differ ({', '.join(fields)}); one row each, not comparable.")
        for group in groups:
            balanced = any(record.protocol and record.protocol.imbalanced for record in group)
            score: MetricName = "balanced_accuracy" if balanced else "accuracy"
            seeds = {record.seed for record in group}
            cells = []
            for model in models:
                runs = [record for record in group if record.model == model]
                cells.append(_cell(runs, score, seeds, f"{data}, {model}", notes))
            lines.append(f"| {_escape(data)}{mark} | {score.replace('_', ' ')} | {' | '.join(cells)} |")

    devices = sorted({f"{r.device.count} x {r.device.name}, {r.device.num_threads} threads" for r in records})
    caption = (
        "Test score, mean ± standard deviation over n seeds; below it training time and parameters. "
        f"Computed on {'; '.join(devices)}{'; times are not comparable' if len(devices) > 1 else ''}."
    )
    footer = [f"<sup>{number}</sup> {_escape(note)}  " for number, note in enumerate(notes, start=1)]
    return "\n".join([*lines, "", caption, *(["", *footer] if footer else [])]) + "\n"


def publish(records: Iterable[Record], folder: Path) -> None:
    """Write records, each job's newest one, into `folder/DATA/MODEL/seedS-HASH`, without this machine's folders."""
    jobs: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        jobs[record.config_hash].append(record)
    for job in jobs.values():
        newest = _newest(job)
        run = f"seed{newest.seed}-{newest.config_hash}"
        newest.published().write(folder / newest.data / newest.model / run / RECORD)


def write_between_markers(readme_path: Path, table: str) -> None:
    """Put `table` between the two marker lines of a text file, in place of what stood there.

    Raises:
        UserError: the file is missing, or the markers are not there once each and in order.
    """
    try:
        text = readme_path.read_bytes().decode()
    except (OSError, ValueError) as error:
        raise UserError(f"{readme_path}: not a readable text file ({error})") from error
    head, begin, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end or text.count(BEGIN) != 1 or text.count(END) != 1:
        raise UserError(f"{readme_path}: expected one {BEGIN} and, after it, one {END}")
    with replacing(readme_path) as temporary:
        temporary.write_bytes(f"{head}{BEGIN}\n\n{table.strip()}\n\n{END}{tail}".encode())


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line: the table of all records below some folders, to standard output or into a README."""
    parser = argparse.ArgumentParser(prog="krontime.results.tables", description=main.__doc__)
    parser.add_argument("roots", nargs="+", type=Path, metavar="ROOT", help="folder with run folders in it")
    parser.add_argument("--publish", type=Path, metavar="FOLDER", help="copy the records there first, for the table")
    parser.add_argument("--readme", type=Path, help=f"file to write to, between {BEGIN} and {END}")
    options = parser.parse_args(arguments)
    try:
        records = collect(options.roots)
        if options.publish is not None:
            publish(records, options.publish)
            records = collect([options.publish])
        table = first_results_table(records)
        if options.readme is None:
            sys.stdout.write(table)
        else:
            write_between_markers(options.readme, table)
    except UserError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


def _by_protocol(records: Sequence[Record]) -> list[list[Record]]:
    """Records of one data set, grouped by what their protocols share, the largest group first.

    The seed of a split may differ within a group, and with it the sizes of train and validation; with one seed
    the sizes must agree. Runs that failed before they had a protocol go with the largest group.
    """
    groups: dict[str, list[Record]] = defaultdict(list)
    lost = []
    usual = _usual_selection(records)
    for record in records:
        if record.protocol is None:
            lost.append(record)
        else:
            blank = _BLANK
            if record.protocol.fitted_on == "train":  # a reference saw what a network trains on, and selected nothing
                blank = {**_BLANK, "fitted_on": None, "series_length": None, "selection_metric": usual}
            groups[record.protocol.model_copy(update=blank).model_dump_json()].append(record)
    apart: list[list[Record]] = []
    for group in groups.values():
        sizes: dict[str, set[str]] = defaultdict(set)
        for record in group:
            sizes[_dump(record.protocol, _SEEDS)].add(_dump(record.protocol, _COUNTS))
        if all(len(found) == 1 for found in sizes.values()):
            apart.append(group)
        else:
            by_size: dict[str, list[Record]] = defaultdict(list)
            for record in group:
                by_size[_dump(record.protocol, _COUNTS)].append(record)
            apart += by_size.values()
    apart.sort(key=len, reverse=True)
    if not apart:
        return [lost]
    apart[0] += lost
    return apart


def _usual_selection(records: Sequence[Record]) -> str | None:
    """The metric that most networks were selected on, whose rows reference classifiers are shown in."""
    found = [
        record.protocol.selection_metric for record in records if record.protocol and not record.protocol.fitted_on
    ]
    return statistics.mode(found) if found else None


_BLANK: dict[str, Any] = {
    "split_seed": 0,
    "fold": None,
    "num_train": 0,
    "num_val": 0,
    "train_class_counts": {},
    "groups_in_train_and_validation": None,
}


def _dump(protocol: Protocol | None, fields: Iterable[str]) -> str:
    assert protocol is not None
    return protocol.model_dump_json(include=set(fields))


def _cell(runs: Sequence[Record], score: MetricName, seeds: set[int], where: str, notes: list[str]) -> str:
    """One model's runs on one data set under one protocol; runs with different configs on lines of their own."""
    if not runs:
        return "-"
    variants: dict[str, list[Record]] = defaultdict(list)
    for record in _newest_of_each_job(runs, where, notes):
        variants[config_hash(_without_seeds(record.config))].append(record)
    text = "<br>".join(_summary(group, score) for group in variants.values())
    if len(variants) > 1:
        fields = _differing([job_identity(_without_seeds(group[0].config)) for group in variants.values()])
        text += _note(notes, f"{where}: configs differ ({', '.join(fields)}); one line each.")
    elif missing := seeds - {record.seed for record in runs}:
        text += _note(notes, f"{where}: no run with seed {', '.join(map(str, sorted(missing)))}.")
    return text


def _newest_of_each_job(runs: Sequence[Record], where: str, notes: list[str]) -> list[Record]:
    jobs: dict[str, list[Record]] = defaultdict(list)
    for record in runs:
        jobs[record.config_hash].append(record)
    newest = []
    for job in jobs.values():
        newest.append(_newest(job))
        scores = {record.metrics.test.get("accuracy") for record in job if record.status is Status.COMPLETED}
        if len(scores) > 1:
            notes.append(f"{where}: runs of seed {newest[-1].seed} do not repeat; the newest is shown.")
    return sorted(newest, key=lambda record: record.seed)


def _newest(job: Sequence[Record]) -> Record:
    """The newest completed run of a job; the newest of all where none was completed."""
    return max(job, key=lambda record: (record.status is Status.COMPLETED, record.started_at))


def _summary(runs: Sequence[Record], score: MetricName) -> str:
    completed = [record for record in runs if record.status is Status.COMPLETED]
    values = [value for record in completed if (value := record.metrics.test.get(score)) is not None]
    parts = []
    if values:
        deviation = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
        parts.append(f"{statistics.fmean(values):.3f}{deviation} (n={len(values)})")
    if undefined := len(completed) - len(values):
        parts.append(f"{undefined} without this score")
    for status in (Status.FAILED, Status.OUT_OF_MEMORY, Status.INTERRUPTED):
        if count := sum(record.status is status for record in runs):
            parts.append(f"{count} {status.replace('_', ' ')}")
    costs = []
    networks = [record for record in completed if not (record.protocol and record.protocol.fitted_on)]
    if epochs := sorted({str(_option(record, "trainer", "max_epochs")) for record in networks} - {"None"}):
        costs.append(f"at most {' or '.join(epochs)} epochs")
    if times := [record.train_time_s for record in completed if record.train_time_s is not None]:
        mean = statistics.fmean(times)
        costs.append(f"{mean:,.0f} s" if mean >= 9.95 else f"{mean:.1f} s")
    if sizes := [record.num_parameters for record in completed if record.num_parameters is not None]:
        costs.append(f"{statistics.fmean(sizes):,.0f} parameters")
    return ", ".join(parts) + (f"<br>{', '.join(costs)}" if costs else "")


def _option(record: Record, group: str, key: str) -> Any:
    """A value of the record's config; None where it has none."""
    options = record.config.get(group)
    return options.get(key) if isinstance(options, dict) else None


def _without_seeds(value: Any) -> Any:
    """`value` without the keys that only say which repetition a run is."""
    if isinstance(value, dict):
        return {
            key: _without_seeds(item)
            for key, item in value.items()
            if key not in ("seed", "fold") and not key.endswith("_seed")
        }
    if isinstance(value, list):
        return [_without_seeds(item) for item in value]
    return value


def _differing(values: Sequence[dict[str, Any]]) -> list[str]:
    """Dotted keys at which the dictionaries do not all agree."""
    flat = [dict(_flatten(value)) for value in values]
    keys = sorted(set().union(*flat))
    missing = object()
    return [key for key in keys if any(item.get(key, missing) != flat[0].get(key, missing) for item in flat)]


def _flatten(value: dict[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, item in value.items():
        if isinstance(item, dict) and item:
            yield from _flatten(item, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", item


def _note(notes: list[str], text: str) -> str:
    notes.append(text)
    return f" <sup>{len(notes)}</sup>"


def _escape(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


if __name__ == "__main__":
    sys.exit(main())
