"""From a config to data and protocol: resamples."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from krontime.config.identity import config_hash
from krontime.config.schema import check_train
from krontime.data.resample import resampled
from krontime.errors import UserError
from krontime.runs.prepare import load_data, prepare

Compose = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `plain.npz`, and `grouped.npz` of speakers: 60 series of two classes."""
    rng = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("prepare")
    arrays = {"X": rng.standard_normal((60, 1, 8)), "y": np.arange(60) % 2, "split": np.arange(60) >= 40}
    np.savez(folder / "plain.npz", **arrays)
    np.savez(folder / "grouped.npz", **arrays, group=np.arange(60) // 5)
    return folder


@pytest.mark.parametrize(("name", "by"), [("plain", "stratified"), ("grouped", "group")])
def test_the_protocol_says_which_split_it_is(compose: Compose, files: Path, name: str, by: str):
    official, other = (
        prepare(compose("data=npz", f"data.path={files / name}.npz", f"data.resample={resample}"))
        for resample in (0, 3)
    )
    assert (official.protocol.resample, official.protocol.resampled_by) == (0, None)
    assert (other.protocol.resample, other.protocol.resampled_by) == (3, by)
    assert official.protocol.data_sha256 == other.protocol.data_sha256
    assert other.split.test.tolist() == np.flatnonzero(resampled(official.data, 3).is_test).tolist()
    assert other.split.test.tolist() != official.split.test.tolist()
    assert sorted([*other.split.train, *other.split.validation, *other.split.test]) == list(range(60))


def test_the_cache_is_written_once(compose: Compose, files: Path, tmp_path: Path):
    for resample in (0, 1, 2):
        load_data(
            compose(
                "data=npz", f"data.path={files / 'plain.npz'}", f"data.resample={resample}", f"paths.cache={tmp_path}"
            )
        )
    assert len([path for path in tmp_path.iterdir() if path.is_dir()]) == 1


def test_the_official_split_keeps_the_hash_of_configs_that_do_not_name_it(compose: Compose):
    config = compose()
    assert config["data"].pop("resample") == 0
    assert config_hash(config) == config_hash(compose("data.resample=0"))
    assert len({config_hash(compose(f"data.resample={resample}")) for resample in range(3)}) == 3


@pytest.mark.parametrize("value", ["-1", "0.5", "official"])
def test_what_is_no_resample_is_refused(compose: Compose, value: str):
    with pytest.raises(UserError, match=r"data\.resample"):
        check_train(compose(f"data.resample={value}"), is_multirun=False)
