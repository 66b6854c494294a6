"""Folders of recordings: classes and splits from their names, values and rates as the standard library wrote them."""

import wave
from pathlib import Path

import numpy as np
import pytest

from krontime.data import memory
from krontime.data.sources import audio
from krontime.data.sources.audio import AudioSource
from krontime.errors import UserError

pytest.importorskip("soundfile")


def write(path: Path, values: list[list[int]], rate: int = 8000) -> None:
    """16-bit `(C, L)` values."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(len(values))
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.array(values, "<i2").T.tobytes())


def test_classes_are_folders(tmp_path):
    write(tmp_path / "hum" / "b.wav", [[0, 16384, -32768]])
    write(tmp_path / "hum" / "deep" / "c.WAV", [[1, 2]])
    write(tmp_path / "шум 1" / "a.wav", [[-16384]])
    (tmp_path / "hum" / "notes.txt").write_text("not a recording")
    (tmp_path / ".hidden").mkdir()
    data = AudioSource(str(tmp_path)).load()
    assert data.class_names == ("hum", "шум 1")
    assert data.labels.tolist() == [0, 0, 1]
    assert data.series(0).tolist() == [[0, 0.5, -1]]
    assert data.lengths.tolist() == [3, 2, 1]
    assert [data.name_of(index) for index in range(3)] == ["hum/b.wav", "hum/deep/c.WAV", "шум 1/a.wav"]
    assert (data.sampling_rate_hz, data.num_channels, data.is_test.any()) == (8000, 1, False)


def test_train_and_test_folders_are_the_split(tmp_path):
    for part, label in (("train", "a"), ("train", "b"), ("test", "a")):
        write(tmp_path / part / label / "x.wav", [[1, 2]])
    data = AudioSource(str(tmp_path)).load()
    assert data.is_test.tolist() == [False, False, True]
    assert data.class_names == ("a", "b")


def test_a_recording_that_is_gone_is_said_like_one_that_is_broken(tmp_path, monkeypatch):
    for name in ("a/x", "b/x", "b/y"):
        write(tmp_path / f"{name}.wav", [[1, 2]])
    source = AudioSource(str(tmp_path), on_error="skip")
    layout = source._layout()
    monkeypatch.setattr(source, "_layout", lambda: layout)
    (tmp_path / "b" / "x.wav").unlink()
    assert source.load().recording_names == ("a/x.wav", "b/y.wav")


def test_channels_are_averaged_or_kept(tmp_path):
    for label in "ab":
        write(tmp_path / label / "x.wav", [[0, 16384], [16384, 16384]])
    assert AudioSource(str(tmp_path)).load().series(0).tolist() == [[0.25, 0.5]]
    both = AudioSource(str(tmp_path), mono=False)
    assert both.load().series(1).tolist() == [[0, 0.5], [0.5, 0.5]]
    assert both.describe() != AudioSource(str(tmp_path)).describe()


def test_long_recordings_are_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(audio, "BLOCK_FRAMES", 7)
    values = np.random.default_rng(0).integers(-(2**15), 2**15, (1, 100))
    write(tmp_path / "a" / "x.wav", values.tolist())
    write(tmp_path / "b" / "x.wav", [[1]])
    np.testing.assert_array_equal(AudioSource(str(tmp_path)).load().series(0), np.float32(values / 2**15))


def test_identity_changes_with_a_file(tmp_path):
    write(tmp_path / "a" / "x.wav", [[1, 2]])
    first = AudioSource(str(tmp_path)).describe()
    write(tmp_path / "a" / "y.wav", [[1, 2]])
    assert AudioSource(str(tmp_path)).describe() != first


def test_mistakes_are_told(tmp_path):
    with pytest.raises(UserError, match=r"data\.path=.*no such folder"):
        AudioSource(str(tmp_path / "nowhere")).describe()
    with pytest.raises(UserError, match="no recordings in its subfolders"):
        AudioSource(str(tmp_path)).describe()
    write(tmp_path / "a" / "x.wav", [[1, 2]])
    with pytest.raises(UserError, match="at least two classes"):
        AudioSource(str(tmp_path)).load()
    write(tmp_path / "b" / "x.wav", [[1, 2], [3, 4]], rate=16000)
    with pytest.raises(UserError, match=r"x\.wav: 16000 points per second; expected 8000"):
        AudioSource(str(tmp_path)).load()
    write(tmp_path / "b" / "x.wav", [[1, 2], [3, 4]])
    with pytest.raises(UserError, match=r"x\.wav: 2 channels; expected 1"):
        AudioSource(str(tmp_path), mono=False).load()
    (tmp_path / "a" / "broken.flac").write_bytes(b"fLaC" + b"\xff" * 60)
    write(tmp_path / "b" / "empty.wav", [[]])
    with pytest.raises(UserError) as caught:
        AudioSource(str(tmp_path)).load()
    assert ["broken.flac" in p or "empty.wav" in p for p in caught.value.problems] == [True, True]


def test_a_header_that_declares_hours_takes_nothing(tmp_path):
    for label in "ab":
        write(tmp_path / label / "x.wav", [[1, 2, 3]])
    content = bytearray((tmp_path / "a" / "x.wav").read_bytes())
    content[40:44] = (2**32 - 2).to_bytes(4, "little")
    (tmp_path / "a" / "x.wav").write_bytes(content)
    assert AudioSource(str(tmp_path)).load().lengths.tolist() == [3, 3]


def test_a_recording_that_was_cut_short_is_refused_or_left_out(tmp_path):
    for label in "abc":
        write(tmp_path / label / "x.wav", [[1] * 100])
    cut = tmp_path / "c" / "x.wav"
    cut.write_bytes(cut.read_bytes()[:-80])
    with pytest.raises(UserError, match=r"c/x.wav: its header declares 200 bytes of samples, and 120 follow"):
        AudioSource(str(tmp_path)).load()
    assert len(AudioSource(str(tmp_path), on_error="skip").load()) == 2


@pytest.mark.parametrize(("offset", "subtype"), [(0.1, "DOUBLE"), (1e9, "DOUBLE"), (0.1, "PCM_32")])
def test_recordings_that_float32_does_not_hold_are_refused(offset, subtype, tmp_path):
    soundfile = pytest.importorskip("soundfile")
    values = offset + 0.1 * np.random.default_rng(0).uniform(-1, 1, (500, 2))
    for name in "ab":
        (tmp_path / name).mkdir()
        soundfile.write(tmp_path / name / "r.wav", values, 100, subtype=subtype)
    if offset < 1:
        read = AudioSource(str(tmp_path), mono=False).load().series(0)
        np.testing.assert_allclose(read, values.T, atol=1e-7)
        assert read.dtype == np.float32
    else:
        with pytest.raises(UserError, match=r"channel 0: values that vary by 0\.0\d+ about 1000000000.* as in r\.wav"):
            AudioSource(str(tmp_path), mono=False).load()


def test_a_recording_that_does_not_fit_in_memory_is_told(tmp_path, monkeypatch):
    write(tmp_path / "x.wav", [[1] * 100])
    monkeypatch.setattr(audio, "BLOCK_FRAMES", 7)
    monkeypatch.setattr(audio, "CHECKED_BYTES", 100)
    monkeypatch.setattr(memory, "available_memory_bytes", lambda: 300)
    with pytest.raises(ValueError, match=r"of memory, and .* are available"):
        audio.read_recording(tmp_path / "x.wav", mono=True)
    monkeypatch.setattr(memory, "available_memory_bytes", lambda: 600)
    assert audio.read_recording(tmp_path / "x.wav", mono=True).values.shape == (1, 100)


def test_the_missing_library_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "soundfile", None)
    write(tmp_path / "a" / "x.wav", [[1, 2]])
    with pytest.raises(UserError, match=r"krontime\[audio\]"):
        AudioSource(str(tmp_path)).load()
