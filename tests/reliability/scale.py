"""Measures what a data set costs as it grows: parsing, an epoch, a closed form, and the memory of all of it.

`python tests/reliability/scale.py --output docs/results/scale` measures each size in a process of its own, adds a row
to `scale.csv` and draws `scale.svg`; sizes that have a row there are not measured again. `--compare` measures training
from the cache beside training from memory, in turns, for `compare.csv`. Series are generated, four classes of a sine
in noise, as one array of int16 or float32 that `data=stacked` reads.
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
KEYS = ("series", "dtype", "features")

NETWORK = (
    *("model.d_model=8", "model.num_heads=2", "model.num_layers=1", "model.ffn_dim=8", "tokenizer=linear"),
    *("tokenizer.patch_length=64", "tokenizer.stride=64", "data.batch_size=64", "data.eval_batch_size=64"),
    *("trainer.max_epochs=1", "optim.min_batches_per_epoch=1", "trainer.enable_progress_bar=false", "logger=[]"),
)
FEW = {
    part: f"closed_form.parts.{part}.num_features=170"
    for part in ("groups", "runs", "proportions", "quantiles", "spectra")
}
LIGHT = (FEW["proportions"], *(f"~closed_form.parts.{part}" for part in FEW if part != "proportions"))
FEATURES = {"light": LIGHT, "few": tuple(FEW.values()), "default": ()}
"""Overrides of the closed form: 170 features of one of its parts, of all five, or all that it has by default."""


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
    """Draw processor seconds and the highest resident memory against the number of series."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    FigureCanvasSVG(figure)
    seconds, memory = figure.subplots(1, 2)
    for number, (features, dtype) in enumerate(sorted({(row["features"], row["dtype"]) for row in rows})):
        chosen = [row for row in rows if (row["features"], row["dtype"]) == (features, dtype)]
        chosen.sort(key=lambda row: row["series"])
        sizes, style = [row["series"] for row in chosen], "--" if dtype == "int16" else "-"
        label, marked = f"closed form, {features}, {dtype}", {"color": f"C{number}", "marker": "o", "linestyle": style}
        seconds.plot(sizes, [row["closed_form_s"] for row in chosen], label=label, **marked)
        memory.plot(sizes, [row["peak_resident_bytes"] / 1e9 for row in chosen], label=label, **marked)
        if features == "light":
            own = [size * POINTS * np.dtype(dtype).itemsize / 1e9 for size in sizes]
            memory.plot(sizes, own, linestyle=style, color="grey", label=f"the series themselves, {dtype}")
            for marker, (field, name) in {"s": ("epoch_s", "an epoch"), "^": ("parse_s", "parsing")}.items():
                values = [row[field] for row in chosen]
                seconds.plot(sizes, values, color="grey", linestyle=style, marker=marker, label=f"{name}, {dtype}")
    seconds.set(xscale="log", yscale="log", xlabel="series of 4,000 points", ylabel="processor seconds")
    memory.set(xscale="log", xlabel="series of 4,000 points", ylabel="highest resident memory, GB", ylim=(0, None))
    for axes in (seconds, memory):
        axes.legend(fontsize="x-small")
    figure.savefig(path, format="svg", metadata={"Date": None})


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Read the rows that were measured before, numbers as numbers."""
    if not path.is_file():
        return []
    with open(path, newline="") as file:
        return [
            {key: value if key in KEYS[1:] else json.loads(value) for key, value in row.items()}
            for row in csv.DictReader(file)
        ]


def write_rows(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Write rows as CSV, seconds and rates to four digits."""
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({key: f"{value:.4g}" if isinstance(value, float) else value for key, value in row.items()})


def measured(num_series: int, given: argparse.Namespace) -> dict[str, Any]:
    """The row of a number of series, from a process of its own."""
    with tempfile.TemporaryDirectory() as made:
        write_series(Path(made), num_series, given.dtype)
        arguments = ["--one", made, "--features", given.features, *(["--compare"] if given.compare else [])]
        status, text, peak = watched(__file__, arguments)
        assert status == 0, text
        figures = json.loads(text.splitlines()[-1])
    keys = {"series": num_series, "dtype": given.dtype}
    if given.compare:
        return {**keys, **figures}
    return {**keys, "features": given.features, **figures, "peak_resident_bytes": peak}


def main() -> None:
    """Measure, write and draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--series", type=int, nargs="+", default=[1_000, 10_000, 120_000])
    parser.add_argument("--dtype", choices=("int16", "float32"), default="int16")
    parser.add_argument("--features", choices=tuple(FEATURES), default="few", help="of the closed form")
    parser.add_argument("--output", type=Path, help="folder of scale.csv and scale.svg")
    parser.add_argument("--compare", action="store_true", help="the cache beside memory, for each number of series")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        folder = Path(given.one)
        figures = compare(folder) if given.compare else measure(folder, FEATURES[given.features])
        sys.stdout.write(json.dumps(figures) + "\n")
        return
    table = given.output and given.output / ("compare.csv" if given.compare else "scale.csv")
    rows = read_rows(table) if table else []
    done = {tuple(row.get(key) for key in KEYS) for row in rows}
    for num_series in given.series:
        if (num_series, given.dtype, None if given.compare else given.features) in done:
            continue
        rows.append(measured(num_series, given))
        sys.stdout.write(json.dumps(rows[-1]) + "\n")
        sys.stdout.flush()
        if table:
            table.parent.mkdir(parents=True, exist_ok=True)
            write_rows(rows, table)
    if table and not given.compare:
        draw(rows, table.with_suffix(".svg"))


if __name__ == "__main__":
    main()
