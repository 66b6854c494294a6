"""How new files are read: as those of training, but for what the user says of them."""

from types import SimpleNamespace

from krontime.commands.new_input import _source_of_recordings

ARRAYS = "krontime.data.sources.array_files.ArrayFilesSource"


def test_the_array_of_new_files_may_have_another_name(tmp_path):
    run = SimpleNamespace(config={"data": {"source": {"_target_": ARRAYS, "path": "trained", "key": "ecg"}}})
    for said, expected in ((None, "ecg"), ("lead", "lead")):
        source = _source_of_recordings({"input": tmp_path, "source": {"key": said, "mono": None}}, run)
        assert (source.key, source.path) == (expected, tmp_path)
