"""From a config to data, sizes and protocol."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from krontime.config.identity import config_hash
from krontime.config.schema import check_train
from krontime.data.in_memory import labelled_series
from krontime.data.resample import resampled
from krontime.data.series import SeriesSpec
from krontime.errors import UserError
from krontime.models.kernel_ridge import part
from krontime.models.kernel_ridge.ridge import StreamedRidge
from krontime.runs.prepare import load_data, moved, prepare
from krontime.training.build import closed_form

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


def copied(folder: Path, *, grouped: bool = False) -> Path:
    """A file of 40 training series of two classes, of which each is there twice, and 20 test series."""
    rng = np.random.default_rng(0)
    X = np.concatenate([np.repeat(rng.standard_normal((20, 1, 8)), 2, axis=0), rng.standard_normal((20, 1, 8))])
    groups = {"group": np.arange(60) // 5} if grouped else {}
    np.savez(folder / "copied.npz", X=X, y=np.arange(60) // 2 % 2, split=np.arange(60) >= 40, **groups)
    return folder / "copied.npz"


def test_copies_in_training_validate_and_are_left_out_together(
    compose: Compose, files: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    plain = prepare(compose("data=npz", f"data.path={files / 'plain.npz'}"))
    assert plain.groups_of(np.arange(40)) is None
    assert "copies" not in caplog.text
    config = compose("data=npz", f"data.path={copied(tmp_path)}", f"paths.cache={tmp_path}")
    series = np.load(tmp_path / "copied.npz")
    in_memory = labelled_series(series["X"][:40], series["y"][:40])
    for job in (prepare(config), prepare(config, in_memory)):
        assert set(job.split.train // 2).isdisjoint(job.split.validation // 2)
        groups = job.groups_of(np.arange(40))
        assert groups is not None
        assert groups.code.tolist() == groups.code[::2].repeat_interleave(2).tolist()
        assert len(groups.code.unique()) == 20
    assert caplog.text.count("40 of 40 training series have copies among these, to the last bit; validation") == 2


def test_copies_in_several_groups_are_told(compose: Compose, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    job = prepare(compose("data=npz", f"data.path={copied(tmp_path, grouped=True)}", f"paths.cache={tmp_path}"))
    assert job.protocol.split_method == "group"
    groups = job.groups_of(np.arange(40))
    assert groups is not None
    assert groups.code.tolist() == (np.arange(40) // 5).tolist()
    assert "40 of 40 training series have copies among these" in caplog.text
    assert "it can't leave out 8 of them together" in caplog.text


def test_the_cache_is_written_once(compose: Compose, files: Path, tmp_path: Path):
    for resample in (0, 1, 2):
        load_data(
            compose(
                "data=npz", f"data.path={files / 'plain.npz'}", f"data.resample={resample}", f"paths.cache={tmp_path}"
            )
        )
    assert len([path for path in tmp_path.iterdir() if path.is_dir()]) == 1


def test_copies_are_looked_for_in_resamples_too(compose: Compose, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    """Where the official split has none: of series, and of recordings, all but two of which are there twice."""
    load_data(compose("data=npz", f"data.path={copied(tmp_path)}", f"paths.cache={tmp_path}"))
    assert "stand in the training split" not in caplog.text
    load_data(compose("data=npz", f"data.path={tmp_path}/copied.npz", f"paths.cache={tmp_path}", "data.resample=1"))
    assert "copied, data.resample=1: " in caplog.text
    assert "of 20 test series stand in the training split too" in caplog.text

    rng = np.random.default_rng(0)
    values = [rng.standard_normal(2_000) for _ in range(5)]
    lines = [f"{t},m{k},{values[max(k // 2, k - 3)][t]},{'xy'[t // 200 % 2]}\n" for k in range(8) for t in range(2_000)]
    (tmp_path / "table.csv").write_text("".join(["time,machine,v,label\n", *lines]))
    options = [
        *("data=long_table", f"data.path={tmp_path}/table.csv", "data.source.test_groups=[m6,m7]"),
        *("data.window.length=100", "data.window.label=majority", f"paths.cache={tmp_path}"),
    ]
    load_data(compose(*options))
    with pytest.raises(UserError, match=r"test recording 'm\d': 100% of it stands in training recording 'm\d' too"):
        load_data(compose(*options, "data.resample=1"))


def test_the_official_split_keeps_the_hash_of_configs_that_do_not_name_it(compose: Compose):
    config = compose()
    assert config["data"].pop("resample") == 0
    assert config_hash(config) == config_hash(compose("data.resample=0"))
    assert len({config_hash(compose(f"data.resample={resample}")) for resample in range(3)}) == 3


@pytest.mark.parametrize("value", ["-1", "0.5", "official"])
def test_what_is_no_resample_is_refused(compose: Compose, value: str):
    with pytest.raises(UserError, match=r"data\.resample"):
        check_train(compose(f"data.resample={value}"), is_multirun=False)


def test_the_closed_form_is_as_large_as_its_number_of_series_allows(
    compose: Compose, files: Path, monkeypatch: pytest.MonkeyPatch
):
    """Also where it is built again, from a checkpoint or from one that does not state that number."""
    config = compose("data=npz", f"data.path={files / 'plain'}.npz", "model=closed_form")
    job = prepare(config)
    monkeypatch.setattr(part, "MAX_EXACT", job.protocol.num_train + job.protocol.num_val - 1)
    monkeypatch.setattr(StreamedRidge, "MAX_COLUMNS", 500)
    stated = job.spec.to_plain()
    earlier = {key: value for key, value in stated.items() if key != "num_series"}
    largest = []
    for spec in (job.spec, SeriesSpec.from_plain(stated), SeriesSpec.from_plain(earlier)):
        built = closed_form(config, spec)
        assert built is not None
        largest.append(max(kept.features.num_features for kept in built.kept_parts()))
    assert largest[0] == largest[1] <= 500 < largest[2]


@pytest.mark.parametrize("fit_on", ["train", "train_and_validation"])
def test_the_number_of_series_is_of_those_that_the_closed_form_is_fitted_to(
    fit_on: str, compose: Compose, files: Path, monkeypatch: pytest.MonkeyPatch
):
    config = compose(
        "data=npz", f"data.path={files / 'plain'}.npz", "model=closed_form", f"closed_form.fit_on={fit_on}"
    )
    job = prepare(config)
    counts = {"train": job.protocol.num_train, "train_and_validation": job.protocol.num_train + job.protocol.num_val}
    assert job.spec.num_series == counts[fit_on]
    monkeypatch.setattr(part, "MAX_EXACT", counts["train"])
    monkeypatch.setattr(StreamedRidge, "MAX_COLUMNS", 500)
    built = closed_form(config, job.spec)
    assert built is not None
    largest = max(kept.features.num_features for kept in built.kept_parts())
    assert (largest > 500) == (fit_on == "train")


@pytest.mark.parametrize(
    ("given", "data", "place"),
    [
        ("gone/a.npz", "new", "new/a.npz"),
        ("old/sub/a.npz", "new", "new/sub/a.npz"),
        ("gone/sounds", "new", "new/sounds"),
        ("gone/sounds", "new/sounds", "new/sounds"),
        ("gone/other", "new", "gone/other"),
    ],
)
def test_data_that_has_moved_is_found_by_its_name(tmp_path: Path, given: str, data: str, place: str):
    (tmp_path / "new" / "sounds").mkdir(parents=True)
    (tmp_path / "new" / "a.npz").touch()
    source = {"_target_": "a.b", "path": str(tmp_path / given), "label": "sounds", "rate": 3}
    config = {"paths": {"data": str(tmp_path / "old"), "cache": "c"}, "data": {"source": source}}
    elsewhere = moved(config, {"data": str(tmp_path / data), "cache": None})
    assert elsewhere["data"]["source"] == {**source, "path": str(tmp_path / place)}
    assert elsewhere["paths"] == {"data": str(tmp_path / data), "cache": "c"}
