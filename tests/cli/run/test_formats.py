"""Annotated recordings of each format, and clips cut into windows, from their files to new ones that are classified."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from krontime.commands.predict import predict
from tests.cli.run.small import NETWORK, call, labelled, train, write_npz

RATE = 100
FEW = ("closed_form=none", "tokenizer.patch_length=8", *NETWORK, "trainer.max_epochs=1")


def signals(points: int, seed: int) -> tuple[np.ndarray, list[str]]:
    """Two channels, and the class of each tenth of them."""
    rng = np.random.default_rng(seed)
    states = rng.permutation(np.arange(10) % 2)
    wave = np.sin(np.cumsum(np.where(np.repeat(states, points // 10), 1.2, 0.3)))
    return 100 * wave + rng.standard_normal((2, points)), ["wake" if state else "sleep" for state in states]


def write_wfdb(folder: Path, name: str, *, annotated: bool, points: int = 800) -> None:
    wfdb = pytest.importorskip("wfdb")
    folder.mkdir(exist_ok=True)
    values, states = signals(points, seed=len(list(folder.iterdir())))
    options = {"fs": RATE, "units": ["mV"] * 2, "sig_name": ["MLII", "V5"], "fmt": ["212"] * 2}
    options |= {"adc_gain": [200.0] * 2, "baseline": [0] * 2, "write_dir": str(folder)}
    wfdb.wrsamp(name, d_signal=values.T.astype(np.int64), **options)
    if annotated:
        places = np.arange(10) * points // 10 + 1
        notes = [f"({state}" for state in states]
        wfdb.wrann(name, "atr", places, symbol=["+"] * 10, aux_note=notes, write_dir=str(folder))


def write_edf(path: Path, *, annotated: bool, points: int = 4000) -> None:
    pyedflib = pytest.importorskip("pyedflib")
    path.parent.mkdir(exist_ok=True)
    values, states = signals(points, seed=annotated)
    with pyedflib.EdfWriter(str(path), 2) as writer:
        for channel in range(2):
            header = pyedflib.highlevel.make_signal_header(
                f"EEG {channel}", sample_frequency=RATE, physical_min=-200, physical_max=200
            )
            writer.setSignalHeader(channel, header)
        writer.writeSamples(values)
        if annotated:
            for number, state in enumerate(states):
                writer.writeAnnotation(number * points / 10 / RATE, points / 10 / RATE, state)


def write_both(kind: str, folder: Path) -> tuple[Path, Path]:
    """What is trained on, and what is new."""
    if kind == "edf":
        write_edf(folder / "night.edf", annotated=True)
        write_edf(folder / "new.edf", annotated=False)
        return folder / "night.edf", folder / "new.edf"
    for number in range(6):
        write_wfdb(folder / "records", f"r{number}", annotated=True)
    for number in range(2):
        write_wfdb(folder / "new", f"n{number}", annotated=False)
    return folder / "records", folder / "new"


@pytest.mark.parametrize(
    ("kind", "split", "names"),
    [("wfdb", "data.source.test_groups=[r5]", ["n0.hea", "n1.hea"]), ("edf", "data.validation.method=time", ["new"])],
)
def test_annotated_recordings_of_a_format(
    kind: str, split: str, names: list[str], compose: Callable[..., Any], tmp_path: Path, quick_plots: None
) -> None:
    given, new = write_both(kind, tmp_path)
    config = compose(f"data={kind}", f"data.path={given}", "data.window.length=40", split, *FEW)
    record = train(config, tmp_path / "run")
    assert set(record.protocol.train_class_counts) == {"sleep", "wake"}
    assert record.metrics.accuracy_over_time is not None
    output, segments = tmp_path / "out.csv", tmp_path / "segments.csv"
    call(predict, run=tmp_path / "run", input=new, output=output, segments=segments)
    assert pd.read_csv(output)["file"].tolist() == names
    stretches = pd.read_csv(segments)
    assert stretches["start"].iloc[0] == 0
    assert stretches["stop_s"].max() == (8 if kind == "wfdb" else 40)
    assert set(stretches["predicted"]) <= {"sleep", "wake"}


def test_clips_cut_into_windows(compose: Callable[..., Any], tmp_path: Path, quick_plots: None) -> None:
    """Each window is classified, and those of one clip are gathered into one answer, of test and of new clips."""
    series, y = labelled(24, 2, seed=0, lengths=(200, 200))
    groups = np.arange(24) // 2
    path = write_npz(tmp_path / "clips.npz", series[:18], series[18:], y, group=groups)
    windows = ("data.window.length=40", "data.window.label=majority")
    record = train(compose("data=npz", f"data.path={path}", *windows, *FEW), tmp_path / "run")
    assert record.protocol.num_test == 6 * 5
    assert record.protocol.groups_in_train_and_validation == record.protocol.groups_in_train_and_test == 0
    assert record.metrics.recordings["accuracy"] is not None
    assert len(pd.read_csv(tmp_path / "run" / "recordings.csv")) == 6
    call(predict, run=tmp_path / "run", input=path, output=tmp_path / "out.csv", split="test")
    assert len(pd.read_csv(tmp_path / "out.csv")) == 6
