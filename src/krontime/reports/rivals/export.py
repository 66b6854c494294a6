"""Our scores in tsml-eval's files, which aeon's results loaders read."""

import csv
import io
from pathlib import Path

from krontime.reports.comparison.compare import Comparison
from krontime.reports.rivals.read import MEASURES, Place
from krontime.reports.rivals.standing import our_scores
from krontime.storage import replacing

FOLDER = "tsml"


def export_tsml(comparison: Comparison, folder: Path) -> list[Path]:
    """Write `tsml/classification/MEASURE/NAME_MEASURE.csv` for each model and metric that has scores.

    A row a data set, a column a resample; the mean over seeds where there are several, and an empty field where there
    is no score. A classifier of aeon has the name that the archive gives it, so that aeon's loaders find it.

    Returns:
        The files that were written.
    """
    names = {" ".join(variant): archive_name(comparison, " ".join(variant)) for variant in comparison.variants}
    written = []
    for metric, (measure, *_) in MEASURES.items():
        for model, scores in our_scores(comparison, metric).items():
            if scores:
                name = names[model]
                path = folder / FOLDER / "classification" / measure / f"{name}_{measure}.csv"
                with replacing(path) as temporary:
                    temporary.write_text(_table(scores), encoding="utf-8")
                written.append(path)
    return written


def _table(scores: dict[Place, float]) -> str:
    resamples = range(max(resample for _, resample in scores) + 1)
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["Resamples:", *resamples])
    for data in sorted({data for data, _ in scores}):
        rows.writerow([data, *(repr(scores[data, k]) if (data, k) in scores else "" for k in resamples)])
    return text.getvalue()


def archive_name(comparison: Comparison, model: str) -> str:
    """What the archive calls a classifier of aeon; the model's own name for any other."""
    paths = {
        str(options.get("classifier"))
        for record in comparison.records
        if record.model == model and isinstance(options := record.config.get("model"), dict)
    }
    if len(paths) != 1 or not (path := paths.pop()).startswith("aeon."):
        return model.replace("/", "_")
    from aeon.benchmarking.results_loaders import estimator_alias

    try:
        return str(estimator_alias(path.rpartition(".")[2]))
    except ValueError:  # one that the archive has no results of
        return model
