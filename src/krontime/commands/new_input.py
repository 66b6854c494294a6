"""What `predict` and `explain` share: new files are read and prepared as those of training, and compared with them."""

import contextlib
import errno
import logging
import tempfile
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from hydra.utils import get_class

from krontime.commands.options import folder_of, is_among
from krontime.config.targets import instantiate, naming_keys
from krontime.data.mismatch import ALLOWABLE, mismatches
from krontime.data.new_recordings import read_new_recordings
from krontime.data.new_series import NewSeries, Reading, input_files, options_for, read_files
from krontime.data.prepare import Prepare
from krontime.data.series import SeriesData
from krontime.data.sources.audio import SUFFIXES as RECORDINGS
from krontime.data.sources.recording_files import RecordingFiles
from krontime.data.sources.table import table_options
from krontime.data.summary import what_was_read
from krontime.data.windows import cut_new, is_cut
from krontime.errors import Problems, UserError
from krontime.runs import bundle
from krontime.runs.load import LoadedRun
from krontime.runs.signals import ending_on_signals

log = logging.getLogger(__name__)


class NewInput(NamedTuple):
    """New series beside the run that is to classify them.

    Attributes:
        run: what was trained.
        new: the series as their files hold them.
        data: the series as the run takes them; windows of them where it was trained on windows.
        num_files: how many files there are, those included that can't be read.
        names_matter: whether a series is known by its file rather than by its position in one.
    """

    run: LoadedRun
    new: NewSeries
    data: SeriesData
    num_files: int
    names_matter: bool


@contextlib.contextmanager
def new_input(
    options: Mapping[str, Any], problems: Problems, *, written: Collection[tuple[str, Path]], skip: bool | None = None
) -> Iterator[NewInput]:
    """Load the run, read the files, and say in one line what was read.

    The series of several files, or of recordings, are a memory map of a temporary file, which is removed when the block
    ends, by SIGTERM or SIGHUP too.

    Args:
        options: of the command; the keys of `configs/base/new_series.yaml` are used.
        problems: what is wrong already; raised together with what is wrong here.
        written: keys and files that will be written, none of which may be one that is read.
        skip: leave files out that can't be read; None for a command that has no such option.

    Raises:
        UserError: the run or a file can't be read, the series differ from those of training in a way that is not
            allowed, or there is no room for them.
        Terminated: a SIGTERM or SIGHUP came.
    """
    with ending_on_signals(), tempfile.TemporaryDirectory(prefix="krontime-", ignore_cleanup_errors=True) as scratch:
        yield _read(options, problems, Path(scratch), written=written, skip=skip)


def _read(
    options: Mapping[str, Any],
    problems: Problems,
    scratch: Path,
    *,
    written: Collection[tuple[str, Path]],
    skip: bool | None,
) -> NewInput:
    problems.lines += _option_problems(options)
    given = folder_of(options["input"])
    files: list[tuple[Path, str]] = []
    note: str | None = None
    run: LoadedRun | None = None
    source: RecordingFiles | None = None
    with problems.collecting():
        run = bundle.load(folder_of(options["run"]))
        source = _source_of_recordings(options, run)
    with problems.collecting():
        files, note = input_files(given, source)
    if not problems.lines:
        for key, path in written:
            if is_among(path, [file for file, _ in files]):
                problems.add(key, str(path), f"another file than those of input={str(given)!r}")
    problems.raise_if_any()
    assert run is not None
    way = "; on_error=skip marks them and classifies the others" if skip is False else ""
    with _room(scratch):
        if source is not None:
            new = read_new_recordings(source, files, run.spec, scratch, skip=bool(skip), way=way)
        else:
            if lines := _without_effect(_said(options), options_for(path for path, _ in files)):
                raise UserError(lines)
            reading = reading_of(options, run)
            new = read_files(files, reading, run.spec.class_names, scratch, skip=bool(skip), way=way)
        data = prepared(new, options, run, scratch)
    data = replace(data, notes=(*data.notes, *([note] if note else [])))
    log.info("%s", what_was_read(data, name=str(given)))
    # With a mask wherever training had one, so that the same series give the same numbers to the last bit.
    data = replace(data, has_missing=data.has_missing or run.masked)
    is_recording = source is not None or files[0][0].suffix.lower() in RECORDINGS
    names_matter = len(files) > 1 or bool(new.broken) or is_recording
    return NewInput(run, new, data, len(files), names_matter)


@contextlib.contextmanager
def _room(scratch: Path) -> Iterator[None]:
    """Say what to do where there is no room for the series."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise UserError(
            f"{scratch}: no room for the series, which are kept there until they are classified; expected room for 4 "
            "bytes a point, and again for what they are resampled or cut to (the environment variable TMPDIR names "
            "another folder)"
        ) from error


def _option_problems(options: Mapping[str, Any]) -> list[str]:
    problems = Problems()
    if not set(_allowed(options)) <= set(ALLOWABLE):
        problems.add("allow", options["allow"], f"a list of {', '.join(ALLOWABLE)}")
    if not isinstance(options.get("resample", False), bool):
        problems.add("resample", options["resample"], "true or false")
    return problems.lines


def _allowed(options: Mapping[str, Any]) -> list[str]:
    """What may differ from training, where one word stands for a list of it."""
    allow = options.get("allow") or []
    return [str(word) for word in allow] if isinstance(allow, list) else [str(allow)]


def _source_of_recordings(options: Mapping[str, Any], run: LoadedRun) -> RecordingFiles | None:
    """The source of a run that was trained on recordings, for files written as the user says; None for other runs."""
    trained = run.config["data"]["source"]
    if not issubclass(get_class(str(trained["_target_"])), RecordingFiles):
        return None
    said, problems = _said(options), Problems()
    if (split := options.get("split", "all")) != "all":
        problems.add("split", split, "all, since only an .npz container has a split")
    if (rate := options.get("sampling_rate_hz")) is not None:
        if "sampling_rate_hz" in trained:
            said["sampling_rate_hz"] = rate
        else:
            problems.add("sampling_rate_hz", rate, "null, since files of this format state it")
    problems.lines += _without_effect(said, [key for key in trained if not key.startswith("_")])
    problems.raise_if_any()
    nowhere = dict.fromkeys(("test", "test_groups", "test_fraction", "annotations"))
    source = instantiate({**trained, **said, **nowhere, "path": str(options["input"])}, "source")
    assert isinstance(source, RecordingFiles)
    return source


def _said(options: Mapping[str, Any]) -> dict[str, Any]:
    """What the user says of how files are read."""
    return {key: value for key, value in (options.get("source") or {}).items() if value is not None}


def _without_effect(said: Mapping[str, Any], known: Collection[str]) -> list[str]:
    """A line for each option that the files at hand have no use for."""
    problems = Problems()
    for key, value in said.items():
        if key not in known:
            problems.add(f"source.{key}", value, "null, since it has no effect on files of this format")
    return problems.lines


def reading_of(options: Mapping[str, Any], run: LoadedRun) -> Reading:
    """As training read its files, but for what the user says of the new ones."""
    trained = run.config["data"]["source"]
    said = _said(options)
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
        **vars(run.decoding),
        table=table,
        label_first=is_ucr and said.get("header") is None,
        label_stated=said.get("label") is not None,
        layout=layout,
        mono=bool(source.get("mono", True)),
        trained=run.spec,
    )


def prepared(new: NewSeries, options: Mapping[str, Any], run: LoadedRun, scratch: Path | None = None) -> SeriesData:
    """The series as training prepared its own, after they have been compared with those.

    Args:
        new: the series as their files hold them.
        options: of the command.
        run: what was trained.
        scratch: folder for the values, where they may be too many for memory.

    Raises:
        UserError: they differ in a way that the user has not allowed, or their rate is needed and not known.
    """
    given, allow = str(options["input"]), _allowed(options)
    prepare = Prepare(**run.config["data"]["prepare"])
    data = _with_rate(new.data, run.source_rate_hz)
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
    with naming_keys(run.config["data"], "data"):
        data = prepare.apply(data, scratch)
    names = new.names
    if is_cut(window := run.config["data"]["window"]) and not options.get("follow"):  # which has cut them already
        data = cut_new(data, length=window["length"], stride=window.get("stride") or window["length"])
        names = [names[number] for number in data.recording]
    if problems := mismatches(data, run.spec, names=names, given=given, allow=allow):
        raise UserError(problems)
    data = _with_rate(data, run.spec.sampling_rate_hz)
    if (data.lengths > run.spec.length).any():
        if data.windows is not None:  # an index over recordings, which stay as they are
            data = replace(data, read_length=run.spec.length)
        else:
            data = Prepare(crop_length=run.spec.length, crop_from=prepare.crop_from).apply(data, scratch)
        data = replace(data, notes=(*data.notes, f"cut to the {run.spec.length:,} points of training"))
    return data


def _with_rate(data: SeriesData, trained_hz: float | None) -> SeriesData:
    """Series of the rate of training, and a note on it, where it is known and they state none."""
    if trained_hz is None or data.sampling_rate_hz is not None or data.rates_hz is not None:
        return data
    note = f"sampling rate not stated, taken as the {trained_hz:,.6g} Hz of training"
    return replace(data, sampling_rate_hz=float(trained_hz), notes=(*data.notes, note))
