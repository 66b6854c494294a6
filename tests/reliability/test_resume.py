"""Which checkpoint a run goes on from: the last good one, with the best one that belongs to it."""

import contextlib
import io
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from krontime.runs import load, prepare, run
from krontime.runs.record import Record
from krontime.runs.resume import resume_from
from krontime.training.checkpoint import ChecksummedCheckpointIO, previous
from krontime.training.module import SeriesClassifier


@pytest.fixture(scope="module")
def options(compose: Callable[..., dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    y = np.arange(30) % 2
    x = rng.standard_normal((30, 1, 40)).astype(np.float32) + y[:, None, None]
    np.savez(folder / "two.npz", X=x, y=y, split=(np.arange(30) >= 24).astype(int))
    return compose(
        *("data=npz", f"data.path={folder / 'two.npz'}", "model=tcn", "model.channels=2", "model.num_levels=2"),
        *(
            "data.batch_size=5",
            "trainer.max_epochs=4",
            "trainer.enable_progress_bar=false",
            "optim.min_batches_per_epoch=1",
        ),
    )


def train(config: dict[str, Any], folder: Path) -> Record:
    with contextlib.redirect_stdout(io.StringIO()):
        record = run.train_in(config, folder)
    assert record is not None
    return record


@pytest.fixture(scope="module")
def twin(options: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that was left alone."""
    folder = tmp_path_factory.mktemp("twin") / "run"
    train(options, folder)
    return folder


@pytest.fixture(scope="module")
def cut(options: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that ended with an error in its fourth epoch."""
    folder = tmp_path_factory.mktemp("cut") / "run"
    original = SeriesClassifier.training_step

    def training_step(self: SeriesClassifier, batch: Any, batch_idx: int) -> torch.Tensor:
        if (self.current_epoch, batch_idx) == (3, 1):
            raise ZeroDivisionError
        return original(self, batch, batch_idx)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SeriesClassifier, "training_step", training_step)
        with pytest.raises(ZeroDivisionError):
            train(options, folder)
    return folder


@pytest.fixture
def folder(cut: Path, tmp_path: Path) -> Path:
    """A copy of the run that was cut off, in a folder of another name."""
    shutil.copytree(cut, tmp_path / "moved")
    return tmp_path / "moved"


def state(folder: Path, name: str) -> dict[str, torch.Tensor]:
    return load.load_checkpoint(folder / "checkpoints" / name)["state_dict"]


def ends_as(folder: Path, twin: Path, options: dict[str, Any]) -> None:
    assert train(options, folder).metrics == Record.read(twin / "record.json").metrics
    for name in ("last.ckpt", "best.ckpt"):
        one, two = state(folder, name), state(twin, name)
        assert all(torch.equal(one[key], two[key]) for key in two)
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def write_best(folder: Path, score: float) -> Path:
    """A later best checkpoint, as it is when the last one that knows of it was not written yet."""
    best = folder / "checkpoints" / "best.ckpt"
    checkpoint = load.load_checkpoint(best)
    for key, value in checkpoint["callbacks"].items():
        if key.startswith("ModelCheckpoint") and value["monitor"]:
            value["best_model_score"] = torch.tensor(score)
    checkpoint["state_dict"] = {name: torch.zeros_like(value) for name, value in checkpoint["state_dict"].items()}
    ChecksummedCheckpointIO().save_checkpoint(checkpoint, best)
    return best


@pytest.mark.slow
def test_a_run_folder_that_was_moved_goes_on(folder: Path, twin: Path, options: dict[str, Any]) -> None:
    ends_as(folder, twin, options)


def test_from_a_damaged_checkpoint_it_falls_back_to_the_one_before(
    folder: Path, twin: Path, options: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    last = folder / "checkpoints" / "last.ckpt"
    damage(last)
    protocol = prepare.prepare(options).protocol
    resumed = resume_from(folder, protocol, 1, repair=False)
    assert resumed is not None
    assert resumed.path == previous(last)
    assert "do not match its checksum" in caplog.text
    ends_as(folder, twin, options)
    assert not list(folder.parent.glob("*.until-*"))


def test_a_best_checkpoint_that_came_too_early_gives_way_to_the_one_before(
    folder: Path, twin: Path, options: dict[str, Any]
) -> None:
    expected = state(folder, "best.ckpt")
    best = write_best(folder, score=-1.0)
    resumed = resume_from(folder, prepare.prepare(options).protocol, 1, repair=True)
    assert resumed is not None
    actual = load.load_checkpoint(best)["state_dict"]
    assert all(torch.equal(actual[key], expected[key]) for key in expected)
    assert not previous(best).exists()
    ends_as(folder, twin, options)


@pytest.mark.parametrize("harm", ["damaged", "gone", "replaced twice"])
def test_without_its_best_checkpoint_a_run_starts_anew_and_keeps_the_old(
    folder: Path, twin: Path, options: dict[str, Any], harm: str, caplog: pytest.LogCaptureFixture
) -> None:
    best = folder / "checkpoints" / "best.ckpt"
    previous(best).unlink(missing_ok=True)
    if harm == "damaged":
        damage(best)
    elif harm == "gone":
        best.unlink()
    else:
        write_best(folder, score=-1.0)
        write_best(folder, score=-2.0)
    ends_as(folder, twin, options)
    assert "starts anew" in caplog.text
    (aside,) = folder.parent.glob("moved.until-*")
    assert (aside / "checkpoints" / "last.ckpt").is_file()


def test_no_process_but_the_first_changes_anything(folder: Path, options: dict[str, Any]) -> None:
    write_best(folder, score=-1.0)
    before = {path: path.stat().st_ino for path in (folder / "checkpoints").iterdir()}
    assert resume_from(folder, prepare.prepare(options).protocol, 1, repair=False) is not None
    assert {path: path.stat().st_ino for path in (folder / "checkpoints").iterdir()} == before
