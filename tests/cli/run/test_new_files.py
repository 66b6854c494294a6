"""`predict` on files of every kind, compared with what was trained on: a wrong answer never comes with exit code 0."""

import contextlib
import errno
import io
import json
import os
import signal
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import krontime
from krontime import cli
from krontime.commands import export, predict
from krontime.data import assemble
from krontime.runs.decisions import Threshold
from krontime.runs.predictions import read_predictions
from krontime.storage import HELD_OUT
from tests.cli.run.small import SMALL, call, command

soundfile = pytest.importorskip("soundfile")
RNG = np.random.default_rng(0)
RATE = 2000


def clip(path: Path, tone: float, *, rate: int = RATE, seconds: float = 0.1, channels: int = 1) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    time = np.arange(int(rate * seconds)) / rate
    wave = 0.3 * np.sin(2 * np.pi * tone * time)[:, None] + 0.02 * RNG.normal(size=(len(time), channels))
    soundfile.write(path, wave, rate)
    return path


def run_of(folder: Path) -> Path:
    return next(folder.rglob("record.json")).parent


@pytest.fixture(scope="module")
def audio_run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("audio")
    for label, tone in (("low", 60), ("high", 400)):
        for i in range(6):
            clip(folder / "sounds" / label / f"{i}.wav", tone, seconds=0.08 + 0.005 * i)
    command("train", f"data.path={folder / 'sounds'}", *SMALL, f"paths.output={folder / 'out'}")
    return run_of(folder / "out")


@pytest.fixture(scope="module")
def table_run(tmp_path_factory) -> tuple[Path, pd.DataFrame]:
    folder = tmp_path_factory.mktemp("table")
    table = pd.DataFrame(RNG.normal(size=(24, 30)).round(3), columns=[f"t{i}" for i in range(30)])
    table["kind"] = np.arange(24) % 2
    table.to_csv(folder / "train.csv", index=False)
    overrides = ("data=csv", f"data.train={folder / 'train.csv'}", "data.source.label=kind")
    command("train", *overrides, *SMALL, f"paths.output={folder / 'out'}")
    return run_of(folder / "out"), table


def told(*overrides: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of `predict`."""
    out, errors, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
        try:
            cli.main(["predict", *overrides])
        except SystemExit as stopped:
            code = int(stopped.code or 0)
    return code, out.getvalue(), errors.getvalue()


def predicted(run: Path, given: Any, output: Path, **options: Any) -> pd.DataFrame:
    call(predict.predict, run=run, input=given, output=output, **options)
    return pd.read_csv(output)


def test_a_recording_a_folder_and_a_pattern_give_file_names(audio_run, tmp_path):
    names = ["a.wav", "sub/b.wav", "sub/c.flac"]
    for name in names:
        clip(tmp_path / "new" / name, 60, seconds=0.1)
    (tmp_path / "new" / "notes.txt").write_text("x")
    rows = predicted(audio_run, tmp_path / "new", tmp_path / "all.csv")
    assert rows["file"].tolist() == names
    assert list(rows) == ["index", "file", "label", "predicted", "p_high", "p_low"]
    alone = predicted(audio_run, tmp_path / "new" / "a.wav", tmp_path / "one.csv")
    assert alone["file"].tolist() == ["a.wav"]
    np.testing.assert_allclose(alone["p_low"], rows["p_low"][:1], atol=1e-5)
    some = predicted(audio_run, tmp_path / "new" / "sub" / "*", tmp_path / "some.csv")
    assert [Path(name).name for name in some["file"]] == ["b.wav", "c.flac"]


def test_other_rates_and_lengths_are_refused_or_brought_together(audio_run, tmp_path):
    clip(tmp_path / "new" / "a.wav", 60)
    clip(tmp_path / "new" / "b.wav", 60, rate=8000)
    code, out, errors = told(f"run={audio_run}", f"input={tmp_path / 'new'}", "output=-")
    assert (code, out) == (2, "")
    assert "resample=true" in errors
    rows = predicted(audio_run, tmp_path / "new", tmp_path / "out.csv", resample=True)
    assert len(rows) == 2
    clip(tmp_path / "new" / "c.wav", 60, seconds=0.01)
    code, _, errors = told(f"run={audio_run}", f"input={tmp_path / 'new' / 'c.wav'}", "output=-")
    assert code == 2
    assert "expected at least 160 points" in errors
    assert len(predicted(audio_run, tmp_path / "new/c.wav", tmp_path / "short.csv", allow="length")) == 1
    clip(tmp_path / "long.wav", 60, seconds=2)
    assert len(predicted(audio_run, tmp_path / "long.wav", tmp_path / "long.csv", allow=["length"])) == 1


def test_no_room_for_the_series_is_told(audio_run, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    for name in ("a", "b"):
        clip(tmp_path / "new" / f"{name}.wav", 60)
    monkeypatch.setattr(assemble, "_mapped", full)
    code, out, errors = told(f"run={audio_run}", f"input={tmp_path / 'new'}", "output=-")
    assert (code, out) == (2, "")
    assert "no room for the series" in errors
    assert "TMPDIR" in errors


def test_a_signal_leaves_no_temporary_files(audio_run, tmp_path, monkeypatch):
    def end(_, folder: Path) -> None:
        assert signal.getsignal(signal.SIGTERM) != signal.SIG_DFL
        (folder / "values.npy").write_bytes(b"x")
        os.kill(os.getpid(), signal.SIGTERM)

    for name in ("a", "b"):
        clip(tmp_path / "new" / f"{name}.wav", 60)
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.setattr(assemble, "_mapped", end)
    assert told(f"run={audio_run}", f"input={tmp_path / 'new'}", "output=-")[:2] == (143, "")
    assert not list((tmp_path / "temporary").iterdir())


def test_broken_files_are_marked_where_asked(audio_run, tmp_path):
    for name in ("a", "c", "e"):
        clip(tmp_path / "new" / f"{name}.wav", 60)
    for name in ("b", "f"):
        (tmp_path / "new" / f"{name}.wav").write_bytes(b"RIFF")
    given = (f"run={audio_run}", f"input={tmp_path / 'new'}", f"output={tmp_path / 'out.csv'}")
    code, _, errors = told(*given)
    assert code == 2
    assert "2 of 5 files cannot be read; on_error=skip" in errors
    assert not (tmp_path / "out.csv").exists()
    code, _, errors = told(*given, "on_error=skip")
    assert code == 3
    rows = pd.read_csv(tmp_path / "out.csv")
    assert rows["file"].tolist() == ["a.wav", "b.wav", "c.wav", "e.wav", "f.wav"]
    assert rows["predicted"].isna().tolist() == [False, True, False, False, True]
    assert rows["error"].notna().tolist() == [False, True, False, False, True]


def test_a_folder_of_many_files_of_mixed_rates_with_two_broken(audio_run, tmp_path):
    for number in range(200):
        clip(tmp_path / "new" / f"{number:03d}.wav", (60, 400)[number % 2], rate=(2000, 3000, 4000, 8000)[number % 4])
    for number in (17, 140):
        path = tmp_path / "new" / f"{number:03d}.wav"
        path.write_bytes(path.read_bytes()[:40])
    given = (f"run={audio_run}", f"input={tmp_path / 'new'}", f"output={tmp_path / 'out.csv'}")
    code, _, _ = told(*given, "resample=true", "on_error=skip")
    assert code == 3
    rows = pd.read_csv(tmp_path / "out.csv")
    assert rows["file"].tolist() == [f"{number:03d}.wav" for number in range(200)]
    assert rows.index[rows["predicted"].isna()].tolist() == [17, 140]
    assert rows.index[rows["error"].notna()].tolist() == [17, 140]


def test_predictions_are_printed(table_run, tmp_path):
    run, table = table_run
    table.to_csv(tmp_path / "new.csv", index=False)
    code, out, _ = told(f"run={run}", f"input={tmp_path / 'new.csv'}", "output=-")
    assert code == 0
    rows = pd.read_csv(io.StringIO(out))
    assert list(rows) == ["index", "label", "predicted", "p_0", "p_1"]
    assert rows["label"].tolist() == table["kind"].tolist()


def test_sets_and_thresholds_come_from_held_out_series_of_run_and_bundle(table_run, tmp_path):
    run, table = table_run
    table.drop(columns="kind").to_csv(tmp_path / "new.csv", index=False)
    call(export.export, run=run, output=tmp_path / "bundle")
    given = (f"input={tmp_path / 'new.csv'}", "output=-", "coverage=0.8", "threshold.class=1", "threshold.recall=0.7")
    code, out, errors = told(f"run={run}", *given)
    assert code == 0
    assert "sets hold the true class of 0.8 of series" in errors
    assert "1 is decided for from a probability of" in errors
    rows = pd.read_csv(io.StringIO(out))
    assert all(set(json.loads(names)) <= {"0", "1"} for names in rows["set"])
    lowest = Threshold.of(read_predictions(run / HELD_OUT), "1", recall=0.7).lowest
    assert rows["predicted"].tolist() == (rows["p_1"].to_numpy("f4") >= lowest).astype(int).tolist()
    assert told(f"run={tmp_path / 'bundle'}", *given)[1] == out
    code, out, errors = told(f"run={run}", *given[:2], "coverage=0.99", "threshold.class=2", "threshold.recall=0.7")
    assert (code, out) == (2, "")
    assert "coverage=0.99: expected at most 0.960" in errors
    assert "threshold.class='2': expected one of 0, 1" in errors


def test_no_file_of_a_folder_is_written_over(table_run, tmp_path):
    run, table = table_run
    for name in ("a.csv", "b.csv"):
        table.drop(columns="kind").to_csv(tmp_path / name, index=False)
    before = (tmp_path / "b.csv").read_bytes()
    code, _, errors = told(f"run={run}", f"input={tmp_path}", f"output={tmp_path / 'b.csv'}", "force=true")
    assert (code, (tmp_path / "b.csv").read_bytes()) == (2, before)
    assert f"expected another file than those of input='{tmp_path}'" in " ".join(errors.split())


def test_a_series_without_any_value_has_no_class(table_run, tmp_path):
    run, table = table_run
    x = table.to_numpy()[:6, :30].astype("f4")
    np.save(tmp_path / "all.npy", x)
    x[3] = np.nan
    np.save(tmp_path / "new.npy", x)
    given = (f"run={run}", "output=-", "coverage=0.8")
    code, out, errors = told(*given, f"input={tmp_path / 'new.npy'}")
    assert code == 0
    assert "1 series have no value and get no class (at index 3)" in errors
    assert "5 series of " in errors
    rows, all_rows = (
        pd.read_csv(io.StringIO(text)) for text in (out, told(*given, f"input={tmp_path / 'all.npy'}")[1])
    )
    said = ["predicted", "set", "p_0", "p_1"]
    assert rows.loc[3, said].isna().all()
    pd.testing.assert_frame_equal(rows.drop(3)[said], all_rows.drop(3)[said], check_dtype=False, atol=1e-6)
    with pytest.raises(ValueError, match="all values of series 3 are missing"):
        krontime.load(run).predict(x)


def test_what_is_asked_for_is_checked_before_files_are_read(table_run):
    code, _, errors = told(f"run={table_run[0]}", "input=nowhere.npy", "output=-", "coverage=90", "threshold.recall=2")
    assert code == 2
    for text in ("nowhere.npy", "coverage=90: expected a fraction", "threshold.recall=2: expected a fraction"):
        assert text in errors
    assert "threshold.recall: expected threshold.class=NAME beside it" in errors


def test_another_rate_than_a_file_states_is_refused(audio_run, tmp_path):
    given = (f"run={audio_run}", f"input={clip(tmp_path / 'a.wav', 60)}", "output=-", "sampling_rate_hz=8000")
    code, _, errors = told(*given)
    assert code == 2
    assert f"sampling_rate_hz=8000: expected null, or the {RATE} Hz that {tmp_path / 'a.wav'} states" in errors


def test_columns_of_new_tables_are_matched_by_name(table_run, tmp_path):
    run, table = table_run
    table.to_csv(tmp_path / "same.csv", index=False)
    plain = predicted(run, tmp_path / "same.csv", tmp_path / "a.csv")
    table[[*table.columns[29::-1]]].to_csv(tmp_path / "other.csv", index=False)  # without labels, the other way round
    other = predicted(run, tmp_path / "other.csv", tmp_path / "b.csv")
    np.testing.assert_array_equal(other["p_1"], plain["p_1"])
    assert other["label"].isna().all()


REFUSED = {
    "a column is missing": (lambda table: table.drop(columns="t4"), "missing are 't4'"),
    "a column more": (lambda table: table.assign(volt=1.5), "not trained on are 'volt'"),
    "other names": (lambda table: table.rename(columns=lambda name: name.replace("t", "x")), "not trained on"),
    "an index": (lambda table: table.reset_index(), "index"),
    "a long table": (
        lambda _: pd.DataFrame({"timestamp": range(900), "id": np.arange(900) // 30, "value": RNG.normal(size=900)}),
        "look like a long table",
    ),
}


@pytest.mark.parametrize(("change", "said"), REFUSED.values(), ids=REFUSED)
def test_other_tables_are_refused(table_run, tmp_path, change, said):
    run, table = table_run
    change(table.drop(columns="kind")).to_csv(tmp_path / "new.csv", index=False)
    code, _, errors = told(f"run={run}", f"input={tmp_path / 'new.csv'}", f"output={tmp_path / 'out.csv'}")
    assert code == 2
    assert said in errors
    assert "Traceback" not in errors
    assert not (tmp_path / "out.csv").exists()


def test_arrays_with_channels_last_are_refused_unless_said(table_run, tmp_path):
    run, table = table_run
    np.save(tmp_path / "new.npy", table.to_numpy()[:, :30, None])
    code, _, errors = told(f"run={run}", f"input={tmp_path / 'new.npy'}", "output=-")
    assert code == 2
    assert "source.layout=channels_last" in errors
    code, out, _ = told(f"run={run}", f"input={tmp_path / 'new.npy'}", "output=-", "source.layout=channels_last")
    assert code == 0
    assert len(out.splitlines()) == 25


def test_options_that_other_formats_have_are_refused(table_run, tmp_path):
    run, table = table_run
    table.drop(columns="kind").to_csv(tmp_path / "new.csv", index=False)
    options = ("output=-", "source.mono=false", "source.layout=channels_last")
    code, _, errors = told(f"run={run}", f"input={tmp_path / 'new.csv'}", *options)
    assert code == 2
    assert "source.mono=False: expected null, since it has no effect on files of this format" in errors
    assert "source.layout='channels_last': expected null" in errors
