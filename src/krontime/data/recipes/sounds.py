"""Data sets of sounds: the Free Spoken Digit Dataset, ESC-10 and ESC-50."""

import re
from math import gcd
from pathlib import Path

import numpy as np
import pandas as pd

from krontime.data.recipes.container import Container, one_file, read_each
from krontime.data.sources.files import library_of
from krontime.errors import UserError

FSDD_RATE_HZ = 8_000
FSDD_TEST_TAKES = 5
"""The first takes of each speaker and digit are tested on, as the data set's own split has it."""

ESC_RATE_HZ = 44_100
ESC_STORED_HZ = 8_000
ESC_POINTS = 40_000
ESC_TEST_FOLD = 5
ESC10 = {
    "dog": "Dog bark",
    "rain": "Rain",
    "sea_waves": "Sea waves",
    "crying_baby": "Baby cry",
    "clock_tick": "Clock tick",
    "sneezing": "Person sneeze",
    "helicopter": "Helicopter",
    "chainsaw": "Chainsaw",
    "rooster": "Rooster",
    "crackling_fire": "Fire crackling",
}
"""The categories of ESC-50 that ESC-10 consists of, in its order and with the names that it gives them."""


def fsdd(folder: Path) -> Container:
    """Make the container from `{digit}_{speaker}_{take}.wav`, whole."""
    files = {}
    for file in sorted(folder.rglob("*.wav")):
        if match := re.fullmatch(r"(\d)_([^_]+)_(\d+)\.wav", file.name):
            files[match[2], int(match[1]), int(match[3])] = file
    order = sorted(files)
    if not order:
        raise UserError(f"from={str(folder)!r}: expected files such as recordings/0_george_0.wav; there are none")
    takes = np.array([take for _, _, take in order])
    return Container(
        series=read_each("reading digits", [files[key] for key in order], lambda file: _mono(file, FSDD_RATE_HZ)),
        y=np.array([digit for _, digit, _ in order]),
        classes=[str(digit) for digit in range(10)],
        is_test=takes < FSDD_TEST_TAKES,
        sampling_rate_hz=FSDD_RATE_HZ,
        group=np.array([speaker for speaker, _, _ in order]),
        scale=2.0**-15,
        others={"take": takes.astype(np.int16)},
    )


def esc10(folder: Path) -> Container:
    """Make the container of the ten categories; `folder` is that of ESC-50."""
    return _esc(folder, ESC10)


def esc50(folder: Path) -> Container:
    """Make the container of all categories, in their order."""
    return _esc(folder, None)


def _esc(folder: Path, names: dict[str, str] | None) -> Container:
    """The clips at 8 kHz, cut or padded with zeros to 5 s; the fifth fold is tested on."""
    table = one_file(folder, "esc50.csv")
    columns = ["filename", "fold", "target", "category", "src_file"]
    try:
        rows = pd.read_csv(table, dtype={"filename": str, "category": str, "src_file": str})[columns]
    except (KeyError, ValueError) as error:
        raise UserError(f"{table}: expected the columns {', '.join(columns)} ({error})") from error
    if names is None:
        by_target = rows.sort_values("target")["category"].unique()
        names = {str(category): str(category).replace("_", " ") for category in by_target}
    rows = rows[rows["category"].isin(names)].copy()
    rows["y"] = [list(names).index(category) for category in rows["category"]]
    rows = rows.sort_values(["y", "filename"])
    files = [table.parent.parent / "audio" / name for name in rows["filename"]]
    return Container(
        series=read_each("reading clips", files, _clip),
        y=rows["y"].to_numpy(),
        classes=list(names.values()),
        is_test=(rows["fold"] == ESC_TEST_FOLD).to_numpy(),
        sampling_rate_hz=ESC_STORED_HZ,
        group=rows["src_file"].to_numpy(str),
        scale=1 / (2**15 - 1),
        others={"fold": rows["fold"].to_numpy(np.uint8)},
    )


def _clip(file: Path) -> np.ndarray:
    from scipy.signal import resample_poly

    common = gcd(ESC_RATE_HZ, ESC_STORED_HZ)
    values = _mono(file, ESC_RATE_HZ).astype(np.float64)
    resampled = resample_poly(values, ESC_STORED_HZ // common, ESC_RATE_HZ // common, axis=1)[:, :ESC_POINTS]
    clip = np.zeros((1, ESC_POINTS), np.int16)
    clip[:, : resampled.shape[1]] = np.rint(resampled).clip(-(2**15), 2**15 - 1)
    return clip


def _mono(file: Path, rate_hz: int) -> np.ndarray:
    """The points `(1, L)` of a file of 16 bits."""
    soundfile = library_of("audio", "soundfile", needed_by="this data set")
    try:
        values, rate = soundfile.read(file, dtype="int16", always_2d=True)
    except (OSError, RuntimeError) as error:
        raise UserError(f"{file}: cannot be read as audio ({error})") from error
    if rate != rate_hz or values.shape[1] != 1 or not len(values):
        raise UserError(
            f"{file}: has {len(values):,} points of {values.shape[1]} channels at {rate:,} Hz; expected one channel at "
            f"{rate_hz:,} Hz"
        )
    return np.ascontiguousarray(values.T)
