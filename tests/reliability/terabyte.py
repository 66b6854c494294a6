"""Trains on a sparse store of 1 TB: how soon, in how much memory, and what becomes of a run that is killed.

`python tests/reliability/terabyte.py` prints the figures of docs/recordings.md. The store is as parsing would leave it,
1,000 recordings of 8 channels of int16, 125 minutes each at 8,333 points a second, but that all values are the same:
files with holes take no room. Windows have 62,500 points, so that there are a million of them, of three classes.
"""

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from measuring import plain_config, watched

NUM_RECORDINGS = 1_000
CHANNELS = 8
POINTS = 62_500_000
WINDOW = 62_500
LENGTHS = np.array([*[POINTS] * NUM_RECORDINGS, 20 * WINDOW])
"""Time points of each recording; the last one validates."""

EVERY_TENTH = (f"data.window.stride={10 * WINDOW}",)
"""A tenth of the windows, of which a hundredth is soon trained on."""

TRAINED = (
    *("model=krontime", "model.d_model=8", "model.num_heads=2", "model.num_layers=1", "model.ffn_dim=8"),
    *("model.channel_mixing=true", "tokenizer=linear", "tokenizer.patch_length=500", "tokenizer.stride=500"),
    *("closed_form=none",),
)
RUN = (
    *("trainer.max_epochs=1", "optim.min_batches_per_epoch=1", "trainer.enable_progress_bar=false", "logger=[]"),
    *("trainer.log_every_n_steps=1", "callbacks.done=null", "checkpoint_every_n_steps=10"),
)


def chosen(folder: Path) -> tuple[str, ...]:
    """The options that choose the data."""
    data = (f"data.path={folder / 'recordings'}", f"data.window.length={WINDOW}", "data.validation.method=given")
    return ("data=arrays", *data, f"paths.cache={folder / 'cache'}")


def write_store(folder: Path) -> int:
    """Write files that are all holes, and the cache that parsing them would fill; returns the bytes of its values."""
    from krontime.config.targets import instantiate
    from krontime.data import cache
    from krontime.data.prepare import Prepare
    from krontime.data.series import SeriesData

    (folder / "recordings").mkdir()
    for number, length in enumerate(LENGTHS.tolist()):
        with open(folder / "recordings" / f"{number:04d}.npy", "wb") as file:
            header = {"descr": "<i2", "fortran_order": False, "shape": (CHANNELS, length)}
            np.lib.format.write_array_header_1_0(file, header)
            file.truncate(file.tell() + 2 * CHANNELS * length)
    config = plain_config("plan", chosen(folder))
    place, identity = cache.place_of(
        instantiate(config["data"]["source"], "data.source"), Prepare(), config["paths"]["cache"]
    )
    place.parent.mkdir()
    counts = LENGTHS // (10 * WINDOW)  # a label holds for ten windows
    recording = np.repeat(np.arange(len(LENGTHS)), counts)
    start = (np.arange(len(recording)) - np.repeat(np.cumsum(counts) - counts, counts)) * 10 * WINDOW
    labels = np.random.default_rng(0).integers(0, 3, len(recording))
    annotations = np.stack([recording, start, start + 10 * WINDOW, labels], axis=1)
    number = np.arange(len(LENGTHS))
    size = CHANNELS * int(LENGTHS.sum())
    with cache._building(place) as building:
        with open(building / "values.npy", "wb") as file:
            header = {"descr": "<i2", "fortran_order": False, "shape": (size,)}
            np.lib.format.write_array_header_1_0(file, header)
            file.truncate(file.tell() + 2 * size)
        values = np.load(building / "values.npy", mmap_mode="r")
        data = SeriesData(
            values=values,
            offsets=np.concatenate([[0], np.cumsum(LENGTHS)]),
            labels=np.full(len(LENGTHS), -1),
            is_test=np.zeros(len(LENGTHS), bool),
            is_validation=number == number[-1],
            class_names=("a", "b", "c"),
            num_channels=CHANNELS,
            has_missing=False,
            groups=number,
            group_name="recording",
            recording_names=tuple(map(str, number)),
            annotations=annotations,
            scale=np.tile([0.01, 0.0], (len(LENGTHS), CHANNELS, 1)),
        )
        with mock.patch.object(cache, "_sha256", return_value="0" * 64):  # which would read all of the holes
            cache._write(building, data, np.empty((0, 2), np.uint64), identity)
    return int(values.nbytes)


def train(folder: Path, target: str, overrides: Sequence[str], *, kill: bool = False) -> dict[str, Any]:
    """Train in a process of its own; with `kill`, kill it in the middle of its epoch.

    Returns:
        Its peak resident memory, and what it printed.
    """
    begun = folder / target / "checkpoints" / "last.ckpt"

    def kill_once_begun(process: subprocess.Popen[str]) -> None:
        if kill and begun.is_file():
            process.send_signal(signal.SIGKILL)

    arguments = ["--train", str(folder), target, "--", *overrides]
    status, text, peak = watched(__file__, arguments, kill_once_begun)
    assert status == (-signal.SIGKILL if kill else 0), text
    return {"peak_resident_bytes": peak, **({} if kill else json.loads(text.splitlines()[-1]))}


def trained(folder: Path, target: str, overrides: Sequence[str]) -> dict[str, Any]:
    """What a process of its own does: the first batch, and then the training; scores take the validation recording."""
    import torch

    from krontime.runs import prepare, run

    torch.set_num_threads(1)
    config = plain_config("train", (*chosen(folder), *TRAINED, *RUN, *overrides))
    began_s = time.perf_counter()
    first = next(iter(prepare.prepare(config).batches(config).train_dataloader()))
    first_batch_s = time.perf_counter() - began_s
    record = run.train_in(config, folder / target)
    assert record is not None
    return {"first_batch_s": first_batch_s, "series": len(first.y), "train_cpu_s": record.train_cpu_s}


def weights(folder: Path, target: str) -> dict[str, Any]:
    """What the last checkpoint holds."""
    from krontime.runs import load

    state: dict[str, Any] = load.load_checkpoint(folder / target / "checkpoints" / "last.ckpt")["state_dict"]
    return state


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--train", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("overrides", nargs="*", default=[], help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.train:
        sys.stdout.write(json.dumps(trained(Path(given.train[0]), given.train[1], given.overrides)) + "\n")
        return
    import torch

    from krontime.commands.plan_epoch import measured_epoch
    from krontime.runs.prepare import load_data

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        figures: dict[str, Any] = {"store_bytes": write_store(folder)}
        short = ("+trainer.limit_train_batches=40",)
        whole = train(folder, "whole", short)
        figures |= {key: whole[key] for key in ("first_batch_s", "peak_resident_bytes")}
        train(folder, "killed", short, kill=True)
        train(folder, "killed", short)
        one, two = weights(folder, "whole"), weights(folder, "killed")
        figures["resumed_is_equal"] = one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)
        config = plain_config("plan", (*chosen(folder), *EVERY_TENTH, *TRAINED))
        plan = measured_epoch(config, load_data(config))
        begun = train(folder, "begun", (*EVERY_TENTH, "+trainer.limit_train_batches=1"))
        hundredth = train(folder, "hundredth", (*EVERY_TENTH, "+trainer.limit_train_batches=0.01"))
        figures["plan_epoch_s"] = plan.seconds
        # What is left when validation and all else that one step has too is taken off.
        steps = plan.num_batches // 100
        figures["measured_epoch_s"] = (hundredth["train_cpu_s"] - begun["train_cpu_s"]) / (steps - 1) * plan.num_batches
        figures["plan_by_measured"] = figures["plan_epoch_s"] / figures["measured_epoch_s"]
    sys.stdout.write(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
