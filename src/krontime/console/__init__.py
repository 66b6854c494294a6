"""What the user sees: results on standard output, mistakes, notices and progress on standard error.

The command line says how much (`Output`); in a process that is not the command's, as a notebook, there is no progress.
"""

import json
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from krontime.console.streams import SafeStream, safe

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.progress import Progress

log = logging.getLogger(__name__)

EXIT_USER_ERROR = 2

EVERY_S = 10.0
"""Seconds between two lines of progress where there is no terminal to draw on."""

_LOOKED_S = 1.0
"""Seconds between two looks at whether something was printed."""

_VARIABLE = "KRONTIME_OUTPUT"
"""Carries the choice to the processes that a command starts."""

_SWEEP = "KRONTIME_SWEEP"

Step = Callable[..., None]
T = TypeVar("T")


class Output(StrEnum):
    """How much a command says."""

    NORMAL = "normal"
    QUIET = "quiet"
    JSON = "json"
    QUIET_JSON = "quiet_json"


_result: dict[str, Any] = {}
_texts: list[str] = []
_live: "Progress | None" = None
_is_without_progress = False
_silent_lock = threading.Lock()
_num_silent = 0
_level_before = logging.NOTSET


@contextmanager
def output(*, quiet: bool, as_json: bool) -> Iterator[None]:
    """Say as much as the user wants; with `as_json`, print one JSON object of what `result` was given at the end."""
    before = os.environ.get(_VARIABLE)
    os.environ[_VARIABLE] = {
        (False, False): Output.NORMAL,
        (True, False): Output.QUIET,
        (False, True): Output.JSON,
        (True, True): Output.QUIET_JSON,
    }[quiet, as_json]
    _result.clear()
    _texts.clear()
    try:
        yield
    finally:
        if as_json:
            _print_result()
        if before is None:
            del os.environ[_VARIABLE]
        else:
            os.environ[_VARIABLE] = before


def is_quiet() -> bool:
    """Whether the user wants results and warnings alone."""
    return os.environ.get(_VARIABLE) in (Output.QUIET, Output.QUIET_JSON)


def is_json() -> bool:
    """Whether standard output is to hold one JSON object."""
    return os.environ.get(_VARIABLE) in (Output.JSON, Output.QUIET_JSON)


def result(**values: Any) -> None:
    """Note what a command found, for the JSON object; a key that is there already is replaced."""
    _result.update(values)


def has_result() -> bool:
    """Whether a command has noted what it found."""
    return not set(_result) <= {"command"}


def show(text: "RenderableType") -> None:
    """Print, with styles where the output is a terminal; long lines such as paths stay on one line."""
    if _num_silent:
        return
    from rich.console import Console

    if is_json():
        console = Console(no_color=True, width=100)
        with console.capture() as capture:
            console.print(text, soft_wrap=True, highlight=False, markup=False)
        _texts.append(capture.get())
        return
    Console(file=safe(sys.stdout)).print(text, soft_wrap=True, highlight=False, markup=False)  # type: ignore[arg-type]


def notice(text: str) -> None:
    """Say on standard error what helps to wait, unless the user wants none of it."""
    if os.environ.get(_VARIABLE) and not is_quiet():
        stream = safe(sys.stderr)
        stream.write(text + "\n")
        stream.flush()


@contextmanager
def signs_of_life(what: str) -> Iterator[None]:
    """Say that work continues wherever nothing at all was printed for a while, whatever is at work.

    Args:
        what: is being done.
    """
    if is_quiet() or not os.environ.get(_VARIABLE):
        yield
        return
    began_s, ended = time.monotonic(), threading.Event()

    def beat() -> None:
        while not ended.wait(_LOOKED_S):
            now_s = time.monotonic()
            if now_s - max(began_s, SafeStream.written_s) >= EVERY_S:
                notice(f"{what}: still at work, {format_duration(now_s - began_s)} so far")

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def begin_sweep(num_jobs: int) -> None:
    """Note how many jobs follow, for `sweep_notice`; other processes that run them know too."""
    os.environ[_SWEEP] = f"{num_jobs} {time.time()}"


def sweep_notice(number: int) -> None:
    """Say which job of a sweep begins, counted from 0, and about how long is left where jobs follow each other."""
    num_jobs, _, began = os.environ.get(_SWEEP, "").partition(" ")
    if not began:
        return
    left = ""
    if number:
        seconds = (time.time() - float(began)) / number * (int(num_jobs) - number)
        left = f", about {format_duration(seconds)} left"
    notice(f"job {number + 1} of {num_jobs}{left}")


def fail(problems: Sequence[str]) -> NoReturn:
    """Print what is wrong, all of it, and exit; with KRONTIME_TRACEBACK set, the traceback too."""
    if os.environ.get("KRONTIME_TRACEBACK"):
        logging.getLogger(__name__).error("traceback asked for by KRONTIME_TRACEBACK", exc_info=True)
    lines = [f"krontime: {problems[0]}"] if len(problems) == 1 else ["krontime: problems found:"]
    if len(problems) > 1:
        lines += [f"  - {problem}" for problem in problems]
    safe(sys.stderr).write("\n".join(lines) + "\n")
    result(status="refused", problems=list(problems))
    sys.exit(EXIT_USER_ERROR)


@contextmanager
def silent(is_wanted: bool = True) -> Iterator[None]:
    """Within this, `show` prints nothing, and warnings alone are logged.

    Threads may be in here at once, so that what the process shares is put back by the last that leaves; standard
    output is not touched, since what other threads print there is not ours.
    """
    global _num_silent, _level_before
    if not is_wanted:
        yield
        return
    ours = logging.getLogger("krontime")
    with _silent_lock:
        if not _num_silent:
            _level_before = ours.level
            ours.setLevel(logging.WARNING)
        _num_silent += 1
    try:
        yield
    finally:
        with _silent_lock:
            _num_silent -= 1
            if not _num_silent:
                ours.setLevel(_level_before)


@contextmanager
def without_progress(is_wanted: bool = True) -> Iterator[None]:
    """Within this, `progress` shows nothing."""
    global _is_without_progress
    before, _is_without_progress = _is_without_progress, _is_without_progress or is_wanted
    try:
        yield
    finally:
        _is_without_progress = before


@contextmanager
def progress(title: str, total: int | None) -> Iterator[Step]:
    """Show how far something has come, with the time that is left: a bar on a terminal, else a line now and then.

    One within another is drawn below it.

    Args:
        title: what is being done, such as `fitting the closed form`.
        total: how many steps it takes; None where nobody knows.

    Yields:
        To be called when a step is done, or with the number of steps that were.
    """
    if _is_without_progress or is_quiet() or not os.environ.get(_VARIABLE):
        yield lambda num_steps=1: None
    elif safe(sys.stderr).isatty():
        with _bar(title, total) as step:
            yield step
    else:
        yield _lines(title, total)


def each(title: str, items: Sequence[T]) -> Iterator[T]:
    """Each of some items, with the progress that is made; see `progress`."""
    with progress(title, len(items)) as step:
        for item in items:
            yield item
            step()


@contextmanager
def _bar(title: str, total: int | None) -> Iterator[Step]:
    global _live
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    if _live is not None:
        live, task = _live, _live.add_task(title, total=total)
        try:
            yield lambda num_steps=1: live.advance(task, num_steps)
        finally:
            live.remove_task(task)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    left = (TextColumn("left"), TimeRemainingColumn())
    console = Console(file=safe(sys.stderr))  # type: ignore[arg-type]
    with Progress(*columns, *left, console=console, transient=True) as live:
        task = live.add_task(title, total=total)
        _live = live
        try:
            yield lambda num_steps=1: live.advance(task, num_steps)
        finally:
            _live = None


def _lines(title: str, total: int | None) -> Step:
    began_s = said_s = time.monotonic()
    done = 0

    def step(num_steps: int = 1) -> None:
        nonlocal said_s, done
        done += num_steps
        now_s = time.monotonic()
        if now_s - said_s < EVERY_S or done == total:
            return
        said_s = now_s
        if total is None:
            log.info("%s: %s done", title, f"{done:,}")
        else:
            left_s = (now_s - began_s) * (total - done) / max(done, 1)
            log.info("%s: %s of %s, about %s left", title, f"{done:,}", f"{total:,}", format_duration(left_s))

    return step


def format_duration(duration_s: float) -> str:
    """`duration_s` seconds as `8.3 s`, `2 min 5 s` or `1 h 2 min`."""
    if duration_s < 59.95:
        return f"{duration_s:.1f} s"
    minutes, seconds = divmod(round(duration_s), 60)
    if minutes < 60:
        return f"{minutes} min {seconds} s"
    hours, minutes = divmod(round(duration_s / 60), 60)
    return f"{hours} h {minutes} min"


def _print_result() -> None:
    if _texts and not has_result():  # a command that says what it found in text alone
        _result["text"] = "".join(_texts).rstrip()
    stream = safe(sys.stdout)
    stream.write(json.dumps(plain(_result), allow_nan=False) + "\n")
    stream.flush()


def plain(value: Any) -> Any:
    """`value` in the types of JSON; a number that is not finite is null."""
    if hasattr(value, "model_dump"):  # pydantic
        return plain(value.model_dump(mode="json"))
    if hasattr(value, "_asdict"):  # a named tuple
        return plain(value._asdict())
    if hasattr(value, "__dataclass_fields__"):
        return {name: plain(getattr(value, name)) for name in value.__dataclass_fields__}
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):  # an array, or a number of numpy
        return plain(value.tolist())
    if isinstance(value, float):
        return value if value - value == 0 else None
    if value is None or isinstance(value, bool | int):
        return value
    return str(value)
