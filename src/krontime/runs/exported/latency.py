"""Measures what the formats of an exported model cost on this machine, each in a process of its own."""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from krontime.console import progress
from krontime.data.series import SeriesSpec
from krontime.runs.environment import cpu_model
from krontime.runs.exported import latency_cell

BATCH_SIZES = (1, 32)
"""Numbers of series that are classified at once."""

_NAMES = {"run": "krontime (torch, compiled closed form)", "torch": "torch.export", "onnx": "ONNX Runtime"}


@dataclass(frozen=True)
class Latency:
    """The cost of one format.

    Attributes:
        name: of the format; `run` for the trained module in krontime itself.
        start_s: seconds from the first import to the first prediction.
        latency_ms: by number of series at once, the median of a prediction.
        peak_memory_bytes: that its process held at most; None where the system does not tell.
    """

    name: str
    start_s: float
    latency_ms: dict[int, float]
    peak_memory_bytes: int | None


def measured(names: Sequence[str], folder: Path, trained: Path, spec: SeriesSpec) -> list[Latency]:
    """Measure the cost of the trained module and of each format, on series of the longest length.

    Args:
        names: of the formats.
        folder: where they lie.
        trained: a run folder, or a bundle.
        spec: sizes of the series.
    """
    results = []
    with progress("timing formats", 1 + len(names)) as step:
        for name in ("run", *names):
            cost = _measure(name, trained if name == "run" else folder, spec)
            latency_ms = {int(size): value for size, value in cost["latency_ms"].items()}
            results.append(Latency(name, cost["start_s"], latency_ms, cost["peak_memory_bytes"]))
            step()
    return results


def _measure(name: str, folder: Path, spec: SeriesSpec) -> dict[str, Any]:
    """Run `latency_cell` in a process and return what it printed."""
    job = {
        "format": name,
        "folder": str(folder.absolute()),
        "num_channels": spec.num_channels,
        "length": spec.length,
        "batch_sizes": BATCH_SIZES,
        "num_threads": torch.get_num_threads(),
    }
    # By its path, so that no package of krontime is imported where the format needs none.
    process = subprocess.run(
        [sys.executable, latency_cell.__file__], input=json.dumps(job), capture_output=True, text=True, check=False
    )
    if process.returncode:
        raise RuntimeError(f"timing {name} failed:\n{process.stderr}")
    cost: dict[str, Any] = json.loads(process.stdout)
    return cost


def table(results: Sequence[Latency], spec: SeriesSpec) -> str:
    """Write the results as a section in Markdown."""
    heads = " | ".join(f"{size} series, ms" for size in BATCH_SIZES)
    lines = [
        "\n## Latency\n",
        f"Series of {spec.length} points on {cpu_model()}, threads: {torch.get_num_threads()}; each format in its own",
        "process.\n",
        f"| format | start, s | {heads} | memory, MiB |",
        f"|---|--:|{'--:|' * len(BATCH_SIZES)}--:|",
    ]
    for it in results:
        times = " | ".join(f"{it.latency_ms[size]:.1f}" for size in BATCH_SIZES)
        memory = "" if it.peak_memory_bytes is None else f"{it.peak_memory_bytes / 2**20:.0f}"
        lines.append(f"| {_NAMES[it.name]} | {it.start_s:.2f} | {times} | {memory} |")
    return "\n".join(lines) + "\n"
