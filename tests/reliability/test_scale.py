"""Data that are larger than memory, in processes whose memory is watched."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow


def measured(name: str, *arguments: str) -> Any:
    """What a script of this folder printed, as an object."""
    command = [sys.executable, str(Path(__file__).with_name(name)), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=3000, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("dtype", ["int16", "float32"])
def test_memory_does_not_grow_with_the_series(dtype: str) -> None:
    """docs/recordings.md has the figures of more series."""
    few, many = (
        measured("scale.py", "--series", str(count), "--dtype", dtype)["peak_resident_bytes"]
        for count in (5_000, 20_000)
    )
    assert many < 1.5e9
    assert many < few + 2e8  # of 240 MB or more that the series take


def test_a_folder_of_recordings_is_classified_in_bounded_memory() -> None:
    few, many = measured("folder.py")
    assert [many[key] for key in ("exit_code", "classified", "right")] == [3, 198, 198]
    assert many["marked"] == ["003.wav", "198.wav"]
    assert many["peak_resident_bytes"] < few["peak_resident_bytes"] + 2e8  # of 720 MB that the files take


def test_a_store_of_a_terabyte_is_trained_on() -> None:
    figures = measured("terabyte.py")
    assert figures["store_bytes"] >= 10**12
    assert figures["peak_resident_bytes"] < 2e9
    assert figures["resumed_is_equal"]
