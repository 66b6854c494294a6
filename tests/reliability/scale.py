"""Measures what a data set costs as it grows: parsing, an epoch, a closed form, and the memory of all of it.

`python tests/reliability/scale.py --output docs/results/scale` measures each size in a process of its own, writes
`scale.csv` and draws `scale.svg`. `--compare` measures training from the cache beside training from memory, in turns.
Series are generated, four classes of a sine in noise, as one array of int16 or float32 that `data=stacked` reads.
"""

import argparse
import csv
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from measuring import plain_config, watched

POINTS = 4_000
CLASSES = 4
AT_ONCE = 1_000
FIELDS = ("series", "dtype", "parse_s", "epoch_s", "closed_form_s", "peak_resident_bytes")

NETWORK = (
    *("model.d_model=8", "model.num_heads=2", "model.num_layers=1", "model.ffn_dim=8", "tokenizer=linear"),
    *("tokenizer.patch_length=64", "tokenizer.stride=64", "data.batch_size=64", "data.eval_batch_size=64"),
    *("trainer.max_epochs=1", "optim.min_batches_per_epoch=1", "trainer.enable_progress_bar=false", "logger=[]"),
)
FEW_FEATURES = tuple(
    f"closed_form.parts.{part}.num_features=170" for part in ("groups", "runs", "proportions", "quantiles")
)


def write_series(folder: Path, num_series: int, dtype: str) -> None:
    """Write `X.npy` and `y.npy`, a few series at a time."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, CLASSES, num_series)
    values = np.lib.format.open_memmap(folder / "X.npy", "w+", np.dtype(dtype), (num_series, 1, POINTS))
    noise = rng.standard_normal(AT_ONCE + POINTS).astype(np.float32)
    for start in range(0, num_series, AT_ONCE):
        chosen = labels[start : start + AT_ONCE, None]
        phase = rng.uniform(0, 6, chosen.shape)
        wave = np.sin((chosen + 1) * np.arange(POINTS, dtype=np.float32) / 40 + phase)
        wave += noise[rng.integers(0, AT_ONCE, len(chosen))[:, None] + np.arange(POINTS)]
        values[start : start + AT_ONCE, 0] = 1000 * wave if dtype == "int16" else wave
    values.flush()
    np.save(folder / "y.npy", labels)


def options(folder: Path, overrides: Sequence[str]) -> dict[str, Any]:
    """The plain config of a run on the series of a folder."""
    given = ("data=stacked", f"data.path={folder}", f"paths.cache={folder / 'cache'}", *NETWORK, *overrides)
    return plain_config("train", given)


def measure(folder: Path, overrides: Sequence[str]) -> dict[str, Any]:
    """Parse, and train for an epoch; seconds are the processor's, of this process, which has one thread."""
    import torch

    from krontime.runs import run
    from krontime.runs.prepare import load_data

    torch.set_num_threads(1)
    config = options(folder, overrides)
    began_s = time.process_time()
    load_data(config)
    parse_s = time.process_time() - began_s
    record = run.train_in(config, folder / "run")
    assert record is not None
    assert record.train_cpu_s is not None
    closed_s = record.part_times_s.get("closed_form", 0.0) / record.train_time_s * record.train_cpu_s
    return {"parse_s": parse_s, "epoch_s": record.train_cpu_s - closed_s, "closed_form_s": closed_s}


def compare(folder: Path, num_batches: int = 150, num_rounds: int = 8) -> dict[str, Any]:
    """Series a second of training from the cache, and from float32 in memory, in turns on the same batches."""
    import torch
    from lightning.pytorch.utilities import CombinedLoader  # noqa: F401 -- a training imports it late

    from krontime.data.datamodule import SeriesDataset
    from krontime.data.series import unscaled
    from krontime.runs import fitted_module, prepare

    torch.set_num_threads(1)
    config = options(folder, ("closed_form=none",))
    job = prepare.prepare(config)
    module, _ = fitted_module.fitted_module(config, job)
    data = job.data
    values = np.array(data.values)
    if data.scale is not None:
        values = unscaled(values.reshape(len(data), 1, -1), data.scale, None).ravel()
    datasets = {"cache": SeriesDataset(data), "memory": SeriesDataset(replace(data, values=values, scale=None))}
    network, normalizer = module.network, module.normalizer
    assert network is not None
    optimizer = torch.optim.AdamW(network.parameters())
    rng = np.random.default_rng(0)
    spent = dict.fromkeys(datasets, 0.0)
    size = config["data"]["batch_size"]
    for number in range(num_rounds + 1):
        batches = [rng.choice(job.split.train, size, replace=False).tolist() for _ in range(num_batches)]
        for name, dataset in datasets.items() if number % 2 else reversed(datasets.items()):
            began_s = time.process_time()
            for indices in batches:
                batch = dataset.__getitems__(indices)
                loss = torch.nn.functional.cross_entropy(network(normalizer(batch.x)), batch.y)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            if number:  # the first round warms up
                spent[name] += time.process_time() - began_s
    rates = {f"{name}_series_per_s": num_rounds * num_batches * size / taken_s for name, taken_s in spent.items()}
    return {**rates, "ratio": rates["cache_series_per_s"] / rates["memory_series_per_s"]}


def draw(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw seconds and memory against the number of series."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.4), layout="constrained")
    FigureCanvasSVG(figure)
    seconds, memory = figure.subplots(1, 2)
    sizes = [int(row["series"]) for row in rows]
    for field, label in (("parse_s", "parsing"), ("closed_form_s", "closed form"), ("epoch_s", "an epoch")):
        seconds.plot(sizes, [float(row[field]) for row in rows], "o-", label=label)
    seconds.set(xscale="log", yscale="log", xlabel="series", ylabel="processor seconds")
    seconds.legend()
    memory.plot(sizes, [float(row["peak_resident_bytes"]) / 2**30 for row in rows], "o-", label="resident, at most")
    width = 2 if rows[0]["dtype"] == "int16" else 4
    memory.plot(sizes, [size * POINTS * width / 2**30 for size in sizes], "--", label="the series themselves")
    memory.set(xscale="log", xlabel="series", ylabel="GiB", ylim=(0, None))
    memory.legend()
    figure.savefig(path, format="svg", metadata={"Date": None})


def main() -> None:
    """Measure, write and draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--series", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--dtype", choices=("int16", "float32"), default="int16")
    parser.add_argument("--output", type=Path, help="folder of scale.csv and scale.svg")
    parser.add_argument("--compare", action="store_true", help="the cache beside memory, for each number of series")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("overrides", nargs="*", default=[], help="of the config, after --")
    given = parser.parse_args()
    if given.one:
        folder = Path(given.one)
        sys.stdout.write(json.dumps(compare(folder) if given.compare else measure(folder, given.overrides)) + "\n")
        return
    rows = []
    for num_series in given.series:
        with tempfile.TemporaryDirectory() as made:
            write_series(Path(made), num_series, given.dtype)
            arguments = ["--one", made, *(["--compare"] if given.compare else [])]
            status, text, peak = watched(__file__, [*arguments, "--", *(given.overrides or FEW_FEATURES)])
            assert status == 0, text
            measured = {**json.loads(text.splitlines()[-1]), "peak_resident_bytes": peak}
        rows.append({"series": num_series, "dtype": given.dtype, **measured})
        sys.stdout.write(json.dumps(rows[-1]) + "\n")
        sys.stdout.flush()
    if given.output:
        given.output.mkdir(parents=True, exist_ok=True)
        with open(given.output / "scale.csv", "w", newline="") as file:
            writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        draw(rows, given.output / "scale.svg")


if __name__ == "__main__":
    main()
