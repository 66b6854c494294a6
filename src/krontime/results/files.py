"""Names of the files in a run folder, and how a file is written whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

RECORD = "record.json"
PREDICTIONS = "test_predictions.parquet"
OUTCOMES = "test_outcomes.csv"
CONFUSION_MATRIX = "confusion_matrix.png"
LEARNING_CURVES = "learning_curves.png"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` to write to; it becomes `path` at once when the block ends well.

    A reader therefore sees the old file or the whole new one, also when the process is killed half-way. The
    folder of `path` is made where it is missing; when the block raises, `path` stays as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid4().hex}")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
