"""Measures the memory of a prediction on a folder of recordings, and what becomes of broken files in it.

`python tests/reliability/folder.py` trains on a few short recordings, writes folders of 50 and of 200 wav files of five
sampling rates, two of each folder broken, and classifies them in processes of their own.
"""

import argparse
import csv
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from measuring import watched

from krontime import cli

RATES_HZ = (8_000, 11_025, 16_000, 22_050, 44_100)
CLASSES = {"low": 100, "high": 1_000}
SECONDS = 60
TRAINED = (
    *("model=closed_form", "trainer=cpu", "logger=[]", "trainer.enable_progress_bar=false"),
    *(
        f"closed_form.parts.{part}.num_features=170"
        for part in ("groups", "runs", "proportions", "quantiles", "spectra")
    ),
    f"data.prepare.resample_hz={RATES_HZ[0]}",
)


def write_wav(path: Path, tone_hz: float, rate_hz: int, rng: np.random.Generator) -> int:
    """Write a tone in noise; returns the bytes of its points as float32."""
    time_s = np.arange(SECONDS * rate_hz, dtype=np.float32) / rate_hz
    wave = 0.3 * np.sin(2 * np.pi * tone_hz * time_s) + 0.02 * rng.standard_normal(len(time_s), np.float32)
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, wave, rate_hz)
    return 4 * len(wave)


def write_folder(folder: Path, num_files: int) -> int:
    """Write recordings of all rates in turn, of which two are broken; returns the bytes of what can be decoded."""
    rng = np.random.default_rng(0)
    tones, num_bytes = list(CLASSES.values()), 0
    for number in range(num_files):
        path = folder / f"{number:03}.wav"
        if number in (3, num_files - 2):
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(b"RIFF" + bytes(100))
        else:
            num_bytes += write_wav(path, tones[number % 2], RATES_HZ[number % len(RATES_HZ)], rng)
    return num_bytes


def measured(made: Path, run: Path, num_files: int) -> dict[str, Any]:
    """What a prediction on a folder of that many files takes and gives."""
    num_bytes = write_folder(made / str(num_files), num_files)
    output = made / f"{num_files}.csv"
    overrides = (f"run={run}", f"input={made / str(num_files)}", f"output={output}", "on_error=skip")
    status, _, peak = watched(__file__, ["--predict", *overrides])
    with open(output, newline="") as file:
        rows = list(csv.DictReader(file))
    names = list(CLASSES)
    classified = [row for row in rows if row["predicted"]]
    right = sum(row["predicted"] == names[int(Path(row["file"]).stem) % 2] for row in classified)
    return {
        "files": num_files,
        "decoded_bytes": num_bytes,
        "exit_code": status,
        "classified": len(classified),
        "right": right,
        "marked": [row["file"] for row in rows if not row["predicted"]],
        "peak_resident_bytes": peak,
    }


def called(command: str, overrides: Sequence[str]) -> int:
    """Run a command of krontime here; returns its exit code."""
    import torch

    torch.set_num_threads(1)
    try:
        cli.main([command, *overrides])
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--predict", nargs="+", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.predict:
        sys.exit(called("predict", given.predict))
    with tempfile.TemporaryDirectory() as name:
        made = Path(name)
        rng = np.random.default_rng(1)
        for label, tone_hz in CLASSES.items():
            for number in range(6):
                write_wav(made / "sounds" / label / f"{number}.wav", tone_hz, RATES_HZ[0], rng)
        overrides = (f"data.path={made / 'sounds'}", *TRAINED, f"paths.output={made / 'out'}")
        assert called("train", (*overrides, f"paths.cache={made / 'cache'}")) == 0
        run = next((made / "out").rglob("record.json")).parent
        figures = [measured(made, run, num_files) for num_files in (50, 200)]
    sys.stdout.write(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
