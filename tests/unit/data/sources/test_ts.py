"""aeon's `.ts` files: read as written, and what aeon would misread is refused."""

from pathlib import Path

import numpy as np
import pytest

from krontime.data.sources.ts import TsSource, read_ts
from krontime.errors import UserError

HEADER = (
    "@problemName Demo\n@timestamps false\n@univariate false\n@equalLength false\n@classLabel true Rest Banana\n@data\n"
)
ROWS = "1,-2.5,3:4,?,6:Rest\n7,8:NaN,-1e-3:Banana\n"


@pytest.fixture
def write(tmp_path: Path):
    def write(text: str, name: str = "Demo_TRAIN.ts") -> Path:
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return write


def test_values_lengths_labels_and_missing_as_written(write):
    data = TsSource(write(HEADER + ROWS), write(HEADER + "0,1:2,3:rest\n", "Demo_TEST.ts")).load()
    np.testing.assert_array_equal(data.series(0), np.float32([[1, -2.5, 3], [4, np.nan, 6]]))
    np.testing.assert_array_equal(data.series(1), np.float32([[7, 8], [np.nan, -1e-3]]))
    assert data.class_names == ("Banana", "Rest")
    assert data.labels.tolist() == [1, 0, 1]
    assert data.is_test.tolist() == [False, False, True]
    assert data.has_missing


def test_a_data_set_without_a_test_file_has_no_test_split(write):
    data = TsSource(write(HEADER + ROWS)).load()
    assert not data.is_test.any()


def test_time_stamps_are_refused(write):
    """aeon reads (0,-1.5) as 1.5 there."""
    text = HEADER.replace("@timestamps false", "@timestamps true") + "(0,-1.5),(1,2.5):Rest\n(0,-1.5):Banana\n"
    with pytest.raises(UserError, match=r"Demo_TRAIN\.ts: files with time stamps are not supported"):
        TsSource(write(text)).load()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no line @data"),
        ("1,2,3:a\n4,5,6:b\n", "no line @data"),
        (HEADER, "no series after"),
        (HEADER + "1,2:3,4:Rest\n1,2:Banana\n", "cannot be read as a .ts file"),
        (HEADER + "1,2:3,x:Rest\n1,2:3,4:Banana\n", "cannot be read as a .ts file"),
        (HEADER + "1,2:3:Rest\n", "cannot be read as a .ts file"),
        (HEADER + "(0,1):(0,1):Rest\n", "cannot be read as a .ts file"),
        (HEADER + "1,2:3,4:Rest\n1,2:3,4:Rest\n", "at least two classes"),
        (HEADER + "1,2:3,inf:Rest\n1,2:3,4:Banana\n", "series 0 holds infinite"),
        (HEADER.replace("@classLabel true Rest Banana", "@classLabel false") + "1,2:3,4\n", "no class labels"),
        (HEADER.replace("@classLabel true Rest Banana", "@targetLabel true") + "1,2:3,4:1\n", "targetLabel"),
    ],
)
def test_a_mistake_is_told_with_the_file(write, text, message):
    with pytest.raises(UserError, match=message) as caught:
        TsSource(write(text)).load()
    assert "Demo_TRAIN.ts" in str(caught.value)


def test_text_in_another_encoding_is_told(tmp_path):
    (tmp_path / "a.ts").write_bytes(b"@data\n\xff\xfe\n")
    with pytest.raises(UserError, match=r"a\.ts"):
        TsSource(tmp_path / "a.ts").load()


def test_problems_of_both_files_are_told_at_once(write, tmp_path):
    with pytest.raises(UserError) as caught:
        TsSource(write(HEADER), write("", "Demo_TEST.ts")).load()
    assert len(caught.value.problems) == 2
    with pytest.raises(UserError, match=r"data\.train=") as caught:
        TsSource(tmp_path / "no.ts", tmp_path / "none.ts").describe()
    assert len(caught.value.problems) == 2


def test_channel_counts_must_agree(write):
    test = HEADER.replace("univariate false", "univariate true") + "0,1:Rest\n"
    with pytest.raises(UserError, match="2 and 1 channels"):
        TsSource(write(HEADER + ROWS), write(test, "Demo_TEST.ts")).load()


def test_a_class_only_in_test_is_told(write):
    with pytest.raises(UserError, match="'Other' has test series but no training series"):
        TsSource(
            write(HEADER + ROWS), write(HEADER.replace("Rest", "Other") + "0,1:2,3:Other\n", "Demo_TEST.ts")
        ).load()


def test_one_file_cannot_be_both(write, tmp_path):
    path = write(HEADER + ROWS)
    (tmp_path / "link.ts").symlink_to(path)
    with pytest.raises(UserError, match=r"data\.test=.*link\.ts.*another file than data\.train"):
        TsSource(path, tmp_path / "link.ts").describe()


def test_labels_that_differ_in_case_are_two_classes(write):
    """aeon makes them one."""
    text = HEADER.replace("Rest Banana", "Rest rest") + "1,2:3,4:Rest\n1,2:3,4:rest\n"
    assert TsSource(write(text)).load().class_names == ("Rest", "rest")


def test_a_label_is_spelled_as_in_the_header(write):
    text = HEADER + "1,2:3,4:REST\n1,2:3,4: Banana \n1,2:3,4:rest\n"
    assert TsSource(write(text)).load().class_names == ("Banana", "Rest")


@pytest.mark.parametrize("name", ["ACSF1", "GunPoint", "BasicMotions", "JapaneseVowels", "PickupGestureWiimoteZ"])
def test_files_of_the_archive_are_what_aeon_reads(name):
    from aeon.datasets import load_from_ts_file

    from krontime.data.sources.ucr import _bundled_folder

    path = _bundled_folder() / name / f"{name}_TEST.ts"
    series, labels = load_from_ts_file(str(path))
    ours = read_ts(path)
    assert len(ours.series) == len(series)
    for one, other in zip(ours.series, series, strict=True):
        np.testing.assert_array_equal(one, other)
    assert [label.lower() for label in ours.labels] == [str(label).strip() for label in labels]
