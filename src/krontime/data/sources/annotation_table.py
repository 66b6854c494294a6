"""Labels of recordings in a table beside them: `file, label`, or `file, start, stop, label` for stretches.

`start` and `stop` are in seconds, or in points where the columns are called `start_point` and `stop_point`; `end` is
another name of `stop`. A column `group` (patient, machine) names what must not straddle a split.
"""

from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from krontime.data.assemble import A_GROUP_EACH
from krontime.data.recordings import Recording, Span
from krontime.errors import UserError

FILE = ("file", "recording", "filename", "name")
UNITS = (("start", "stop"), ("start", "end"), ("start_point", "stop_point"))


class Annotations:
    """What a table says of each recording.

    Args:
        rows: by the name of a recording, its rows as mappings from column to value.
        unit: names of the columns of start and stop; None where labels are of whole recordings.
    """

    def __init__(self, rows: dict[str, list[dict[str, Any]]], unit: tuple[str, str] | None) -> None:
        self.rows = rows
        self.unit = unit
        self._used: dict[str, Path] = {}

    def annotated(self, recording: Recording, file: Path, folder: Path) -> Recording:
        """A recording with what the table says of it, by its path below the folder, its file's name or its own.

        Raises:
            UserError: there are times in seconds and no sampling rate, a time lies outside of the recording, or the
                table names another file alike.
        """
        names = (file.relative_to(folder).as_posix() if file.is_relative_to(folder) else file.name, file.name)
        key = next((name for name in (*names, file.stem, recording.name) if name in self.rows), None)
        if key is None:
            return recording
        if key in (*names, file.stem) and (other := self._used.get(key, file)) != file:
            raise UserError(f"{key!r} in the annotations is {other} too; expected its path below the folder")
        self._used[key] = file
        rows = self.rows[key]
        if len(groups := {group for row in rows if (group := row.get("group")) is not None}) > 1:
            raise UserError(f"{key!r} has the groups {', '.join(sorted(groups))} in the annotations; expected one")
        if "group" in rows[0] and not groups:
            raise UserError(f"{key!r} has no group in the annotations; {A_GROUP_EACH}")
        if groups:
            recording = replace(recording, group=groups.pop())
        if self.unit is None:
            return replace(recording, label=str(rows[0]["label"]))
        return replace(recording, spans=[self._span(row, recording) for row in rows])

    def unused(self) -> list[str]:
        """Names of recordings that were not asked for."""
        return sorted(set(self.rows) - set(self._used))

    def _span(self, row: dict[str, Any], recording: Recording) -> Span:
        assert self.unit is not None
        factor = 1.0
        if self.unit[0] == "start":
            if recording.sampling_rate_hz is None:
                raise UserError(
                    "its annotations are in seconds and its sampling rate is not known: expected columns start_point "
                    "and stop_point, or data.source.sampling_rate_hz=HZ"
                )
            factor = recording.sampling_rate_hz
        start, stop = (round(float(row[name]) * factor) for name in self.unit)
        length = recording.values.shape[1]
        if not 0 <= start < stop <= length + factor:  # the last second may be cut short
            raise UserError(
                f"an annotation from {row[self.unit[0]]} to {row[self.unit[1]]}: expected a stretch within its "
                f"{length / factor:,.6g} {'seconds' if self.unit[0] == 'start' else 'points'}"
            )
        return Span(start, min(stop, length), str(row["label"]))


def read_annotations(path: Path) -> Annotations:
    """Read a table of annotations, CSV or TSV.

    Raises:
        UserError: columns are missing, or a row has no label.
    """
    import pandas as pd

    try:
        table = pd.read_csv(path, dtype=str, sep="\t" if path.suffix.lower() == ".tsv" else ",", encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as a table of annotations ({error})") from error
    table.columns = [str(name).strip().casefold() for name in table.columns]
    file = next((name for name in FILE if name in table), None)
    if file is None or "label" not in table:
        raise UserError(
            f"{path}: it has the columns {', '.join(table.columns)}; expected file and label, and start and stop in "
            "seconds (or start_point and stop_point) where labels are of stretches"
        )
    unit = next((unit for unit in UNITS if set(unit) <= set(table.columns)), None)
    if len(broken := table[table[file].isna() | table["label"].isna()]):
        raise UserError(f"{path}: row {broken.index[0] + 2} has no file or no label")
    if unit is not None:
        for name in unit:
            numbers = pd.to_numeric(table[name], errors="coerce")
            if len(broken := table[~np.isfinite(numbers)]):
                raise UserError(
                    f"{path}: row {broken.index[0] + 2} has {broken.iloc[0][name]!r} as {name}; expected a number"
                )
    rows: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in table.astype(object).where(table.notna(), None).to_dict("records"):
        stripped = {str(key): None if value is None else str(value).strip() for key, value in row.items()}
        rows[str(stripped[file])].append(stripped)
    if unit is None and (several := [name for name, known in rows.items() if len({r["label"] for r in known}) > 1]):
        raise UserError(
            f"{path}: {several[0]!r} has several labels; expected one (multi-label is not supported), or columns "
            "start and stop for stretches"
        )
    return Annotations(dict(rows), unit)
