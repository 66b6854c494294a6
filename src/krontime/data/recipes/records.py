"""Data sets of PhysioNet, in WFDB records: MIT-BIH arrhythmia, CTU-UHB cardiotocography, PTB-XL."""

import ast
import hashlib
import re
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from krontime.console import each
from krontime.data.recipes.container import Container, one_file, read_each
from krontime.data.recordings import Recording
from krontime.data.sources.files import library_of
from krontime.data.sources.wfdb_records import WfdbSource
from krontime.errors import Problems, UserError

DS1 = (
    *(101, 106, 108, 109, 112, 114, 115, 116, 118, 119, 122),
    *(124, 201, 203, 205, 207, 208, 209, 215, 220, 223, 230),
)
DS2 = (
    *(100, 103, 105, 111, 113, 117, 121, 123, 200, 202, 210),
    *(212, 213, 214, 219, 221, 222, 228, 231, 232, 233, 234),
)
"""Records to train and to test on (de Chazal et al. 2004); those with paced beats are in neither."""

WINDOW = 4_096
NORMAL, VENTRICULAR, SUPRAVENTRICULAR = frozenset("NLRej"), frozenset("VEF"), frozenset("AaJS")
FLUTTER = "VFL"

LOW_PH = 7.15
PTB_XL_CLASSES = ("NORM", "MI", "STTC", "CD", "HYP")
PTB_XL_TEST_FOLD = 10


def mitbih_ecg(folder: Path) -> Container:
    """Make the container: every other window of 4,096 points, with the class of its beats.

    Left out are windows without a beat, with one that is paced or unclassifiable, and with ventricular flutter.
    """
    headers = _headers(folder)
    series, y, records, starts = [], [], [], []
    problems = Problems()
    numbers = [number for number in sorted(DS1 + DS2) if str(number) in headers]
    if not numbers:
        raise UserError(f"from={str(folder)!r}: expected the records 100.hea and so on; there are none of them")
    for number in each("reading records", numbers):
        with problems.collecting():
            file = headers[str(number)]
            beats, rhythms = _read(file, labels="beats"), _read(file, labels="rhythm")
            values = _leads(beats, file)
            for start in range(0, values.shape[1] - WINDOW + 1, 2 * WINDOW):
                label = _beat_class(beats, rhythms, start)
                if label is not None:
                    series.append(values[:, start : start + WINDOW])
                    y.append(label)
                    records.append(number)
                    starts.append(start)
    problems.raise_if_any()
    return Container(
        series=series,
        y=np.array(y, int),
        classes=("normal_only", "ventricular_ectopy", "supraventricular_ectopy_only"),
        is_test=np.isin(records, DS2),
        sampling_rate_hz=360.0,
        group=np.array(records, int),
        scale=1 / 200,
        others={"start": np.array(starts, np.int32)},
    )


def _leads(recording: Recording, file: Path) -> np.ndarray:
    """The digital values of both leads less their baseline, MLII first."""
    names = recording.channels or ()
    is_expected = recording.sampling_rate_hz == 360 and len(names) == 2 and "MLII" in names
    assert recording.scale is not None
    if not is_expected or not np.allclose(recording.scale[:, 0], 1 / 200):
        raise _unlike(recording, file, "MLII and another lead at 360 Hz, 200 units for each mV")
    baseline = np.rint(-recording.scale[:, 1] / recording.scale[:, 0]).astype(np.int16)
    first = names.index("MLII")
    return (recording.values - baseline[:, None])[[first, 1 - first]]


def _beat_class(beats: Recording, rhythms: Recording, start: int) -> int | None:
    """The class of a window by the beats in it; None for a window to leave out."""
    stop = start + WINDOW
    symbols = {span.label for span in beats.spans if start <= span.start < stop}
    flutter = any(span.label == FLUTTER and span.start < stop and span.stop > start for span in rhythms.spans)
    if not symbols or flutter or symbols - NORMAL - VENTRICULAR - SUPRAVENTRICULAR:
        return None
    return 1 if symbols & VENTRICULAR else 2 if symbols & SUPRAVENTRICULAR else 0


def ctu_uhb_ctg(folder: Path) -> Container:
    """Make the container: heart rate and contractions whole, in hundredths; the class is that of the pH in the header.

    Of each class, the last quarter by the MD5 of the record's number is tested on.
    """
    headers = {name: file for name, file in _headers(folder).items() if name.isdigit()}
    names = sorted(headers)
    if not names:
        raise UserError(f"from={str(folder)!r}: expected the records 1001.hea and so on; there are none")
    series = read_each("reading records", [headers[name] for name in names], _heart_rate)
    ph = np.concatenate(read_each("reading headers", [headers[name] for name in names], _ph))
    y = (ph < LOW_PH).astype(int)
    is_test = np.zeros(len(y), bool)
    for label in (0, 1):
        members = sorted(np.flatnonzero(y == label), key=lambda i: hashlib.md5(names[i].encode()).digest())
        is_test[members[len(members) - round(len(members) / 4) :]] = True
    return Container(
        series=series,
        y=y,
        classes=("pH>=7.15", "pH<7.15"),
        is_test=is_test,
        sampling_rate_hz=4.0,
        group=np.array(names, int),
        scale=0.01,
        others={"pH": ph.astype(np.float32)},
    )


def _heart_rate(file: Path) -> np.ndarray:
    recording = _read(file)
    assert recording.scale is not None
    is_expected = recording.channels == ("FHR", "UC") and recording.sampling_rate_hz == 4
    if not is_expected or not np.allclose(recording.scale, [0.01, 0]):
        raise _unlike(recording, file, "FHR and UC at 4 Hz, in hundredths")
    return recording.values


def _ph(file: Path) -> np.ndarray:
    """The pH of the umbilical artery, `(1,)`, from the comments of a header."""
    comments = library_of("wfdb", "wfdb", needed_by="this data set").rdheader(str(file.with_suffix(""))).comments
    for comment in comments:
        if match := re.fullmatch(r"#?\s*pH\s+(\d+(\.\d+)?)\s*", comment):
            return np.array([float(match[1])])
    raise UserError(f"{file}: expected a comment with the pH")


def ptb_xl(folder: Path) -> Container:
    """Make the container: 10 s of 12 leads at 100 Hz, of the records whose statements are of one diagnostic class.

    Those of several classes, and of none, are left out: a series has one class. The tenth fold is tested on.
    """
    table, statements = one_file(folder, "ptbxl_database.csv"), one_file(folder, "scp_statements.csv")
    try:
        codes = pd.read_csv(statements, index_col=0)
        classes = codes.loc[codes["diagnostic"] == 1, "diagnostic_class"].to_dict()
        rows = pd.read_csv(table)[["patient_id", "scp_codes", "strat_fold", "filename_lr"]]
        diagnoses = [
            {classes[code] for code in ast.literal_eval(text) if code in classes} for text in rows["scp_codes"]
        ]
    except (KeyError, ValueError, SyntaxError) as error:
        raise UserError(f"{table}, {statements}: expected the tables of PTB-XL ({error})") from error
    rows["class"] = [min(names) if len(names) == 1 else None for names in diagnoses]
    rows = rows[rows["class"].isin(PTB_XL_CLASSES)]
    if rows.empty:
        raise UserError(f"{table}: expected records of one diagnostic class; there are none")
    files = [(table.parent / name).with_suffix(".hea") for name in rows["filename_lr"]]
    return Container(
        series=read_each("reading records", files, _twelve_leads),
        y=rows["class"].map(PTB_XL_CLASSES.index).to_numpy(),
        classes=PTB_XL_CLASSES,
        is_test=(rows["strat_fold"] == PTB_XL_TEST_FOLD).to_numpy(),
        sampling_rate_hz=100.0,
        group=rows["patient_id"].to_numpy().astype(int),
        scale=0.001,
        others={"fold": rows["strat_fold"].to_numpy(np.uint8)},
    )


def _twelve_leads(file: Path) -> np.ndarray:
    recording = _read(file)
    assert recording.scale is not None
    values = recording.values
    if values.shape != (12, 1_000) or recording.sampling_rate_hz != 100 or not np.allclose(recording.scale, [0.001, 0]):
        raise _unlike(recording, file, "12 leads of 1,000 points at 100 Hz, in thousandths of a mV")
    return values


def _headers(folder: Path) -> dict[str, Path]:
    """The headers below a folder, by the names of their records."""
    return {file.stem: file for file in sorted(folder.rglob("*.hea"))}


def _unlike(recording: Recording, file: Path, expected: str) -> UserError:
    names = ", ".join(recording.channels or ()) or "without names"
    shape = f"{len(recording.values)} signals ({names}) of {recording.values.shape[1]:,} points"
    return UserError(f"{file}: has {shape} at {recording.sampling_rate_hz} Hz; expected {expected}")


def _read(file: Path, labels: Literal["rhythm", "beats"] = "rhythm") -> Recording:
    return next(WfdbSource(str(file), labels=labels).read(file, file.parent))
