"""Trains on two processes and on one with batches of the same series, over what a run can be made of.

`python tests/reliability/rank_matrix.py` prints the table of docs/distributed.md. One process imports everything once
and forks the two of a job, with the variables that torchrun would set. What a run leaves has to be the same: weights to
`TOLERANCE`, and every score to the digits that are shown. Augmentation and dropout are off: their random numbers are
drawn for each process, and are none of the sums that are compared.
"""

import itertools
import logging
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from kill_matrix import attempt, be_child, prepare_parent
from measuring import plain_config

from krontime.runs import load, run
from krontime.runs.record import Record
from krontime.training.module import SeriesClassifier

TOLERANCE = 1e-6
DIGITS = 3
"""Of scores on the screen."""

BASE = (
    *("model.d_model=8", "model.num_heads=2", "model.num_layers=1", "model.ffn_dim=8", "model.dropout=0"),
    *("model=krontime", "tokenizer=linear", "data=npz", "data.eval_batch_size=7", "loss.class_weights=balanced"),
    *("augment.shift=0", "augment.scale=0", "trainer.enable_progress_bar=false"),
    *("optim.min_batches_per_epoch=1", "callbacks.early_stopping=null", "callbacks.done=null"),
)
TWO = ("trainer=ddp_cpu", "data.batch_size=6")
ONE = ("data.batch_size=12",)
FACTORS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "EMA": ((), ("callbacks=ema", "callbacks.ema.decay=0.8")),
    "time limit": (("trainer.max_epochs=4",), ('+trainer.max_time="00:00:00:05"', "trainer.max_epochs=400")),
    "unequal lengths": (("data.path=equal.npz",), ("data.path=unequal.npz",)),
    "closed form": (
        ("closed_form=none",),
        (
            *(
                f"closed_form.parts.{part}.num_features=170"
                for part in ("groups", "runs", "proportions", "quantiles", "spectra")
            ),
            "closed_form.parts.spectra.windows=[20]",
            "closed_form.parts.spectra.min_length=0",
            "closed_form.min_network_series=0",
        ),
    ),
}
"""What is off and on."""

Job = Callable[[], Any]


def write_data(folder: Path) -> None:
    """Three classes, one of them rarer: 60 training series, of which 12 validate, and 30 to test on."""
    for name, shortest in (("equal", 64), ("unequal", 40)):
        rng = np.random.default_rng(0)
        y = np.array([0, 0, 1, 1, 2] * 18)
        lengths = rng.integers(shortest, 65, len(y))
        series = [
            np.sin((label + 1) * np.arange(length) / 5 + rng.uniform(0, 6)) + rng.standard_normal(length)
            for label, length in zip(y, lengths, strict=True)
        ]
        np.savez(
            folder / f"{name}.npz",
            X_flat=np.concatenate(series)[None].astype(np.float32),
            offsets=np.cumsum([0, *lengths]),
            y=y,
            split=(np.arange(len(y)) >= 60).astype(int),
        )


def overrides(folder: Path, on: Sequence[str]) -> tuple[str, ...]:
    """The options of a run for which these factors are on."""
    given = [option for name, choices in FACTORS.items() for option in choices[name in on]]
    return (*BASE, *(option.replace("data.path=", f"data.path={folder}/") for option in given))


def config(folder: Path, options: Sequence[str]) -> dict[str, Any]:
    """The plain config of a run."""
    return plain_config("train", [f"paths.cache={folder / 'cache'}", *options])


def together(job: Job, *, world_size: int = 2, grace_s: float = 60.0) -> list[tuple[int, str]]:
    """Run a job in forked processes as torchrun would start them on one machine.

    Args:
        job: what each of them does.
        world_size: number of processes.
        grace_s: seconds that the others have once one has failed; then they are killed, as torchrun does.

    Returns:
        For each rank, its exit status as `os.waitstatus_to_exitcode` gives it, and what it wrote.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ranks: dict[int, int] = {}
    outputs = [tempfile.TemporaryFile("w+") for _ in range(world_size)]  # noqa: SIM115 -- closed when they are read
    for rank, output in enumerate(outputs):
        child = os.fork()
        if child == 0:
            _be_rank(rank, world_size, port, output.fileno(), job)
        ranks[child] = rank
    status = dict.fromkeys(ranks.values(), 0)
    ends_s: float | None = None
    while ranks:
        for child, rank in list(ranks.items()):
            ended, waited = os.waitpid(child, os.WNOHANG)
            if ended:
                status[rank] = os.waitstatus_to_exitcode(waited)
                del ranks[child]
                if status[rank] and ends_s is None:
                    ends_s = time.monotonic() + grace_s
            elif ends_s is not None and time.monotonic() > ends_s:
                os.kill(child, signal.SIGKILL)
        time.sleep(0.02)
    texts = []
    for output in outputs:
        output.seek(0)
        texts.append(output.read())
        output.close()
    return [(status[rank], texts[rank]) for rank in range(world_size)]


def _be_rank(rank: int, world_size: int, port: int, output: int, job: Job) -> NoReturn:
    def task() -> None:
        logging.basicConfig(level=logging.INFO, format="%(message)s", force=True)
        os.environ |= {
            **dict.fromkeys(("RANK", "LOCAL_RANK"), str(rank)),
            **dict.fromkeys(("WORLD_SIZE", "LOCAL_WORLD_SIZE"), str(world_size)),
            "GROUP_RANK": "0",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "TORCHELASTIC_RUN_ID": "none",
        }
        job()

    be_child(output, task)


def harmed_at(step: int, rank: int, number: int, job: Job) -> Job:
    """The job, in which one rank sends itself a signal when a training step begins."""

    def harmed() -> None:
        original = SeriesClassifier.training_step

        def training_step(self: SeriesClassifier, batch: Any, batch_idx: int) -> torch.Tensor:
            if self.global_rank == rank and self.global_step == step:
                os.kill(os.getpid(), number)
            return original(self, batch, batch_idx)

        SeriesClassifier.training_step = training_step  # type: ignore[method-assign]
        job()

    return harmed


@dataclass(frozen=True)
class Compared:
    """How a job on two processes and one on one process ended.

    Attributes:
        num_steps: optimiser steps.
        difference: largest difference of a weight, of the last and of the best checkpoint.
        scores: those of two processes and of one, as they are shown.
    """

    num_steps: int
    difference: float
    scores: tuple[dict[str, str], dict[str, str]]

    @property
    def is_equal(self) -> bool:
        """Whether weights are, to `TOLERANCE`, and scores to the last digit shown."""
        return self.difference <= TOLERANCE and self.scores[0] == self.scores[1]


def compare(folder: Path, on: Sequence[str]) -> Compared:
    """Train with these factors on, on two processes and on one.

    A limit on time is turned into a number of steps by the two; the one is given that number.
    """
    name = "-".join(on).replace(" ", "_") or "none"
    options = config(folder, (*overrides(folder, on), *TWO))
    two, one = folder / f"{name}-two", folder / f"{name}-one"
    for status, text in together(lambda: run.train_in(options, two)):
        assert status == 0, text
    record = Record.read(two / "record.json")
    assert record.device.count == 2
    alone = [option for option in overrides(folder, on) if "max_time" not in option]
    if "time limit" in on:
        assert record.limited_by == "seconds"
        alone.append(f"+trainer.max_steps={record.max_steps}")
    status, text, _ = attempt(lambda: run.train_in(config(folder, (*alone, *ONE)), one), None, 0)
    assert status == 0, text
    assert record.num_steps is not None
    return Compared(
        record.num_steps,
        max(difference(two, one, checkpoint) for checkpoint in ("last.ckpt", "best.ckpt")),
        (shown(two), shown(one)),
    )


def difference(first: Path, second: Path, checkpoint: str) -> float:
    """Largest difference of a number in two runs' checkpoints, the closed form included."""
    one, two = (load.load_checkpoint(folder / "checkpoints" / checkpoint) for folder in (first, second))
    largest = 0.0
    for part in ("state_dict", "current_model_state", "krontime_closed_form"):
        assert (part in one) == (part in two)
        for name, value in one.get(part, {}).items():
            if isinstance(value, torch.Tensor):
                largest = max(largest, float((value.double() - two[part][name].double()).abs().max()))
    return largest


def shown(folder: Path) -> dict[str, str]:
    """Validation and test scores as the screen shows them."""
    metrics = Record.read(folder / "record.json").metrics
    return {
        f"{split} {name}": "" if score is None else f"{score:.{DIGITS}f}"
        for split, scores in (("val", metrics.val), ("test", metrics.test))
        for name, score in scores.items()
    }


def main() -> None:
    """Compare all combinations of the factors; exit code 1 where anything differs."""
    prepare_parent()
    lines = [f"| {' | '.join(FACTORS)} | steps | largest difference of a weight | scores |", "|---" * len(FACTORS)]
    lines[1] += "|--:|--:|---|"
    is_equal = True
    with tempfile.TemporaryDirectory() as folder:
        write_data(Path(folder))
        for choice in itertools.product((False, True), repeat=len(FACTORS)):
            on = [name for name, is_on in zip(FACTORS, choice, strict=True) if is_on]
            compared = compare(Path(folder), on)
            is_equal &= compared.is_equal
            marks = " | ".join("on" if is_on else "off" for is_on in choice)
            scores = "equal" if compared.scores[0] == compared.scores[1] else "differ"
            lines.append(f"| {marks} | {compared.num_steps} | {compared.difference:.1e} | {scores} |")
    sys.stdout.write("\n".join(lines) + "\n")
    sys.exit(not is_equal)


if __name__ == "__main__":
    main()
