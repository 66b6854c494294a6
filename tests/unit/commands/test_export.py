"""A bundle: the same predictions and scores as its run, nothing of the machine, and damage seen."""

import contextlib
import io
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file, save_file

from krontime import cli
from krontime.commands import evaluate, predict
from krontime.commands.export import export
from krontime.errors import UserError
from krontime.runs import bundle, load, run
from krontime.runs.predictions import read_predictions
from krontime.runs.record import Record
from krontime.storage import HELD_OUT
from tests.cli.run.small import CLOSED_FORM


def call(function: Callable[[Any], Any], **options: Any) -> Any:
    plain = {key: str(value) if isinstance(value, Path) else value for key, value in options.items()}
    with contextlib.redirect_stdout(io.StringIO()):
        return function(OmegaConf.create(plain))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, compose: Callable[..., dict[str, Any]]) -> Path:
    """`data/two.npz`, a finished run in `run` and its bundle in `bundle`."""
    folder = tmp_path_factory.mktemp("export")
    rng = np.random.default_rng(0)
    y = np.arange(36) % 2
    x = rng.standard_normal((36, 2, 50)).astype(np.float32) + y[:, None, None]
    x[:24, :, 3:5] = np.nan
    (folder / "data").mkdir()
    split = (np.arange(36) >= 24).astype(int)
    np.savez(folder / "data" / "two.npz", X=x, y=y, split=split, classes=np.array(["ja", "nö"]), fs=50.0)
    options = compose(
        *("data=npz", f"paths.data={folder / 'data'}", "data.path=${paths.data}/two.npz", "data.scaling=channel"),
        *("model.d_model=8", "model.num_heads=2", "model.num_layers=1", "model.ffn_dim=8", "tokenizer.width=6"),
        *CLOSED_FORM,
        *("trainer.max_epochs=1", "trainer.enable_progress_bar=false", "optim.min_batches_per_epoch=1"),
    )
    with contextlib.redirect_stdout(io.StringIO()):
        run.train_in(options, folder / "run")
    call(export, run=folder / "run", output=folder / "bundle")
    return folder


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    """A copy of the bundle that may be spoilt."""
    copied = tmp_path / "copy"
    copied.mkdir()
    for path in (folder / "bundle").iterdir():
        (copied / path.name).write_bytes(path.read_bytes())
    return copied


def sealed(folder: Path) -> None:
    """Write checksums anew, as who tampers with a bundle can."""
    sums = (f"{bundle._sha256(folder / name)}  {name}\n" for name in bundle.files_of(folder))
    (folder / bundle.SUMS).write_text("".join(sums))


def test_holds_what_was_selected_and_nothing_of_the_machine(folder: Path) -> None:
    files = {path.name: path for path in (folder / "bundle").iterdir()}
    assert set(files) == {"model.safetensors", "bundle.json", "record.json", "README.md", "SHA256SUMS", HELD_OUT}
    selected = load.load_run(folder / "run").module.tensors()
    stored = load_file(files["model.safetensors"])
    assert stored.keys() == selected.keys()
    assert all(torch.equal(stored[name], selected[name]) for name in selected)
    assert stored["normalizer.mean"].shape == (2, 1)
    about = json.loads(files["bundle.json"].read_text())
    assert about["spec"]["class_names"] == ["ja", "nö"]
    assert Record.read(files["record.json"]).metrics == Record.read(folder / "run" / "record.json").metrics
    for name in ("bundle.json", "record.json", "README.md"):
        assert str(folder) not in files[name].read_text()
    subprocess.run(["sha256sum", "-c", "--quiet", "SHA256SUMS"], cwd=folder / "bundle", check=True)


def test_the_model_card_says_the_scores_the_classes_and_the_protocol(folder: Path) -> None:
    card = (folder / "bundle" / "README.md").read_text()
    record = Record.read(folder / "run" / "record.json")
    accuracy, protocol = record.metrics.test["accuracy"], record.protocol
    assert accuracy is not None
    assert protocol is not None
    for text in (f"| {accuracy:.3f} |", "ja, nö", protocol.data_sha256, "test split was read", "2 channels"):
        assert text in card


def test_predicts_and_scores_as_the_run_does(folder: Path, tmp_path: Path) -> None:
    options = {"input": folder / "data" / "two.npz", "split": "test", "sampling_rate_hz": None, "accelerator": None}
    call(predict.predict, run=folder / "bundle", output=tmp_path / "out.parquet", force=False, **options)
    stored = read_predictions(folder / "run" / "test_predictions.parquet")
    predictions = read_predictions(tmp_path / "out.parquet")
    assert (predictions.probabilities == stored.probabilities).all()
    assert predictions.predicted == stored.predicted
    paths = {"data": str(folder / "data"), "cache": str(tmp_path / "cache")}
    given = {"run": folder / "bundle", "accelerator": None}
    assert call(evaluate.evaluate, **given, paths=paths) == Record.read(folder / "run" / "record.json").metrics.test
    with pytest.raises(UserError, match=r"paths\.data=FOLDER"):
        call(evaluate.evaluate, **given, paths={**paths, "data": None})


@pytest.mark.parametrize("name", ["model.safetensors", "bundle.json", "record.json", "README.md"])
@pytest.mark.parametrize("harm", ["change", "cut", "remove", "empty"])
def test_a_damaged_bundle_is_refused(copy: Path, name: str, harm: str) -> None:
    content = (copy / name).read_bytes()
    if harm == "remove":
        (copy / name).unlink()
    else:
        half = len(content) // 2
        changed = content[:half] + bytes([content[half] ^ 1]) + content[half + 1 :]
        (copy / name).write_bytes({"change": changed, "cut": content[:-1], "empty": b""}[harm])
    with pytest.raises(UserError, match=f"{name}: is (missing|not the file)"):
        bundle.load(copy)


def test_all_that_is_damaged_is_told_at_once(copy: Path) -> None:
    (copy / "README.md").write_text("other")
    (copy / "model.safetensors").unlink()
    with pytest.raises(UserError) as refused:
        bundle.load(copy)
    assert len(refused.value.problems) == 2


@pytest.mark.parametrize(
    ("sums", "expected"),
    [(None, "checksums"), (b"", "has no checksum of model.safetensors"), (b"\xff", "checksums"), (b"x", "no checksum")],
)
def test_damaged_checksums_are_refused(copy: Path, sums: bytes | None, expected: str) -> None:
    (copy / "SHA256SUMS").unlink()
    if sums is not None:
        (copy / "SHA256SUMS").write_bytes(sums)
    with pytest.raises(UserError, match=expected):
        bundle.load(copy)


def test_another_format_version_is_refused(copy: Path) -> None:
    about = json.loads((copy / "bundle.json").read_text())
    (copy / "bundle.json").write_text(json.dumps({**about, "format_version": 99}))
    sealed(copy)
    with pytest.raises(UserError, match=rf"bundle\.json: format_version=99: .* reads {bundle.FORMAT_VERSION}$"):
        bundle.load(copy)


@pytest.mark.parametrize("part", ["weights", "spec", "target", "json", "list", "pickle"])
def test_tampering_that_goes_with_the_checksums_ends_in_a_message(copy: Path, part: str) -> None:
    about = json.loads((copy / "bundle.json").read_text())
    if part == "weights":
        tensors = load_file(copy / "model.safetensors")
        save_file({name: tensors[name] for name in list(tensors)[1:]}, copy / "model.safetensors")
    elif part == "pickle":
        torch.save({}, copy / "model.safetensors")
    elif part == "spec":
        about["spec"].pop("length")
    elif part == "target":
        about["config"]["model"]["_target_"] = "subprocess.Popen"
    (copy / "bundle.json").write_text({"json": "{", "list": "[]"}.get(part) or json.dumps(about))
    sealed(copy)
    with pytest.raises(UserError):
        bundle.load(copy)


def test_only_a_completed_run_is_exported_and_nothing_is_overwritten(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="name of a new folder; it exists"):
        call(export, run=folder / "run", output=folder / "bundle")
    with pytest.raises(UserError, match="this is a bundle"):
        call(export, run=folder / "bundle", output=tmp_path / "again")
    with pytest.raises(UserError, match="finished run"):
        call(export, run=tmp_path, output=tmp_path / "again")
    cut = tmp_path / "cut"
    (cut / "checkpoints").mkdir(parents=True)
    (cut / "checkpoints" / "best.ckpt").write_bytes((folder / "run" / "checkpoints" / "best.ckpt").read_bytes())
    record = json.loads((folder / "run" / "record.json").read_text())
    (cut / "record.json").write_text(json.dumps({**record, "status": "interrupted", "error": "by the user"}))
    with pytest.raises(UserError, match="expected a completed run; this one is interrupted"):
        call(export, run=cut, output=tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_is_a_command_of_the_command(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["export", f"run={folder / 'run'}", f"output={tmp_path / 'a b'}"])
    assert str(tmp_path / "a b") in capsys.readouterr().out
    assert (tmp_path / "a b" / "model.safetensors").is_file()
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit) as stopped:
        cli.main(["export", f"run={folder / 'run'}", f"output={tmp_path / 'file' / 'b'}"])
    assert stopped.value.code == 2
    assert "expected a place that can be written to" in capsys.readouterr().err


@pytest.mark.parametrize("mask", [0o022, 0o027, 0o002])
def test_the_files_of_a_bundle_have_the_users_permissions(folder: Path, tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        call(export, run=folder / "run", output=tmp_path / "bundle")
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "bundle").iterdir()} == {0o666 & ~mask}


def test_an_output_that_cannot_be_written_is_seen_before_the_run_is_read(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unread(*_: object) -> None:
        raise AssertionError("read")

    monkeypatch.setattr(load, "load_run", unread)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"output=.*that can be written to \(.*file is no folder\)"):
        call(export, run=folder / "run", output=tmp_path / "file" / "bundle")
