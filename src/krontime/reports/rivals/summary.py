"""The small tables: ours beside the best-known others, and what was run here beside the same as published."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from krontime.reports.comparison.compare import Comparison
from krontime.reports.markup import Cell, Table, markdown
from krontime.reports.rivals.export import archive_name
from krontime.reports.rivals.read import Scores
from krontime.reports.rivals.standing import Standing, data_set_means, resample_numbers
from krontime.storage import replacing

SUMMARY = "rivals_summary"

BEST_KNOWN = (
    *("HC2", "TS-CHIEF", "H-InceptionTime", "InceptionTime", "MR-Hydra", "ROCKET", "MiniROCKET", "RDST"),
    *("WEASEL-2", "1NN-DTW"),
)
"""Published classifiers that a reader looks for; those that are compared are shown."""

_CAPTION = (
    "Means over {places}, the same for all; {kinds}. Mean rank among all {count} that are compared. Below the rule: "
    "published by others, not run here{trained}."
)

_ALIKE = 5e-5  # published figures are rounded


def write_summary(standings: Sequence[Standing], comparison: Comparison, folder: Path) -> str:
    """Write `rivals_summary.md`: mean accuracy, mean rank, log loss and time to train of ours and the best-known.

    Args:
        standings: one for each metric, that of accuracy first.
        comparison: of our models.
        folder: where the file goes.

    Returns:
        The file's name.
    """
    first = standings[0]
    losses = next((one for one in standings if one.metric == "nll"), None)
    loss = dict(zip(losses.names, losses.means.mean(axis=0), strict=True)) if losses else {}
    ranks, means = first.ranks(), first.means.mean(axis=0)
    seconds = {name: _seconds(comparison, name, first.data_sets) for name in first.ours}
    shown = [name for name in first.names if name in first.ours or name in BEST_KNOWN]
    shown.sort(key=lambda name: (name not in first.ours, ranks[first.names.index(name)]))
    body: list[list[str | Cell]] = []
    for name in shown:
        number = first.names.index(name)
        trained = seconds.get(name)
        body.append(
            [
                name,
                f"{means[number]:.3f}",
                f"{ranks[number]:.2f}",
                f"{loss[name]:.3f}" if name in loss else "-",
                "-" if trained is None else f"{trained:.1f}",
            ]
        )
    title = "Ours beside the best-known published classifiers"
    header = ["classifier", "accuracy", "mean rank", "log loss", "seconds to train"]
    table = Table(title, header, body, rule_above=len(first.ours))
    kind = "processor" if comparison.train_field == "train_cpu_s" else "wall-clock"
    caption = _CAPTION.format(
        places=f"{len(first.data_sets)} data sets, {resample_numbers(first.places)}",
        kinds="log loss (-: not defined) in natural logarithms",
        count=len(first.names),
        trained=f". Seconds to train: mean over runs, {kind} time on {_devices(comparison)}",
    )
    with replacing(folder / f"{SUMMARY}.md") as temporary:
        temporary.write_text(markdown([table], caption), encoding="utf-8")
    return f"{SUMMARY}.md"


def _seconds(comparison: Comparison, name: str, data_sets: Sequence[str]) -> float | None:
    variant = next(each for each in comparison.variants if " ".join(each) == name)
    entries = [entry for data in data_sets if (entry := comparison.only(data, variant))]
    times = [time for entry in entries if (time := entry.mean_of(comparison.train_field)) is not None]
    return float(np.mean(times)) if times else None


def _devices(comparison: Comparison) -> str:
    devices = {(record.device.num_threads, record.device.name) for record in comparison.records}
    return "; ".join(f"{n} thread{'s' if n > 1 else ''} of {name}" for n, name in sorted(devices))


def agreement(comparison: Comparison, ours: Scores, theirs: Scores) -> Table | None:
    """Accuracy of the classifiers of aeon that were run here beside that of the same ones as published.

    Args:
        comparison: of our models.
        ours: accuracy of our models.
        theirs: accuracy of the published classifiers.

    Returns:
        The table; None where no classifier was run here that has been published.
    """
    body: list[list[str | Cell]] = []
    for name, here in ours.items():
        published = archive_name(comparison, name)
        places = sorted(here.keys() & theirs.get(published, {}).keys()) if published != name else []
        if not places:
            continue
        there = theirs[published]
        data_sets = sorted({data for data, _ in places})
        means = [np.array(data_set_means(scores, places, data_sets)) for scores in (here, there)]
        alike = sum(abs(here[place] - there[place]) < _ALIKE for place in places)
        differences = means[0] - means[1]
        largest = int(np.argmax(np.abs(differences)))
        body.append(
            [
                name,
                published,
                f"{len(data_sets)} data sets, {resample_numbers(places)}",
                *(f"{mean.mean():.4f}" for mean in means),
                f"{differences.mean():+.4f}",
                f"{alike} of {len(places)}",
                "-" if alike == len(places) else f"{data_sets[largest]} {differences[largest]:+.3f}",
            ]
        )
    header = ["run here", "published as", "on", "here", "published", "difference", "the same", "largest difference"]
    return Table("Accuracy of what was run here and is published", header, body, num_left=3) if body else None
