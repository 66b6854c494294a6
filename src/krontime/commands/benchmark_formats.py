"""What the formats of a finished run cost on this machine: start, latency and memory, each in a process of its own."""

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from krontime.commands.options import folder_of
from krontime.console import result, show
from krontime.data.series import SeriesSpec
from krontime.runs import bundle
from krontime.runs.environment import environment_json
from krontime.runs.exported import files, formats, latency
from krontime.runs.exported.latency import Latency
from krontime.storage import replacing

LATENCY = "latency.json"


def benchmark_formats(options: Mapping[str, Any]) -> list[Latency]:
    """Measure a finished run in krontime itself, and each format of it; `latency.json` in `output` keeps the result.

    Args:
        options: `run`, a folder that export wrote, whose formats are measured; a run, or a bundle without formats, is
            exported into a temporary folder, in all formats whose packages are installed. And `output`.

    Raises:
        UserError: the run can't be read, or is damaged.
    """
    folder = folder_of(options["run"])
    run = bundle.load(folder)
    usable = [name for name in files.FILES if not files.missing_packages(name)]
    names = [name for name in usable if bundle.is_bundle(folder) and (folder / files.FILES[name][0]).exists()]
    if names:
        bundle.check_sums(folder, [name for it in names for name in files.FILES[it]])
        costs = latency.measured(names, folder, folder, run.spec)
    else:
        with tempfile.TemporaryDirectory() as temporary:
            formats.write(run, usable, Path(temporary))
            costs = latency.measured(usable, Path(temporary), folder, run.spec)
    _keep(costs, run.spec, folder, folder_of(options["output"]) / LATENCY)
    return costs


def _keep(costs: Sequence[Latency], spec: SeriesSpec, folder: Path, path: Path) -> None:
    """Write the costs, with where they were measured, and show them."""
    about = {"run": str(folder), "length": spec.length, "num_channels": spec.num_channels}
    content = {**about, "formats": [asdict(cost) for cost in costs], "environment": environment_json("cpu")}
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    result(**content)
    show(latency.table(costs, spec).strip())
    show(f"Written to {path}")
