"""What fuzzing found stays found, the driver tells what it is for, and a short run finds nothing new."""

import contextlib
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from krontime.errors import UserError

ROOT = Path(__file__).parents[2]
CORPUS = sorted(Path(__file__).parent.glob("fuzz/corpus/*/*"))


@pytest.fixture
def fuzz(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The driver, which is a program of its own."""
    monkeypatch.syspath_prepend(str(ROOT))
    import tests.security.fuzz.__main__ as driver

    return driver


@pytest.mark.parametrize("kept", CORPUS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_what_was_found_is_read_or_told(fuzz, kept, tmp_path):
    path = tmp_path / f"input{kept.suffix}"
    path.write_bytes(kept.read_bytes())
    with contextlib.suppress(UserError):
        fuzz.TARGETS[kept.parent.name].run(path)


def test_there_are_finds_of_several_targets():
    assert len({path.parent for path in CORPUS}) >= 4


def test_the_driver_tells_errors_of_other_kinds_and_too_much_time_or_memory(fuzz, monkeypatch, tmp_path):
    monkeypatch.setattr(fuzz, "MAX_MEMORY", 2**24)

    def told(run: Any) -> str | None:
        result = fuzz._problem(replace(fuzz.TARGETS["npy"], run=run), b"", tmp_path / "inputs")
        return result and result[0]

    def refused(path: Path) -> None:
        raise UserError("told")

    def for_ever(path: Path) -> None:
        while True:
            with contextlib.suppress(Exception):
                sum(range(1000))

    assert told(lambda path: path.read_bytes()) is None
    assert told(refused) is None
    assert told(lambda path: {}["key"]).startswith("KeyError")
    assert told(lambda path: np.ones(2**24)) == "memory"
    monkeypatch.setattr(fuzz, "MAX_CPU_S", 0.2)
    assert told(for_ever).startswith("TooSlow")


def test_inputs_are_a_function_of_the_seed(fuzz):
    for target in fuzz.TARGETS.values():
        data = target.seeds()[0]
        made = [[target.mutate(np.random.default_rng([seed, i]), data) for i in range(9)] for seed in (0, 0, 1)]
        if target.name not in ("npz", "checkpoint"):  # archives hold the time
            assert made[0] == made[1]
        assert made[0] != made[2]


@pytest.mark.slow
def test_a_short_run_finds_nothing(tmp_path):
    command = [sys.executable, "-m", "tests.security.fuzz", "--minutes", "0.3", "--seed", "1"]
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 findings" in done.stdout
