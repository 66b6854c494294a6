"""Recordings of each format come out as they were written, with their labels wherever these stand."""

from pathlib import Path

import numpy as np
import pytest

from krontime.data.cache import load_cached
from krontime.data.datamodule import SeriesDataset
from krontime.data.prepare import Prepare
from krontime.data.sources.array_files import ArrayFilesSource
from krontime.data.sources.audio_recordings import AudioRecordingsSource
from krontime.data.sources.edf import EdfSource
from krontime.data.sources.stacked import StackedSource
from krontime.data.sources.wfdb_records import WfdbSource
from krontime.data.windows import cut
from krontime.errors import UserError


def load(source, tmp_path: Path, prepare: Prepare | None = None):
    return load_cached(source, prepare or Prepare(), tmp_path / "cache")


def test_wfdb_records_keep_their_width_and_rhythms(tmp_path):
    wfdb = pytest.importorskip("wfdb")
    rng = np.random.default_rng(0)
    physical = {}
    (tmp_path / "db").mkdir()
    for name in ("r1", "r2"):
        digital = rng.integers(-900, 900, (720, 2))
        digital[5, 1] = -(2**11)
        wfdb.wrsamp(
            name,
            fs=360,
            units=["mV", "mV"],
            sig_name=["MLII", "V5"],
            d_signal=digital,
            fmt=["212", "212"],
            adc_gain=[200.0, 100.0],
            baseline=[0, 24],
            write_dir=str(tmp_path / "db"),
        )
        wfdb.wrann(
            name,
            "atr",
            np.array([10, 100, 360, 400]),
            symbol=["+", "N", "+", "V"],
            aux_note=["(N", "", "(AFIB", ""],
            write_dir=str(tmp_path / "db"),
        )
        physical[name] = (digital.T - np.array([[0], [24]])) / np.array([[200.0], [100.0]])
    data = load(WfdbSource(str(tmp_path / "db"), test_groups=["r2"]), tmp_path)
    assert data.values.dtype == np.int16
    assert data.recording_names == ("r1", "r2")
    assert data.is_test.tolist() == [False, True]
    assert data.class_names == ("AFIB", "N")
    assert data.annotations.tolist()[:2] == [[0, 10, 360, 1], [0, 360, 720, 0]]
    assert data.sampling_rate_hz == 360
    assert data.header == "MLII,V5"
    assert data.has_missing
    for number, name in enumerate(data.recording_names):
        expected = physical[name].astype(np.float32)
        expected[1, 5] = np.nan
        np.testing.assert_allclose(data.stretch(number), expected, rtol=1e-6)
    windows = cut(data, length=60, stride=60)
    np.testing.assert_allclose(windows.series(1), data.stretch(0, 60, 120))
    beats = load(WfdbSource(str(tmp_path / "db"), labels="beats"), tmp_path)
    assert beats.class_names == ("N", "V")
    assert cut(beats, length=360, stride=360, rule="any").labels.tolist() == [0, 1, 0, 1]


def test_wfdb_annotations_count_at_their_own_rate_and_segments_have_their_own_gains(tmp_path):
    wfdb = pytest.importorskip("wfdb")
    physical = np.random.default_rng(0).integers(-900, 900, (2, 100)) / [[200.0], [4.0]]
    for name, values, gain in zip(("s1", "s2"), physical, (200.0, 4.0), strict=True):
        digital = np.rint(values * gain).astype(int)[:, None]
        signal = {"fs": 100, "units": ["mV"], "sig_name": ["II"], "fmt": ["16"], "baseline": [0]}
        wfdb.wrsamp(name, d_signal=digital, adc_gain=[gain], write_dir=str(tmp_path), **signal)
    (tmp_path / "r.hea").write_text("r/2 1 100 200\ns1 100\ns2 100\n")
    notes = {"symbol": ["+", "+"], "aux_note": ["(N", "(AFIB"], "write_dir": str(tmp_path)}
    wfdb.wrann("r", "atr", np.array([0, 1500]), fs=1000, **notes)
    (read,) = WfdbSource(str(tmp_path / "r.hea")).read(tmp_path / "r.hea", tmp_path)
    np.testing.assert_allclose(read.values[0], physical.ravel(), rtol=1e-6)
    assert list(read.spans) == [(0, 150, "N"), (150, 200, "AFIB")]
    (tmp_path / "s2.hea").write_text((tmp_path / "s2.hea").read_text().replace("mV", "uV"))
    with pytest.raises(UserError, match="its segments have several units, mV, uV"):
        list(WfdbSource(str(tmp_path / "r.hea")).read(tmp_path / "r.hea", tmp_path))


def test_edf_files_keep_their_width_and_annotations(tmp_path):
    pyedflib = pytest.importorskip("pyedflib")
    rng = np.random.default_rng(0)
    written = {}
    for name in ("a", "b"):
        signals = rng.uniform(-100, 100, (2, 1000))
        writer = pyedflib.EdfWriter(str(tmp_path / f"{name}.edf"), 2)
        for channel, label in enumerate(("EEG C3", "EEG C4")):
            writer.setSignalHeader(
                channel,
                pyedflib.highlevel.make_signal_header(label, sample_frequency=100, physical_min=-200, physical_max=200),
            )
        writer.writeSamples(signals)
        for onset, text in ((0.0, "wake"), (4.0, "sleep"), (9.5, "Lights off ")):
            writer.writeAnnotation(onset, 4.0 if text != "Lights off " else -1, text)
        writer.close()
        written[name] = signals
    data = load(EdfSource(str(tmp_path / "*.edf"), ignore=["Lights off"]), tmp_path)
    assert data.values.dtype == np.int16
    assert data.class_names == ("sleep", "wake")
    assert data.annotations.tolist()[:2] == [[0, 0, 400, 1], [0, 400, 800, 0]]
    np.testing.assert_allclose(data.stretch(1), written["b"], atol=400 / 65_535)
    one = load(EdfSource(str(tmp_path / "*.edf"), channels=["EEG C4"], ignore=["Lights off"]), tmp_path)
    np.testing.assert_allclose(one.stretch(0)[0], written["a"][1], atol=400 / 65_535)
    with pytest.raises(UserError, match="it has no signal 'EEG Cz'; expected some of EEG C3, EEG C4"):
        load(EdfSource(str(tmp_path / "*.edf"), channels=["EEG Cz"]), tmp_path)
    with pyedflib.EdfWriter(str(tmp_path / "two.EDF"), 2) as writer:
        for channel in range(2):
            writer.setSignalHeader(channel, pyedflib.highlevel.make_signal_header("EEG", sample_frequency=100))
        writer.writeSamples(rng.uniform(-100, 100, (2, 100)))
    with pytest.raises(UserError, match="2 signals are called 'EEG'; expected one"):
        load(EdfSource(str(tmp_path / "two.EDF"), channels=["EEG"]), tmp_path)
    (tmp_path / "c.edf").write_bytes(b"no EDF")
    with pytest.raises(UserError, match=r"c.edf: cannot be read as EDF"):
        load(EdfSource(str(tmp_path / "*.edf")), tmp_path)


def test_arrays_with_a_table_of_labels(tmp_path):
    rng = np.random.default_rng(0)
    arrays = [rng.integers(-9, 9, (3, 50)).astype(np.int16) for _ in range(4)]
    (tmp_path / "x").mkdir()
    for number, array in enumerate(arrays):
        np.save(tmp_path / "x" / f"r{number}.npy", array.T if number == 1 else array)
    table = tmp_path / "labels.csv"
    table.write_text("file,label,group\n" + "".join(f"r{i}.npy,{'ab'[i % 2]},p{i // 2}\n" for i in range(4)))
    data = load(ArrayFilesSource(str(tmp_path / "x"), annotations=str(table), group_name="patient"), tmp_path)
    assert data.annotations is None
    assert data.labels.tolist() == [0, 1, 0, 1]
    assert data.group_names == ("p0", "p1")
    assert data.values.dtype == np.int16
    for number, array in enumerate(arrays):
        np.testing.assert_array_equal(data.series(number), array)
    table.write_text("file,start,stop,label\nr0.npy,0,1,a\nr0.npy,2.5,5,b\nr1.npy,0,5,a\n")
    spans = load(ArrayFilesSource(str(tmp_path / "x"), annotations=str(table), sampling_rate_hz=10.0), tmp_path)
    assert spans.annotations.tolist() == [[0, 0, 10, 0], [0, 25, 50, 1], [1, 0, 50, 0]]
    with pytest.raises(UserError, match="annotations are in seconds and its sampling rate is not known"):
        load(ArrayFilesSource(str(tmp_path / "x"), annotations=str(table)), tmp_path)
    table.write_text("file,start_point,stop_point,label\nr0.npy,0,99,a\nr9.npy,0,5,b\n")
    with pytest.raises(UserError) as refused:
        load(ArrayFilesSource(str(tmp_path / "x"), annotations=str(table)), tmp_path)
    assert "r0.npy: an annotation from 0 to 99: expected a stretch within its 50 points" in str(refused.value)
    assert "1 of its recordings are no files read, such as 'r9.npy'" in str(refused.value)


ANNOTATIONS = {
    "a name of two files": ("file,label\nr.npy,u\nq.npy,v\n", "'r.npy' in the annotations is .*a/r.npy too"),
    "two groups": (
        "file,start,stop,label,group\na/r.npy,0,1,u,p\na/r.npy,1,2,v,q\n",
        "'a/r.npy' has the groups p, q in the annotations; expected one",
    ),
    "no end": ("file,start,stop,label\nq.npy,0,inf,u\n", "row 2 has 'inf' as stop; expected a number"),
}


@pytest.mark.parametrize(("text", "said"), ANNOTATIONS.values(), ids=ANNOTATIONS)
def test_annotations_that_may_mean_several_things_are_refused(tmp_path, text, said):
    for name in ("a/r", "b/r", "q"):
        (tmp_path / "x" / name).parent.mkdir(parents=True, exist_ok=True)
        np.save(tmp_path / "x" / f"{name}.npy", np.arange(10.0))
    (tmp_path / "labels.csv").write_text(text)
    source = ArrayFilesSource(str(tmp_path / "x"), annotations=str(tmp_path / "labels.csv"), sampling_rate_hz=1.0)
    with pytest.raises(UserError, match=said):
        load(source, tmp_path)
    (tmp_path / "labels.csv").write_text("file,label,group\na/r.npy,u,p\nb/r.npy,v , p \nq.npy,u,q\n")
    assert load(source, tmp_path).group_names == ("p", "q")


@pytest.mark.parametrize("suffix", [".mat", ".h5"])
def test_arrays_of_matlab_and_hdf5_with_labels_over_time(tmp_path, suffix):
    x, y = np.random.default_rng(0).standard_normal((2, 30)), np.repeat([1, -1, 2], 10)
    path = tmp_path / f"r{suffix}"
    if suffix == ".mat":
        from scipy.io import savemat

        savemat(path, {"emg": x.T, "state": y})
    else:
        h5py = pytest.importorskip("h5py")
        with h5py.File(path, "w") as file:
            file["session/emg"], file["state"] = x, y
    data = load(ArrayFilesSource(str(path), label_key="state"), tmp_path)
    np.testing.assert_allclose(data.stretch(0), x, rtol=1e-6)
    assert data.annotations.tolist() == [[0, 0, 10, 0], [0, 20, 30, 1]]
    several = "emg" if suffix == ".mat" else "session/emg"
    with pytest.raises(UserError, match=r"a number for each of 30 points; several labels .*multi-label"):
        load(ArrayFilesSource(str(path), key="state", label_key=several), tmp_path)
    with pytest.raises(UserError, match=r"data.source.key='nothing': it holds"):
        load(ArrayFilesSource(str(path), key="nothing"), tmp_path)


def test_a_group_that_is_missing_is_refused(tmp_path):
    for name in ("a_p1", "a_p2", "b_p1", "b_"):
        np.save(tmp_path / f"{name}.npy", np.random.default_rng(len(name)).standard_normal((1, 20)))
    source = ArrayFilesSource(str(tmp_path), pattern="^(?P<label>[a-z])_(?P<group>.*).npy")
    with pytest.raises(UserError, match=r"b_.npy: b_: its group is missing; expected one for each"):
        load(source, tmp_path)
    table = tmp_path / "labels.csv"
    table.write_text("file,label,group\na_p1,a,p1\na_p2,a,p2\nb_p1,b,\nb_,b,p2\n")
    with pytest.raises(UserError, match=r"'b_p1' has no group in the annotations; expected one for each"):
        load(ArrayFilesSource(str(tmp_path), annotations=str(table)), tmp_path)


@pytest.mark.parametrize("options", [{"test_groups": ["c_0", "c_1"]}, {"test": "test"}])
def test_a_class_of_whole_files_that_is_only_tested_on_is_refused(tmp_path, options):
    for name in ("a_0", "a_1", "b_0", "b_1", "c_0", "c_1"):
        folder = tmp_path / ("test" if "test" in options and name[0] == "c" else "train")
        folder.mkdir(exist_ok=True)
        np.save(folder / f"{name}.npy", np.random.default_rng(ord(name[0]) + int(name[2])).standard_normal((1, 20)))
    options = {key: str(tmp_path / "test") if key == "test" else value for key, value in options.items()}
    for _ in range(2):  # when it is parsed, and when it is cached
        with pytest.raises(UserError, match="class 'c' has test series but no training series"):
            load(ArrayFilesSource(str(tmp_path / "train"), pattern="^(?P<label>[a-z])_", **options), tmp_path)


def test_arrays_of_new_matlab_files_are_as_matlab_shows_them(tmp_path):
    h5py = pytest.importorskip("h5py")
    values = np.arange(8.0).reshape(4, 2)
    written = {"x": (values.T, b"double"), "name": (np.array([[104], [105]], np.uint16), b"char")}
    with h5py.File(tmp_path / "r.mat", "w", userblock_size=512) as file:
        for name, (array, kind) in written.items():
            file.create_dataset(name, data=array).attrs["MATLAB_class"] = np.bytes_(kind)
        empty = file.create_dataset("none", data=np.array([0, 3], np.uint64))
        empty.attrs.update({"MATLAB_class": np.bytes_(b"double"), "MATLAB_empty": np.uint8(1)})
    (read,) = ArrayFilesSource(str(tmp_path / "r.mat"), layout="channels_first").read(tmp_path / "r.mat", tmp_path)
    np.testing.assert_array_equal(read.values, values)


def test_labels_over_time_that_are_no_whole_numbers_are_refused(tmp_path):
    from scipy.io import savemat

    savemat(tmp_path / "r.mat", {"emg": np.zeros((2, 6)), "state": [0, 0.5, 1, 1.5, np.nan, -1]})
    with pytest.raises(UserError, match=r"label_key='state': it holds 0.5; expected whole numbers"):
        load(ArrayFilesSource(str(tmp_path / "r.mat"), label_key="state"), tmp_path)


def test_audio_files_by_name_and_folder_of_mixed_rates(tmp_path):
    soundfile = pytest.importorskip("soundfile")
    for number in range(6):
        folder = tmp_path / "x" / ("dog", "cat")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        rate = 8000 if number else 16000
        wave = np.sin(np.arange(rate // 10) * 440 * 2 * np.pi / rate)
        name = f"{'dog' if number % 2 == 0 else 'cat'}_s{number // 2}_{number}.wav"
        soundfile.write(folder / name, wave, rate)
    named = AudioRecordingsSource(str(tmp_path / "x"), pattern=r"^(?P<label>[a-z]+)_(?P<group>\w+)_")
    with pytest.raises(UserError, match=r"recordings have another sampling rate than .*data.prepare.resample_hz=HZ"):
        load(named, tmp_path)
    data = load(named, tmp_path, Prepare(resample_hz=8000.0))
    assert data.lengths.tolist() == [800] * 6
    assert data.class_names == ("cat", "dog")
    assert data.group_names == ("s0", "s1", "s2")
    by_folder = load(AudioRecordingsSource(str(tmp_path / "x"), folders=True), tmp_path, Prepare(resample_hz=8000.0))
    assert by_folder.labels.tolist() == data.labels.tolist()
    with pytest.raises(UserError, match=r"its name does not match data.source.pattern='\^\(\?P<label>x"):
        load(AudioRecordingsSource(str(tmp_path / "x"), pattern="^(?P<label>x+)"), tmp_path)
    with pytest.raises(ValueError, match=r"pattern='a': expected a group"):
        AudioRecordingsSource("x", pattern="a")


def test_a_large_array_is_stored_series_by_series(tmp_path):
    rng = np.random.default_rng(0)
    X, y = rng.integers(-999, 999, (12, 2, 30)).astype(np.int16), np.repeat(["a", "b"], 6)
    for name, array in (("X", X), ("y", y), ("split", np.arange(12) % 3 == 0)):
        np.save(tmp_path / f"{name}.npy", array.astype(int) if name == "split" else array)
    data = load(StackedSource(str(tmp_path), scale=0.01), tmp_path)
    assert data.values.dtype == np.int16
    assert data.groups is None
    assert data.is_test.tolist() == (np.arange(12) % 3 == 0).tolist()
    batch = SeriesDataset(data).__getitems__([3, 7])
    np.testing.assert_allclose(batch.x.numpy(), X[[3, 7]] * 0.01, rtol=1e-6)
    np.testing.assert_array_equal(batch.x[0].numpy(), data.series(3))
    np.save(tmp_path / "X.npy", X.transpose(0, 2, 1))
    with pytest.raises(UserError, match=r"X.npy has shape \(12, 30, 2\): .* data.source.layout=channels_last"):
        load(StackedSource(str(tmp_path), scale=0.01), tmp_path)
    last = load(StackedSource(str(tmp_path), scale=0.01, layout="channels_last"), tmp_path)
    np.testing.assert_array_equal(last.values, data.values)
    np.save(tmp_path / "y.npy", y[:5])
    with pytest.raises(UserError, match=r"y.npy has shape \(5,\): expected \(12,\)"):
        load(StackedSource(str(tmp_path)), tmp_path)
