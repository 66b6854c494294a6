"""The cache gives back what was parsed, parses once, and never trusts a damaged folder."""

import json
import logging
import multiprocessing
import os
import pickle
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from krontime.data.cache import load_cached
from krontime.data.prepare import Prepare
from krontime.data.series import SeriesData
from krontime.errors import UserError


class CountingSource:
    """Yields given data and notes each parse as a line of a file, so that other processes count too."""

    def __init__(self, data: SeriesData, folder: Path, *, version: int = 0, parse_s: float = 0.0) -> None:
        self.data = data
        self.notes = folder / "parses.txt"
        self.version = version
        self.parse_s = parse_s

    def describe(self) -> dict[str, Any]:
        return {"name": "counted", "version": self.version}

    def load(self) -> SeriesData:
        with open(self.notes, "a") as file:
            file.write("parsed\n")
        time.sleep(self.parse_s)
        return self.data

    @property
    def num_parses(self) -> int:
        return len(self.notes.read_text().splitlines()) if self.notes.exists() else 0


def same(a: SeriesData, b: SeriesData) -> bool:
    arrays = ("values", "offsets", "labels", "is_test", "groups")
    return all(
        np.array_equal(getattr(a, k), getattr(b, k), equal_nan=k == "values")
        and getattr(getattr(a, k), "dtype", None) == getattr(getattr(b, k), "dtype", None)
        for k in arrays
    ) and replace(a, **dict.fromkeys(arrays), sha256=None) == replace(b, **dict.fromkeys(arrays), sha256=None)


@pytest.fixture
def source(make_data, tmp_path: Path) -> CountingSource:
    data = make_data(
        lengths=[5, 9, 3, 7],
        labels=[0, 1, 0, 1],
        is_test=[False, False, True, True],
        num_channels=2,
        groups=[4, 5, 6, 7],
        missing=0.2,
    )
    return CountingSource(data, tmp_path)


@pytest.fixture
def folder_of(tmp_path: Path) -> Callable[[], Path]:
    def find() -> Path:
        (folder,) = (p for p in (tmp_path / "cache").iterdir() if p.is_dir())
        return folder

    return find


def test_gives_back_what_was_parsed_and_parses_once(source, tmp_path):
    first = load_cached(source, Prepare(), tmp_path / "cache")
    again = load_cached(source, Prepare(), tmp_path / "cache")
    assert same(first, source.data)
    assert same(again, source.data)
    assert isinstance(again.values, np.memmap)
    assert source.num_parses == 1


def test_changed_source_or_preparation_is_parsed_anew(source, tmp_path):
    load_cached(source, Prepare(), tmp_path / "cache")
    cropped = load_cached(source, Prepare(crop_length=4), tmp_path / "cache")
    source.version = 1
    load_cached(source, Prepare(), tmp_path / "cache")
    assert source.num_parses == 3
    assert cropped.lengths.tolist() == [4, 4, 3, 4]


def test_checksum_is_of_the_content_alone(source, tmp_path):
    first = load_cached(source, Prepare(), tmp_path / "cache").sha256
    source.version = 1
    assert load_cached(source, Prepare(), tmp_path / "elsewhere").sha256 == first
    source.data.values[3] += 1
    assert load_cached(source, Prepare(), tmp_path / "changed").sha256 != first
    source.data.values[3] -= 1
    source.data.is_test[:] = [True, False, False, True]
    assert load_cached(source, Prepare(), tmp_path / "other split").sha256 != first


def _truncate(folder: Path) -> None:
    with open(folder / "values.npy", "r+b") as file:
        file.truncate(file.seek(0, os.SEEK_END) - 4)


def _flip_a_bit(folder: Path) -> None:
    content = bytearray((folder / "values.npy").read_bytes())
    content[-2] ^= 1
    (folder / "values.npy").write_bytes(content)


def _change_a_label(folder: Path) -> None:
    np.save(folder / "labels.npy", 1 - np.load(folder / "labels.npy"))


def _swap_classes(folder: Path) -> None:
    meta = json.loads((folder / "meta.json").read_text())
    meta["class_names"].reverse()
    (folder / "meta.json").write_text(json.dumps(meta))


@pytest.mark.parametrize(
    "harm",
    [
        _truncate,
        _flip_a_bit,
        _change_a_label,
        _swap_classes,
        lambda folder: (folder / "offsets.npy").unlink(),
        lambda folder: (folder / "meta.json").unlink(),
        lambda folder: (folder / "meta.json").write_text('{"arrays": {'),
        lambda folder: (folder / "meta.json").write_text("[]"),
        lambda folder: (folder / "labels.npy").write_bytes(b""),
    ],
)
def test_damage_is_noticed_told_and_mended(source, tmp_path, folder_of, harm, caplog):
    load_cached(source, Prepare(), tmp_path / "cache")
    harm(folder_of())
    assert same(load_cached(source, Prepare(), tmp_path / "cache"), source.data)
    assert "damaged" in caplog.text
    assert source.num_parses == 2
    load_cached(source, Prepare(), tmp_path / "cache")
    assert source.num_parses == 2


def test_test_series_that_are_trained_on_are_told(make_data, tmp_path, caplog):
    data = make_data(lengths=[5, 9, 5, 9, 5], labels=[0, 1, 0, 1, 1], is_test=[False, False, True, True, True])
    load_cached(CountingSource(data, tmp_path), Prepare(), tmp_path / "apart")
    assert "stand in the training split" not in caplog.text
    data.series(3)[:] = data.series(1)
    load_cached(CountingSource(data, tmp_path), Prepare(), tmp_path / "shared")
    assert "1 of 3 test series stand in the training split too" in caplog.text
    assert "(series 3)" in caplog.text


def test_a_touched_but_whole_folder_is_kept(source, tmp_path, folder_of, caplog):
    load_cached(source, Prepare(), tmp_path / "cache")
    os.utime(folder_of() / "values.npy", (1, 1))
    for _ in range(2):
        assert same(load_cached(source, Prepare(), tmp_path / "cache"), source.data)
    assert source.num_parses == 1
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_a_build_that_was_killed_leaves_nothing_that_is_used(source, tmp_path, folder_of):
    load_cached(source, Prepare(), tmp_path / "cache")
    folder = folder_of()
    half = folder.with_name(f".{folder.name}-half")
    folder.rename(half)
    (half / "meta.json").unlink()
    assert same(load_cached(source, Prepare(), tmp_path / "cache"), source.data)
    assert not half.exists()


def test_a_failed_parse_leaves_no_folder(source, tmp_path):
    source.data = replace(source.data, is_test=np.ones(4, bool))
    with pytest.raises(UserError, match="no training series"):
        load_cached(source, Prepare(), tmp_path / "cache")
    assert [p for p in (tmp_path / "cache").iterdir() if p.is_dir()] == []


def _open_in_process(source: CountingSource, folder: Path, results: Any) -> None:
    results.put(load_cached(source, Prepare(), folder).sha256)


def test_processes_share_one_parse(source, tmp_path):
    source.parse_s = 0.5
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    processes = [context.Process(target=_open_in_process, args=(source, tmp_path / "cache", results)) for _ in range(3)]
    for process in processes:
        process.start()
    result = {results.get(timeout=30) for _ in processes}
    for process in processes:
        process.join()
    assert len(result) == 1
    assert source.num_parses == 1


def test_an_unusable_folder_is_told_with_its_key(source, tmp_path):
    (tmp_path / "cache").write_text("a file, not a folder")
    with pytest.raises(UserError, match=r"paths\.cache=.*KRONTIME_CACHE"):
        load_cached(source, Prepare(), tmp_path / "cache")


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="resident memory is read from /proc")
def test_opening_reads_no_values(tmp_path):
    num_series, length = 8, 2**21
    data = SeriesData(
        values=np.zeros(num_series * length, np.float32),
        offsets=np.arange(num_series + 1, dtype=np.int64) * length,
        labels=np.arange(num_series) % 2,
        is_test=np.arange(num_series) % 4 > 1,
        class_names=("a", "b"),
        num_channels=1,
        has_missing=False,
    )
    source = CountingSource(data, tmp_path)
    load_cached(source, Prepare(), tmp_path / "cache")
    before = _resident_bytes()
    opened = load_cached(source, Prepare(), tmp_path / "cache")
    assert _resident_bytes() - before < 4e6 < opened.values.nbytes / 10
    shutil.rmtree(tmp_path / "cache")


def test_a_pickled_data_set_reopens_its_file(source, tmp_path):
    data = load_cached(source, Prepare(), tmp_path / "cache")
    content = pickle.dumps(data)
    reopened = pickle.loads(content)
    assert same(reopened, data)
    assert isinstance(reopened.values, np.memmap)
    large = replace(data, values=np.lib.format.open_memmap(tmp_path / "v.npy", "w+", np.float32, (100_000,)))
    assert len(pickle.dumps(large)) < 10_000
