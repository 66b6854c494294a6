"""Writes `metrics.csv` of a run: a row for each time that metrics are logged, readable however the process ends."""

import csv
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from krontime.storage import replacing

_EPOCH_LOSS = "train/loss_epoch"


class CsvLogger(Logger):
    """Appends rows to `metrics.csv`, and rewrites it, whole or not at all, where a row brings a new column.

    Lightning's own logger rewrites the file in place, and deletes that of an earlier part of the run.

    Args:
        save_dir: folder of the file.
    """

    def __init__(self, save_dir: str | Path) -> None:
        super().__init__()
        self.path = Path(save_dir) / "metrics.csv"
        self._rows: list[dict[str, Any]] = []
        self._columns: list[str] = []

    @property
    def name(self) -> str:
        """Empty, since the folder is the run's; Lightning asks for a name."""
        return ""

    @property
    def version(self) -> str:
        """Empty, since the folder is the run's; Lightning asks for a version."""
        return ""

    @property
    def save_dir(self) -> str:
        """Folder of the file."""
        return str(self.path.parent)

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Ignore them, since the run folder holds the config."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Add a row."""
        row = {**{key: float(value) for key, value in metrics.items()}, "step": step}
        if "epoch" in row:
            row["epoch"] = int(metrics["epoch"])
        self._rows.append(row)
        if set(row) <= set(self._columns):
            with self.path.open("a", newline="", encoding="utf-8") as file:
                csv.DictWriter(file, self._columns).writerow(row)
        else:
            self._columns = sorted({*self._columns, *row})
            self._write()

    @rank_zero_only
    def sync(self) -> None:
        """Flush the rows to the disk, before the checkpoint is written that a run resumes from together with them."""
        if self._rows:
            with self.path.open("rb+") as file:
                os.fsync(file.fileno())

    @rank_zero_only
    def resume(self, num_steps: int, history: Sequence[Mapping[str, float]]) -> None:
        """Read what an earlier part of the run has logged, and append to it from now on.

        Args:
            num_steps: optimiser steps that are done; rows of later ones are dropped, since they are logged again.
            history: metrics of the epochs that are done. Lightning logs an epoch's training loss after it has written
                its checkpoint, so that the row may be missing.
        """
        if not self.path.is_file():
            return
        with self.path.open(newline="", encoding="utf-8") as file:
            rows = [
                row for row in csv.DictReader(file) if None not in row and None not in row.values()
            ]  # the others were cut off
        self._rows = [row for row in rows if row["step"].isdigit() and int(row["step"]) < num_steps]
        last = history[-1] if history else {}
        if _EPOCH_LOSS in last and not any(
            row.get(_EPOCH_LOSS) and row.get("epoch") == str(last["epoch"]) for row in self._rows
        ):
            logged = {key: last[key] for key in ("epoch", _EPOCH_LOSS, "series_per_s") if key in last}
            self._rows.append({**logged, "step": num_steps - 1})
        self._columns = sorted({key for row in self._rows for key in row})
        self._write()

    def _write(self) -> None:
        """Rewrite the whole file."""
        with replacing(self.path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            table = csv.DictWriter(file, self._columns)
            table.writeheader()
            table.writerows(self._rows)
