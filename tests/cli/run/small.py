"""What tests of whole runs share: small networks, small data sets, and one way to call a command."""

import contextlib
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf

from krontime import cli
from krontime.runs import run
from krontime.runs.record import Record

CLOSED_FORM = (
    *(
        f"closed_form.parts.{part}.num_features=170"
        for part in ("groups", "runs", "proportions", "quantiles", "spectra")
    ),
    "closed_form.parts.spectra.windows=[20]",
    "closed_form.parts.spectra.min_length=0",
    "closed_form.min_network_series=0",
)
"""Few features, since the default ones take most of the time of a run on a small data set; the network is trained."""

NETWORK = (
    *("model.d_model=8", "model.num_heads=2", "model.num_layers=1", "model.ffn_dim=8", "tokenizer=linear"),
    *(
        "data.batch_size=6",
        "data.eval_batch_size=5",
        "trainer.max_epochs=2",
        "trainer.enable_progress_bar=false",
        "optim.min_batches_per_epoch=1",
    ),
)
SMALL = (*NETWORK, *CLOSED_FORM)
NETWORKS = {
    "krontime": SMALL,
    "rocket": (
        *CLOSED_FORM,
        *(option for option in NETWORK if option != "tokenizer=linear"),
        "tokenizer=rocket",
        "tokenizer.num_dilations=2",
    ),
    "patchtst": ("model=patchtst", *NETWORK),
    "tcn": ("model=tcn", "model.channels=4", "model.num_levels=2", *NETWORK[5:]),
}


def labelled(num_series: int, num_classes: int, seed: int, **options: Any) -> tuple[list[np.ndarray], np.ndarray]:
    """Sines of a class's own frequency in noise, `(C, L_i)` each, and their labels."""
    rng = np.random.default_rng(seed)
    num_channels, lengths = options.get("num_channels", 1), options.get("lengths", (80, 80))
    y = np.arange(num_series) % num_classes
    series = []
    for label in y:
        time = np.arange(rng.integers(lengths[0], lengths[1] + 1))
        wave = np.sin((label + 1) * time / 5 + rng.uniform(0, 6, (num_channels, 1)))
        series.append((wave + 0.3 * rng.standard_normal((num_channels, len(time)))).astype(np.float32))
        if options.get("missing"):
            series[-1][:, rng.integers(len(time), size=5)] = np.nan
    return series, y


def write_npz(path: Path, train: Sequence[np.ndarray], test: Sequence[np.ndarray], y: np.ndarray, **keys: Any) -> Path:
    series = [*train, *test]
    split = np.repeat([0, 1], [len(train), len(test)])
    offsets = np.cumsum([0, *(s.shape[1] for s in series)])
    np.savez(path, X_flat=np.concatenate(series, axis=1), offsets=offsets, y=y, split=split, **keys)
    return path


def write_ts(path: Path, series: Sequence[np.ndarray], y: np.ndarray) -> Path:
    head = ["@problemName x", "@timeStamps false", f"@univariate {str(len(series[0]) == 1).lower()}"]
    head += ["@classLabel true a b c", "@data"]
    rows = [
        ":".join(",".join("?" if np.isnan(v) else repr(float(v)) for v in channel) for channel in s)
        + f":{'abc'[label]}"
        for s, label in zip(series, y, strict=True)
    ]
    path.write_text("\n".join([*head, *rows]) + "\n")
    return path


def train(config: dict[str, Any], folder: Path) -> Record:
    with contextlib.redirect_stdout(io.StringIO()):
        record = run.train_in(config, folder)
    assert record is not None
    return record


def weights(folder: Path, name: str = "last.ckpt") -> dict[str, torch.Tensor]:
    return torch.load(folder / "checkpoints" / name, weights_only=True)["state_dict"]


def equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def call(function: Callable[[Any], Any], **options: Any) -> Any:
    defaults = {"accelerator": None, "paths": {"data": None, "cache": None}, "split": "all", "force": False}
    given = {key: str(value) if isinstance(value, Path) else value for key, value in options.items()}
    with contextlib.redirect_stdout(io.StringIO()):
        return function(OmegaConf.create({**defaults, "sampling_rate_hz": None, **given}))


def command(name: str, *overrides: str) -> str:
    """What the command prints; it has to end well."""
    with contextlib.redirect_stdout(io.StringIO()) as screen:
        cli.main([name, *overrides])
    return screen.getvalue()
