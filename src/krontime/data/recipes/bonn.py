"""Bonn epilepsy EEG (Andrzejak et al. 2001): folders Z, O, N, F and S of text files with a value in each line."""

import re
import warnings
from pathlib import Path

import numpy as np

from krontime.data.recipes.container import Container, read_each
from krontime.errors import UserError

CLASSES = {
    "Z": "Z_healthy_eyes_open",
    "O": "O_healthy_eyes_closed",
    "N": "N_interictal_opposite_hippocampus",
    "F": "F_interictal_epileptogenic_zone",
    "S": "S_ictal",
}
LAST_TO_TRAIN_ON = 70
"""Number of the last file of each set that is trained on."""


def bonn_eeg(folder: Path) -> Container:
    """Make the container: values in units of the converter, tested on files 71 to 100 of each set."""
    files = {}
    for file in sorted(folder.rglob("*")):
        if match := re.fullmatch(r"([ZONFS])(\d{3})\.txt", file.name, re.IGNORECASE):
            files[match[1].upper(), int(match[2])] = file
    order = sorted(files, key=lambda key: (list(CLASSES).index(key[0]), key[1]))
    if not order:
        raise UserError(f"from={str(folder)!r}: expected text files such as Z/Z001.txt below it; there are none")
    numbers = np.array([number for _, number in order])
    return Container(
        series=read_each("reading segments", [files[key] for key in order], _values),
        y=np.array([list(CLASSES).index(name) for name, _ in order]),
        classes=list(CLASSES.values()),
        is_test=numbers > LAST_TO_TRAIN_ON,
        sampling_rate_hz=173.61,
        others={"file_number": numbers.astype(np.int16)},
    )


def _values(file: Path) -> np.ndarray:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # of an empty file
            return np.loadtxt(file, dtype=np.int16, ndmin=2).T
    except (OSError, ValueError, UserWarning) as error:
        raise UserError(f"{file}: expected a whole number in each line ({error})") from error
