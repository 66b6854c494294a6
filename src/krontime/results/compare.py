"""Accuracy and cost of finished runs by one option, in one plot: `python -m krontime.results.compare FOLDER --by KEY`.

Made from records alone. Runs that differ in anything else but the seed are kept apart, or refused.
"""

import argparse
import statistics
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from krontime.errors import UserError
from krontime.results.files import replacing
from krontime.results.record import Record, Status, config_hash
from krontime.results.tables import collect

PANELS: dict[str, Callable[[Record], float | None]] = {
    "test accuracy": lambda record: record.metrics.test.get("accuracy"),
    "training time (s)": lambda record: record.train_time_s,
    "peak memory (MiB)": lambda record: record.peak_memory_bytes and record.peak_memory_bytes / 2**20,
}


def by_option(records: Sequence[Record], key: str) -> dict[str, list[Record]]:
    """Completed records by the value of a dotted key of their config.

    Raises:
        UserError: no record has the key, or records differ in more than the key and the seed.
    """
    groups: dict[str, list[Record]] = defaultdict(list)
    rests: set[str] = set()
    for record in records:
        if record.status is Status.COMPLETED:
            rest = _copy(record.config)
            *path, last = key.split(".")
            node: Any = rest
            for part in path:
                node = node.get(part) if isinstance(node, dict) else None
            if not isinstance(node, dict) or last not in node:
                raise UserError(f"by={key!r}: expected a key of every record's config")
            groups[str(node.pop(last))].append(record)
            rests.add(config_hash({**rest, "seed": None}))
    if not groups:
        raise UserError("no completed run found: expected at least one")
    if len(rests) > 1:
        raise UserError(f"by={key!r}: the runs differ in more than this and the seed; expected a folder of one sweep")
    return dict(sorted(groups.items()))


def plot(groups: Mapping[str, Sequence[Record]], key: str, path: Path) -> None:
    """Write a panel for accuracy, time and memory each: a dot for each run, a bar for the mean, its number above."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, 3.6), dpi=120, layout="constrained")
    words = []
    for axes, (title, quantity) in zip(figure.subplots(1, len(PANELS)), PANELS.items(), strict=True):
        for position, (value, records) in enumerate(groups.items()):
            numbers = [number for record in records if (number := quantity(record)) is not None]
            if not numbers:
                continue
            mean = statistics.fmean(numbers)
            axes.bar(position, mean, width=0.6, color="#CFE3F2", edgecolor="#0072B2")
            axes.plot([position] * len(numbers), numbers, "o", color="#333333", markersize=3.5)
            label = f"{mean:.3f}" if max(numbers) <= 1 else f"{mean:,.0f}"
            axes.annotate(label, (position, max(numbers)), (0, 4), textcoords="offset points", ha="center", fontsize=8)
            words.append(f"{title} of {value}: {label} (n={len(numbers)})")
        axes.set_xticks(range(len(groups)), list(groups), fontsize=8)
        axes.set_xlabel(key)
        axes.set_title(title, fontsize=10)
        axes.margins(y=0.12)
        axes.spines[["top", "right"]].set_visible(False)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", metadata={"Description": "; ".join(words) + "."})


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of the module; exits with 2 on a mistake of the user's."""
    parser = argparse.ArgumentParser(
        prog="python -m krontime.results.compare", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("folders", nargs="+", type=Path, help="folders with run folders in them")
    parser.add_argument("--by", required=True, help="dotted key of the config, such as model.attention")
    parser.add_argument("--output", required=True, type=Path, help="PNG file to write")
    given = parser.parse_args(arguments)
    try:
        plot(by_option(collect(given.folders), given.by), given.by, given.output)
    except UserError as error:
        sys.stderr.write("\n".join(error.problems) + "\n")
        return 2
    return 0


def _copy(value: Any) -> Any:
    return {key: _copy(item) for key, item in value.items()} if isinstance(value, dict) else value


if __name__ == "__main__":
    sys.exit(main())
