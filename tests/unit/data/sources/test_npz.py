"""The `.npz` container: read as its reference reader does, and every mistake in it told at once."""

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from krontime.data.cache import load_cached
from krontime.data.prepare import Prepare
from krontime.data.sources.npz import NpzSource
from krontime.errors import UserError


def equal_length(**changes: Any) -> dict[str, Any]:
    good = {
        "X": np.random.default_rng(1).integers(-2, 4, (6, 2, 5)).astype(np.int16),
        "y": np.array([0, 1, 0, 1, 0, 1]),
        "classes": np.array(["rest", "move"]),
        "split": np.array([0, 0, 0, 0, 1, 1], np.uint8),
        "group": np.array(["ann", "bob", "ann", "bob", "cyd", "cyd"]),
        "fs": np.float64(250),
        "scale": np.float64(0.005),
    }
    return {key: value for key, value in (good | changes).items() if value is not None}


def unequal_length(**changes: Any) -> dict[str, Any]:
    flat = {"X": None, "X_flat": np.random.default_rng(1).integers(-2, 4, (2, 20)).astype(np.int16)}
    return equal_length(**(flat | {"offsets": np.array([0, 3, 7, 8, 12, 19, 20])} | changes))


@pytest.fixture
def write(tmp_path: Path):
    def write(arrays: dict[str, Any]) -> Path:
        np.savez_compressed(tmp_path / "set.npz", **arrays)
        return tmp_path / "set.npz"

    return write


def test_equal_lengths_as_written(write):
    arrays = equal_length()
    data = NpzSource(write(arrays), group_name="patient").load()
    expected = (arrays["X"].astype(np.float32) * arrays["scale"]).astype(np.float32)
    for i, x in enumerate(expected):
        np.testing.assert_array_equal(data.series(i), x)
    assert data.values.dtype == np.float32
    assert data.labels.tolist() == [0, 1, 0, 1, 0, 1]
    assert data.class_names == ("rest", "move")
    assert data.is_test.tolist() == [False] * 4 + [True] * 2
    assert data.groups.tolist() == [0, 1, 0, 1, 2, 2]
    assert (data.group_name, data.sampling_rate_hz, data.has_missing) == ("patient", 250, False)


def test_groups_that_differ_in_white_space_alone_are_one(write):
    group = np.array(["ann", "bob", "ann ", " bob", "cyd", "cyd"])
    assert NpzSource(write(equal_length(group=group))).load().groups.tolist() == [0, 1, 0, 1, 2, 2]


def test_a_group_left_out_is_the_test_split_whatever_the_file_says(write):
    path = write(equal_length(split=None))
    source = NpzSource(path, test_group="bob")
    data = source.load()
    assert data.is_test.tolist() == [False, True, False, True, False, False]
    assert source.describe() != NpzSource(path).describe()
    in_bytes = write(equal_length(group=np.array([b"ann", b"bob", b"ann", b"bob", b"cyd", b"cyd"])))
    assert NpzSource(in_bytes, test_group="cyd").load().is_test.tolist() == [False] * 4 + [True] * 2
    numbered = write(equal_length(group=np.array([7, 8, 7, 8, 9, 9])))
    assert NpzSource(numbered, test_group=9).load().is_test.tolist() == [False] * 4 + [True] * 2


def test_a_group_that_is_not_there_is_told_with_those_that_are(write):
    with pytest.raises(ValueError, match=r"^test_group='dan': expected a patient of .*set.npz: ann, bob, cyd"):
        NpzSource(write(equal_length()), group_name="patient", test_group="dan").load()
    with pytest.raises(UserError, match=r"the key group .* is missing"):
        NpzSource(write(equal_length(group=None)), test_group="ann").load()


def test_unequal_lengths_with_a_scale_for_each_channel(write):
    arrays = unequal_length(scale=np.array([2.0, 0.5]))
    data = NpzSource(write(arrays)).load()
    offsets = arrays["offsets"]
    for i in range(6):
        part = arrays["X_flat"][:, offsets[i] : offsets[i + 1]]
        np.testing.assert_array_equal(data.series(i), part * np.array([[2.0], [0.5]]))


def test_one_channel_may_leave_its_axis_out(write):
    flat = unequal_length(X_flat=np.arange(20.0), group=None)
    data = NpzSource(write(flat)).load()
    np.testing.assert_allclose(data.series(1), [[0.015, 0.02, 0.025, 0.03]], rtol=1e-6)
    equal = NpzSource(write(equal_length(X=np.ones((6, 9)), scale=None))).load()
    assert equal.spec.num_channels == 1
    assert equal.spec.length == 9


@pytest.mark.parametrize("make", [equal_length, unequal_length])
def test_missing_values_as_nan_or_coded_in_some_channels(write, make):
    raw = make()
    values = raw.get("X", raw.get("X_flat"))
    path = write(raw)
    plain, coded = NpzSource(path).load(), NpzSource(path, missing_value=0, missing_channels=[0]).load()
    assert coded.has_missing
    assert not plain.has_missing
    first_channel = values[:, 0] if values.ndim == 3 else values[0]
    assert np.isnan(coded.values).sum() == (first_channel == 0).sum() > 0
    np.testing.assert_array_equal(np.nan_to_num(coded.values), plain.values)
    everywhere = NpzSource(path, missing_value=0).load()
    assert np.isnan(everywhere.values).sum() == (values == 0).sum()
    with_nan = make(**{key: np.where(values == 3, np.nan, values) for key in ("X", "X_flat") if key in raw})
    assert np.isnan(NpzSource(write(with_nan)).load().values).sum() == (values == 3).sum()


@pytest.mark.parametrize(
    ("y", "classes", "names"),
    [
        (np.array(["b", "a ", "b", "a", " b", "a"]), None, ("a", "b")),
        (np.array(["10", "9", "10", "9", "10", "9"]), None, ("9", "10")),
        (np.array([3, 7, 3, 7, 3, 7]), None, ("3", "7")),
        (np.array([3.0, 7.0, 3.0, 7.0, 3.0, 7.0]), None, ("3", "7")),
        (np.array([True, False, True, False, True, False]), None, ("0", "1")),
        (np.array(["b", "a", "b", "a", "b", "a"]), np.array(["b", "unused", "a"]), ("b", "a")),
        (np.array([2, 0, 2, 0, 2, 0]), np.array(["x", "unused", "z"]), ("x", "z")),
        (np.array([0, 1, 0, 1, 0, 1]), np.array([50, 60]), ("50", "60")),
        (np.array([0, 2**63, 0, 2**63, 0, 2**63], np.uint64), None, ("0", str(2**63))),
    ],
)
def test_labels_of_any_plain_type(write, y, classes, names):
    data = NpzSource(write(equal_length(y=y, classes=classes))).load()
    assert data.class_names == names
    result = [data.class_names[label] for label in data.labels]
    texts = [str(v).strip() for v in y.tolist()]
    assert [result[i] == result[0] for i in range(6)] == [texts[i] == texts[0] for i in range(6)]


def test_40000_points_and_more_than_int16_counts(write):
    offsets = np.cumsum([0, 40_000, 33_000, 5])
    x = np.arange(offsets[-1]) % 1000
    data = NpzSource(
        write({"X_flat": x[None], "offsets": offsets, "y": np.array([0, 1, 0]), "split": np.array([0, 0, 1])})
    ).load()
    assert data.lengths.tolist() == [40_000, 33_000, 5]
    assert data.lengths.dtype == np.int64
    np.testing.assert_array_equal(data.series(1)[0], x[40_000:73_000])


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no values": (equal_length(X=None), "one of the keys X"),
    "both layouts": (equal_length(X_flat=np.ones((2, 5))), "one of the keys X"),
    "no offsets": (unequal_length(offsets=None), "X_flat needs the key offsets"),
    "no labels": (equal_length(y=None), r"the key y \(labels\) is missing"),
    "no split": (equal_length(split=None), "the key split"),
    "text values": (equal_length(X=np.full((6, 2, 5), "a")), "expected real numbers"),
    "complex values": (equal_length(X=np.ones((6, 2, 5), complex)), "expected real numbers"),
    "one axis": (equal_length(X=np.ones(6)), r"X has shape \(6,\)"),
    "four axes": (equal_length(X=np.ones((6, 2, 5, 1))), "expected \\(series, channels, time points\\)"),
    "no series": (equal_length(X=np.ones((0, 2, 5)), y=np.ones(0), split=np.ones(0), group=None), "no series"),
    "no points": (equal_length(X=np.ones((6, 2, 0))), "no time points"),
    "no channels": (equal_length(X=np.ones((6, 0, 5))), "no channels"),
    "falling offsets": (unequal_length(offsets=np.array([0, 7, 3, 8, 12, 19, 20])), "rising numbers"),
    "late offsets": (unequal_length(offsets=np.array([1, 3, 7, 8, 12, 19, 20])), "run from 1 to 20"),
    "long offsets": (unequal_length(offsets=np.array([0, 3, 7, 8, 12, 19, 2**40])), "number of time points"),
    "float offsets": (unequal_length(offsets=np.array([0.0, 3, 7, 8, 12, 19, 20])), "whole numbers"),
    "empty series": (unequal_length(offsets=np.array([0, 3, 3, 8, 12, 19, 20])), "series 1 has no time points"),
    "several labels of one series": (equal_length(y=np.zeros((6, 3), int)), r"y has shape \(6, 3\).*multi-label"),
    "several labels in one text": (
        equal_length(y=np.array(["rest", "move", "rest; move", "move", "rest", "move"]), classes=None),
        "the label 'rest; move' names 2 classes.*multi-label",
    ),
    "labels too few": (equal_length(y=np.zeros(5)), r"y has shape \(5,\): expected \(6,\)"),
    "label out of range": (equal_length(y=np.array([0, 1, 0, 1, 0, 2])), "y=2 of series 5"),
    "label negative": (equal_length(y=np.array([0, 1, 0, -1, 0, 1])), "y=-1 of series 3"),
    "label of no class": (equal_length(y=np.array(["rest", "move", "rest", "mvoe", "rest", "move"])), "mvoe"),
    "label missing": (equal_length(y=np.array([0, 1, np.nan, 1, 0, 1])), "label of series 2 is missing"),
    "label nan as text": (
        equal_length(y=np.array(["a", "b", "nan", "b", "a", "b"]), classes=None),
        r"label of series 2 is missing \(nan\)",
    ),
    "label empty": (equal_length(y=np.array(["a", "b", "", "b", "a", "b"]), classes=None), "series 2 is missing"),
    "label not whole": (
        equal_length(y=np.array([0, 1, 0.5, 1, 0, 1])),
        "labels such as 0.5 .*regression, is not supported",
    ),
    "label infinite": (equal_length(y=np.array([0, 1, np.inf, 1, 0, 1])), "labels such as inf"),
    "label type": (equal_length(y=np.zeros(6, "datetime64[s]")), "labels are of type"),
    "classes twice": (equal_length(classes=np.array(["a", "a"])), "each name once"),
    "classes shape": (equal_length(classes=np.array([["a", "b"]])), "classes has shape"),
    "split value": (equal_length(split=np.array([0, 0, 0, 2, 1, 1])), "split holds 2"),
    "split shape": (equal_length(split=np.array([0, 1])), "split has shape"),
    "no train": (equal_length(split=np.ones(6)), "no training series"),
    "one class": (equal_length(y=np.zeros(6, int)), "expected at least two classes"),
    "unseen class": (equal_length(y=np.array([0, 0, 0, 0, 0, 1])), "'move' has test series but no training"),
    "group shape": (equal_length(group=np.array(["ann"])), "group has shape"),
    "no group": (
        equal_length(group=np.array(["ann", "", "ann", "nan", "None", "bob"])),
        "the group of series 1, 3, 4 is missing; expected one for each",
    ),
    "group type": (equal_length(group=np.zeros(6)), "group is of type float64"),
    "infinite": (equal_length(X=np.where(np.arange(60).reshape(6, 2, 5) == 21, np.inf, 0)), "series 2 holds infinite"),
    "beyond float32": (equal_length(X=np.full((6, 2, 5), 1e300)), "series 0, 1, 2, 3, 4, ... \\(6 in all\\)"),
    "all missing": (equal_length(X=np.full((6, 2, 5), np.nan)), "all values are missing"),
    "scale shape": (equal_length(scale=np.ones(3)), "for each channel"),
    "scale infinite": (equal_length(scale=np.float64(np.nan)), "one finite number"),
    "rate zero": (equal_length(fs=np.float64(0)), "sampling rate above 0"),
    "rate list": (equal_length(fs=np.ones(6)), "sampling rate above 0"),
    "pickled values": (equal_length(X=np.array([np.ones(3)] * 6, dtype=object)), "never loaded"),
    "pickled labels": (equal_length(y=np.array(list("ababab"), dtype=object)), "y cannot be read .*never loaded"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_mistake_is_told_with_the_file(write, name):
    arrays, message = BAD[name]
    path = write(arrays)
    with pytest.raises(UserError, match=message) as caught:
        NpzSource(path).load()
    assert all(problem.startswith(str(path)) for problem in caught.value.problems)


def test_all_mistakes_are_told_at_once(write):
    path = write(equal_length(split=np.full(6, 3), fs=np.float64(-1), scale=np.ones(7), group=np.ones(2, int)))
    with pytest.raises(UserError) as caught:
        NpzSource(path).load()
    assert len(caught.value.problems) == 4


def test_wrong_missing_channels_are_told(write):
    with pytest.raises(UserError, match=r"missing_channels=\[2\]"):
        NpzSource(write(equal_length()), missing_value=0, missing_channels=[0, 2]).load()


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04 broken"])
def test_what_is_no_container_is_told(tmp_path, content):
    (tmp_path / "set.npz").write_bytes(content)
    with pytest.raises(UserError, match=r"set\.npz"):
        NpzSource(tmp_path / "set.npz").load()


def test_a_damaged_member_is_told(write):
    path = write(equal_length(X=np.random.default_rng(0).integers(-9, 9, (6, 2, 500))))
    content = bytearray(path.read_bytes())
    content[500:600] = bytes(100)
    path.write_bytes(content)
    with pytest.raises(UserError, match="X cannot be read"):
        NpzSource(path).load()


def test_a_single_array_is_told(tmp_path):
    with open(tmp_path / "set.npz", "wb") as file:
        np.save(file, np.ones(3))
    with pytest.raises(UserError, match="single array"):
        NpzSource(tmp_path / "set.npz").load()


def test_a_pickle_in_a_container_is_not_run(tmp_path):
    import pickle

    class Trap:
        def __reduce__(self):
            return (Path.write_text, (tmp_path / "ran", "it ran"))

    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.array([1], dtype=object), allow_pickle=True)
    header = buffer.getvalue()[: buffer.getvalue().index(b"\n") + 1]
    with zipfile.ZipFile(tmp_path / "set.npz", "w") as archive:
        archive.writestr("X.npy", header + pickle.dumps([Trap()]))
    with pytest.raises(UserError, match="never loaded"):
        NpzSource(tmp_path / "set.npz").load()
    assert not (tmp_path / "ran").exists()


def test_a_missing_file_names_the_key_the_path_and_its_neighbours(tmp_path):
    (tmp_path / "FSDD.npz").touch()
    with pytest.raises(UserError, match=r"data\.path=.*FSD\.npz.*FSDD\.npz.*paths\.data.*KRONTIME_DATA"):
        NpzSource(tmp_path / "FSD.npz").describe()
    with pytest.raises(UserError, match="is a folder"):
        NpzSource(tmp_path).describe()


def test_identity_changes_with_the_file_and_the_options(write):
    path = write(equal_length())
    first = NpzSource(path).describe()
    assert NpzSource(path).describe() == first
    assert NpzSource(path, missing_value=0).describe() != first
    write(equal_length(fs=np.float64(100), extra=np.ones(1000)))
    assert NpzSource(path).describe() != first


@pytest.mark.parametrize("name", ["BonnEEG", "FSDD"])
def test_real_containers_as_the_plain_reader_gives_them(real_data, name):
    path = real_data / f"{name}.npz"
    data = NpzSource(path).load()
    with np.load(path) as file:
        raw = {key: file[key] for key in file.files}
    scale = raw.get("scale", 1.0)
    for i in range(0, len(data), 41):
        x = raw["X"][i] if "X" in raw else raw["X_flat"][:, raw["offsets"][i] : raw["offsets"][i + 1]]
        np.testing.assert_array_equal(data.series(i), (x.astype(np.float32) * np.float64(scale)).astype(np.float32))
    assert data.is_test.tolist() == (raw["split"] == 1).tolist()
    assert [data.class_names[i] for i in data.labels] == raw["classes"][raw["y"]].tolist()


@pytest.mark.parametrize("shape", [(6, 60, 1), (6, 50, 3), (6, 4, 2)])
def test_channels_that_come_last_are_refused_unless_said(tmp_path, shape):
    values = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    path = tmp_path / "keras.npz"
    np.savez(path, X=values, y=np.arange(6) % 2, split=np.zeros(6, int))
    with pytest.raises(UserError, match=r"data\.source\.layout=channels_last") as caught:
        NpzSource(str(path)).load()
    assert f"{shape[1]} channels of {shape[2]} point" in str(caught.value)
    data = NpzSource(str(path), layout="channels_last").load()
    assert (data.num_channels, set(data.lengths.tolist())) == (shape[2], {shape[1]})
    np.testing.assert_array_equal(data.series(4), values[4].T)
    assert "channels last" in data.notes
    many = NpzSource(str(path), layout="channels_first").load()
    np.testing.assert_array_equal(many.series(4), values[4])


def test_whole_numbers_are_said_and_flat_values_have_no_layout(tmp_path):
    np.savez(tmp_path / "codes.npz", X=np.arange(60, dtype=np.int16).reshape(4, 15), y=[0, 1, 0, 1], split=[0] * 4)
    assert NpzSource(str(tmp_path / "codes.npz")).load().notes == ("values of type int16",)
    np.savez(tmp_path / "flat.npz", X_flat=np.ones((1, 8)), offsets=[0, 2, 4, 6, 8], y=[0, 1, 0, 1], split=[0] * 4)
    with pytest.raises(UserError, match="expected null, since X_flat"):
        NpzSource(str(tmp_path / "flat.npz"), layout="channels_last").load()


def test_every_test_group_shares_what_was_parsed(tmp_path, monkeypatch):
    values = np.random.default_rng(0).standard_normal((9, 20))
    values[3] = values[1]  # of another group
    path = tmp_path / "set.npz"
    group = np.array(["ann", "bob", "cy"])[np.arange(9) % 3]
    np.savez(path, X=values, y=np.arange(9) // 3 % 2, group=group, split=np.arange(9) % 2)
    parses = []
    parse = NpzSource.load_unchosen
    monkeypatch.setattr(NpzSource, "load_unchosen", lambda self: parses.append(1) or parse(self))
    sums, cache = set(), tmp_path / "cache"
    for name in ("ann", "bob", "cy", "ann"):
        source = NpzSource(str(path), test_group=name)
        data = load_cached(source, Prepare(), cache)
        assert data.is_test.tolist() == (group == name).tolist()
        sums.add(data.sha256)
    assert len(parses) == 1
    assert len(sums) == 3
    np.savez(tmp_path / "same.npz", X=values, y=np.arange(9) // 3 % 2, group=group, split=group == "bob")
    alone = load_cached(NpzSource(str(tmp_path / "same.npz")), Prepare(), cache)
    assert alone.sha256 in sums  # the checksum is of the content, however the split came about
    with pytest.raises(ValueError, match=r"expected a group of .*: ann, bob, cy"):
        load_cached(NpzSource(str(path), test_group="dan"), Prepare(), cache)


def test_a_group_that_has_a_class_to_itself_cannot_be_left_out(tmp_path):
    path = tmp_path / "set.npz"
    np.savez(path, X=np.eye(6), y=[0, 1, 0, 1, 2, 2], group=[1, 1, 2, 2, 3, 3])
    assert NpzSource(str(path), test_group=2).load().is_test.sum() == 2
    with pytest.raises(UserError, match="class '2' has test series but no training series"):
        NpzSource(str(path), test_group=3).load()


def test_series_that_are_tested_and_trained_on_are_told_for_each_group(tmp_path, caplog):
    values = np.random.default_rng(0).standard_normal((8, 20))
    values[6] = values[1]
    np.savez(tmp_path / "set.npz", X=values, y=np.arange(8) % 2, group=np.repeat(["a", "b", "c", "d"], 2))
    for name, told in (("b", False), ("a", True), ("d", True)):
        caplog.clear()
        load_cached(NpzSource(str(tmp_path / "set.npz"), test_group=name), Prepare(), tmp_path / "cache")
        assert ("1 of 2 test series stand in the training split" in caplog.text) == told
