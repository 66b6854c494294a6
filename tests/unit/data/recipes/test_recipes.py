"""Each recipe on a look-alike in the format of its origin, and rebuilt from real containers where these are at hand."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from krontime.config.files import config_dir, options
from krontime.data.recipes import RECIPES, Container
from krontime.data.sources.npz import NpzSource
from krontime.errors import UserError

DATA = Path(os.environ.get("KRONTIME_DATA", "data"))
RNG = np.random.default_rng(0)


def integers(*shape: int, bound: int = 900) -> np.ndarray:
    return RNG.integers(-bound, bound, shape).astype(np.int16)


def write_digits(folder: Path, series: dict[str, np.ndarray], rate: int = 8000) -> None:
    soundfile = pytest.importorskip("soundfile")
    (folder / "recordings").mkdir(parents=True)
    for name, values in series.items():
        soundfile.write(folder / "recordings" / f"{name}.wav", values, rate, subtype="PCM_16")


def write_segments(folder: Path, series: dict[tuple[str, int], np.ndarray]) -> None:
    for (name, number), values in series.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        suffix = "TXT" if name == "N" else "txt"
        (folder / name / f"{name}{number:03d}.{suffix}").write_text("".join(f"{value}\n" for value in values))


def write_ecg(
    folder: Path, number: int, values: np.ndarray, noted: list[tuple[int, str, str]], leads: list[str]
) -> None:
    wfdb = pytest.importorskip("wfdb")
    folder.mkdir(parents=True, exist_ok=True)
    wfdb.wrsamp(
        record_name=str(number),
        write_dir=str(folder),
        fs=360,
        units=["mV"] * 2,
        sig_name=leads,
        d_signal=values.T.astype(np.int64) + 1024,
        fmt=["212"] * 2,
        adc_gain=[200.0] * 2,
        baseline=[1024] * 2,
    )
    places, symbols, texts = zip(*sorted(noted), strict=True)
    wfdb.wrann(str(number), "atr", np.array(places), list(symbols), aux_note=list(texts), write_dir=str(folder))


def write_ctg(folder: Path, number: int, values: np.ndarray, ph: str) -> None:
    wfdb = pytest.importorskip("wfdb")
    folder.mkdir(parents=True, exist_ok=True)
    wfdb.wrsamp(
        record_name=str(number),
        write_dir=str(folder),
        fs=4,
        units=["bpm", "nd"],
        sig_name=["FHR", "UC"],
        d_signal=values.T.astype(np.int64),
        fmt=["16"] * 2,
        adc_gain=[100.0] * 2,
        baseline=[0] * 2,
        comments=["----- Additional parameters", "-- Outcome measures", f"pH           {ph}", "BDecf        8.14"],
    )


def test_digits_keep_their_takes_and_speakers(tmp_path):
    names = {"0_george_0": 1148, "0_george_5": 90, "7_theo_12": 70, "7_ann_3": 60, "1_ann_4": 50, "1_ann_49": 40}
    series = {name: integers(length) for name, length in names.items()}
    write_digits(tmp_path, series)
    (tmp_path / "recordings" / "notes.wav").write_bytes(b"no digit")
    made = RECIPES["fsdd"].make(tmp_path)
    order = ["1_ann_4", "1_ann_49", "7_ann_3", "0_george_0", "0_george_5", "7_theo_12"]
    for one, name in zip(made.series, order, strict=True):
        np.testing.assert_array_equal(one[0], series[name])
    assert made.y.tolist() == [1, 1, 7, 0, 0, 7]
    assert made.is_test.tolist() == [True, False, True, True, False, False]
    assert made.group is not None
    assert made.group.tolist() == ["ann", "ann", "ann", "george", "george", "theo"]
    write_digits(tmp_path / "other", {"3_ann_0": integers(9), "3_ann_1": integers(9)}, rate=16000)
    (tmp_path / "other" / "recordings" / "3_ann_2.wav").write_bytes(b"broken")
    with pytest.raises(UserError) as refused:
        RECIPES["fsdd"].make(tmp_path / "other")
    assert len(refused.value.problems) == 3
    assert "has 9 points of 1 channels at 16,000 Hz; expected one channel at 8,000 Hz" in refused.value.problems[0]


def test_clips_are_resampled_and_padded_and_the_fifth_fold_is_tested_on(tmp_path):
    soundfile = pytest.importorskip("soundfile")
    rows = []
    (tmp_path / "audio").mkdir()
    (tmp_path / "meta").mkdir()
    for fold, category, target, seconds in ((5, "rain", 10, 5), (1, "dog", 0, 1), (5, "dog", 0, 6), (1, "cat", 5, 1)):
        name = f"{fold}-{len(rows)}-A-{target}.wav"
        tone = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(44_100 * seconds) / 44_100)
        soundfile.write(tmp_path / "audio" / name, tone, 44_100, subtype="PCM_16")
        rows.append({"filename": name, "fold": fold, "target": target, "category": category, "src_file": len(rows)})
    pd.DataFrame(rows).to_csv(tmp_path / "meta" / "esc50.csv", index=False)
    ten = RECIPES["esc10"].make(tmp_path)
    assert ten.y.tolist() == [0, 0, 1]
    assert ten.classes[:2] == ["Dog bark", "Rain"]
    assert ten.is_test.tolist() == [False, True, True]
    assert ten.group is not None
    assert ten.group.tolist() == ["1", "2", "0"]
    assert set(ten.lengths) == {40_000}
    assert (ten.series[0][0, 8_100:] == 0).all()
    expected = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(40_000) / 8_000)
    np.testing.assert_allclose(ten.series[2][0, 200:-200] * ten.scale, expected[200:-200], atol=2e-3)
    fifty = RECIPES["esc50"].make(tmp_path)
    assert fifty.classes == ["dog", "cat", "rain"]
    assert fifty.y.tolist() == [0, 0, 1, 2]


def test_beats_decide_the_class_of_a_window(tmp_path):
    values = {number: integers(2, 9 * 4096) for number in (114, 100, 102)}
    noted = [(0, "+", "(N")]
    noted += [(100, "N", ""), (200, "A", ""), (4096 + 100, "V", "")]  # window 0: 2; the next one is not taken
    noted += [(2 * 4096, "V", ""), (2 * 4096 + 50, "A", ""), (3 * 4096 - 1, "j", "")]  # window 2: 1
    noted += [(4 * 4096 + 5, "N", ""), (4 * 4096 + 9, "Q", "")]  # left out: unclassifiable
    noted += [(6 * 4096 - 9, "+", "(VFL"), (6 * 4096 + 9, "+", "(N"), (6 * 4096 + 90, "N", "")]  # left out: flutter
    noted += [(8 * 4096, "~", ""), (8 * 4096 + 1, "R", ""), (8 * 4096 + 2, "e", "")]  # window 8: 0
    for number, leads in ((114, ["V5", "MLII"]), (100, ["MLII", "V5"]), (102, ["V5", "V2"])):
        write_ecg(tmp_path / "mitdb" / "1.0.0", number, values[number], noted, leads)
    made = RECIPES["mitbih_ecg"].make(tmp_path)
    assert made.group is not None
    assert made.group.tolist() == [100, 100, 100, 114, 114, 114]  # 102 has paced beats
    assert made.y.tolist() == [2, 1, 0] * 2
    assert made.is_test.tolist() == [True] * 3 + [False] * 3
    assert made.others["start"].tolist() == [0, 8192, 32768] * 2
    np.testing.assert_array_equal(made.series[1], values[100][:, 8192 : 8192 + 4096])
    np.testing.assert_array_equal(made.series[3], values[114][::-1, :4096])
    write_ecg(tmp_path, 101, values[114], noted, ["V1", "V5"])
    with pytest.raises(
        UserError, match=r"101.hea: has 2 signals \(V1, V5\) of 36,864 points at 360.0 Hz; expected MLII"
    ):
        RECIPES["mitbih_ecg"].make(tmp_path)


def test_the_ph_in_the_header_is_the_class_of_a_delivery(tmp_path):
    ph = {1001 + i: text for i, text in enumerate(["7.14", "7.15", "7.3", "7.0", "7.2", "6.96", "7.4", "7.05"])}
    values = {number: abs(integers(2, 60 + number % 7)) for number in ph}
    for number, text in ph.items():
        write_ctg(tmp_path, number, values[number], text)
    made = RECIPES["ctu_uhb_ctg"].make(tmp_path)
    assert made.y.tolist() == [1, 0, 0, 1, 0, 1, 0, 1]
    assert made.counts(is_test=True) == (1, 1)
    assert set(made.lengths) == {60 + number % 7 for number in ph}
    for one, number in zip(made.series, ph, strict=True):
        np.testing.assert_array_equal(one, values[number])
    header = tmp_path / "1003.hea"
    header.write_text("".join(line for line in header.read_text().splitlines(True) if "pH" not in line))
    with pytest.raises(UserError, match=r"1003.hea: expected a comment with the pH"):
        RECIPES["ctu_uhb_ctg"].make(tmp_path)


def test_segments_are_split_by_the_number_of_their_file(tmp_path):
    series = {(name, number): integers(30) for name in "SZN" for number in (70, 71)}
    write_segments(tmp_path, series)
    made = RECIPES["bonn_eeg"].make(tmp_path)
    assert made.y.tolist() == [0, 0, 2, 2, 4, 4]
    assert made.is_test.tolist() == [False, True] * 3
    for one, key in zip(made.series, [(name, number) for name in "ZNS" for number in (70, 71)], strict=True):
        np.testing.assert_array_equal(one[0], series[key])
    (tmp_path / "Z" / "Z072.txt").write_text("1\nx\n")
    (tmp_path / "Z" / "Z073.txt").write_text("")
    with pytest.raises(UserError, match=r"Z072.txt: expected a whole number in each line") as refused:
        RECIPES["bonn_eeg"].make(tmp_path)
    assert len(refused.value.problems) == 2


def test_records_of_one_diagnostic_class_make_ptb_xl(tmp_path):
    wfdb = pytest.importorskip("wfdb")
    folder = tmp_path / "records100" / "00000"
    folder.mkdir(parents=True)
    (tmp_path / "scp_statements.csv").write_text(
        ",diagnostic,diagnostic_class\nNORM,1.0,NORM\nIMI,1.0,MI\nASMI,1.0,MI\nSTTC,1.0,STTC\nSR,,\n"
    )
    codes = ["{'NORM': 100.0, 'SR': 0.0}", "{'IMI': 15.0, 'ASMI': 80.0}", "{'NORM': 1.0, 'IMI': 50.0}", "{'SR': 0.0}"]
    rows, written = [], {}
    for i, code in enumerate(codes, start=1):
        name = f"{i:05d}_lr"
        written[i] = integers(12, 1000)
        wfdb.wrsamp(
            record_name=name,
            write_dir=str(folder),
            fs=100,
            units=["mV"] * 12,
            sig_name=[f"L{k}" for k in range(12)],
            d_signal=written[i].T.astype(np.int64),
            fmt=["16"] * 12,
            adc_gain=[1000.0] * 12,
            baseline=[0] * 12,
        )
        rows.append({"ecg_id": i, "patient_id": 10.0 * i, "scp_codes": code, "strat_fold": 8 + i})
        rows[-1]["filename_lr"] = f"records100/00000/{name}"
    pd.DataFrame(rows).to_csv(tmp_path / "ptbxl_database.csv", index=False)
    made = RECIPES["ptb_xl"].make(tmp_path)
    assert made.y.tolist() == [0, 1]
    assert made.is_test.tolist() == [False, True]
    assert made.group is not None
    assert made.group.tolist() == [10, 20]
    for one, number in zip(made.series, (1, 2), strict=True):
        np.testing.assert_array_equal(one, written[number])


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_has_a_config_that_reads_its_file_and_refuses_an_empty_folder(name, tmp_path):
    assert name in options("data")
    assert f"path: ${{paths.data}}/{RECIPES[name].file}" in (config_dir() / "data" / f"{name}.yaml").read_text()
    with pytest.raises(UserError, match="from="):
        RECIPES[name].make(tmp_path)


def test_what_is_written_is_read_and_what_is_missing_is_counted(tmp_path):
    series = [integers(2, length) for length in (9, 12, 9)]
    made = Container(series, np.array([0, 1, 1]), ("a", "b"), np.array([False, False, True]), 50.0, scale=0.5)
    made.write(tmp_path / "x.npz")
    data = NpzSource(str(tmp_path / "x.npz")).load()
    assert data.class_names == ("a", "b")
    assert data.is_test.tolist() == [False, False, True]
    assert data.sampling_rate_hz == 50
    for number, one in enumerate(series):
        np.testing.assert_array_equal(data.series(number), one * 0.5)
    recipe = RECIPES["bonn_eeg"]._replace(train=(1, 1), test=(0, 2), lengths=(9, 13))
    assert recipe.problems(made) == [
        "series of each class, test=(0, 1): expected (0, 2)",
        "points of the shortest and the longest series=(9, 12): expected (9, 13)",
    ]


def container(name: str) -> dict[str, np.ndarray]:
    path = DATA / RECIPES[name].file
    if not path.is_file():
        pytest.skip(f"{path} is not at hand")
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


def same(made: Container, kept: dict[str, np.ndarray], chosen: np.ndarray) -> None:
    np.testing.assert_array_equal(made.y, kept["y"][chosen])
    np.testing.assert_array_equal(made.is_test, kept["split"][chosen] == 1)
    for one, index in zip(made.series, chosen, strict=True):
        if "X" in kept:
            np.testing.assert_array_equal(one, kept["X"][index])
        else:
            np.testing.assert_array_equal(one, kept["X_flat"][:, kept["offsets"][index] : kept["offsets"][index + 1]])


@pytest.mark.slow
def test_mitbih_from_wfdb_records_is_the_container(tmp_path):
    """Records that hold the container's windows where they were, and a beat of each window's class in them."""
    kept = container("mitbih_ecg")
    chosen = np.flatnonzero(np.isin(kept["group"], (100, 114, 207)))
    for number in (100, 114, 207):
        mine = chosen[kept["group"][chosen] == number]
        values = np.zeros((2, int(kept["start"][mine].max()) + 2 * 4096), np.int16)
        noted = [(0, "+", "(N")]
        for index in mine:
            start = int(kept["start"][index])
            values[:, start : start + 4096] = kept["X"][index]
            noted += [(start + 7, "N", ""), (start + 4095, "NVA"[kept["y"][index]], "")]
        is_swapped = number == 114
        leads = ["V5", "MLII"] if is_swapped else ["MLII", "V1"]
        write_ecg(tmp_path, number, values[::-1] if is_swapped else values, noted, leads)
    same(RECIPES["mitbih_ecg"].make(tmp_path), kept, chosen)


@pytest.mark.slow
def test_ctu_uhb_from_wfdb_records_is_the_container(tmp_path):
    """All of them, since the split is of the whole; only the first points of most, which no test then compares."""
    kept = container("ctu_uhb_ctg")
    for index, number in enumerate(kept["group"]):
        stop = kept["offsets"][index + 1] if index < 3 else kept["offsets"][index] + 8
        write_ctg(tmp_path, number, kept["X_flat"][:, kept["offsets"][index] : stop], f"{kept['pH'][index]:.2f}")
    made = RECIPES["ctu_uhb_ctg"].make(tmp_path)
    np.testing.assert_array_equal(made.y, kept["y"])
    np.testing.assert_array_equal(made.is_test, kept["split"] == 1)
    assert made.counts(is_test=False) == RECIPES["ctu_uhb_ctg"].train
    for index in range(3):
        expected = kept["X_flat"][:, kept["offsets"][index] : kept["offsets"][index + 1]]
        np.testing.assert_array_equal(made.series[index], expected)


@pytest.mark.slow
def test_digits_and_segments_from_files_are_the_containers(tmp_path):
    kept = container("fsdd")
    chosen = np.flatnonzero(kept["take"] % 9 == 0)
    names = [f"{kept['y'][i]}_{kept['group'][i]}_{kept['take'][i]}" for i in chosen]
    values = [kept["X_flat"][0, kept["offsets"][i] : kept["offsets"][i + 1]] for i in chosen]
    write_digits(tmp_path / "fsdd", dict(zip(names, values, strict=True)))
    same(RECIPES["fsdd"].make(tmp_path / "fsdd"), kept, chosen)
    kept = container("bonn_eeg")
    chosen = np.flatnonzero(kept["file_number"] % 10 == 1)
    write_segments(
        tmp_path / "bonn", {("ZONFS"[kept["y"][i]], int(kept["file_number"][i])): kept["X"][i, 0] for i in chosen}
    )
    same(RECIPES["bonn_eeg"].make(tmp_path / "bonn"), kept, chosen)
