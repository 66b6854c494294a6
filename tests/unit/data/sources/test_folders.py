"""How folders of recordings are laid out: splits by their names, and nothing left out without a word."""

import tracemalloc
import unicodedata
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from krontime.data import read_ahead
from krontime.data.cache import load_cached, with_checksum
from krontime.data.prepare import Prepare, resample
from krontime.data.sources.audio import AudioSource
from krontime.errors import UserError

soundfile = pytest.importorskip("soundfile")
RNG = np.random.default_rng(0)


def write(path: Path, num_points: int = 40, rate: int = 2000, channels: int = 1) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, RNG.normal(size=(num_points, channels)) * 0.1, rate)


def tree(root: Path, parts: tuple[str, ...]) -> None:
    for part in parts:
        for label in ("cat", "dog"):
            for i in range(2):
                write(root / part / label / f"{i}.wav")


def test_linked_folders_are_read_once_and_a_loop_ends(tmp_path):
    tree(tmp_path / "real", ("a",))
    for label in ("cat", "dog"):
        (tmp_path / "top" / label).mkdir(parents=True)
        (tmp_path / "top" / label / f"more {label}").symlink_to(tmp_path / "real" / "a" / label)
        (tmp_path / "top" / label / "again").symlink_to(tmp_path / "top" / label)
    data = AudioSource(str(tmp_path / "top")).load()
    assert len(data) == 4


SPLITS = {
    "capitals": (("Train", "Test"), {"Test": "test"}),
    "shouted": (("TRAINING", "TESTING"), {"TESTING": "test"}),
    "validation alone": (("train", "validation"), {"validation": "validation"}),
    "three": (("train", "val", "test"), {"val": "validation", "test": "test"}),
    "sets": (("train_set", "dev-set", "Test Set"), {"dev-set": "validation", "Test Set": "test"}),
    "words": (("trainset", "valid", "evaluation"), {"valid": "validation", "evaluation": "test"}),
}


@pytest.mark.parametrize(("parts", "meaning"), SPLITS.values(), ids=SPLITS)
def test_split_folders_are_known_by_their_names(tmp_path, parts, meaning):
    tree(tmp_path, parts)
    data = AudioSource(str(tmp_path)).load()
    assert data.class_names == ("cat", "dog")
    assert len(data) == 4 * len(parts)
    assert data.is_test.sum() == 4 * ("test" in meaning.values())
    assert (data.is_validation is not None) == ("validation" in meaning.values())
    if data.is_validation is not None:
        assert data.is_validation.sum() == 4
    assert any(f"{parts[1]}: {meaning[parts[1]]}" in note for note in data.notes)


DOUBTFUL = {
    "a test folder among classes": (("cat", "dog", "test"), "there is no train folder"),
    "a train folder alone": (("train", "cat"), "no test or validation folder"),
    "two of a kind": (("train", "Training", "test"), "called like one split"),
    "one more beside": (("train", "test", "unlabelled"), r"data\.source\.ignore=\[unlabelled\]"),
    "folds": (("fold1", "fold2", "fold3"), "holds the same folders"),
    "sites": (("A", "B"), "holds the same folders"),
}


@pytest.mark.parametrize(("parts", "said"), DOUBTFUL.values(), ids=DOUBTFUL)
def test_what_may_be_splits_or_classes_is_refused_unless_said(tmp_path, parts, said):
    tree(tmp_path, parts)
    with pytest.raises(UserError, match=said) as caught:
        AudioSource(str(tmp_path)).describe()
    assert "data.source.splits=false" in str(caught.value)
    assert AudioSource(str(tmp_path), splits=False).load().class_names == tuple(sorted(parts))
    data = AudioSource(str(tmp_path), train_folder=parts[0], test_folder=parts[1], ignore=list(parts[2:])).load()
    assert (data.class_names, int(data.is_test.sum())) == (("cat", "dog"), 4)


WRAPPED = {
    "splits": ("mydata/train", "mydata/test"),
    "capitals, and two folders above": ("archive/mydata/Train", "archive/mydata/Test"),
    "classes": ("mydata",),
}


@pytest.mark.parametrize("parts", WRAPPED.values(), ids=WRAPPED)
def test_a_folder_around_all_others_is_refused_with_the_one_that_is_right(tmp_path, parts):
    tree(tmp_path, parts)
    (tmp_path / "notes").mkdir()
    inner = tmp_path / (parts[0] if len(parts) == 1 else str(Path(parts[0]).parent))
    with pytest.raises(UserError) as caught:
        AudioSource(str(tmp_path)).describe()
    assert f"are all below {inner}, in" in str(caught.value)
    assert f"expected data.path={str(inner)!r}, or data.source.splits=false" in str(caught.value)
    assert AudioSource(str(inner)).load().class_names == ("cat", "dog")


def test_a_folder_of_several_data_sets_is_refused(tmp_path):
    tree(tmp_path, ("one/train", "one/test", "two/train", "two/test"))
    with pytest.raises(UserError, match=r"\(one, two\) holds splits \(test, train\); expected .*/one'$"):
        AudioSource(str(tmp_path)).describe()


def test_folders_that_are_not_there_are_told(tmp_path):
    tree(tmp_path, ("A", "B"))
    with pytest.raises(UserError) as caught:
        AudioSource(str(tmp_path), test_folder="C").load()
    assert ["test_folder='C'" in p or "train_folder=None" in p for p in caught.value.problems] == [True, True]


def test_what_is_left_out_is_said(tmp_path):
    tree(tmp_path, ("",))
    write(tmp_path / "beside.wav")
    (tmp_path / "README.md").write_text("read me")
    (tmp_path / "cat" / "notes.txt").write_text("meow")
    (tmp_path / "dog" / ".DS_Store").write_text("x")
    write(tmp_path / "dog" / ".trash" / "old.wav")
    (tmp_path / "cow").mkdir()
    (tmp_path / ".git").mkdir()
    said = " | ".join(AudioSource(str(tmp_path)).load().notes)
    assert "1 recording beside the class folders (beside.wav)" in said
    assert "2 files of other kinds (cat/notes.txt, README.md)" in said
    assert "3 hidden files or folders" in said
    assert "1 class folder without recordings (cow)" in said


def test_one_name_in_two_forms_is_one_class(tmp_path):
    for part, form in (("train", "NFC"), ("test", "NFD")):
        for label in ("café", "naïve"):
            write(tmp_path / part / unicodedata.normalize(form, label) / "x.wav")
    data = AudioSource(str(tmp_path)).load()
    assert data.class_names == ("café", "naïve")
    assert data.labels.tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize("rates", [(2000, 4000), (8000, 11025), (16000, 16000, 8000)])
def test_mixed_rates_are_refused_or_resampled_each_from_its_own(tmp_path, rates):
    for label in "ab":
        for i, rate in enumerate(rates):
            write(tmp_path / label / f"{i}.wav", num_points=rate // 4, rate=rate)
    source = AudioSource(str(tmp_path))
    with pytest.raises(UserError, match=r"points per second; expected .*data\.prepare\.resample_hz="):
        load_cached(source, Prepare(), tmp_path / "cache")
    data = load_cached(source, Prepare(resample_hz=1000), tmp_path / "cache")
    assert data.sampling_rate_hz == 1000
    assert set(data.lengths.tolist()) == {250}


@pytest.mark.parametrize("num_cpus", [1, 3])
def test_all_broken_files_are_told_at_once_or_skipped(num_cpus, tmp_path, monkeypatch):
    monkeypatch.setattr(read_ahead, "num_cpus", lambda: num_cpus)
    tree(tmp_path, ("",))
    for i in range(15):
        (tmp_path / "cat" / f"broken_{i}.wav").write_bytes(b"RIFF" + bytes(i))
    with pytest.raises(UserError, match=r"15 of 19 recordings cannot be read; data\.source\.on_error=skip") as caught:
        AudioSource(str(tmp_path)).load()
    names = [Path(problem.split(": ")[0]).name for problem in caught.value.problems]
    assert names == sorted(f"broken_{i}.wav" for i in range(15))
    data = AudioSource(str(tmp_path), on_error="skip").load()
    assert len(data) == 4
    assert "15 of 19 files" in data.notes[-1]
    assert "cat/broken_7.wav" in data.notes[-1]


def test_a_folder_is_cached_with_few_files_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(read_ahead, "num_cpus", lambda: 2)
    for i in range(60):
        write(tmp_path / "sounds" / "ab"[i % 2] / f"{i}.wav", num_points=100_000, rate=(2000, 4000)[i % 3 == 2])
    (tmp_path / "sounds" / "a" / "broken.wav").write_bytes(b"RIFF")
    source, prepare = AudioSource(str(tmp_path / "sounds"), on_error="skip"), Prepare(resample_hz=2000)
    resample(RNG.normal(size=(1, 9)), Fraction(1, 2))  # imports a library, whose memory does not count
    tracemalloc.start()
    try:
        data = load_cached(source, prepare, tmp_path / "cache")
        assert tracemalloc.get_traced_memory()[1] < 60 * 100_000 * 4 / 3
    finally:
        tracemalloc.stop()
    monkeypatch.setattr(read_ahead, "num_cpus", lambda: 1)
    in_memory = prepare.apply(source.load_into(None, mixed_rates=True))
    assert data.sha256 == with_checksum(in_memory).sha256
    assert np.array_equal(data.values, in_memory.values)
    assert (data.notes, data.recording_names) == (in_memory.notes, in_memory.recording_names)
    (folder,) = (path for path in (tmp_path / "cache").iterdir() if path.is_dir())
    assert {path.name for path in folder.iterdir()} >= {"values.npy", "meta.json"}
    assert not (folder / "scratch").exists()
    assert (folder / "values.npy").stat().st_mode == (folder / "labels.npy").stat().st_mode
