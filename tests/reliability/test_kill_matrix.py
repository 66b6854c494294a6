"""Runs killed for real, in a process of their own that has everything imported."""

import subprocess
import sys
from pathlib import Path

import pytest

MATRIX = Path(__file__).with_name("kill_matrix.py")


@pytest.mark.slow
def test_every_killed_run_ends_as_if_it_had_not_been() -> None:
    """44 kills at random moments, and at some of the writes; docs/reliability.md has the figures of more."""
    done = subprocess.run(
        [sys.executable, str(MATRIX), "--kills=44", "--writes=29"],
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    name, *counts = (cell.strip() for cell in done.stdout.splitlines()[-1].strip("| \n").split("|"))
    killed, terminated, _, resumed, differences = map(int, counts)
    assert name == "all"
    assert killed + terminated >= 44
    assert min(killed, terminated, resumed) >= 10
    assert differences == 0
