"""`predict follow=true`: windows of what arrives are classified one by one, as they come."""

import csv
import json
import logging
import re
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TextIO

import numpy as np

from krontime.commands.new_input import prepared, reading_of
from krontime.commands.options import folder_of, output_problems
from krontime.console import is_json, result
from krontime.data.new_series import NewSeries, Reading
from krontime.data.series import UNKNOWN_LABEL, SeriesData
from krontime.data.sources.labelled import header_names
from krontime.errors import Problems, UserError
from krontime.runs import bundle
from krontime.runs.decisions import Rules, rule_problems
from krontime.runs.load import LoadedRun
from krontime.runs.predictions import Predictions
from krontime.runs.signals import Stopping
from krontime.runs.stream import PointParser, Window, WindowCutter, read_chunks
from krontime.training.predict import Scorer

log = logging.getLogger(__name__)

STDOUT = "-"

ENDINGS = (".csv", ".jsonl")

_NUM_TIMED = 10_000
"""Windows whose latency is kept, the last ones."""

Row = dict[str, Any]


def follow(options: Mapping[str, Any]) -> None:
    """Classify the windows of a file that grows or of standard input until it ends or a signal comes.

    Raises:
        UserError: the run or the input can't be read, windows differ from the training series, or a line is no point.
    """
    problems = Problems()
    problems.lines += _option_problems(options)
    problems.lines += rule_problems(options.get("coverage"), options.get("threshold") or {})
    run: LoadedRun | None = None
    with problems.collecting():
        run = bundle.load(folder_of(options["run"]))
    problems.raise_if_any()
    assert run is not None
    rules = Rules.of(options.get("coverage"), options.get("threshold") or {}, run.held_out)
    rate = options["sampling_rate_hz"] or run.source_rate_hz or run.spec.sampling_rate_hz
    length, stride = _sizes(options, run, rate)
    reading = reading_of(options, run)
    classify = _classifier(options, run, reading, rules)
    empty = np.zeros((run.spec.num_channels, length), np.float32)
    classify(Window(0, 0, empty, 0.0))  # what is wrong with every window is said before any comes
    for sentence in rules.sentences():
        log.info("%s", sentence)
    given = str(options["input"])
    log.info("%s: windows of %s points, one every %s; a signal ends it", given, f"{length:,}", f"{stride:,}")
    separator = reading.table.separator if (options.get("source") or {}).get("separator") else ","
    names = () if run.spec.header is None else header_names(run.spec.header)
    channels = names if len(names) == run.spec.num_channels else None  # not those of points
    parser = PointParser(run.spec.num_channels, separator or ",", given, channels, num_checked=length)
    cutter = WindowCutter(run.spec.num_channels, length=length, stride=stride)
    latencies: deque[float] = deque(maxlen=_NUM_TIMED)
    num_windows = num_classified = 0
    with Stopping.on_signals() as stopping, _writer(options) as write:
        for window in _windows(given, parser, cutter, stopping):
            row = _row(window, length, rate, classify(window))
            write(row)
            latencies.append(time.perf_counter() - window.arrived_s)
            num_windows += 1
            num_classified += row["predicted"] is not None
            if stopping.came or getattr(sys.stdout, "lost", None) is not None:  # nobody reads any more
                break
    if num_classified < num_windows:
        log.warning("%s windows have no value and get no class", f"{num_windows - num_classified:,}")
    log.info("%s: %s windows classified; %s points at the end fill none", given, f"{num_classified:,}", cutter.num_left)
    result(num_windows=num_windows)
    if options.get("latency") and latencies:
        middle, high, longest = (1000 * np.quantile(latencies, (0.5, 0.95, 1))).tolist()
        result(latency_ms={"median": middle, "p95": high, "max": longest})
        log.warning("latency: median %.1f ms, 95 %% within %.1f ms, longest %.1f ms", middle, high, longest)


def _windows(given: str, parser: PointParser, cutter: WindowCutter, stopping: Stopping) -> Iterator[Window]:
    for chunk in read_chunks(given, stopping):
        yield from cutter.feed(parser.feed(chunk), time.perf_counter())
    if not stopping.came:
        yield from cutter.feed(parser.end(), time.perf_counter())


def _classifier(
    options: Mapping[str, Any], run: LoadedRun, reading: Reading, rules: Rules
) -> Callable[[Window], Predictions]:
    """What gives the prediction for a window, which is read and prepared as the one series of a file would be."""
    probability = Scorer.of(run.config, options["accelerator"]).one_by_one(run.module)
    prior = run.module.prior.cpu().numpy()

    def classify(window: Window) -> Predictions:
        values = reading.decoded(window.values)
        data = SeriesData(
            values=np.ascontiguousarray(values).ravel(),
            offsets=np.array([0, values.shape[1]], np.int64),
            labels=np.array([UNKNOWN_LABEL]),
            is_test=np.ones(1, bool),
            class_names=run.spec.class_names,
            num_channels=len(values),
            has_missing=run.masked or bool(np.isnan(values).any()),
            sampling_rate_hz=options["sampling_rate_hz"],
        )
        ready = prepared(NewSeries(data, [str(options["input"])], {}), options, run)
        answer = probability(ready).numpy()
        index = np.array([window.number], np.int64)
        observed = np.array([not np.isnan(values).all()])
        return rules.applied(Predictions(index, [None], answer, run.spec.class_names, prior, observed=observed))

    return classify


def _row(window: Window, length: int, rate: float | None, predictions: Predictions) -> Row:
    """What is written of a window; no class, and no probabilities, where nothing of it was observed."""
    is_seen = predictions.observed is None or bool(predictions.observed[0])
    row: Row = {"index": window.number, "start": window.start, "stop": window.start + length}
    if rate:
        row |= {"start_s": window.start / rate, "stop_s": (window.start + length) / rate}
    row["predicted"] = predictions.predicted[0] if is_seen else None
    if predictions.sets is not None:
        names = [name for name, inside in zip(predictions.class_names, predictions.sets[0], strict=True) if inside]
        row["set"] = names if is_seen else None
    for name, value in zip(predictions.class_names, predictions.probabilities[0], strict=True):
        row[f"p_{name}"] = value if is_seen else None
    return row


@contextmanager
def _writer(options: Mapping[str, Any]) -> Iterator[Callable[[Row], None]]:
    """What writes a row at once: CSV, or where the file's name or `json=true` says so, a line of JSON."""
    if str(options["output"]) == STDOUT:
        yield _write_to(sys.stdout, as_json=is_json())
        return
    output = folder_of(options["output"])
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with open(output, "w", encoding="utf-8", newline="") as file:
            yield _write_to(file, as_json=output.suffix.lower() == ".jsonl")
    except OSError as error:
        raise UserError(f"output={str(output)!r}: can't be written ({error.strerror or error})") from error


def _write_to(stream: TextIO, *, as_json: bool) -> Callable[[Row], None]:
    rows = csv.writer(stream, lineterminator="\n")
    is_begun = False

    def write(row: Row) -> None:
        nonlocal is_begun
        if as_json:
            plain = {key: float(str(value)) if isinstance(value, np.floating) else value for key, value in row.items()}
            stream.write(json.dumps(plain, ensure_ascii=False) + "\n")
        else:
            if not is_begun:
                rows.writerow(row)
            rows.writerow(
                [json.dumps(value, ensure_ascii=False) if isinstance(value, list) else value for value in row.values()]
            )
        is_begun = True
        stream.flush()

    return write


def _sizes(options: Mapping[str, Any], run: LoadedRun, rate: float | None) -> tuple[int, int]:
    """Points of a window, and from one to the next."""
    problems = Problems()
    window = options.get("window") or {}
    sizes: dict[str, int | None] = {}
    for key in ("length", "stride"):
        with problems.collecting():
            sizes[key] = _points(f"window.{key}", window.get(key), rate)
    prepare = run.config["data"]["prepare"]
    if window.get("length") is None and any(prepare.get(key) for key in ("resample_hz", "resample_length")):
        problems.add("window.length", None, "points or seconds, since the run was trained on resampled series")
    problems.raise_if_any()
    length = sizes["length"] or run.spec.length
    return length, sizes["stride"] or length


def _points(key: str, given: object, rate: float | None) -> int | None:
    """A number of points, from one in points or in seconds.

    Raises:
        UserError: it is neither, less than one point, or in seconds where the sampling rate is not known.
    """
    if given is None:
        return None
    parts = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s?)", str(given).strip())
    if parts is None or (not parts[2] and "." in parts[1]):
        raise UserError(f"{key}={given!r}: expected points such as 500, or seconds such as 2.5s")
    if parts[2] and rate is None:
        raise UserError(f"{key}={given!r}: expected points, or sampling_rate_hz=HZ beside it")
    points = round(float(parts[1]) * (rate or 1)) if parts[2] else int(parts[1])
    if points < 1:
        raise UserError(f"{key}={given!r}: expected at least one point")
    return points


def _option_problems(options: Mapping[str, Any]) -> list[str]:
    problems = Problems()
    output = folder_of(options["output"])
    if str(options["output"]) != STDOUT:
        if output.suffix.lower() not in ENDINGS:
            problems.add(
                "output", str(output), f"- or a file name that ends in {' or '.join(ENDINGS)} with follow=true"
            )
        else:
            given = folder_of(options["input"])
            problems.lines += output_problems("output", output, is_folder=False, force=options["force"], given=given)
    unused = {"split": "all", "on_error": "refuse"}
    for key, default in unused.items():
        if options.get(key, default) != default:
            problems.add(key, options[key], f"{default} with follow=true")
    for key, value in (options.get("source") or {}).items():
        if value is not None and key != "separator":
            problems.add(f"source.{key}", value, "null with follow=true, where a line is one time point")
    if folder_of(options["input"]).is_dir():
        problems.add("input", options["input"], "a file, or - for standard input, with follow=true")
    return problems.lines
