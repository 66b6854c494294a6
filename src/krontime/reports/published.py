"""Scores that others published, or that were measured with other software: never mixed with our own."""

import csv
import re
from dataclasses import dataclass, fields
from pathlib import Path

from krontime.errors import UserError
from krontime.metrics import METRICS


@dataclass(frozen=True)
class Published:
    """One score from elsewhere.

    Attributes:
        data: name of the data set, as in records.
        model: name of the model.
        metric: name of the metric, as in records.
        value: the score, a number with the digits that were stated.
        source: where it comes from.
        protocol: what is known of how the data was split, prepared and scored.
    """

    data: str
    model: str
    metric: str
    value: str
    source: str
    protocol: str


def read_published(path: Path) -> list[Published]:
    """Every row of a CSV file whose columns are the attributes of `Published`.

    Raises:
        UserError: the file is missing or has other columns, or a row is wrong; names every such row.
    """
    columns = [field.name for field in fields(Published)]
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            names, rows = list(reader.fieldnames or []), list(reader)
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"{path}: not a readable CSV file ({error})") from error
    if names != columns:
        raise UserError(f"{path}: expected the columns {','.join(columns)}, found {','.join(names) or 'none'}")
    problems: list[str] = []
    by_key: dict[tuple[str, str, str], Published] = {}
    for number, row in enumerate(rows, start=2):
        where = f"{path}: line {number}"
        if None in row or None in row.values() or not all(text.strip() for text in row.values()):
            problems.append(f"{where}: expected {len(columns)} values, none of them empty")
            continue
        published = Published(**row)
        if not re.fullmatch(r"\d+(\.\d+)?", published.value):
            problems.append(f"{where}: value={published.value!r}: expected a number, such as 0.85")
        if published.metric not in METRICS:
            problems.append(f"{where}: metric={published.metric!r}: expected one of {', '.join(METRICS)}")
        key = (published.data, published.model, published.metric)
        if key in by_key:
            problems.append(f"{where}: expected one value for {', '.join(key)}, and there is one already")
        by_key[key] = published
    if problems:
        raise UserError(problems)
    return list(by_key.values())
