"""The command `predict`: classify the series of new files with a finished run."""

import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig

from krontime.commands.options import check_options, folder_of
from krontime.config import resolve
from krontime.console import is_json, show
from krontime.data.mismatch import ALLOWABLE, mismatches
from krontime.data.new_series import NewSeries, Reading, input_files, read_files
from krontime.data.prepare import Prepare
from krontime.data.series import SeriesData
from krontime.data.sources.audio import SUFFIXES as RECORDINGS
from krontime.data.sources.table import table_options
from krontime.data.summary import what_was_read
from krontime.errors import Problems, UserError
from krontime.runs import bundle
from krontime.runs.load import LoadedRun
from krontime.runs.predictions import check_output, named, prediction_table, write_table
from krontime.training.predict import Scorer

log = logging.getLogger(__name__)


BROKEN_FILES = 3
"""Exit code where files that can't be read were skipped."""

STDOUT = "-"


def predict(config: DictConfig) -> Path | None:
    """Classify the series of new files with the selected checkpoint of a run.

    Returns:
        The file of predictions; None where they were printed.

    Raises:
        UserError: the run or a file cannot be read, or the series do not fit the model.
        SystemExit: files that cannot be read were skipped, with code 3, after all others were classified.
    """
    options = resolve.plain(config)
    check_options(options)
    given, output = folder_of(options["input"]), folder_of(options["output"])
    problems = Problems()
    problems.found += _option_problems(options)
    if str(options["output"]) != STDOUT:
        problems.found += _output_problems(output, given, force=options["force"])
    files: list[tuple[Path, str]] = []
    note: str | None = None
    with _collecting(problems):
        files, note = input_files(given)
    run: LoadedRun | None = None
    with _collecting(problems):
        run = bundle.load(folder_of(options["run"]))
    problems.raise_if_any()
    assert run is not None

    skip = options.get("on_error", "refuse") == "skip"
    new = read_files(files, _reading(options, run), run.spec.class_names, skip=skip)
    data = _prepared(new, options, run)
    data = replace(data, notes=(*data.notes, *([note] if note else [])))
    log.info("%s", what_was_read(data, name=str(given)))
    indices = np.arange(len(data))
    # With a mask wherever training had one, so that the same series give the same numbers to the last bit.
    data = replace(data, has_missing=data.has_missing or run.masked)
    scorer = Scorer.of(run.config, options["accelerator"])
    probability = scorer.probabilities(run.module, data, indices)
    of_files = len(files) > 1 or bool(new.broken) or files[0][0].suffix.lower() in RECORDINGS
    table = prediction_table(
        named(probability, data, indices, run.module.prior.cpu()),
        files=new.names if of_files else None,
        broken=list(new.broken.items()) if skip else None,
    )
    for name, (reason, _) in new.broken.items():
        log.warning("%s: left out (%s)", name, reason)
    said = f"{len(data)} series of {given} classified"
    if str(options["output"]) == STDOUT:
        table.to_pandas().to_csv(sys.stdout, index=False, lineterminator="\n")
        log.info("%s", said)
    else:
        try:
            write_table(table, output)
        except OSError as error:
            raise UserError(f"output={str(output)!r}: can't be written ({error.strerror or error})") from error
        show(f"{said}: {output}")
    if new.broken:
        log.warning("%d of %d files can't be read and are marked", len(new.broken), len(files))
        sys.exit(BROKEN_FILES)
    return None if str(options["output"]) == STDOUT else output


def _option_problems(options: Mapping[str, Any]) -> list[str]:
    problems = Problems()
    if options.get("on_error", "refuse") not in ("refuse", "skip"):
        problems.add("on_error", options["on_error"], "refuse or skip")
    if not set(_allowed(options)) <= set(ALLOWABLE):
        problems.add("allow", options["allow"], f"a list of {', '.join(ALLOWABLE)}")
    if not isinstance(options.get("resample", False), bool):
        problems.add("resample", options["resample"], "true or false")
    if str(options["output"]) == STDOUT and is_json():
        problems.add("output", STDOUT, "a file where json=true, which prints an object of its own")
    return problems.found


def _allowed(options: Mapping[str, Any]) -> list[str]:
    """What may differ from training, where one word stands for a list of it."""
    allow = options.get("allow") or []
    return [str(word) for word in allow] if isinstance(allow, list) else [str(allow)]


def _output_problems(output: Path, given: Path, *, force: bool) -> list[str]:
    problems = Problems()
    with _collecting(problems):
        check_output(output)
    try:
        if output.is_dir():
            problems.add("output", str(output), "a file; this is a folder")
        elif output.exists() and given.exists() and output.resolve() == given.resolve():
            problems.add("output", str(output), "another file than input")
        elif output.exists() and not force:
            problems.add("output", str(output), "a new name, or force=true to overwrite; the file exists")
    except OSError as error:
        problems.add("output", str(output), f"a path that can be looked at ({error.strerror})")
    return problems.found


def _reading(options: Mapping[str, Any], run: LoadedRun) -> Reading:
    """As training read its files, but for what the user says of the new ones."""
    trained = run.config["data"]["source"]
    said = {key: value for key, value in (options.get("source") or {}).items() if value is not None}
    source = {**trained, **said}
    keys = ("label", "group", "ignore", "keep", "header", "separator", "decimal")
    is_ucr = str(trained.get("_target_", "")).endswith(".UcrTextSource")
    table = table_options(
        **{key: source.get(key) for key in keys}, wide=True if is_ucr else source.get("wide"), prefix="source"
    )
    layout = source.get("layout")
    if layout not in (None, "channels_first", "channels_last"):
        raise UserError(f"source.layout={layout!r}: expected channels_first, channels_last or null")
    return Reading(
        split=options["split"],
        sampling_rate_hz=options["sampling_rate_hz"],
        missing_value=trained.get("missing_value"),
        missing_channels=trained.get("missing_channels"),
        table=table,
        label_first=is_ucr and said.get("header") is None,
        layout=layout,
        mono=bool(source.get("mono", True)),
        trained=run.spec,
    )


def _prepared(new: NewSeries, options: Mapping[str, Any], run: LoadedRun) -> SeriesData:
    """The series as training prepared its own, after they have been compared with those.

    Raises:
        UserError: they differ in a way that the user has not allowed, or their rate is needed and not known.
    """
    given, allow = str(options["input"]), _allowed(options)
    prepare = Prepare(**run.config["data"]["prepare"])
    data = new.data
    if options.get("resample") and prepare.resample_hz is None:
        if run.spec.sampling_rate_hz is None or prepare.resample_length is not None:
            raise UserError("resample=true: expected false, since the run was not trained on one known sampling rate")
        prepare = replace(prepare, resample_hz=run.spec.sampling_rate_hz)
    if prepare.resample_hz is not None and data.sampling_rate_hz is None and data.rates_hz is None:
        why = "the run was trained on series resampled" if not options.get("resample") else "its series are resampled"
        raise UserError(
            f"sampling_rate_hz=None: expected the points per second of {given}, which does not state them, since {why} "
            f"to {prepare.resample_hz:g} Hz"
        )
    data = prepare.apply(data)
    if problems := mismatches(data, run.spec, names=new.names, given=given, allow=allow):
        raise UserError(problems)
    if run.spec.sampling_rate_hz is not None and data.sampling_rate_hz is None and data.rates_hz is None:
        note = f"sampling rate not stated, taken as the {run.spec.sampling_rate_hz:,.6g} Hz of training"
        data = replace(data, notes=(*data.notes, note))
    if (data.lengths > run.spec.length).any():
        data = Prepare(crop_length=run.spec.length, crop_from=prepare.crop_from).apply(data)
        data = replace(data, notes=(*data.notes, f"cut to the {run.spec.length:,} points of training"))
    return data


@contextmanager
def _collecting(problems: Problems) -> Iterator[None]:
    """Add what is wrong to the other problems instead of stopping at it."""
    try:
        yield
    except UserError as error:
        problems.found += error.problems
