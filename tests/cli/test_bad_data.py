"""Data that is odd trains; data that is wrong ends with exit code 2 and a message that says what is wrong where."""

import contextlib
import io
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from krontime import cli
from krontime.errors import UserError
from krontime.runs.run import train_in
from tests.cli.run.small import CLOSED_FORM

SMALL = (
    *("model.d_model=8", "model.num_heads=2", "model.num_layers=1", "model.ffn_dim=8", "tokenizer=linear"),
    *CLOSED_FORM,
    *("trainer.max_epochs=1", "trainer.enable_progress_bar=false", "optim.min_batches_per_epoch=1"),
)
RNG = np.random.default_rng(0)
N = 12
X = RNG.standard_normal((N, 2, 30)).astype(np.float32)
Y, SPLIT = np.arange(N) % 2, np.repeat([0, 1], [8, 4])
OFFSETS = np.arange(N + 1) * 5
FLAT = {"X": None, "X_flat": RNG.standard_normal((2, 5 * N)), "offsets": OFFSETS}

TS = "@problemName x\n@timeStamps false\n@univariate false\n@equalLength {equal}\n@classLabel true a b\n@data\n{rows}"
TS_ROWS = "".join(f"{i},2,3:4,{i},6:{'ab'[i % 2]}\n" for i in range(8))
TABLE = "label,t0,t1,t2\n" + "".join(f"{'ab'[i % 2]},{i},2,3\n" for i in range(8))
NUMBERED = TABLE.replace("a,", "1,").replace("b,1", "1.0,1").replace("b,", "2,")


def npz(**changes: Any) -> bytes:
    """A container with these arrays in place of good ones; None leaves one out."""
    arrays = {key: array for key, array in {"X": X, "y": Y, "split": SPLIT, **changes}.items() if array is not None}
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=True, **arrays)
    return buffer.getvalue()


def at(array: np.ndarray, place: Any, value: Any) -> np.ndarray:
    changed = np.array(array, np.result_type(array, type(value)) if np.isscalar(value) else None)
    changed[place] = value
    return changed


def repacked(method: int) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(npz())) as archive, zipfile.ZipFile(out, "w", method) as packed:
        for name in archive.namelist():
            packed.writestr(name, archive.read(name))
    return out.getvalue()


def ts(rows: str, equal: str = "false") -> str:
    return TS.format(rows=rows, equal=equal)


WRONG: dict[str, tuple[str, bytes | str, tuple[str, ...]]] = {
    # values
    "infinite value": ("npz", npz(X=at(X, (3, 1, 7), np.inf)), ("series 3", "infinite")),
    "infinite value below": ("npz", npz(X=at(X, (9, 0, 0), -np.inf)), ("series 9", "infinite")),
    "beyond float32": ("npz", npz(X=at(X.astype(float), (2, 0, 0), 1e39)), ("series 2", "float32")),
    "steps that float32 does not hold": (
        "npz",
        npz(X=X.astype(float) + 1e9),
        ("channel 0", "float32", "less a constant"),
    ),
    "whole numbers that float32 does not hold": (
        "csv",
        "label,t0,t1,t2\n" + "".join(f"{'ab'[i % 2]},20000000{i},20000001{i},20000002{i}\n" for i in range(8)),
        ("vary by", "float32", "less a constant"),
    ),
    "scaled beyond float32": ("npz", npz(scale=1e39), ("float32",)),
    "infinite value in .ts": ("ts", ts(TS_ROWS.replace("3,2,3:", "inf,2,3:")), ("series 3", "infinite")),
    "too large in .ts": ("ts", ts(TS_ROWS.replace("3,2,3:", "1e999,2,3:")), ("series 3", "infinite")),
    "infinite value in .csv": ("csv", TABLE.replace("b,5,2", "b,-Infinity,2"), ("series 5", "infinite")),
    "everything missing": ("csv", "label,t0\na,\nb,?\na,NaN\nb,NA\n", ("series 0 has no time points",)),
    "everything missing in .ts": ("ts", ts("?,?:?,?:a\nNaN,?:?,?:b\n" * 4), ("all values are missing",)),
    # labels
    "label that is missing": ("npz", npz(y=at(Y, 4, np.nan)), ("label of series 4 is missing",)),
    "label of white space": ("npz", npz(y=at(Y.astype("U3"), 4, np.str_("  "))), ("label of series 4 is missing",)),
    "label to predict by regression": ("npz", npz(y=Y + 0.5), ("0.5 are not classes",)),
    "label of 2^60 as a float": ("npz", npz(y=Y * 2.0**60), ("not classes",)),
    "complex labels": ("npz", npz(y=Y * 1j), ("labels are of type complex128",)),
    "labels that are days": ("npz", npz(y=Y.astype("M8[D]")), ("labels are of type datetime64",)),
    "labels that are no Unicode": ("npz", npz(y=(Y + 0x110000).astype("u4").view("U1")), ("no characters",)),
    "labels that are half characters": ("npz", npz(y=np.array(["a", "\ud800"])[Y]), ("no characters",)),
    "labels that are no UTF-8": ("npz", npz(y=np.array([b"a", b"\xff"])[Y]), ("UTF-8",)),
    "labels in two dimensions": ("npz", npz(y=Y[:, None]), ("y has shape (12, 1)", "(12,)")),
    "labels of one number in two ways": (
        "npz",
        npz(y=np.array(["1", "2", "1.0"])[np.arange(N) % 3]),
        ("'1' and '1.0'",),
    ),
    "one number in two ways in .csv": (
        "csv",
        TABLE.replace("a,", "1,").replace("b,1", "1.0,1").replace("b,", "2,"),
        ("'1'", "'1.0'"),
    ),
    "positions beyond the classes": ("npz", npz(y=Y * 5, classes=np.array(["a", "b"])), ("y=5", "0 to 1")),
    "positions below the classes": ("npz", npz(y=-Y, classes=np.array(["a", "b"])), ("y=-1", "0 to 1")),
    "names that are no classes": ("npz", npz(y=np.array(["a", "c"])[Y], classes=np.array(["a", "b"])), ("'c'",)),
    "classes twice": ("npz", npz(classes=np.array(["a", "a "])), ("each name once",)),
    "classes in two dimensions": ("npz", npz(classes=np.array([["a", "b"]])), ("classes has shape",)),
    "every class once": ("npz", npz(y=np.arange(N)), ("test series but no training series",)),
    "label missing in .csv": ("csv", TABLE.replace("b,3,", ",3,"), ("label of series 3 is missing",)),
    "label far too long": ("csv", TABLE.replace("b,3,", f"{'b' * 2000},3,"), ("label of series 3", "1,000 characters")),
    "one class in .csv": ("csv", TABLE.replace("b,", "a,"), ("'a'", "at least two classes")),
    # split, groups, rate, scale
    "split in words": ("npz", npz(split=np.array(["train", "test"])[SPLIT]), ("split is of type <U5",)),
    "split that is missing": ("npz", npz(split=at(SPLIT, 2, np.nan)), ("split holds nan",)),
    "split of another length": ("npz", npz(split=SPLIT[:5]), ("split has shape (5,)",)),
    "groups of another length": ("npz", npz(group=np.arange(3)), ("group has shape (3,)",)),
    "groups of fractions": ("npz", npz(group=Y + 0.5), ("group is of type float64",)),
    "rate in words": ("npz", npz(fs=np.array("50 Hz")), ("fs is of type <U5",)),
    "rate that is missing": ("npz", npz(fs=np.nan), ("fs=nan",)),
    "rate below 0": ("npz", npz(fs=-5), ("fs=-5",)),
    "rate of each series": ("npz", npz(fs=np.full(N, 50.0)), ("one sampling rate",)),
    "scale in words": ("npz", npz(scale=np.array("mV")), ("scale is of type <U2",)),
    "scale of other channels": ("npz", npz(scale=np.ones(3)), ("one for each channel",)),
    "scale that is missing": ("npz", npz(scale=np.nan), ("one finite number",)),
    # shapes
    "values in words": ("npz", npz(X=X.astype("U9")), ("X is of type <U9",)),
    "complex values": ("npz", npz(X=X * 1j), ("X is of type complex",)),
    "one long series": ("npz", npz(X=X.ravel()), ("(series, channels, time points)",)),
    "no time points": ("npz", npz(X=X[..., :0]), ("no time points",)),
    "no channels": ("npz", npz(X=X[:, :0]), ("no channels",)),
    "both kinds of values": ("npz", npz(X_flat=X[0], offsets=OFFSETS), ("one of the keys X",)),
    "neither kind of values": ("npz", npz(X=None, x=X), ("one of the keys X", "'x'")),
    "flat values without offsets": ("npz", npz(**{**FLAT, "offsets": None}), ("X_flat needs the key offsets",)),
    "offsets that fall": ("npz", npz(**{**FLAT, "offsets": OFFSETS[[0, 2, 1, *range(3, 13)]]}), ("rising numbers",)),
    "offsets that start late": ("npz", npz(**{**FLAT, "offsets": at(OFFSETS, 0, 1)}), ("run from 1 to 60",)),
    "offsets that end early": ("npz", npz(**{**FLAT, "offsets": at(OFFSETS, -1, 59)}), ("run from 0 to 59",)),
    "offsets beyond 2^63": ("npz", npz(**{**FLAT, "offsets": OFFSETS.astype("u8") << 60}), ("rising numbers",)),
    "offsets of fractions": ("npz", npz(**{**FLAT, "offsets": OFFSETS / 1}), ("offsets has shape", "whole numbers")),
    "a flat series of no points": (
        "npz",
        npz(**{**FLAT, "offsets": at(OFFSETS, 3, 10)}),
        ("series 2 has no time points",),
    ),
    "flat values that are one number": ("npz", npz(**{**FLAT, "X_flat": np.float64(1)}), ("X_flat has shape ()",)),
    # files
    "empty file": ("npz", b"", ("cannot be read",)),
    "cut off file": ("npz", npz()[:900], ("cannot be read",)),
    "compressed another way": ("npz", repacked(zipfile.ZIP_BZIP2), ("X cannot be read", "in another way")),
    "a table for a container": ("npz", TABLE, ("cannot be read",)),
    "a container for .ts": ("ts", npz(), ("cannot be read as text",)),
    "a container for .csv": ("csv", npz(), ("cannot be read as text",)),
    "UTF-16": ("csv", TABLE.encode("utf-16"), ("cannot be read as text",)),
    "time that goes backwards": (
        "ts",
        TS.replace("false", "true", 1).format(rows="(2,1),(1,2):a\n", equal=""),
        ("time stamps",),
    ),
    "channels that differ between series": ("ts", ts(TS_ROWS + "1,2,3:a\n"), ("series 8", "1 channels", "2")),
    "channels that differ in length": ("ts", ts(TS_ROWS + "1,2,3:1,2:a\n"), ("series 8", "2 to 3 points")),
    "lengths that differ, said to be equal": ("ts", ts(TS_ROWS + "1,2:1,2:a\n", "true"), ("series 8", "@equalLength")),
    "channels, said to be one": ("ts", ts(TS_ROWS).replace("univariate false", "univariate true"), ("@univariate",)),
    "word for a value in .ts": ("ts", ts("1,high:2,3:a\n"), ("series 0", "value 1 is 'high'")),
    "label alone": ("ts", ts(TS_ROWS + "a\n"), ("series 8", "expected values, then a colon and the label")),
    "label that is missing in .ts": ("ts", ts(TS_ROWS + "1,2:3,4:\n"), ("label of series 8 is missing",)),
    "no label column": ("csv", TABLE.replace("label", "name"), ("'a': expected a number",)),
    "numbers alone": ("csv", "1,2,3\n4,5,6\n", ("no class labels", "label, class, y")),
    "two label columns": ("csv", TABLE.replace("t0", "class"), ("all look like labels",)),
    "header alone": ("csv", "label,t0\n", ("there is no series",)),
    "semicolons": ("csv", TABLE.replace(",", ";"), ("expected a number",)),
    "commas for points": ("csv", TABLE.replace("b,3,", 'b,"3,5",'), ("series 3", "in quotes")),
    "digits in groups": ("csv", TABLE.replace("b,3,", "b,3_000,"), ("series 3", "'3_000'")),
    "hexadecimal": ("csv", TABLE.replace("b,3,", "b,0x3,"), ("series 3", "'0x3'")),
    "quote that does not end": ("csv", TABLE.replace("b,3,", 'b,"3,'), ("series 3",)),
    "NUL": ("csv", TABLE.replace("b,3,", "b,3\0,"), ("series 3",)),
    "series of a label alone": ("csv", TABLE + "a\n", ("series 8 has no time points",)),
}


def run(*arguments: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of a command in this process."""
    out, errors, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
        try:
            cli.main(list(arguments))
        except SystemExit as stopped:
            code = int(stopped.code or 0)
    return code, out.getvalue(), errors.getvalue()


def test_there_are_many():
    assert len(WRONG) >= 80


@pytest.mark.parametrize(("suffix", "content", "says"), WRONG.values(), ids=WRONG)
def test_wrong_data_is_explained(suffix, content, says, tmp_path, compose):
    path = tmp_path / f"bad.{suffix}"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    before = path.read_bytes()
    config = compose(f"data={suffix}", "data.path=PLACE" if suffix == "npz" else "data.train=PLACE", *SMALL)
    config = json.loads(json.dumps(config).replace("PLACE", str(path)))
    with pytest.raises(UserError) as raised:
        train_in(config, tmp_path / "run")
    for text in (path.name, *says):
        assert text in str(raised.value)
    assert path.read_bytes() == before
    assert [result.name for result in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("case", ["infinite value", "infinite value in .ts", "semicolons"])
def test_wrong_data_ends_the_command_with_code_2_and_no_traceback(case, tmp_path, monkeypatch):
    suffix, content, says = WRONG[case]
    monkeypatch.chdir(tmp_path)
    path = tmp_path / f"bad.{suffix}"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    code, out, errors = run("train", f"data={suffix}", f"data.{'path' if suffix == 'npz' else 'train'}={path}", *SMALL)
    assert (code, out) == (2, "")
    assert "Traceback" not in errors
    for text in (path.name, *says):
        assert text in errors
    assert [result.name for result in tmp_path.iterdir()] == [path.name]


def odd(**changes: Any) -> Callable[[Path], list[str]]:
    def write(folder: Path) -> list[str]:
        (folder / "odd.npz").write_bytes(npz(**changes))
        return ["data=npz", f"data.path={folder / 'odd.npz'}"]

    return write


def named(name: str) -> Callable[[Path], list[str]]:
    def write(folder: Path) -> list[str]:
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(npz())
        return ["data=npz", f"data.path={path}"]

    return write


def linked(folder: Path) -> list[str]:
    (folder / "real").mkdir()
    (folder / "real" / "there.npz").write_bytes(npz())
    (folder / "link").symlink_to(folder / "real")
    (folder / "odd.npz").symlink_to(folder / "link" / "there.npz")
    return ["data=npz", f"data.path={folder / 'odd.npz'}"]


def table(text: str, suffix: str = "csv") -> Callable[[Path], list[str]]:
    def write(folder: Path) -> list[str]:
        (folder / f"odd.{suffix}").write_text(text)
        other = text.replace(",2,", ",5,").replace("\t2\t", "\t5\t")  # the same names of columns
        (folder / f"other.{suffix}").write_text(other)
        source = "ts" if suffix == "ts" else "csv"
        return [f"data={source}", f"data.train={folder}/odd.{suffix}", f"data.test={folder}/other.{suffix}"]

    return write


LENGTHS = RNG.integers(1, 50, N)
ODD: dict[str, tuple[Callable[[Path], list[str]], str]] = {
    "constant channel": (odd(X=at(X, (slice(None), 1), 3.0)), ""),
    "constant channel, scaled over the training split": (
        lambda folder: [*odd(X=at(X, (slice(None), 1), 3.0))(folder), "data.scaling=channel"],
        "",
    ),
    "channel that is missing throughout": (odd(X=at(X, (slice(None), 1), np.nan)), ""),
    "series that are missing throughout": (odd(X=at(X, ([0, 9],), np.nan)), ""),
    "the same series in both splits": (odd(X=at(X, 9, X[2])), "1 of 4 test series stand in the training split"),
    "labels with white space": (odd(y=np.array(["a", "b", " a", "b\t"])[np.arange(N) % 4]), ""),
    "labels of fractions that are whole": (odd(y=Y + 1.0), ""),
    "labels that are switches": (odd(y=Y == 1), ""),
    "labels in other scripts": (odd(y=np.array(["кошка", "犬 🐕"])[Y]), ""),
    "a class of a single series": (odd(y=at(Y, 0, 7)), ""),
    "series of one point": (odd(X=X[..., :1]), ""),
    "series of 1 to 50 points": (
        odd(**{**FLAT, "X_flat": np.ones((2, LENGTHS.sum())), "offsets": np.append(0, np.cumsum(LENGTHS))}),
        "",
    ),
    "no test series": (odd(split=SPLIT * 0), ""),
    "very small values": (odd(X=X * np.float32(1e-38)), ""),
    "very large values": (odd(X=X.astype(float) * 1e37), ""),
    "values in big-endian order": (odd(X=X.astype(">f8"), y=Y.astype(">i2")), ""),
    "values in Fortran's order": (odd(X=np.asfortranarray(X)), ""),
    "path with spaces": (named("my data/my file (1).npz"), ""),
    "path in other scripts": (named("Größe 数据/дані.npz"), ""),
    "path with signs": (named("a=b,c'd/e{f}[g].npz"), ""),
    "symbolic links": (linked, ""),
    "table": (table(TABLE), ""),
    "table with tabs": (table(TABLE.replace(",", "\t"), "tsv"), ""),
    "table from Windows": (table("\ufeff" + TABLE.replace("\n", "\r\n") + "\r\n"), ""),
    ".ts file with blank lines": (table(ts("\n" + TS_ROWS + "\n\n"), "ts"), ""),
}


@pytest.mark.slow
@pytest.mark.parametrize(("write", "warns"), ODD.values(), ids=ODD)
def test_odd_data_trains(write, warns, tmp_path, caplog):
    code, out, errors = run("train", *write(tmp_path), *SMALL, f"paths.output='{tmp_path}/out'")
    assert code == 0, errors
    assert "completed" in out
    assert warns in errors + caplog.text
    assert list((tmp_path / "out").rglob("record.json"))


@pytest.mark.parametrize("key", ["paths.cache", "paths.output"])
def test_a_folder_that_cannot_be_written_is_told(key, tmp_path):
    """Whoever runs the tests, `/proc` takes no folders."""
    (tmp_path / "good.npz").write_bytes(npz(fs=77.0))
    code, _, errors = run("train", "data=npz", f"data.path={tmp_path}/good.npz", *SMALL, f"{key}=/proc/nothing")
    assert code == 2
    assert "/proc/nothing" in errors
    assert "Traceback" not in errors


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["npz", "csv"])
def test_series_of_ten_million_points_are_read_in_little_more_than_their_size(suffix, tmp_path, monkeypatch):
    """In a process of its own: its peak is what one file took."""
    length = 10_000_000
    path = tmp_path / f"long.{suffix}"
    if suffix == "npz":
        np.savez(path, X=np.zeros((2, 1, length), np.float32), y=[0, 1], split=[0, 0])
    else:
        row = ",".join(["1", "-2.5", "", "4"] * (length // 4)) + ",5"
        path.write_text(f"a,{row}\nb,{row}\n")
    program = f"""
import resource
from krontime.data.sources.npz import NpzSource
from krontime.data.sources.table import TableSource
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
source = NpzSource(r"{path}") if "{suffix}" == "npz" else TableSource(r"{path}", header=False, label=0)
data = source.load()
assert len(data) == 2 and data.spec.length >= {length}
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 60 * length  # two series of 4 or, from text, 8 bytes a point, and what is made of them
