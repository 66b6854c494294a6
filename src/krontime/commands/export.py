"""The command `export`: a finished run as a bundle, with its model card, and as graphs that run without krontime."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from krontime.commands.options import folder_of, output_problems
from krontime.config import resolve
from krontime.console import result, show
from krontime.errors import Problems, UserError
from krontime.metrics import METRICS
from krontime.runs import bundle, load
from krontime.runs.exported import files
from krontime.runs.load import LoadedRun
from krontime.runs.prepare import moved
from krontime.runs.record import Record, Status
from krontime.storage import RECORD

_FORMATS = {"bundle": [], "onnx": ["onnx"], "torch": ["torch"], "all": ["onnx", "torch"]}


def export(config: DictConfig) -> Path:
    """Write the selected model of a run, and all that is needed to use and to judge it, into a new folder.

    Returns:
        The folder, or that which was checked.

    Raises:
        UserError: the run is not completed or can't be read, or the folder exists, or a format answers otherwise than
            the trained model.
    """
    options = resolve.plain(config)
    _check_options(options)
    if options.get("check") is not None:
        return _check(options)
    run_dir, output = folder_of(options["run"]), folder_of(options["output"])
    problems = Problems()
    if lines := output_problems("output", output, is_folder=True):
        problems.lines += lines
    elif output.exists():
        problems.add("output", str(output), "the name of a new folder; it exists")
    if bundle.is_bundle(run_dir):
        problems.add("run", str(run_dir), "the folder of a finished run; this is a bundle")
    problems.raise_if_any()
    run = load.load_run(run_dir)
    record = Record.read(run_dir / RECORD)
    if record.status is not Status.COMPLETED:
        raise UserError(
            f"run={str(run_dir)!r}: expected a completed run; this one is {record.status.replace('_', ' ')}, until the "
            "training command has been run to its end"
        )
    published = record.published()
    names = _FORMATS[options.get("format", "bundle")]
    reports: list[dict[str, Any]] = []

    def more(folder: Path) -> str:
        from krontime.runs.exported import formats

        formats.write(run, names, folder)
        text, report = _compared(run, names, folder, options)
        reports.append(report)
        return text

    try:
        bundle.write_bundle(run, published, model_card(published, run), output, more=more if names else None)
    except OSError as error:
        raise UserError(f"output={str(output)!r}: can't be written ({error.strerror or error})") from error
    result(run=run_dir, output=output, **(reports[0] if reports else {}))
    written = (*bundle.files_of(output), *(name for it in names for name in files.FILES[it]), bundle.SUMS)
    show(f"{run_dir} exported: {output} ({', '.join(written)})")
    return output


def _check_options(options: Mapping[str, Any]) -> None:
    """Refuse what can't work before anything is read.

    Raises:
        UserError: with every problem.
    """
    problems = Problems()
    checks = options.get("check") is not None
    for key in ("run", "output"):
        if checks and options.get(key) is not None:
            problems.add(key, options[key], "null where check=FOLDER asks for a check alone")
        elif not checks and options.get(key) is None:
            problems.add(key, None, "the folder of a run" if key == "run" else "the name of a new folder")
    chosen, series = options.get("format", "bundle"), options.get("series", 32)
    if not isinstance(chosen, str) or chosen not in _FORMATS:
        problems.add("format", chosen, f"one of {', '.join(_FORMATS)}")
    elif missing := [it for name in _FORMATS[chosen] for it in files.missing_packages(name)]:
        problems.add("format", chosen, f"bundle or torch, or {', '.join(missing)} (pip install 'krontime[onnx]')")
    if series is not None and (isinstance(series, bool) or not isinstance(series, int) or series < 1):
        problems.add("series", series, "a number of series of at least 1, or null for all")
    problems.raise_if_any()


def _check(options: Mapping[str, Any]) -> Path:
    """Compare the formats in a folder with the trained model in it.

    Raises:
        UserError: the folder is none that was exported, is damaged, or a format answers otherwise.
    """
    folder = folder_of(options["check"])
    if not bundle.is_bundle(folder):
        raise UserError(f"check={str(folder)!r}: expected a folder that export wrote")
    names = [name for name in files.FILES if (folder / files.FILES[name][0]).exists()]
    if not names:
        raise UserError(
            f"check={str(folder)!r}: expected a folder with {' or '.join(it[0] for it in files.FILES.values())}"
        )
    problems = Problems()
    for name in names:
        if missing := files.missing_packages(name):
            problems.add("check", str(folder), f"{', '.join(missing)} to be installed (pip install 'krontime[onnx]')")
    problems.raise_if_any()
    bundle.check_sums(folder, [name for it in names for name in files.FILES[it]])
    text, report = _compared(bundle.load(folder), names, folder, options)
    result(check=folder, **report)
    show(text.strip())
    return folder


def _compared(run: LoadedRun, names: list[str], folder: Path, options: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The part of the model card on formats, and the same for programs.

    Raises:
        UserError: one answers otherwise than the trained model.
    """
    from krontime.runs.exported import card, parity

    paths = options.get("paths") or {}
    series = parity.sample(run, moved(run.config, paths), options.get("series", 32))
    results = parity.compared(run, names, folder, series)
    if problems := parity.problems(results, series):
        raise UserError(problems)
    report: dict[str, Any] = {"parity": {it.name: it.difference for it in results}, "on": series.source}
    return card.of_formats(run, results, series), report


def model_card(record: Record, run: LoadedRun) -> str:
    """What a stranger has to know of a model, in Markdown; every number is the record's."""
    spec, decoding = run.spec, run.decoding
    protocol = record.protocol
    assert protocol is not None  # a completed run has one
    rate = f" at {spec.sampling_rate_hz:g} points per second" if spec.sampling_rate_hz else ""
    rows = [
        f"| {name} | "
        + " | ".join(_score(scores.get(name)) for scores in (record.metrics.val, record.metrics.test))
        + " |"
        for name in METRICS
        if name in record.metrics.val or name in record.metrics.test
    ]
    grouped = f", by {protocol.group}" if protocol.group else ""
    commit = f", commit {record.git.commit[:10]}" + (" with changes" if record.git.dirty else "") if record.git else ""
    return f"""# {record.model} on {record.data}

Classifies series of {spec.num_channels} channel{"s" * (spec.num_channels != 1)} and at most {spec.length} points{rate}
into {spec.num_classes} classes: {", ".join(spec.class_names)}.

```bash
krontime predict run=FOLDER input=FILE output=classes.csv     # new series
krontime evaluate run=FOLDER paths.data=FOLDER_OF_THE_DATA    # the scores below, again
```

## Scores

| metric | validation | test |
|---|--:|--:|
{chr(10).join(rows)}

The checkpoint was selected on {protocol.selection_metric or "nothing (the last epoch's)"}; the test split was read
once, at the end. One run, of seed {record.seed}: other seeds give other scores.

## Protocol

- data set `{record.data}`: {protocol.num_train} training, {protocol.num_val} validation and {protocol.num_test} test
  series, SHA-256 `{protocol.data_sha256}`
- validation carved from train: {protocol.split_method}{grouped}, seed {protocol.split_seed}
- code and scale of raw numbers, of new series too: {_options(decoding.options())}
- scaling: {protocol.scaling}; preparation: {_options(protocol.preparation)}; windows: {_options(protocol.windowing)}
- training series of each class: {", ".join(f"{name} {n}" for name, n in protocol.train_class_counts.items())}

The model knows the classes above and no others: it gives one of them to any series. It says nothing of data that was
recorded in another way.

## Made with

krontime {record.versions.get("krontime", "")}{commit}, torch {record.versions.get("torch", "")}, on
{record.device.name} ({record.device.kind}); {record.num_parameters:,} parameters, {record.train_time_s or 0:.0f} s of
training. `{RECORD}` has the whole config (hash {record.config_hash}) and every version; `{bundle.SUMS}` the checksums
(`sha256sum -c {bundle.SUMS}`). This `{bundle.CARD}` was generated from the record.
"""


def _score(score: float | None) -> str:
    return "" if score is None else f"{score:.3f}"


def _options(options: object) -> str:
    return (
        ", ".join(f"{key}={value}" for key, value in options.items())
        if isinstance(options, dict) and options
        else "none"
    )
