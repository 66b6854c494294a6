"""Many runs in two files: their records, a line each, and what each said of its test series.

`records.jsonl` has one JSON object a line: `run`, a name that no other line has, and `record`. `predictions.parquet`
has one row for each run and test series: `run`, `index`, `label`, `predicted`, and, where there are two classes whose
probabilities are known, `positive` (the second class) and `probability` (of that class); and `group`, where series have
one.
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from krontime.errors import UserError
from krontime.runs.predictions import Outcomes
from krontime.runs.record import Record
from krontime.storage import replacing

RECORDS = "records.jsonl"
PREDICTIONS = "predictions.parquet"


class ArchivedRun(NamedTuple):
    """One run of an archive.

    Attributes:
        name: of the run, as `DATA/MODEL/seedS-HASH`; no two runs of an archive have the same.
        record: of the run.
        outcomes: what it said of each test series; None where that is not known.
    """

    name: str
    record: Record
    outcomes: Outcomes | None


class ArchivedText(NamedTuple):
    """A line of `records.jsonl` that has not been checked.

    Attributes:
        name: of the run.
        number: of the line, from 1.
        record: JSON text of the record.
    """

    name: str
    number: int
    record: str


def write_archive(runs: Iterable[ArchivedRun], folder: Path) -> None:
    """Write some runs, sorted by name, to `records.jsonl` and, where they have outcomes, `predictions.parquet`."""
    ordered = sorted(runs, key=lambda run: run.name)
    lines = [json.dumps({"run": run.name, "record": run.record.model_dump(mode="json")}) for run in ordered]
    with replacing(folder / RECORDS) as temporary:
        temporary.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    answered = [(run.name, run.outcomes) for run in ordered if run.outcomes is not None]
    if answered:
        _write_outcomes(answered, folder / PREDICTIONS)


def read_lines(path: Path) -> Iterator[ArchivedText]:
    """The lines of a `records.jsonl`.

    Raises:
        UserError: the file is not readable, or a line is none of those that `write_archive` writes.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not a readable file of records ({error})") from error
    names: set[str] = set()
    for number, line in enumerate(lines, start=1):
        try:
            content = json.loads(line)
            name, record = content["run"], content["record"]
        except (ValueError, RecursionError, TypeError, KeyError) as error:
            raise UserError(f"{path}: line {number} is not a run and its record ({error})") from error
        if not isinstance(name, str) or name in names:
            raise UserError(f"{path}: line {number}: expected the name of a run that no line before has, got {name!r}")
        names.add(name)
        yield ArchivedText(name, number, json.dumps(record))


def read_outcomes(folder: Path) -> dict[str, Outcomes]:
    """What the runs of an archive said of each test series, by the name of the run.

    Raises:
        UserError: the file is damaged.
    """
    import pandas as pd

    path = folder / PREDICTIONS
    if not path.is_file():
        return {}
    try:
        table = pd.read_parquet(path)
        outcomes = {}
        for name, rows in table.groupby("run", sort=False, observed=True):
            positive = rows["positive"].iloc[0]
            known = isinstance(positive, str)
            outcomes[str(name)] = Outcomes(
                index=rows["index"].to_numpy("int64"),
                labels=rows["label"].to_numpy(object),
                predicted=rows["predicted"].to_numpy(object),
                positive=positive if known else None,
                probability=rows["probability"].to_numpy("float64") if known else None,
                groups=rows["group"].to_numpy("int64") if "group" in rows and rows["group"].notna().all() else None,
            )
        return outcomes
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{path}: not a readable file of predictions ({error})") from error


def _write_outcomes(answered: Iterable[tuple[str, Outcomes]], path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    schema = pa.schema(
        [
            ("run", pa.string()),
            ("index", pa.int64()),
            ("label", pa.string()),
            ("predicted", pa.string()),
            ("positive", pa.string()),
            ("probability", pa.float64()),
            ("group", pa.int64()),
        ]
    )
    tables = []
    for name, outcomes in answered:
        count = len(outcomes.index)
        missing = [None] * count
        columns = (
            [name] * count,
            outcomes.index,
            outcomes.labels,
            outcomes.predicted,
            missing if outcomes.positive is None else [outcomes.positive] * count,
            missing if outcomes.probability is None else outcomes.probability,
            missing if outcomes.groups is None else outcomes.groups,
        )
        tables.append(pa.table(list(columns), schema=schema))
    with replacing(path) as temporary:
        parquet.write_table(pa.concat_tables(tables), temporary, compression="zstd")
