"""MONSTER data sets: read as they lie in its repositories, downloaded once, and told well where they can't be."""

import re
import sys
import tracemalloc

import huggingface_hub
import numpy as np
import pytest
from huggingface_hub.errors import EntryNotFoundError

from krontime.data.cache import load_cached, with_checksum
from krontime.data.prepare import Prepare
from krontime.data.sources.monster import MonsterSource
from krontime.errors import UserError

X = np.random.default_rng(0).normal(size=(6, 2, 5)).astype(np.float32)
Y = np.array([3, 1, 3, 1, 3, 1])


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """The files of one, which the library would download; each download is noted."""
    folder = tmp_path / "hub" / "Whales"
    folder.mkdir(parents=True)
    np.save(folder / "Whales_X.npy", X)
    np.save(folder / "Whales_Y.npy", Y)
    (folder / "test_indices_fold_0.txt").write_text("4\n5\n")
    (folder / "test_indices_fold_1.txt").write_text("0\n")
    asked = []

    def download(repo_id, filename, *, repo_type, local_dir):
        asked.append(filename)
        assert (repo_id, repo_type) == ("monster-monash/Whales", "dataset")
        if not (folder / filename).is_file():
            raise EntryNotFoundError(f"no {filename}\nat all")
        local_dir.mkdir(parents=True, exist_ok=True)
        (local_dir / filename).write_bytes((folder / filename).read_bytes())
        return str(local_dir / filename)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    return folder, asked


def source(tmp_path, **options):
    return MonsterSource(**{"name": "Whales", "folder": str(tmp_path / "kept"), **options})


def test_series_labels_and_the_test_split_of_a_fold(repository, tmp_path):
    data = source(tmp_path).load()
    for i, x in enumerate(X):
        np.testing.assert_array_equal(data.series(i), x)
    assert data.class_names == ("1", "3")
    assert data.labels.tolist() == [1, 0, 1, 0, 1, 0]
    assert data.is_test.tolist() == [False] * 4 + [True] * 2
    other = source(tmp_path, fold=1)
    assert other.load().is_test.tolist() == [True] + [False] * 5
    assert other.describe() != source(tmp_path).describe()


def test_a_set_need_not_fit_in_memory(repository, tmp_path):
    folder, _ = repository
    x = np.random.default_rng(1).standard_normal((6, 700_000), np.float32)
    np.save(folder / "Whales_X.npy", x)
    source(tmp_path).describe()  # which downloads
    tracemalloc.start()
    try:
        data = load_cached(source(tmp_path), Prepare(), tmp_path / "cache")
        assert tracemalloc.get_traced_memory()[1] < x.nbytes / 2
    finally:
        tracemalloc.stop()
    np.testing.assert_array_equal(data.values.reshape(x.shape), x)
    assert data.sha256 == with_checksum(source(tmp_path).load()).sha256


def test_each_file_is_downloaded_once(repository, tmp_path):
    _, asked = repository
    for _ in range(2):
        source(tmp_path).describe()
        source(tmp_path).load()
    assert sorted(asked) == ["Whales_X.npy", "Whales_Y.npy", "Whales_y.npy", "test_indices_fold_0.txt"]


def test_series_of_one_channel_may_lack_its_axis(repository, tmp_path):
    folder, _ = repository
    np.save(folder / "Whales_X.npy", X[:, 0])
    np.testing.assert_array_equal(source(tmp_path).load().series(2), X[2, :1])


@pytest.mark.parametrize(
    ("file", "content", "expected"),
    [
        ("Whales_X.npy", X[..., None], "expected numbers of shape (series, channels, points)"),
        ("Whales_X.npy", X.astype(str), "expected numbers of shape"),
        ("Whales_Y.npy", Y[:-1], "expected a label for each series, found (5,)"),
        ("Whales_Y.npy", Y + 0.5, "labels such as 3.5 are not classes"),
        ("test_indices_fold_0.txt", "4\n6\n", "expected positions from 0 to 5"),
        ("test_indices_fold_0.txt", "four\n", "cannot be read"),
        ("test_indices_fold_0.txt", "", "expected positions from 0 to 5"),
        ("Whales_X.npy", np.float32(1), "expected numbers of shape"),
        ("Whales_X.npy", X.astype(float) * 1e300, "infinite values"),
        ("test_indices_fold_0.txt", "0\n2\n4\n", "class '3' has test series but no training series"),
        ("Whales_X.npy", "no array", "cannot be read"),
    ],
)
def test_files_that_are_wrong_are_told(repository, tmp_path, file, content, expected):
    folder, _ = repository
    if isinstance(content, str):
        (folder / file).write_text(content)
    else:
        np.save(folder / file, content)
    with pytest.raises(UserError, match=re.escape(expected)):
        source(tmp_path).load()


def test_what_is_not_in_the_repository_is_told_with_the_remedy(repository, tmp_path):
    folder, _ = repository
    (folder / "Whales_X.npy").unlink()
    with pytest.raises(ValueError, match=r"^name='Whales'") as told:
        source(tmp_path).describe()
    problem = str(told.value)
    assert "name='Whales': Whales_X.npy is not in" in problem
    assert "(EntryNotFoundError: no Whales_X.npy)" in problem
    assert "put there by hand" in problem


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"name": "a/b"}, "name='a/b': expected a name of MONSTER"),
        ({"fold": 5}, "fold=5: expected a whole number from 0 to 4"),
    ],
)
def test_options_that_cannot_work_are_refused(tmp_path, options, expected):
    with pytest.raises(ValueError, match=f"^{re.escape(expected)}"):
        source(tmp_path, **options).describe()


def test_without_the_library_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UserError, match=re.escape("pip install 'krontime[monster]'")):
        source(tmp_path).describe()
