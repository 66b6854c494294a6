"""Signals of every format of WFDB come out as they were written, NaN where the format's own code says missing."""

from pathlib import Path

import numpy as np
import pytest

from krontime.data.recordings import Recording
from krontime.data.series import unscaled
from krontime.data.sources.wfdb_records import WfdbSource
from krontime.errors import UserError

LENGTH = 90
BITS = {"80": 8, "212": 12, "16": 16, "24": 24, "32": 32, "508": 8, "516": 16, "524": 24}
"""Those that the library writes."""

wfdb = pytest.importorskip("wfdb")


def header(folder: Path, kinds: list[str], *, first: int = 0) -> Path:
    """The header of a record `r` of signals in one file, as it was written by hand."""
    signals = [f"r.dat {kind} 100(0)/mV 0 0 {first} 0 0 s{i}" for i, kind in enumerate(kinds)]
    (folder / "r.hea").write_text("\n".join([f"r {len(kinds)} 100 {LENGTH}", *signals, ""]))
    return folder / "r.hea"


def read(file: Path) -> tuple[Recording, np.ndarray]:
    (recording,) = WfdbSource(str(file)).read(file, file.parent)
    if recording.scale is None:
        return recording, recording.values
    return recording, unscaled(recording.values, recording.scale, recording.missing_code)


def packed(digital: np.ndarray, kind: str) -> bytes:
    """Samples `(L, 2)` in a format that the library reads alone."""
    flat = digital.ravel()
    if kind in ("8", "61", "160"):
        return {
            "8": lambda: np.diff(digital, axis=0, prepend=0).astype("i1"),
            "61": lambda: flat.astype(">i2"),
            "160": lambda: (flat + 2**15).astype("<u2"),
        }[kind]().tobytes()
    a, b, c = (flat & 0x3FF).reshape(-1, 3).T
    if kind == "311":
        return (a | b << 10 | c << 20).astype("<u4").tobytes()
    words = [a << 1 | (c & 0x1F) << 11, b << 1 | (c >> 5) << 11]
    return np.stack(words, axis=1).astype("<u2").tobytes()


@pytest.mark.parametrize("kind", [*BITS, "61", "160", "310", "311"])
def test_missing_values_of_a_format_are_missing(tmp_path, kind):
    lowest = -(2 ** (BITS.get(kind, 10 if kind in ("310", "311") else 16) - 1))
    digital = np.random.default_rng(0).integers(lowest + 1, -lowest, (LENGTH, 2))
    digital[5, 0] = digital[6, 1] = lowest
    if kind in BITS:
        signals = {"fs": 100, "units": ["mV"] * 2, "sig_name": ["a", "b"], "fmt": [kind] * 2}
        wfdb.wrsamp("r", d_signal=digital, adc_gain=[100] * 2, baseline=[0] * 2, write_dir=str(tmp_path), **signals)
    else:
        (tmp_path / "r.dat").write_bytes(packed(digital, kind))
        header(tmp_path, [kind] * 2)
    recording, values = read(tmp_path / "r.hea")
    expected = np.where(digital == lowest, np.nan, digital / 100).T
    np.testing.assert_allclose(values, expected, rtol=1e-6)
    assert (recording.values.dtype == np.int16) == (kind not in ("24", "32", "524"))


def test_differences_add_up_from_the_first_value(tmp_path):
    digital = np.random.default_rng(0).integers(-100, 100, (LENGTH, 2)).cumsum(axis=0) // 4
    (tmp_path / "r.dat").write_bytes(packed(digital, "8"))
    np.testing.assert_allclose(read(header(tmp_path, ["8", "8"], first=3))[1], (digital.T + 3) / 100)


def test_a_point_is_the_mean_of_the_samples_of_a_frame_that_are_there(tmp_path):
    samples = np.stack([np.arange(LENGTH), np.arange(LENGTH) * 10, np.arange(LENGTH) * 10 + 5], axis=1).astype("<i2")
    samples[5, 1] = samples[6, 1] = samples[6, 2] = samples[7, 0] = -(2**15)
    samples.tofile(tmp_path / "r.dat")
    recording, values = read(header(tmp_path, ["16", "16x2"]))
    expected = np.stack([samples[:, 0], samples[:, 1:].mean(axis=1)]) / 100
    expected[0, 7], expected[1, 5], expected[1, 6] = np.nan, 0.55, np.nan
    np.testing.assert_allclose(values, expected)
    assert recording.sampling_rate_hz == 100
    (alone,) = WfdbSource(str(tmp_path), channels=["s0"]).read(tmp_path / "r.hea", tmp_path)
    assert alone.values.dtype == np.int16
    np.testing.assert_allclose(unscaled(alone.values, alone.scale, alone.missing_code), expected[:1], rtol=1e-6)


@pytest.mark.parametrize(
    ("kind", "message"),
    [("99", r"its signals are in format 99; expected one of 8, 16, 24, 32, 61, 80"), ("516", "is not a FLAC file")],
)
def test_what_the_library_cannot_read_names_the_file(tmp_path, kind, message):
    (tmp_path / "r.dat").write_bytes(bytes(1000))
    with pytest.raises(UserError, match=rf"r\.hea: cannot be read as a WFDB record \(.*{message}"):
        read(header(tmp_path, [kind]))


def test_signals_of_one_name_may_have_several_units(tmp_path):
    np.arange(2 * LENGTH, dtype="<i2").tofile(tmp_path / "r.dat")
    file = header(tmp_path, ["16", "16"])
    file.write_text(file.read_text().replace("/mV", "/V", 1).replace("s1", "s0"))
    assert read(file)[1].shape == (2, LENGTH)
