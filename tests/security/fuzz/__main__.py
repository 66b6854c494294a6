"""Feed broken inputs to everything that reads them, for some minutes: `python -m tests.security.fuzz --minutes 10`.

Every input is a function of the seed and its number. What may come of it is a result or a `UserError`, within bounds of
time and memory; anything else is a finding, and its input is kept in `outputs/fuzz`. One that is mended goes to
`tests/security/fuzz/corpus/TARGET`, whose files are tried first.
"""

import argparse
import logging
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch

from krontime.config import resolve
from krontime.errors import UserError
from tests.security.fuzz.targets import TARGETS, Target

CORPUS = Path(__file__).parent / "corpus"
MAX_CPU_S = 10
"""Processor time that one input may take, however loaded the machine is."""

MAX_MEMORY = 2**29
"""Resident bytes that one input may add; inputs have at most some hundred thousand."""

MAX_ADDRESS_SPACE = 2**33
"""Bytes that the process may add in all, so that a finding does not take the machine down."""


class TooSlow(BaseException):
    """Not an `Exception`, so that no reader takes it for a damaged file."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.security.fuzz", description=__doc__.split(":")[0])
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"any of {', '.join(TARGETS)}; all by default")
    parser.add_argument("--minutes", type=float, default=1)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if unknown := set(options.targets) - set(TARGETS):
        parser.error(f"{', '.join(sorted(unknown))}: expected any of {', '.join(TARGETS)}")

    warnings.simplefilter("error")
    logging.disable(logging.CRITICAL)
    torch.set_num_threads(1)
    resolve.register_resolvers()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MAX_ADDRESS_SPACE, used + MAX_ADDRESS_SPACE))
    chosen = [TARGETS[name] for name in options.targets or TARGETS]
    counts: Counter[str] = Counter()
    findings: dict[str, str] = {}
    folder = Path(tempfile.mkdtemp(prefix="krontime-fuzz-"))
    try:
        for target, number, data in _inputs(chosen, seed=options.seed, seconds=60 * options.minutes):
            counts[target.name] += 1
            if (problem := _problem(target, data, folder)) is None:
                continue
            what, details = problem
            if f"{target.name}: {what}" not in findings:
                kept = Path("outputs/fuzz") / f"{target.name}-{options.seed}-{number}{target.suffix}"
                kept.parent.mkdir(parents=True, exist_ok=True)
                kept.write_bytes(data)
                findings[f"{target.name}: {what}"] = str(kept)
                _say(f"{target.name}: {what}\n  input: {kept}\n{details}")
    except KeyboardInterrupt:
        _say("interrupted")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    _say(", ".join(f"{name} {count:,}" for name, count in counts.items()))
    _say(f"{counts.total():,} inputs, {len(findings)} findings")
    return 1 if findings else 0


def _inputs(targets: list[Target], *, seed: int, seconds: float) -> Iterator[tuple[Target, int, bytes]]:
    """The corpus as it is, then broken inputs of each target in turn until the time is up."""
    seeds = {}
    for target in targets:
        kept = [path.read_bytes() for path in sorted((CORPUS / target.name).glob("*"))]
        seeds[target.name] = [*target.seeds(), *kept]
        for number, data in enumerate(seeds[target.name]):
            yield target, -1 - number, data
    end = time.monotonic() + seconds
    number = 0
    while time.monotonic() < end:
        for target in targets:
            for _ in range(target.per_turn):
                rng = np.random.default_rng([seed, number])
                data = seeds[target.name][int(rng.integers(0, len(seeds[target.name])))]
                yield target, number, target.mutate(rng, data)
                number += 1


def _problem(target: Target, data: bytes, folder: Path) -> tuple[str, str] | None:
    """What came of an input that may not, in a line and in full."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    path = folder / f"input{target.suffix}"
    path.write_bytes(data)
    before = _peak(reset=True)
    try:
        with _cpu_time(MAX_CPU_S), suppress(UserError):
            target.run(path)
    except (Exception, TooSlow) as error:
        frames = traceback.extract_tb(error.__traceback__)
        ours = [frame for frame in frames if "krontime" in frame.filename] or frames
        return f"{type(error).__name__} in {Path(ours[-1].filename).name}:{ours[-1].lineno}", traceback.format_exc()
    if (added := _peak() - before) > MAX_MEMORY:
        return "memory", f"{added:,} bytes"
    return None


@contextmanager
def _cpu_time(seconds: float) -> Iterator[None]:
    def stop(*_: Any) -> None:
        raise TooSlow

    signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def _peak(*, reset: bool = False) -> int:
    """Highest resident memory since the last reset."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
