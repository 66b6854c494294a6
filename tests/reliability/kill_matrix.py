"""Kills training runs at random moments, over what a run can be made of, and compares how they end with their twins.

`python tests/reliability/kill_matrix.py --kills 400` prints the table of docs/reliability.md. One process imports
everything once and forks a child for each attempt, so that a kill can fall into any part of a run and not mostly into
imports. A killed run is started again with the same config until it ends by itself; then its weights, scores,
predictions and logged rows have to be those of a run that was left alone, bit for bit.
"""

import argparse
import contextlib
import csv
import gc
import json
import logging
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from lightning.pytorch.callbacks import progress  # noqa: F401 -- what a run imports late, for all children at once
from measuring import plain_config

from krontime.config.identity import without_folders
from krontime.runs import load, run
from krontime.runs.plot import curves  # noqa: F401
from krontime.runs.predictions import read_predictions
from krontime.runs.record import Record, Status
from krontime.runs.resume import clear_spares

TINY = (
    *("model=tcn", "model.channels=4", "model.num_levels=2", "data=npz", "trainer.log_every_n_steps=1"),
    *(
        "data.batch_size=6",
        "data.eval_batch_size=6",
        "trainer.max_epochs=5",
        "trainer.enable_progress_bar=false",
        "optim.min_batches_per_epoch=1",
    ),
)
AUGMENTED = ("augment.shift=0.2", "augment.scale=0.1", "augment.jitter=0.1", "augment.mixup=0.4")
EMA = ("callbacks=ema", "callbacks.ema.decay=0.8")
STOPPING = ("callbacks.early_stopping.patience=1", "optim.optimizer.lr=0.3", "trainer.max_epochs=12")
WITHIN = ("checkpoint_every_n_steps=1",)
WORKERS = ("data.num_workers=2",)

CASES: dict[str, tuple[str, ...]] = {
    "plain": (),
    "augmentation": AUGMENTED,
    "EMA": EMA,
    "early stopping": STOPPING,
    "within epochs": WITHIN,
    "within epochs, augmentation, EMA": (*WITHIN, *AUGMENTED, *EMA),
    "within epochs, early stopping, accumulated gradients": (*WITHIN, *STOPPING, "trainer.accumulate_grad_batches=2"),
    "2 workers": WORKERS,
    "2 workers, augmentation, EMA": (*WORKERS, *AUGMENTED, *EMA),
    "2 workers, within epochs, augmentation, EMA, early stopping": (*WORKERS, *WITHIN, *AUGMENTED, *EMA, *STOPPING),
}
SIGNALS = (signal.SIGKILL, signal.SIGTERM)
IN_TIME = frozenset({"series_per_s"})
"""Columns of `metrics.csv` that measure time."""


@dataclass
class Outcome:
    """What became of the runs of one case.

    Attributes:
        kills: signals that were sent, by name; only those that a run was ended by.
        attempts: starts, the last ones included.
        resumed: attempts that went on from a checkpoint.
        differences: what was not as in the twin; empty where all is well.
    """

    kills: Counter[str] = field(default_factory=Counter)
    attempts: int = 0
    resumed: int = 0
    differences: list[str] = field(default_factory=list)


def write_data(folder: Path) -> Path:
    """A small data set of three classes, in an `.npz` file."""
    rng = np.random.default_rng(0)
    y = np.arange(45) % 3
    time_points = np.arange(64)
    series = [np.sin((label + 1) * time_points / 5 + rng.uniform(0, 6)) + rng.standard_normal(64) for label in y]
    path = folder / "data.npz"
    np.savez(path, X=np.stack(series)[:, None].astype(np.float32), y=y, split=(np.arange(45) >= 36).astype(int))
    return path


def config(folder: Path, overrides: Sequence[str]) -> dict[str, Any]:
    """The plain config of a run."""
    given = (f"data.path={folder / 'data.npz'}", f"paths.cache={folder / 'cache'}", *TINY, *overrides)
    return plain_config("train", given)


def attempt(task: Callable[[], Any], delay_s: float | None, number: int) -> tuple[int, str, float]:
    """Run a task in a forked child, and send that a signal after a while; a SIGTERM to its data workers too.

    Args:
        task: what the child does.
        delay_s: until the signal; None for none.
        number: of the signal.

    Returns:
        The child's exit status as `os.waitstatus_to_exitcode` gives it, what it wrote, and how long it took.
    """
    with tempfile.TemporaryFile("w+") as output:
        started_s = time.monotonic()
        child = os.fork()
        if child == 0:
            os.setsid()
            be_child(output.fileno(), task)
        if delay_s is not None:
            while time.monotonic() < started_s + delay_s and not _has_ended(child):
                time.sleep(0.002)
            with contextlib.suppress(ProcessLookupError):
                send = os.killpg if number == signal.SIGTERM else os.kill
                send(child, number)
        _, waited = os.waitpid(child, 0)
        elapsed_s = time.monotonic() - started_s
        output.seek(0)
        return os.waitstatus_to_exitcode(waited), output.read(), elapsed_s


def be_child(output: int, task: Callable[[], Any]) -> NoReturn:
    """Do a task in a forked child, which writes to an open file and ends with the task."""
    status = 1
    try:
        os.dup2(output, 1)
        os.dup2(output, 2)
        # Where this is a test's process, its own streams go elsewhere.
        sys.stdout, sys.stderr = (os.fdopen(stream, "w", buffering=1, closefd=False) for stream in (1, 2))
        task()
        status = 0
    except SystemExit as stop:
        status = int(stop.code or 0) if isinstance(stop.code, int | None) else 1
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def at_write(number: int, task: Callable[[], Any]) -> Callable[[], Any]:
    """The task, killed right before (odd) or after (even numbers) a renaming, by which all its files are written."""

    def killed() -> None:
        original, count = Path.replace, 0

        def replace(self: Path, target: Path) -> Path:
            nonlocal count
            count += 1
            if count == number:
                os.kill(os.getpid(), signal.SIGKILL)
            renamed = original(self, target)
            count += 1
            if count == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return renamed

        Path.replace = replace  # type: ignore[assignment, method-assign]
        task()

    return killed


def run_at_writes(folder: Path, overrides: Sequence[str], step: int = 1) -> Outcome:
    """Kill a run at every `step`-th moment before or after a file is renamed, each time from the start."""
    outcome = Outcome()
    options = config(folder, overrides)
    twin = folder / f"writes-{len(list(folder.iterdir()))}-twin"
    status, text, _ = attempt(lambda: run.train_in(options, twin), None, 0)
    assert status == 0, text
    for number in range(1, 10_000, step):
        run_dir = twin.with_name(f"{twin.name}-{number}")
        status, text, _ = attempt(at_write(number, lambda target=run_dir: run.train_in(options, target)), None, 0)  # type: ignore[misc]
        outcome.attempts += 1
        if status == 0:
            break  # there are not as many
        assert status == -signal.SIGKILL, text
        outcome.kills["SIGKILL"] += 1
        outcome.differences += [f"write {number}: {problem}" for problem in left_behind(run_dir, status)]
        status, text, _ = attempt(lambda target=run_dir: run.train_in(options, target), None, 0)  # type: ignore[misc]
        outcome.attempts += 1
        outcome.resumed += "Resuming from" in text
        problems = [f"ended with {status}: {text[-3000:]}"] if status else differences(run_dir, twin)
        outcome.differences += [f"write {number}: {problem}" for problem in problems]
    return outcome


def _has_ended(child: int) -> bool:
    return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def run_case(
    folder: Path, overrides: Sequence[str], num_kills: int, rng: random.Random, signals: Sequence[int] = SIGNALS
) -> Outcome:
    """Kill runs of one config until `num_kills` kills have hit, and compare each that ended with its twin.

    Args:
        folder: holds the data; run folders are made in it.
        overrides: of the config.
        num_kills: kills that have to end an attempt.
        rng: of the moments and the signals.
        signals: to choose from.
    """
    outcome = Outcome()
    options = config(folder, overrides)
    name = f"case-{rng.getrandbits(32):08x}"
    twin = folder / f"{name}-twin"
    status, text, whole_s = attempt(lambda: run.train_in(options, twin), None, 0)
    assert status == 0, text
    lineage, sofar = 0, 0
    run_dir = folder / f"{name}-0"
    for start in range(50 * num_kills):
        number = rng.choice(signals)
        # A run has to get somewhere between kills, and each is to be ended some day.
        delay_s = None if sofar >= 5 or outcome.kills.total() >= num_kills else rng.uniform(0, whole_s)
        status, text, _ = attempt(lambda target=run_dir: run.train_in(options, target), delay_s, number)  # type: ignore[misc]
        outcome.attempts += 1
        outcome.resumed += "Resuming from" in text
        if status in (-signal.SIGKILL, 128 + signal.SIGTERM, -signal.SIGTERM):
            outcome.kills[signal.Signals(number).name] += 1
            sofar += 1
            outcome.differences += [f"start {start}: {problem}" for problem in left_behind(run_dir, status)]
            continue
        if status != 0:
            outcome.differences.append(f"start {start} ended with {status}: {text[-3000:]}")
        else:
            outcome.differences += [f"start {start}: {problem}" for problem in differences(run_dir, twin)]
        if outcome.kills.total() >= num_kills:
            break
        lineage, sofar = lineage + 1, 0
        run_dir = folder / f"{name}-{lineage}"
    return outcome


def left_behind(run_dir: Path, status: int) -> list[str]:
    """What is wrong with the folder of a run that was just killed."""
    problems = []
    path = run_dir / "record.json"
    if path.is_file():
        Record.read(path)  # whole, whenever it is there
    if status == 128 + signal.SIGTERM and path.is_file():  # there is none where training had not begun
        record = Record.read(path).status
        if record not in (Status.INTERRUPTED, Status.COMPLETED):
            problems.append(f"after SIGTERM the record says {record}")
    for checkpoint in (run_dir / "checkpoints").glob("*.ckpt"):
        load.load_checkpoint(checkpoint)  # every one that has a final name is whole
    return problems


def differences(run_dir: Path, twin: Path) -> list[str]:
    """Names of what two finished runs do not share to the last bit; times, and commits made meanwhile, are left out."""
    result = []
    for name in ("last.ckpt", "best.ckpt"):
        one, two = (load.load_checkpoint(folder / "checkpoints" / name) for folder in (run_dir, twin))
        for part in ("state_dict", "optimizer_states", "lr_schedulers", "current_model_state", "averaging_state"):
            if not same(one.get(part), two.get(part)):
                result.append(f"{name}: {part}")
        if one["global_step"] != two["global_step"] or one["epoch"] != two["epoch"]:
            result.append(f"{name}: step or epoch")
    records = [json.loads((folder / "record.json").read_text()) for folder in (run_dir, twin)]
    for record in records:
        for key in (
            "started_at",
            "finished_at",
            "train_time_s",
            "train_cpu_s",
            "part_times_s",
            "inference_ms_per_series",
        ):
            record.pop(key)
        for key in ("peak_memory_bytes", "git"):
            record.pop(key)
        record["config"] = without_folders(record["config"])
    result += [f"record: {key}" for key in records[0] if records[0][key] != records[1][key]]
    one, two = (read_predictions(folder / "test_predictions.parquet") for folder in (run_dir, twin))
    if not (np.array_equal(one.probabilities, two.probabilities) and one.labels == two.labels):
        result.append("test_predictions.parquet")
    first, second = (list(logged(folder / "metrics.csv")) for folder in (run_dir, twin))
    if first != second:
        lines = [f"  {a}\n  {b}" for a, b in zip(first, second, strict=False) if a != b][:2]
        result.append(f"metrics.csv ({len(first)} and {len(second)} rows)\n" + "\n".join(lines))
    clear_spares(run_dir)  # what a kill between the record and this leaves
    spare = [p.name for p in run_dir.rglob("*") if "previous" in p.name or p.name.startswith(".")]
    result += [f"{name} was left behind" for name in spare]
    return result


def logged(path: Path) -> Iterator[dict[str, str]]:
    """Rows of a `metrics.csv` without times and empty fields."""
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            kept = {key: value for key, value in row.items() if value and key not in IN_TIME}
            if set(kept) - {"step", "epoch"}:
                yield kept


def same(one: Any, two: Any) -> bool:
    """Whether two plain containers hold equal tensors and values."""
    if isinstance(one, torch.Tensor):
        return isinstance(two, torch.Tensor) and one.dtype == two.dtype and torch.equal(one, two)
    if isinstance(one, dict):
        return isinstance(two, dict) and one.keys() == two.keys() and all(same(one[key], two[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(two) and all(same(a, b) for a, b in zip(one, two, strict=True))
    return bool(one == two)


def table(outcomes: dict[str, Outcome]) -> str:
    """The outcomes as a Markdown table."""
    titles = ("SIGKILL", "SIGTERM", "starts", "gone on from a checkpoint", "differences")
    rows = {
        name: (o.kills["SIGKILL"], o.kills["SIGTERM"], o.attempts, o.resumed, len(o.differences))
        for name, o in outcomes.items()
    }
    rows["all"] = tuple(map(sum, zip(*rows.values(), strict=True)))  # type: ignore[assignment]
    lines = ["| run | " + " | ".join(titles) + " |", "|---|" + "--:|" * len(titles)]
    return "\n".join(lines + [f"| {name} | " + " | ".join(map(str, row)) + " |" for name, row in rows.items()])


def prepare_parent() -> None:
    """One thread, and all that children share is left alone by the garbage collector."""
    torch.set_num_threads(1)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    gc.freeze()


def main() -> None:
    """Run the matrix and print its table; exit code 1 where anything differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--kills", type=int, default=40, help="kills in all")
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills")
    parser.add_argument("--writes", type=int, default=0, help="also at every so many-th write; 0 for none")
    parser.add_argument("--only", help="only cases whose name contains this")
    options = parser.parse_args()
    prepare_parent()
    cases = {name: overrides for name, overrides in CASES.items() if not options.only or options.only in name}
    outcomes = {}
    with tempfile.TemporaryDirectory() as folder:
        write_data(Path(folder))
        for number, (name, overrides) in enumerate(cases.items()):
            share = options.kills // len(cases) + (number < options.kills % len(cases))
            outcomes[name] = run_case(Path(folder), overrides, share, random.Random(f"{options.seed} {name}"))
            for problem in outcomes[name].differences:
                sys.stderr.write(f"{name}: {problem}\n")
        if options.writes:
            outcomes["at every write"] = run_at_writes(Path(folder), (*WITHIN, *EMA), options.writes)
            for problem in outcomes["at every write"].differences:
                sys.stderr.write(f"{problem}\n")
    sys.stdout.write(table(outcomes) + "\n")
    sys.exit(any(outcome.differences for outcome in outcomes.values()))


if __name__ == "__main__":
    main()
