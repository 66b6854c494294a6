"""New files of every format give the same series; every mistake in them is told."""

import tracemalloc
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from krontime.data import read_ahead
from krontime.data.new_recordings import read_new_recordings
from krontime.data.new_series import Reading, input_files, read_files, read_new
from krontime.data.prepare import Prepare, resample
from krontime.data.series import UNKNOWN_LABEL, SeriesSpec
from krontime.data.sources.audio_recordings import AudioRecordingsSource
from krontime.data.sources.columns import TableOptions
from krontime.data.sources.npz import NpzSource
from krontime.errors import UserError

CLASSES = ("rest", "move")
X = np.float32([[1, -2, 3.5], [4, np.nan, 6], [0, 0.25, -7e-3]])


def read_series(path, *, class_names, **reading):
    return read_new(path, Reading(**reading), class_names)


def npz(path, **extra):
    np.savez(path, X=X[:, None], **extra)


def npy(path):
    np.save(path, X)


def npy3(path):
    np.save(path, X[:, None].astype(np.float64))


def ts(path):
    path.write_text("@univariate true\n@classLabel false\n@data\n1,-2,3.5\n4,?,6\n0,0.25,-7e-3\n")


def text(path):
    path.write_text("1,-2,3.5\n4,,6\n0,.25,-7e-3\n")


def text_with_header(path):
    path.write_text("\ufefft0,t1,t2\n1,-2,3.5\n4,NaN,6\n0,0.25,-0.007,,\n")


def text_with_tabs(path):
    path.write_text("1\t-2\t3.5\n4\t?\t6\n\n0\t0.25\t-0.007\n")


@pytest.mark.parametrize(
    ("write", "suffix"),
    [
        (npz, "npz"),
        (npy, "npy"),
        (npy3, "npy"),
        (ts, "ts"),
        (text, "csv"),
        (text_with_header, "csv"),
        (text_with_tabs, "tsv"),
    ],
)
def test_every_format_gives_the_same_series(tmp_path, write, suffix):
    path = tmp_path / f"new file.{suffix}"
    write(path)
    data = read_series(path, class_names=CLASSES)
    assert len(data) == 3
    assert data.num_channels == 1
    for i in range(3):
        np.testing.assert_allclose(data.series(i)[0], X[i], rtol=1e-6)
    assert data.labels.tolist() == [UNKNOWN_LABEL] * 3
    assert data.class_names == CLASSES
    assert data.has_missing


def test_labels_are_matched_by_name(tmp_path, caplog):
    npz(tmp_path / "a.npz", y=np.array([0, 1, 2]), classes=np.array(["move", "jump", "rest"]))
    assert read_series(tmp_path / "a.npz", class_names=CLASSES).labels.tolist() == [1, UNKNOWN_LABEL, 0]
    assert "jump" in caplog.text
    (tmp_path / "a.csv").write_text("a,Label,b\n1,rest,2\n3,move,4\n5,,6\n")
    data = read_series(tmp_path / "a.csv", class_names=CLASSES)
    assert data.labels.tolist() == [0, 1, UNKNOWN_LABEL]
    assert data.series(1).tolist() == [[3, 4]]
    (tmp_path / "a.ts").write_text("@classLabel true rest move\n@data\n1,2:move\n1,2:rest\n")
    assert read_series(tmp_path / "a.ts", class_names=CLASSES).labels.tolist() == [1, 0]


def test_rows_of_a_text_file_may_differ_in_length(tmp_path):
    (tmp_path / "a.csv").write_text("1,2,3,4\n5,6,,\n7,,8\n")
    data = read_series(tmp_path / "a.csv", class_names=CLASSES)
    assert data.lengths.tolist() == [4, 2, 3]
    assert np.isnan(data.series(2)).tolist() == [[False, True, False]]


@pytest.mark.parametrize("unequal", [False, True])
def test_the_test_series_of_a_container_are_those_that_training_put_aside(tmp_path, unequal):
    rng = np.random.default_rng(0)
    values = (
        {"X_flat": rng.integers(0, 5, (2, 20)), "offsets": np.array([0, 3, 8, 12, 20])}
        if unequal
        else {"X": rng.integers(0, 5, (4, 2, 5))}
    )
    path = tmp_path / "set.npz"
    split = np.array([0, 1, 0, 1])
    np.savez(path, **values, y=np.array([0, 0, 1, 1]), classes=np.array(CLASSES), split=split, fs=8.0, scale=0.3)
    options = {"missing_value": 0, "missing_channels": [1]}
    whole = NpzSource(str(path), **options).load()
    for name, chosen in (("all", [0, 1, 2, 3]), ("train", [0, 2]), ("test", [1, 3])):
        part = read_series(path, class_names=whole.class_names, split=name, **options)
        assert len(part) == len(chosen)
        for i, j in enumerate(chosen):
            np.testing.assert_array_equal(part.series(i), whole.series(j))
        assert part.labels.tolist() == whole.labels[chosen].tolist()
        assert part.sampling_rate_hz == 8


@pytest.mark.parametrize("missing_channels", [None, [1], []])
def test_the_code_of_a_missing_value_counts_in_every_format(tmp_path, missing_channels):
    array = np.array([[[1, -9, 2], [3, -9, -9]]], np.float32)
    np.savez(tmp_path / "a.npz", X=array)
    np.save(tmp_path / "a.npy", array)
    (tmp_path / "a.ts").write_text("@univariate false\n@classLabel false\n@data\n1,-9,2:3,-9,-9\n")
    expected = array[0].copy()
    for channel in [0, 1] if missing_channels is None else missing_channels:
        expected[channel][expected[channel] == -9] = np.nan
    for suffix in ("npz", "npy", "ts"):
        options = {"missing_value": -9, "missing_channels": missing_channels}
        data = read_series(tmp_path / f"a.{suffix}", class_names=CLASSES, **options)
        np.testing.assert_array_equal(data.series(0), expected)


def test_a_stated_rate_is_taken_where_the_file_has_none(tmp_path):
    npy(tmp_path / "a.npy")
    assert read_series(tmp_path / "a.npy", class_names=CLASSES, sampling_rate_hz=50.0).sampling_rate_hz == 50


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "1,2\n3,x\n5,6y\n", "series 1: value 1 is 'x'"),
        ("a.csv", "1,2\n3,inf\n", "infinite"),
        ("a.csv", "", "no series"),
        ("a.csv", "a,b\n", "no series"),
        ("a.csv", "1,2\n,,\n", "series 1 has no time points"),
        ("a.csv", "1,2x\n3,4\n", "series 0: value 1 is '2x'"),
        ("a.csv", "label,class\n1,2\n", "all look like labels"),
        ("a.csv", b"\xff\xfe1\x00", "cannot be read as text"),
        ("a.csv", "nan,nan\nnan\n", "all values are missing"),
        ("a.ts", "1,2,3\n", "no line @data"),
        ("a.npy", b"\x93NUMPY broken", "cannot be read as a .npy"),
        ("a.npy", b"", "cannot be read as a .npy"),
        ("a.npz", b"PK broken", "cannot be read as an .npz"),
        ("a.png", b"RIFF", "expected a file of type .npz"),
        ("a.wav", b"RIFF", "cannot be decoded"),
    ],
)
def test_a_mistake_is_told_with_the_file(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=message) as caught:
        read_series(path, class_names=CLASSES)
    assert all(name in problem for problem in caught.value.problems)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.ones(4), r"shape \(4,\)"),
        (np.ones((2, 1, 3, 1)), "expected numbers"),
        (np.full((2, 3), "a"), "expected numbers"),
        (np.array([[None, 1]], dtype=object), "cannot be read as a .npy"),
        (np.ones((0, 5)), "no series"),
        (np.ones((2, 0, 5)), "no channels"),
    ],
)
def test_an_array_of_the_wrong_kind_is_told(tmp_path, array, message):
    np.save(tmp_path / "a.npy", array, allow_pickle=True)
    with pytest.raises(UserError, match=message):
        read_series(tmp_path / "a.npy", class_names=CLASSES)


def test_wrong_arguments_are_told(tmp_path):
    npy(tmp_path / "a.npy")
    with pytest.raises(UserError, match="split='test': expected all"):
        read_series(tmp_path / "a.npy", class_names=CLASSES, split="test")
    npz(tmp_path / "a.npz")
    with pytest.raises(UserError, match="split='both'"):
        read_series(tmp_path / "a.npz", class_names=CLASSES, split="both")
    with pytest.raises(UserError, match="the key split"):
        read_series(tmp_path / "a.npz", class_names=CLASSES, split="test")
    with pytest.raises(UserError, match=r"input=.*no such file"):
        read_series(tmp_path / "b.npz", class_names=CLASSES)


@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize(("suffix", "separator"), [("tsv", "\t"), ("txt", "  "), ("txt", ",")])
def test_new_text_of_the_ucr_archive_may_have_labels(tmp_path, suffix, separator, labelled):
    rows = [[1, 0.5, -2, 3], [2, 1, 0.25, 4], [1, 9, 8, 7.5]]
    path = tmp_path / f"new.{suffix}"
    path.write_text("".join(separator.join(map(str, row if labelled else row[1:])) + "\n" for row in rows))
    spec = SeriesSpec(1, 3, 2, ("1", "2"), min_length=3)
    data = read_series(path, class_names=spec.class_names, label_first=True, trained=spec)
    assert data.lengths.tolist() == [3, 3, 3]
    assert data.series(1)[0].tolist() == [1, 0.25, 4]
    assert data.labels.tolist() == ([0, 1, 0] if labelled else [UNKNOWN_LABEL] * 3)


@pytest.mark.parametrize("trained_lengths", [(2, 4), (6, 6)])
@pytest.mark.parametrize("ucr", [True, False])
def test_rows_of_unequal_length_may_have_labels(tmp_path, trained_lengths, ucr):
    path = tmp_path / "new.csv"
    spec = SeriesSpec(1, trained_lengths[1], 2, ("1", "2"), min_length=trained_lengths[0])
    table = TableOptions(header=False, label=None if ucr else "0", wide=True, prefix="source")

    def read(text, **said):
        path.write_text(text)
        how = {"label_first": ucr, "table": replace(table, **said), "trained": spec, "label_stated": bool(said)}
        data = read_series(path, class_names=spec.class_names, **how)
        return data.lengths.tolist(), data.labels.tolist()

    assert read("1,0.5,-2\n2.0,1,0.25,4\n,7,8\n") == ([2, 3, 2], [0, 1, UNKNOWN_LABEL])
    assert read("0.5,-2\n1,0.25,4\n") == ([2, 3], [UNKNOWN_LABEL] * 2)
    whole, strangers, one_class = "1,5,-2\n2,1,0,4\n", "1,0.5,-2\n3,1,0.25,4\n", "1,0.5,-2\n1,1,0.25,4\n"
    for text in (whole, strangers, one_class):
        with pytest.raises(UserError, match=r"column 0 \(1.*source\.label=0 .*source\.label=none"):
            read(text)
        assert read(text, label="none") == ([3, 4], [UNKNOWN_LABEL] * 2)
        assert read(text, label="0")[0] == [2, 3]


def test_lengths_before_cropping_say_whether_rows_have_labels(tmp_path):
    spec = SeriesSpec(1, 2, 2, ("1", "2"), min_length=2, given_lengths=(3, 3))
    for labelled in (True, False):
        (tmp_path / "new.tsv").write_text("".join(("1\t" if labelled else "") + "1\t2\t2\n" for _ in range(3)))
        data = read_series(tmp_path / "new.tsv", class_names=spec.class_names, label_first=True, trained=spec)
        assert data.lengths.tolist() == [3, 3, 3]
        assert data.labels.tolist() == ([0] * 3 if labelled else [UNKNOWN_LABEL] * 3)


@pytest.mark.parametrize("spelled", ["{:d}", "{:.1f}", "{:.3e}"])
def test_labels_that_are_numbers_are_matched_as_numbers(tmp_path, spelled):
    text = "".join(f"{spelled.format(label)},{label}.5,2,3\n" for label in (0, 1, 0))
    (tmp_path / "new.csv").write_text("label,a,b,c\n" + text)
    assert read_series(tmp_path / "new.csv", class_names=("0", "1")).labels.tolist() == [0, 1, 0]


def test_an_input_is_a_file_a_folder_or_a_pattern(tmp_path):
    for name in ("a.csv", "sub/b.csv", "sub/.hidden.csv", "sub/notes.md"):
        (tmp_path / "x" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "x" / name).write_text("1,2\n")
    files, note = input_files(tmp_path / "x")
    assert [name for _, name in files] == ["a.csv", "sub/b.csv"]
    assert note is not None
    assert "2 other files" in note
    files, _ = input_files(tmp_path / "x" / "*" / "*.csv")
    assert [path.name for path, _ in files] == ["b.csv"]
    (tmp_path / "x" / "c.npy").write_bytes(b"")
    with pytest.raises(UserError, match=r"expected files of one kind, found 1 \.npy, 2 table"):
        input_files(tmp_path / "x")
    with pytest.raises(UserError, match="no file matches"):
        input_files(tmp_path / "x" / "*.wav")
    with pytest.raises(UserError, match="no such file"):
        input_files(tmp_path / "y")


def test_many_files_are_read_with_few_of_them_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(read_ahead, "num_cpus", lambda: 2)
    x = np.random.default_rng(0).standard_normal((80, 100_000), np.float32)
    x[3, 7] = np.nan
    for number, row in enumerate(x):
        np.save(tmp_path / f"{number:02}.npy", row[None])
    files, _ = input_files(tmp_path)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    resample(x[:1, :9], Fraction(1, 2))  # imports a library, whose memory does not count
    tracemalloc.start()
    try:
        data = read_files(files, Reading(sampling_rate_hz=100), CLASSES, scratch, skip=False).data
        halved = Prepare(resample_hz=50, crop_length=40_000).apply(data, scratch)
        assert tracemalloc.get_traced_memory()[1] < x.nbytes / 4
    finally:
        tracemalloc.stop()
    assert np.array_equal(data.values.reshape(x.shape), x, equal_nan=True)
    assert data.has_missing
    assert np.array_equal(halved.values, Prepare(resample_hz=50, crop_length=40_000).apply(data).values, equal_nan=True)
    assert halved.given_lengths.tolist() == [50_000] * 80


def test_recordings_of_other_channels_are_refused(tmp_path):
    soundfile = pytest.importorskip("soundfile")
    source = AudioRecordingsSource(str(tmp_path), mono=False)
    for name, num_channels in (("a", 1), ("b", 2)):
        soundfile.write(tmp_path / f"{name}.wav", np.full((100, num_channels), 0.1), 8000)
    files, _ = input_files(tmp_path, source)
    spec = SeriesSpec(num_channels=1, length=100, num_classes=2, class_names=CLASSES)
    with pytest.raises(UserError, match=r"the same number of channels, found 1 \(such as a.wav\), 2 \(such as b.wav"):
        read_new_recordings(source, files, spec, tmp_path, skip=False)
