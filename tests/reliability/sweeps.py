"""What tests of sweeps share: small networks, and what is compared of their records."""

from pathlib import Path
from typing import Any

from krontime.runs.record import Record, Status
from tests.cli.run.small import CLOSED_FORM

SMALL = (
    *("data=synthetic", "data.source.num_train=24", "data.source.num_test=8", "data.source.length=512"),
    *("model.d_model=8", "model.num_heads=2", "model.num_layers=1", "model.ffn_dim=8", "tokenizer=linear"),
    *CLOSED_FORM,
    *(
        "data.batch_size=8",
        "trainer.enable_progress_bar=false",
        "optim.min_batches_per_epoch=1",
        "callbacks.early_stopping=null",
    ),
)


def records(output: Path) -> dict[str, Record]:
    result = {path.parent.relative_to(output).as_posix(): path for path in output.glob("*/*/*/record.json")}
    return {folder: Record.read(path) for folder, path in sorted(result.items())}


def timeless(record: Record) -> dict[str, Any]:
    """What a record says, without when, how long, and in which memory."""
    kept = {"status", "model", "data", "seed", "config", "config_hash", "protocol", "metrics", "num_parameters"}
    return record.published().model_dump(include=kept)


def completed(output: Path) -> dict[str, tuple[Any, ...]]:
    """Of each completed run, what changes when it is run again."""
    result = {}
    for folder, record in records(output).items():
        if record.status is Status.COMPLETED:
            written = [path.stat().st_mtime_ns for path in sorted((output / folder).rglob("*.ckpt"))]
            result[folder] = (record.started_at, record.finished_at, *written)
    return result
