"""How new files are read: as those of training, but for what the user says of them."""

from types import SimpleNamespace

import pytest

from krontime.commands.new_input import _source_of_recordings
from krontime.errors import UserError

ARRAYS = "krontime.data.sources.array_files.ArrayFilesSource"


def test_the_array_of_new_files_may_have_another_name(tmp_path):
    run = SimpleNamespace(config={"data": {"source": {"_target_": ARRAYS, "path": "trained", "key": "ecg"}}})
    for said, expected in ((None, "ecg"), ("lead", "lead")):
        source = _source_of_recordings({"input": tmp_path, "source": {"key": said, "mono": None}}, run)
        assert (source.key, source.path) == (expected, tmp_path)


def test_a_rate_reaches_what_does_not_state_its_own(tmp_path):
    run = SimpleNamespace(
        config={"data": {"source": {"_target_": ARRAYS, "path": "trained", "sampling_rate_hz": 360.0}}}
    )
    for said, expected in ((None, 360), (250, 250)):
        assert _source_of_recordings({"input": tmp_path, "sampling_rate_hz": said}, run).sampling_rate_hz == expected


def test_what_has_no_effect_on_recordings_is_refused(tmp_path):
    audio = "krontime.data.sources.audio_recordings.AudioRecordingsSource"
    run = SimpleNamespace(config={"data": {"source": {"_target_": audio, "path": "trained", "mono": True}}})
    options = {"input": tmp_path, "split": "test", "sampling_rate_hz": 250, "source": {"mono": False, "layout": "x"}}
    with pytest.raises(UserError) as refused:
        _source_of_recordings(options, run)
    assert [line.split("=")[0] for line in refused.value.problems] == ["split", "sampling_rate_hz", "source.layout"]
    assert "'x': expected null, since it has no effect on files of this format" in str(refused.value)
