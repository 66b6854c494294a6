"""Reads new recordings, for prediction, as the source of a run's own recordings read those."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from krontime.data.assemble import any_missing, flatten, value_problems
from krontime.data.new_series import NewSeries, channels_problem
from krontime.data.read_ahead import read_ahead
from krontime.data.recordings import Recording, in_order
from krontime.data.rounding import Rounding
from krontime.data.series import UNKNOWN_LABEL, SeriesData, SeriesSpec, unscaled
from krontime.data.sources.labelled import header_names
from krontime.data.sources.recording_files import RecordingFiles
from krontime.errors import UserError


def read_new_recordings(
    source: RecordingFiles,
    files: Sequence[tuple[Path, str]],
    spec: SeriesSpec,
    scratch: Path,
    *,
    skip: bool,
    way: str = "",
) -> NewSeries:
    """Read several files, all of them before any problem is reported, with few of them in memory at a time.

    Args:
        source: reads a file; where its recordings are to be found, and what is tested on, plays no part.
        files: each with its name.
        spec: what was trained on.
        scratch: folder for the values, and for what has to be put in order first.
        skip: leave files out that cannot be read.
        way: what to say to do about them where there are several.

    Returns:
        The recordings, float32, by their own names; of several files by those of the files, and by both where one
        holds several.

    Raises:
        UserError: a file cannot be read and is not to be skipped, none can, or it has other channels.
    """
    broken: dict[str, tuple[str, int]] = {}
    problems: list[str] = []
    names: list[str] = []
    known_rates: list[float] = []
    firsts: dict[int, str] = {}
    rounding = Rounding()
    trained = None if spec.header is None else header_names(spec.header)

    num_bytes = source.reading_bytes([path for path, _ in files])

    def read(file: tuple[Path, str]) -> list[Recording]:
        return [_checked(one, trained, file[0]) for one in source.read_new(file[0], scratch)]

    def series() -> Iterator[np.ndarray]:
        for (path, name), recordings in read_ahead("reading files", files, read, num_bytes=num_bytes):
            try:
                held = recordings()
            except UserError as error:
                broken[name] = ("; ".join(p.removeprefix(f"{path}: ") for p in error.problems), len(names))
                problems.extend(error.problems)
                continue
            if len(files) > 1:
                names.extend([name] if len(held) == 1 else [f"{name}: {one.name}" for one in held])
            else:
                names.extend(one.name for one in held)
            for one in held:
                known_rates.append(one.sampling_rate_hz or np.nan)
                firsts.setdefault(len(one.values), name)
                rounding.add(one.variation, name)
                yield one.values

    values, offsets = flatten(series(), scratch)
    if broken and (not skip or not names):
        if len(files) > 1:
            problems.append(f"{len(broken)} of {len(files)} files cannot be read{way}")
        raise UserError(problems)
    if problem := channels_problem(firsts):
        raise UserError(problem)
    rounding.warn("input", trained)
    rates = np.array(known_rates)
    known = np.unique(rates[~np.isnan(rates)])
    data = SeriesData(
        values=values,
        offsets=offsets,
        labels=np.full(len(names), UNKNOWN_LABEL, np.int64),
        is_test=np.ones(len(names), bool),
        class_names=spec.class_names,
        num_channels=next(iter(firsts)),
        has_missing=any_missing(values),
        sampling_rate_hz=float(known[0]) if len(known) == 1 and not np.isnan(rates).any() else None,
        rates_hz=rates if len(known) > 1 else None,
        recording_names=tuple(names),
    )
    return NewSeries(data, names, broken)


def _checked(recording: Recording, trained: tuple[str, ...] | None, path: Path) -> Recording:
    """A recording as float32 numbers, its channels in the order of training.

    Raises:
        UserError: it has other channels, or values that cannot be used.
    """
    try:
        recording = in_order(recording, trained)
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error
    if recording.scale is not None:
        values = unscaled(recording.values, recording.scale, recording.missing_code)
    else:
        values = np.ascontiguousarray(recording.values, np.float32)
    if problems := value_problems(values.ravel(), np.array([0, values.shape[1]]), len(values)):
        raise UserError(f"{path}: {problem}" for problem in problems)
    return replace(recording, values=values, scale=None, variation=recording.lost)
