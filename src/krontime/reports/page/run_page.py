"""The page on one run."""

from pathlib import Path

import numpy as np
import yaml

from krontime.data.assemble import also_trained_on
from krontime.metrics import METRIC_TITLES, METRICS
from krontime.reports.comparison.over_groups import too_few
from krontime.reports.page import figures
from krontime.reports.page.content import RunContent
from krontime.reports.page.decisions import decisions
from krontime.reports.page.render import Code, Section, Table, write_page
from krontime.runs.record import Record
from krontime.runs.screen import typed

MEANING = {
    "accuracy": "fraction of the series that are classified right",
    "balanced_accuracy": "mean over the classes of the fraction that is right",
    "macro_f1": "mean over the classes of the harmonic mean of precision and recall",
    "auroc": "area under the ROC curve; .5 is chance",
    "nll": "negative log-likelihood in nats; lower is better",
    "ece": "expected calibration error; lower is better",
}
PROTOCOL = {
    "data_sha256": "SHA-256 of the data",
    "num_train": "training series",
    "num_val": "validation series",
    "num_test": "test series",
    "num_test_cropped": "test series that were cut",
}
UNITS = {"nll": "negative log-likelihood", "ece": "calibration error", "loss": "loss"}


def write_run_page(content: RunContent, path: Path) -> None:
    """Write the page on one run, whole or not at all."""
    record = content.record
    sections = [_scores(content), _errors(content), _calibration(content), decisions(content.decisions)]
    sections += [_examples(content), _training(content)]
    sections += [_data(content), _protocol(record), _reproduce(content)]
    title = f"{record.model} on {record.data}"
    write_page(title, verdict(content), [section for section in sections if section is not None], path)


def verdict(content: RunContent) -> str:
    """The result in one or two sentences."""
    test, protocol = content.record.metrics.test, content.record.protocol
    assert protocol is not None  # a completed run has one
    score = test.get("accuracy")
    if score is None:
        right = content.record.metrics.val.get("accuracy")
        of_these = "" if right is None else f", {right:.3f} of which are classified right"
        trained = f"Trained on {protocol.num_train} series, validated on {protocol.num_val}"
        counted = "" if content.confusion is None else _held_out(content.confusion)
        return f"{trained}{of_these}. There is no test split{counted}."
    interval = content.intervals.get("accuracy")
    within = f" (95 % interval {interval.low:.3f} to {interval.high:.3f})" if interval else ""
    largest = max(protocol.train_class_counts.values()) / max(1, sum(protocol.train_class_counts.values()))
    return (
        f"{score:.3f} of {protocol.num_test} test series are classified right{within}. "
        f"Always answering the largest training class would be right for about {largest:.3f}."
    )


def _held_out(confusion: np.ndarray) -> str:
    right, total = int(np.trace(confusion)), int(confusion.sum())
    return f"; what follows is of the {total} series that were held out of a fit, {right} of which are classified right"


def _scores(content: RunContent) -> Section:
    metrics = content.record.metrics
    is_tested = bool(metrics.test)
    rows = []
    for name in METRICS:
        value = [scores.get(name) for scores in ((metrics.val, metrics.test) if is_tested else (metrics.val,))]
        if all(score is None for score in value):
            continue
        interval = content.intervals.get(name)
        rows.append(
            [
                METRIC_TITLES[name],
                *("" if score is None else f"{score:.4f}" for score in value),
                *([f"{interval.low:.4f} to {interval.high:.4f}" if interval else ""] if is_tested else []),
                MEANING[name],
            ]
        )
    header = ["score", "validation", *(["test", "interval of test"] if is_tested else []), "meaning"]
    return Section("Scores", _of_intervals(content), [Table("Scores", header, rows)])


def _of_intervals(content: RunContent) -> list[str]:
    """What intervals of test scores are, or why groups allow none."""
    num_groups = content.num_groups
    if num_groups is not None and content.scored == "test" and (few := too_few(num_groups)):
        return [few[0].upper() + few[1:]]
    if not content.intervals:
        return []
    if num_groups is None:
        return ["Intervals hold 95 % of the scores of test splits that are drawn again from these test series."]
    return [
        f"Intervals of 95 % speak of other groups than these {num_groups}: they are from the scores without each group "
        "in turn (jackknife), by Student's t distribution."
    ]


def _errors(content: RunContent) -> Section | None:
    if content.confusion is None:
        return None
    names = content.class_names
    off = content.confusion.copy()
    np.fill_diagonal(off, 0)
    rows = []
    for place in np.argsort(-off, axis=None)[:5].tolist():
        row, column = divmod(place, len(names))
        if off[row, column]:
            rows.append([f"{names[row]} taken for {names[column]}", str(off[row, column])])
    tables = [Table("Most frequent errors", ["error", f"{content.scored} series"], rows)] if rows else []
    words = [] if rows else [f"No {content.scored} series is classified wrong."]
    return Section("Errors", words, tables, [figures.confusion(content.confusion, names, content.scored)])


def _calibration(content: RunContent) -> Section | None:
    if not content.bins:
        return None
    words = "Points above the dashed line: right more often than the probability says; below it: less often."
    drawn = figures.reliability(content.bins, content.scored)
    return Section("How far its probabilities can be trusted", [words], figures=[drawn])


def _examples(content: RunContent) -> Section | None:
    if not content.examples:
        return None
    rate = None if content.data is None else content.data.sampling_rate_hz
    header = ["example", "series", "true", "predicted", "probability"]
    rows = [
        [each.why, each.file or str(each.index), each.label or "", each.predicted, f"{each.probability:.3f}"]
        for each in content.examples
    ]
    drawn = []
    for each in content.examples:
        if each.values is not None:
            drawn.append(series := figures.series(each, rate))
            if (ours := each.attribution) is not None:
                drawn.append(
                    figures.attributions(ours.occlusion.numpy(), ours.gradients.numpy(), rate, series.plot.x_range)
                )
    words = [f"The series are not drawn: {content.missing}."] if content.missing else []
    return Section("Examples", words, [Table("Examples", header, rows)], drawn)


def _training(content: RunContent) -> Section:
    record = content.record
    families: dict[str, dict[str, tuple[list[int], list[float]]]] = {}
    for name, line in content.curves.items():
        unit = next((unit for part, unit in UNITS.items() if part in name), "score")
        families.setdefault(unit, {})[name] = line
    seconds = f"{record.train_time_s:.1f} s" if record.train_time_s is not None else "an unknown time"
    memory = f", at most {record.peak_memory_bytes / 2**20:,.0f} MiB" if record.peak_memory_bytes else ""
    size = f", {record.num_parameters:,} parameters" if record.num_parameters else ""
    device = f"{record.device.name}, {record.device.num_threads} thread{'s' if record.device.num_threads != 1 else ''}"
    drawn = [figures.curves(f"Learning curves: {unit}", unit, lines) for unit, lines in families.items()]
    return Section("Training", [f"Trained in {seconds} on {device}{memory}{size}."], figures=drawn)


def _data(content: RunContent) -> Section:
    protocol = content.record.protocol
    assert protocol is not None
    rows = [[name, str(count)] for name, count in protocol.train_class_counts.items()]
    tested = f"{protocol.num_test} test series" if protocol.num_test else "no test series"
    words = [f"{protocol.num_train} training, {protocol.num_val} validation and {tested}."]
    if content.data is not None:
        lengths = content.data.lengths
        extent = f"{lengths.min():,}" if lengths.min() == lengths.max() else f"{lengths.min():,} to {lengths.max():,}"
        channels = f"{content.data.num_channels} channel{'s' if content.data.num_channels > 1 else ''}"
        rate = content.data.sampling_rate_hz
        gaps = "some values are missing" if content.data.has_missing else "no value is missing"
        shared = len(also_trained_on(content.data))
        if protocol.num_test:
            words.append(
                f"{shared:,} of the test series are, value for value, training series too."
                if shared
                else "No test series is, value for value, a training series too."
            )
        words.append(f"{channels} of {extent} points{f' at {rate:,g} Hz' if rate else ''}; {gaps}.")
    elif content.missing:
        words.append(f"The data could not be read for this page: {content.missing}.")
    return Section("Data", words, [Table("Training series of each class", ["class", "training series"], rows)])


def _protocol(record: Record) -> Section:
    assert record.protocol is not None
    rows = [
        [PROTOCOL.get(name, name.replace("_", " ")), str(value)]
        for name, value in record.protocol.model_dump(mode="json").items()
        if name != "train_class_counts" and value is not None and value != {}
    ]
    words = "The test split was read once, after the model had been selected on validation."
    return Section(
        "Protocol", [words] if record.protocol.num_test else [], [Table("Protocol", ["what", "value"], rows)]
    )


def _reproduce(content: RunContent) -> Section:
    record = content.record
    versions = "\n".join(f"{name}=={version}" for name, version in record.versions.items())
    commit = f"commit {record.git.short}" if record.git else "an installed package"
    if content.table is None:
        load = f"import krontime\n\nmodel = krontime.load({str(content.folder)!r})\nmodel.predict_proba(X)"
        use = [
            Code(
                "Classify new series", f"krontime predict {typed('run', content.folder)} input=NEW output=classes.csv"
            ),
            Code("In Python", load),
        ]
    else:
        job = f"{record.data}/{record.model}/seed{record.seed}-{record.config_hash}"
        verify = f"krontime verify {typed('table', content.table)} {typed('run', job)}"
        use = [Code("Train it again, and compare", verify)]
    codes = [
        *use,
        Code("The whole config", yaml.safe_dump(record.config, sort_keys=False, allow_unicode=True)),
        Code("Environment", versions),
    ]
    started = f"{record.started_at:%Y-%m-%d %H:%M %Z}"
    words = f"Config hash {record.config_hash}, seed {record.seed}, {commit}, started {started}."
    return Section("Use it, and make it again", [words], code=codes)
