"""Runs killed for real, in a process of their own that has everything imported."""

import subprocess
import sys
from pathlib import Path

import pytest

MATRIX = Path(__file__).with_name("kill_matrix.py")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("num_kills", "every_write", "at_least"),
    [(20, 97, 3), (44, 29, 10)],
)
def test_every_killed_run_ends_as_if_it_had_not_been(num_kills: int, every_write: int, at_least: int) -> None:
    """Kills at random moments, and at some of the writes; docs/reliability.md has the figures of more."""
    done = subprocess.run(
        [sys.executable, str(MATRIX), f"--kills={num_kills}", f"--writes={every_write}"],
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    name, *counts = (cell.strip() for cell in done.stdout.splitlines()[-1].strip("| \n").split("|"))
    killed, terminated, _, resumed, differences = map(int, counts)
    assert name == "all"
    assert killed + terminated >= num_kills
    assert min(killed, terminated, resumed) >= at_least
    assert differences == 0
