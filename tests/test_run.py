"""One run from its config to its folder: what it leaves, that it repeats, goes on, and says how it failed."""

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Timer
from omegaconf import OmegaConf

from krontime import build, cli, experiment, inference, run
from krontime.data.datamodule import SeriesDataset
from krontime.errors import Terminated, UserError
from krontime.lit.module import SeriesClassifier
from krontime.results.predictions import read_predictions
from krontime.results.record import Record, Status, config_hash

SMALL = (
    *("model.d_model=8", "model.num_heads=2", "model.num_layers=1", "model.ffn_dim=8", "tokenizer=linear"),
    *("data.batch_size=6", "data.eval_batch_size=5", "trainer.max_epochs=2", "trainer.enable_progress_bar=false"),
)
NETWORKS = {
    "krontime": SMALL,
    "rocket": (
        *(option for option in SMALL if option != "tokenizer=linear"),
        "tokenizer=rocket",
        "tokenizer.num_dilations=2",
    ),
    "patchtst": ("model=patchtst", *SMALL),
    "tcn": ("model=tcn", "model.channels=4", "model.num_levels=2", *SMALL[5:]),
}


def labelled(num_series: int, num_classes: int, seed: int, **options: Any) -> tuple[list[np.ndarray], np.ndarray]:
    """Sines of a class's own frequency in noise, `(C, L_i)` each, and their labels."""
    rng = np.random.default_rng(seed)
    num_channels, lengths = options.get("num_channels", 1), options.get("lengths", (80, 80))
    y = np.arange(num_series) % num_classes
    series = []
    for label in y:
        time = np.arange(rng.integers(lengths[0], lengths[1] + 1))
        wave = np.sin((label + 1) * time / 5 + rng.uniform(0, 6, (num_channels, 1)))
        series.append((wave + 0.3 * rng.standard_normal((num_channels, len(time)))).astype(np.float32))
        if options.get("missing"):
            series[-1][:, rng.integers(len(time), size=5)] = np.nan
    return series, y


def write_npz(path: Path, train: Sequence[np.ndarray], test: Sequence[np.ndarray], y: np.ndarray, **keys: Any) -> Path:
    series = [*train, *test]
    split = np.repeat([0, 1], [len(train), len(test)])
    offsets = np.cumsum([0, *(s.shape[1] for s in series)])
    np.savez(path, X_flat=np.concatenate(series, axis=1), offsets=offsets, y=y, split=split, **keys)
    return path


def write_ts(path: Path, series: Sequence[np.ndarray], y: np.ndarray) -> Path:
    head = ["@problemName x", "@timeStamps false", f"@univariate {str(len(series[0]) == 1).lower()}"]
    head += ["@classLabel true a b c", "@data"]
    rows = [
        ":".join(",".join("?" if np.isnan(v) else repr(float(v)) for v in channel) for channel in s)
        + f":{'abc'[label]}"
        for s, label in zip(series, y, strict=True)
    ]
    path.write_text("\n".join([*head, *rows]) + "\n")
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of data sets: equal.npz, gaps.npz (two channels, unequal, gaps in train alone), TRAIN.ts and TEST.ts."""
    folder = tmp_path_factory.mktemp("files")
    train, y = labelled(30, 3, seed=0)
    test, y_test = labelled(12, 3, seed=1)
    write_npz(folder / "equal.npz", train, test, np.r_[y, y_test], classes=np.array(["a", "b", "c"]), fs=100.0)
    write_ts(folder / "TRAIN.ts", train, y)
    write_ts(folder / "TEST.ts", test, y_test)
    train, y = labelled(24, 2, seed=2, num_channels=2, lengths=(40, 90), missing=True)
    test, y_test = labelled(7, 2, seed=3, num_channels=2, lengths=(60, 60))
    write_npz(folder / "gaps.npz", train, test, np.r_[y, y_test])
    return folder


@pytest.fixture(scope="module")
def config(compose: Callable[..., dict[str, Any]], files: Path) -> Callable[..., dict[str, Any]]:
    """`config("equal.npz", "seed=1", network="tcn")`: a small run's config."""

    def composed(file: str, *overrides: str, network: str = "krontime") -> dict[str, Any]:
        chosen = ("data=npz", f"data.path={files / file}")
        if file.endswith(".ts"):
            chosen = ("data=ts", f"data.train={files / file}")
        return compose(*chosen, *NETWORKS[network], *overrides)

    return composed


def train(config: dict[str, Any], folder: Path) -> Record:
    with contextlib.redirect_stdout(io.StringIO()):
        record = run.train_in(config, folder)
    assert record is not None
    return record


def weights(folder: Path, name: str = "last.ckpt") -> dict[str, torch.Tensor]:
    return torch.load(folder / "checkpoints" / name, weights_only=True)["state_dict"]


def equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def verb(function: Callable[[Any], Any], **options: Any) -> Any:
    defaults = {"accelerator": None, "paths": {"data": None, "cache": None}, "split": "all", "force": False}
    given = {key: str(value) if isinstance(value, Path) else value for key, value in options.items()}
    with contextlib.redirect_stdout(io.StringIO()):
        return function(OmegaConf.create({**defaults, "sampling_rate_hz": None, **given}))


@pytest.fixture(scope="module")
def finished(config: Callable[..., dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A finished run's folder, and what it printed."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    with contextlib.redirect_stdout(io.StringIO()) as screen:
        run.train_in(config("equal.npz"), folder)
    return folder, screen.getvalue()


@pytest.fixture
def no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("trained")

    monkeypatch.setattr(Trainer, "fit", refuse)


@pytest.fixture
def interrupted_at(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int | None, BaseException], None]]:
    """`interrupted_at(5, error)` raises it in training step 5; `interrupted_at(None, ...)` no more."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    original = SeriesClassifier.training_step

    def interrupted_at(step: int | None, error: BaseException) -> None:
        def training_step(self: SeriesClassifier, batch: Any, batch_idx: int) -> torch.Tensor:
            if self.global_step == step:
                raise error
            return original(self, batch, batch_idx)

        monkeypatch.setattr(SeriesClassifier, "training_step", training_step)

    yield interrupted_at
    for number, handler in handlers.items():  # Lightning ignores further interrupts while it stops
        signal.signal(number, handler)


class TestFolder:
    def test_holds_all_there_is_to_know(self, finished: tuple[Path, str], config: Callable[..., Any]) -> None:
        folder, _ = finished
        names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
        assert names - {"hparams.yaml"} == {
            *("config.yaml", "record.json", "metrics.csv", "test_predictions.parquet"),
            *("confusion_matrix.png", "learning_curves.png", "attention.png"),
            *("checkpoints/best.ckpt", "checkpoints/last.ckpt"),
        }
        for picture in folder.glob("*.png"):
            assert picture.read_bytes().startswith(b"\x89PNG")
        record = Record.read(folder / "record.json")
        assert record.status is Status.COMPLETED
        assert record.config == json.loads(json.dumps(config("equal.npz")))
        assert record.config_hash == config_hash(OmegaConf.to_container(OmegaConf.load(folder / "config.yaml")))
        assert record.protocol is not None
        assert (record.protocol.num_train, record.protocol.num_val, record.protocol.num_test) == (24, 6, 12)
        assert record.protocol.selection_metric == "val/nll"
        assert set(record.metrics.val) == set(record.metrics.test)

    def test_predictions_are_those_that_were_scored(self, finished: tuple[Path, str]) -> None:
        folder, _ = finished
        predictions = read_predictions(folder / "test_predictions.parquet")
        accuracy = np.mean([p == t for p, t in zip(predictions.predicted, predictions.labels, strict=True)])
        record = Record.read(folder / "record.json")
        assert record.metrics.test["accuracy"] == pytest.approx(accuracy, abs=1e-6)
        assert predictions.index.tolist() == list(range(30, 42))
        assert predictions.class_names == ("a", "b", "c")

    def test_validation_scores_are_those_of_the_selected_epoch(self, finished: tuple[Path, str]) -> None:
        folder, _ = finished
        rows = np.genfromtxt(folder / "metrics.csv", delimiter=",", names=True)
        best = np.nanmin(rows["valnll"])
        assert Record.read(folder / "record.json").metrics.val["nll"] == pytest.approx(best, rel=1e-5)

    def test_screen_says_what_where_and_how_well(self, finished: tuple[Path, str]) -> None:
        folder, screen = finished
        record = Record.read(folder / "record.json")
        accuracy = record.metrics.test["accuracy"]
        assert accuracy is not None
        for text in ("krontime on equal, seed 0: completed", f"{accuracy:.3f}", str(folder), "test split read once"):
            assert text in screen


class TestSecondStart:
    @pytest.mark.usefixtures("no_training")
    def test_returns_the_record_without_training(self, finished: tuple[Path, str], config: Callable[..., Any]) -> None:
        folder, _ = finished
        with contextlib.redirect_stdout(io.StringIO()) as screen:
            again = run.train_in(config("equal.npz"), folder)
        assert again == Record.read(folder / "record.json")
        assert "already done" in screen.getvalue()

    def test_force_trains_again_and_keeps_the_old_folder(self, config: Callable[..., Any], tmp_path: Path) -> None:
        folder = tmp_path / "run"
        first = train(config("equal.npz", "trainer.max_epochs=1"), folder)
        (folder / "note.txt").write_text("mine")
        again = train(config("equal.npz", "trainer.max_epochs=1", "force=true"), folder)
        assert again.metrics == first.metrics
        assert again.started_at > first.started_at
        (aside,) = tmp_path.glob("run.until-*")
        assert (aside / "note.txt").read_text() == "mine"
        assert Record.read(aside / "record.json") == first
        assert not (folder / "note.txt").exists()

    def test_force_does_not_need_a_readable_record(self, config: Callable[..., Any], tmp_path: Path) -> None:
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "record.json").write_text("{")
        with pytest.raises(UserError, match=r"record\.json"):
            train(config("equal.npz"), tmp_path / "run")
        assert train(config("equal.npz", "trainer.max_epochs=1", "force=true"), tmp_path / "run").status == "completed"

    def test_scores_of_other_data_are_not_passed_off(
        self, config: Callable[..., Any], files: Path, compose: Callable[..., Any], tmp_path: Path
    ) -> None:
        path = tmp_path / "mine.npz"
        path.write_bytes((files / "equal.npz").read_bytes())
        options = compose("data=npz", f"data.path={path}", *SMALL, "trainer.max_epochs=1")
        train(options, tmp_path / "run")
        path.write_bytes((files / "gaps.npz").read_bytes())
        with pytest.raises(UserError, match=r"has changed since.*force=true"):
            train(options, tmp_path / "run")
        with pytest.raises(UserError, match="has changed since"):
            verb(inference.evaluate, run=tmp_path / "run")
        assert train({**options, "force": True}, tmp_path / "run").status is Status.COMPLETED


class TestRepeats:
    def test_a_seed_decides_everything(self, config: Callable[..., Any], tmp_path: Path) -> None:
        augmented = ("augment.shift=0.2", "augment.mixup=0.4", "augment.jitter=0.1", "augment.scale=0.1")
        records = {}
        for name, seed in (("zero", 0), ("one", 1), ("zero-again", 0)):
            records[name] = train(config("equal.npz", f"seed={seed}", *augmented), tmp_path / name)
        assert equal(weights(tmp_path / "zero"), weights(tmp_path / "zero-again"))
        assert records["zero"].metrics == records["zero-again"].metrics
        assert not equal(weights(tmp_path / "zero"), weights(tmp_path / "one"))
        zero, again, one = (
            read_predictions(tmp_path / name / "test_predictions.parquet") for name in ("zero", "zero-again", "one")
        )
        assert (zero.probabilities == again.probabilities).all()
        assert (zero.probabilities != one.probabilities).any()

    def test_evaluate_gives_the_same_numbers(self, finished: tuple[Path, str]) -> None:
        folder, _ = finished
        assert verb(inference.evaluate, run=folder) == Record.read(folder / "record.json").metrics.test

    @pytest.mark.parametrize("network", NETWORKS)
    def test_predict_on_the_test_series_gives_the_stored_predictions(
        self, config: Callable[..., Any], files: Path, tmp_path: Path, network: str
    ) -> None:
        """Two channels, unequal lengths, and gaps that only training series have."""
        record = train(config("gaps.npz", "trainer.max_epochs=1", network=network), tmp_path / "run")
        assert record.protocol is not None
        assert verb(inference.evaluate, run=tmp_path / "run") == record.metrics.test
        output = tmp_path / "out.parquet"
        verb(inference.predict, run=tmp_path / "run", input=files / "gaps.npz", split="test", output=output)
        stored, found = (read_predictions(path) for path in (tmp_path / "run" / "test_predictions.parquet", output))
        assert (found.probabilities == stored.probabilities).all()
        assert found.labels == stored.labels
        assert found.predicted == stored.predicted

    def test_predict_on_a_ts_file_gives_the_stored_predictions(
        self, config: Callable[..., Any], files: Path, tmp_path: Path
    ) -> None:
        train(config("TRAIN.ts", f"data.test={files / 'TEST.ts'}", "trainer.max_epochs=1"), tmp_path / "run")
        stored = read_predictions(tmp_path / "run" / "test_predictions.parquet")
        output = tmp_path / "out.csv"
        verb(inference.predict, run=tmp_path / "run", input=files / "TEST.ts", output=output)
        names = output.read_text().splitlines()[0].split(",")
        rows = np.genfromtxt(output, delimiter=",", names=True, dtype=None, encoding="utf-8")
        assert names == ["index", "label", "predicted", "p_a", "p_b", "p_c"]
        assert rows["label"].tolist() == stored.labels
        assert rows["predicted"].tolist() == stored.predicted
        probability = np.stack([rows[name] for name in names[3:]], axis=1).astype(np.float32)
        assert (probability == stored.probabilities).all()

    def test_predict_reads_missing_values_as_training_did(
        self, compose: Callable[..., Any], tmp_path: Path, files: Path
    ) -> None:
        train_series, y = labelled(12, 2, seed=5)
        test_series, y_test = labelled(5, 2, seed=6)
        for series in (*train_series, *test_series):
            series[0, 10:14] = -99
        path = write_npz(tmp_path / "coded.npz", train_series, test_series, np.r_[y, y_test])
        options = compose(
            "data=npz", f"data.path={path}", "data.source.missing_value=-99", *SMALL, "trainer.max_epochs=1"
        )
        train(options, tmp_path / "run")
        output = tmp_path / "out.parquet"
        verb(inference.predict, run=tmp_path / "run", input=path, split="test", output=output)
        stored = read_predictions(tmp_path / "run" / "test_predictions.parquet")
        assert (read_predictions(output).probabilities == stored.probabilities).all()

    def test_predict_resamples_as_training_did(self, config: Callable[..., Any], files: Path, tmp_path: Path) -> None:
        train(config("equal.npz", "data.prepare.resample_hz=50", "trainer.max_epochs=1"), tmp_path / "run")
        with np.load(files / "equal.npz") as given:
            np.save(tmp_path / "bare.npy", given["X_flat"].reshape(42, 1, 80)[30:])
        options = {"run": tmp_path / "run", "input": tmp_path / "bare.npy", "output": tmp_path / "out.parquet"}
        with pytest.raises(UserError, match=r"sampling_rate_hz=None.*bare\.npy.*resampled to 50 Hz"):
            verb(inference.predict, **options)
        verb(inference.predict, **options, sampling_rate_hz=100.0)
        stored = read_predictions(tmp_path / "run" / "test_predictions.parquet")
        assert (read_predictions(tmp_path / "out.parquet").probabilities == stored.probabilities).all()

    def test_nothing_is_overwritten_unasked(self, finished: tuple[Path, str], files: Path, tmp_path: Path) -> None:
        output = tmp_path / "mine.csv"
        output.write_text("mine")
        options = {"run": finished[0], "input": files / "equal.npz", "output": output}
        with pytest.raises(UserError, match=r"mine\.csv.*force=true"):
            verb(inference.predict, **options)
        assert output.read_text() == "mine"
        with contextlib.redirect_stdout(io.StringIO()):
            inference.predict(
                OmegaConf.create(
                    {**{key: str(value) for key, value in options.items()}}
                    | {"force": True, "split": "all", "sampling_rate_hz": None, "accelerator": None}
                )
            )
        assert len(output.read_text().splitlines()) == 43

    def test_data_that_has_moved_is_found(self, compose: Callable[..., Any], files: Path, tmp_path: Path) -> None:
        old, new = tmp_path / "old", tmp_path / "new"
        old.mkdir()
        (old / "mine.npz").write_bytes((files / "equal.npz").read_bytes())
        record = train(
            compose("data=npz", f"data.path={old / 'mine.npz'}", *SMALL, "trainer.max_epochs=1"), tmp_path / "run"
        )
        old.rename(new)
        with pytest.raises(UserError, match=r"mine\.npz"):
            verb(inference.evaluate, run=tmp_path / "run")
        options = {"run": str(tmp_path / "run"), "accelerator": None, "paths": {"data": str(new), "cache": None}}
        with contextlib.redirect_stdout(io.StringIO()):
            assert inference.evaluate(OmegaConf.create(options)) == record.metrics.test


class TestProtocol:
    def test_test_series_are_never_read_before_the_end(
        self, config: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        read: list[int] = []
        before: list[set[int]] = []
        gather, write_results = SeriesDataset.__getitems__, run._write_results

        def spy(self: SeriesDataset, indices: Sequence[int]) -> Any:
            read.extend(indices)
            return gather(self, indices)

        def at_the_end(*arguments: Any) -> Any:
            before.append(set(read))
            return write_results(*arguments)

        monkeypatch.setattr(SeriesDataset, "__getitems__", spy)
        monkeypatch.setattr(run, "_write_results", at_the_end)
        train(config("equal.npz", network="rocket"), tmp_path / "run")
        assert before == [set(range(30))]
        assert set(read) == set(range(42))

    def test_a_limit_on_time_ends_training_at_the_end_of_the_schedule(
        self, config: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Lightning leaves `max_time` to whichever timer there is already, and the run has one of its own.

        What is fitted before the first step counts too.
        """
        limits = []

        class Spy(Timer):
            def __init__(self, duration: Any) -> None:
                super().__init__(duration)
                limits.append(duration)

        monkeypatch.setattr("lightning.pytorch.callbacks.Timer", Spy)
        options = ("trainer.max_epochs=100000", "callbacks.early_stopping=null", "logger=[csv]")
        record = train(config("equal.npz", *options, '+trainer.max_time="00:00:00:02"'), tmp_path / "run")
        assert record.status is Status.COMPLETED
        rows = pd.read_csv(tmp_path / "run" / "metrics.csv")
        rates = rows.filter(like="lr-").dropna().iloc[:, 0].tolist()
        assert max(rates) > 20 * rates[-1]
        assert limits[0] == "00:00:00:02"
        assert limits[-1] < timedelta(seconds=2)

    def test_preparation_and_windows_are_stated(self, config: Callable[..., Any], tmp_path: Path) -> None:
        options = (
            *("data.prepare.resample_hz=50", "data.prepare.crop_length=32", "data.prepare.crop_from=center"),
            *("data.window.length=16", "data.window.stride=8", "data.scaling=channel", "trainer.max_epochs=1"),
        )
        record = train(config("equal.npz", *options), tmp_path / "run")
        assert record.protocol is not None
        assert record.protocol.preparation == {"resample_hz": 50, "crop_length": 32, "crop_from": "center"}
        assert record.protocol.windowing == {"length": 16, "stride": 8}
        assert record.protocol.scaling == "channel"
        assert verb(inference.evaluate, run=tmp_path / "run") == record.metrics.test

    def test_without_a_test_split_nothing_is_tested(
        self, config: Callable[..., Any], files: Path, tmp_path: Path
    ) -> None:
        record = train(config("TRAIN.ts", "trainer.max_epochs=1"), tmp_path / "run")
        assert record.status is Status.COMPLETED
        assert not record.metrics.test
        assert record.metrics.val["accuracy"] is not None
        assert not (tmp_path / "run" / "test_predictions.parquet").exists()
        with pytest.raises(UserError, match="no test split"):
            verb(inference.evaluate, run=tmp_path / "run")
        verb(inference.predict, run=tmp_path / "run", input=files / "TEST.ts", output=tmp_path / "out.csv")
        assert len((tmp_path / "out.csv").read_text().splitlines()) == 13

    def test_class_weights_come_from_the_training_series(self, config: Callable[..., Any]) -> None:
        options = config("equal.npz", "loss.class_weights=balanced")
        job = experiment.prepare(options)
        weight = experiment.fitted_module(options, job).class_weights
        counts = np.bincount(job.data.labels[job.split.train])
        assert weight is not None
        np.testing.assert_allclose(weight.numpy(), counts.sum() / (len(counts) * counts), rtol=1e-6)

    def test_without_selection_the_last_epoch_counts(self, config: Callable[..., Any], tmp_path: Path) -> None:
        record = train(config("equal.npz", "callbacks.checkpoint=null"), tmp_path / "run")
        assert record.protocol is not None
        assert record.protocol.selection_metric is None
        assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["last.ckpt"]
        assert verb(inference.evaluate, run=tmp_path / "run") == record.metrics.test


class TestEndings:
    @pytest.mark.parametrize(("num_workers", "step"), [(0, 6), (2, 9)])
    def test_interrupted_run_ends_as_if_it_had_not_been(
        self,
        config: Callable[..., Any],
        tmp_path: Path,
        interrupted_at: Callable[..., None],
        num_workers: int,
        step: int,
    ) -> None:
        options = config(
            *("equal.npz", "callbacks=ema", "augment.shift=0.2", "augment.mixup=0.4", "augment.jitter=0.1"),
            *(f"data.num_workers={num_workers}", "trainer.max_epochs=3"),
        )
        whole = train(options, tmp_path / "whole")
        interrupted_at(step, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            train(options, tmp_path / "cut")
        cut = Record.read(tmp_path / "cut" / "record.json")
        assert cut.status is Status.INTERRUPTED
        assert not cut.metrics.test
        assert not (tmp_path / "cut" / "test_predictions.parquet").exists()
        with pytest.raises(UserError, match=r"interrupted.*run to its end"):
            verb(inference.evaluate, run=tmp_path / "cut")
        interrupted_at(None, KeyboardInterrupt())
        resumed = train(options, tmp_path / "cut")
        assert resumed.status is Status.COMPLETED
        assert resumed.metrics == whole.metrics
        for name in ("last.ckpt", "best.ckpt"):
            assert equal(weights(tmp_path / "cut", name), weights(tmp_path / "whole", name))
        first, second = (read_predictions(tmp_path / n / "test_predictions.parquet") for n in ("cut", "whole"))
        assert (first.probabilities == second.probabilities).all()

    def test_interrupted_while_scoring_goes_on_to_the_same_scores(
        self, config: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, finished: tuple[Path, str]
    ) -> None:
        def interrupted(*_: Any) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(run, "_write_results", interrupted)
            with pytest.raises(KeyboardInterrupt):
                train(config("equal.npz"), tmp_path / "run")
        assert Record.read(tmp_path / "run" / "record.json").status is Status.INTERRUPTED
        again = train(config("equal.npz"), tmp_path / "run")
        assert again.metrics == Record.read(finished[0] / "record.json").metrics

    def test_a_checkpoint_of_other_data_is_not_gone_on_from(
        self,
        compose: Callable[..., Any],
        files: Path,
        tmp_path: Path,
        interrupted_at: Callable[..., None],
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        path = tmp_path / "mine.npz"
        path.write_bytes((files / "equal.npz").read_bytes())
        options = compose("data=npz", f"data.path={path}", *SMALL)
        interrupted_at(5, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            train(options, tmp_path / "run")
        interrupted_at(None, KeyboardInterrupt())
        path.write_bytes((files / "gaps.npz").read_bytes())
        train(options, tmp_path / "run")
        assert "changed since" in caplog.text
        assert "starts anew" in caplog.text
        assert len(list(tmp_path.glob("run.until-*/checkpoints/last.ckpt"))) == 1
        train(options, tmp_path / "fresh")
        assert equal(weights(tmp_path / "run"), weights(tmp_path / "fresh"))

    def test_a_damaged_checkpoint_is_not_gone_on_from(
        self,
        config: Callable[..., Any],
        tmp_path: Path,
        interrupted_at: Callable[..., None],
        caplog: pytest.LogCaptureFixture,
        finished: tuple[Path, str],
    ) -> None:
        interrupted_at(5, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            train(config("equal.npz"), tmp_path / "run")
        interrupted_at(None, KeyboardInterrupt())
        last = tmp_path / "run" / "checkpoints" / "last.ckpt"
        last.write_bytes(last.read_bytes()[:1000])
        train(config("equal.npz"), tmp_path / "run")
        assert "starts anew" in caplog.text
        assert equal(weights(tmp_path / "run"), weights(finished[0]))

    def test_a_sigterm_that_lightning_stumbles_over_is_still_one(
        self, config: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fit(*_: Any, **__: Any) -> None:
            try:
                os.kill(os.getpid(), signal.SIGTERM)
            finally:
                raise RuntimeError("Please call `iter(combined_loader)` first.")

        monkeypatch.setattr(Trainer, "fit", fit)
        with pytest.raises(Terminated):
            train(config("equal.npz"), tmp_path / "run")
        record = Record.read(tmp_path / "run" / "record.json")
        assert (record.status, record.error) == (Status.INTERRUPTED, "ended by SIGTERM; the same command goes on")

    def test_failure_is_recorded_and_shown_whole(
        self, config: Callable[..., Any], tmp_path: Path, interrupted_at: Callable[..., None]
    ) -> None:
        interrupted_at(2, RuntimeError("something broke"))
        with pytest.raises(RuntimeError, match="something broke"):
            train(config("equal.npz"), tmp_path / "run")
        record = Record.read(tmp_path / "run" / "record.json")
        assert (record.status, record.error) == (Status.FAILED, "RuntimeError: something broke")

    @pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError()])
    def test_out_of_memory_is_recorded_and_explained(
        self, config: Callable[..., Any], tmp_path: Path, interrupted_at: Callable[..., None], error: BaseException
    ) -> None:
        interrupted_at(2, error)
        with pytest.raises(UserError, match=r"data\.batch_size=6.*smaller batch"):
            train(config("equal.npz"), tmp_path / "run")
        assert Record.read(tmp_path / "run" / "record.json").status is Status.OUT_OF_MEMORY

    def test_out_of_memory_before_the_first_step_is_recorded_too(
        self, config: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def exhausted(*_: Any) -> None:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")

        monkeypatch.setattr(experiment, "fitted_module", exhausted)
        with pytest.raises(UserError, match="out of memory"):
            train(config("equal.npz"), tmp_path / "run")
        assert Record.read(tmp_path / "run" / "record.json").status is Status.OUT_OF_MEMORY


def command(verb: str, *overrides: str) -> str:
    """What the command prints; it has to end well."""
    with contextlib.redirect_stdout(io.StringIO()) as screen:
        cli.main([verb, *overrides])
    return screen.getvalue()


class TestCommand:
    def test_whole_path_with_spaces_and_accents(self, files: Path, tmp_path: Path) -> None:
        folder = tmp_path / "Messdaten für Zoë (2)"
        folder.mkdir()
        source = folder / "Aufnahme=1.npz"
        source.write_bytes((files / "equal.npz").read_bytes())
        screen = command("train", "data=npz", f"data.path={source}", *SMALL, f"paths.output={folder}")
        (record,) = folder.rglob("record.json")
        assert record.parent.name == f"seed0-{Record.read(record).config_hash}"
        assert record.parent.parent.parent.name == "Aufnahme=1"
        (line,) = (line for line in screen.splitlines() if "krontime evaluate" in line)
        assert str(record.parent) in line
        assert "test split scored again" in command("evaluate", f"run={record.parent}")
        command("predict", f"run={record.parent}", f"input={source}", f"output={folder / 'aus (1).csv'}")
        assert (folder / "aus (1).csv").is_file()

    def test_one_run_for_each_value_of_a_list(self, files: Path, tmp_path: Path) -> None:
        overrides = ("data=npz", f"data.path={files / 'equal.npz'}", *SMALL, "trainer.max_epochs=1")
        command("train", "-m", "seed=0,1", *overrides, f"paths.output={tmp_path}")
        records = [Record.read(path) for path in sorted(tmp_path.rglob("record.json"))]
        assert [record.seed for record in records] == [0, 1]
        screen = command("train", "seed=1", *overrides, f"paths.output={tmp_path}")
        assert "already done" in screen

    def test_a_job_that_cannot_work_does_not_stop_the_others(
        self, files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        overrides = ("data=npz", f"data.path={files / 'equal.npz'}", *SMALL, "trainer.max_epochs=1")
        with pytest.raises(SystemExit) as stopped:
            cli.main(["train", "-m", "model.dropout=2,0", *overrides, f"paths.output={tmp_path}"])
        assert stopped.value.code == 2
        assert "model.dropout=2: expected a share" in capsys.readouterr().err
        (record,) = (Record.read(path) for path in tmp_path.rglob("record.json"))
        assert record.config["model"]["dropout"] == 0

    def test_several_devices_are_refused_in_a_multirun(
        self, files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        data = ("data=npz", f"data.path={files / 'equal.npz'}", f"paths.output={tmp_path}")
        with pytest.raises(SystemExit) as stopped:
            cli.main(["train", "-m", "seed=0,1", "trainer=ddp_cpu", *data])
        assert stopped.value.code == 2
        message = capsys.readouterr().err
        assert "trainer.devices=2" in message
        assert "one command for each job" in message
        assert not list(tmp_path.rglob("record.json"))


class TestLoggers:
    def test_several_at_once_or_one_or_none(self, config: Callable[..., Any], tmp_path: Path) -> None:
        for logger, expected in (("[csv,tensorboard]", {"csv", "tb"}), ("tensorboard", {"tb"}), ("[]", set())):
            folder = tmp_path / logger
            train(config("equal.npz", f"logger={logger}", "trainer.max_epochs=1"), folder)
            found = {"csv"} if (folder / "metrics.csv").is_file() else set()
            found |= {"tb"} if list(folder.rglob("events.out.tfevents*")) else set()
            assert found == expected

    def test_they_get_the_config_the_learning_rate_and_the_final_scores(
        self, config: Callable[..., Any], tmp_path: Path
    ) -> None:
        options = config("equal.npz", "trainer.max_epochs=1", "trainer.log_every_n_steps=1")
        record = train(options, tmp_path)
        rows = pd.read_csv(tmp_path / "metrics.csv")
        assert rows["lr-AdamW/pg1"].notna().sum() == 4  # 24 training series in batches of 6
        final = rows.iloc[-1]
        assert final["final/test/accuracy"] == pytest.approx(record.metrics.test["accuracy"])
        assert final["final/val/nll"] == pytest.approx(record.metrics.val["nll"])
        assert OmegaConf.to_container(OmegaConf.load(tmp_path / "hparams.yaml")) == options

    def test_wandb_knows_a_run_by_its_config_unless_it_is_forced(
        self, config: Callable[..., Any], tmp_path: Path
    ) -> None:
        options = config("equal.npz", "logger=wandb")
        (logger,) = build.loggers(options, tmp_path / "seed0")
        assert logger.version == config_hash(options)
        assert logger.name == "krontime"  # the project
        (forced,) = build.loggers({**options, "force": True}, tmp_path / "seed0")
        assert forced.version is None

    def test_two_runs_in_one_process_are_two_to_wandb(
        self, config: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("WANDB_SILENT", "true")
        for seed in (0, 1):
            options = config("equal.npz", "logger=[csv,wandb]", f"seed={seed}", "trainer.max_epochs=1")
            train(options, tmp_path / f"seed{seed}")
        ids = {path.name.rpartition("-")[2] for path in tmp_path.rglob("offline-run-*")}
        assert len(ids) == 2
        for seed in (0, 1):
            assert len(list((tmp_path / f"seed{seed}").rglob("offline-run-*/*.wandb"))) == 1
            assert (tmp_path / f"seed{seed}" / "metrics.csv").is_file()

    def test_wandb_gets_pictures_predictions_and_a_group_and_the_screen_says_how_to_send_them(
        self, config: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("WANDB_SILENT", "true")
        monkeypatch.setenv("WANDB_MODE", "offline")
        folder = tmp_path / "a run"
        with contextlib.redirect_stdout(io.StringIO()) as screen:
            run.train_in(config("equal.npz", "logger=wandb", "trainer.max_epochs=1"), folder)
        (offline,) = (folder / "wandb").glob("offline-run-*")
        assert b"equal/krontime" in next(offline.glob("*.wandb")).read_bytes()
        names = {path.relative_to(offline / "files").as_posix() for path in offline.glob("files/**/*")}
        for start in ("images/confusion_matrix", "images/attention/layer1_level2", "table/test_predictions"):
            assert any(name.startswith(f"media/{start}") for name in names), names
        assert f"wandb sync '{folder / 'wandb'}'/offline-run-*" in screen.getvalue()

    def test_a_run_that_fails_leaves_no_wandb_run_open(
        self, config: Callable[..., Any], tmp_path: Path, interrupted_at: Callable[..., None]
    ) -> None:
        import wandb

        interrupted_at(1, RuntimeError("something broke"))
        with pytest.raises(RuntimeError, match="something broke"):
            train(config("equal.npz", "logger=wandb"), tmp_path / "run")
        assert wandb.run is None


class TestDivergence:
    def test_a_loss_that_is_no_number_ends_the_run_with_a_diagnosis(
        self, config: Callable[..., Any], tmp_path: Path
    ) -> None:
        diverging = ("optim.optimizer.lr=1e30", "optim.warmup=0", "trainer.gradient_clip_val=null")
        with pytest.raises(UserError, match=r"diverged: in epoch 1 train/loss is .*optim\.optimizer\.lr"):
            train(config("equal.npz", *diverging), tmp_path)
        record = Record.read(tmp_path / "record.json")
        assert record.status is Status.FAILED
        assert "diverged" in str(record.error)
        assert not record.metrics.test
        assert not list(tmp_path.rglob("*.ckpt"))  # none that a next start would go on from


@pytest.mark.slow
class TestProcesses:
    """What only a process of its own shows."""

    def start(self, *arguments: str, cwd: Path) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "krontime", *arguments]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
        return subprocess.Popen(
            command,
            cwd=cwd,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
        )

    def test_interrupted_by_the_user(self, files: Path, tmp_path: Path) -> None:
        data = ("train", "data=npz", f"data.path={files / 'equal.npz'}", *SMALL, "trainer.enable_progress_bar=true")
        overrides = (*data, "trainer.max_epochs=60", "callbacks.early_stopping=null")
        process = self.start(*overrides, "paths.output=cut", cwd=tmp_path)
        assert process.stderr is not None
        lines = [process.stderr.readline()]
        while lines[-1] and not lines[-1].startswith("epoch 4 "):
            lines.append(process.stderr.readline())
        assert lines[-1], "".join(lines)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=120)
        assert process.returncode == 130, err
        assert "Traceback" not in err
        assert "interrupted" in out
        (path,) = tmp_path.rglob("record.json")
        assert Record.read(path).status is Status.INTERRUPTED

        process = self.start(*overrides, "paths.output=cut", cwd=tmp_path)
        _, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
        assert "Going on from" in err
        assert "epoch 1 of" not in err
        process = self.start(*overrides, "paths.output=whole", cwd=tmp_path)
        _, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
        cut, whole = (next((tmp_path / name).rglob("record.json")).parent for name in ("cut", "whole"))
        assert Record.read(cut / "record.json").metrics == Record.read(whole / "record.json").metrics
        assert equal(weights(cut), weights(whole))
        assert equal(weights(cut, "best.ckpt"), weights(whole, "best.ckpt"))

    def test_two_cpu_processes_train_together_and_score_once(self, files: Path, tmp_path: Path) -> None:
        data = ("data=npz", f"data.path={files / 'equal.npz'}", *SMALL, "trainer=ddp_cpu", "trainer.max_epochs=2")
        process = self.start("train", *data, "trainer.enable_progress_bar=true", cwd=tmp_path)
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
        assert out.count("completed") == 1
        assert err.count("epoch 1 of 2") == 1
        assert "warning" not in err.lower()
        assert "recommended" not in err
        (path,) = tmp_path.rglob("record.json")
        record = Record.read(path)
        assert record.device.count == 2
        assert len(read_predictions(path.parent / "test_predictions.parquet").labels) == 12
        rows = (path.parent / "metrics.csv").read_text().splitlines()
        assert rows  # 24 training series: 12 each, in 2 batches of 6 an epoch
        checkpoint = torch.load(path.parent / "checkpoints" / "last.ckpt", weights_only=True)
        assert checkpoint["global_step"] == 4
        process = self.start("evaluate", f"run={path.parent}", cwd=tmp_path)
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
        accuracy = record.metrics.test["accuracy"]
        assert out.count(f"{accuracy:.3f}") >= 2  # recorded, and now

    @pytest.mark.filterwarnings("ignore:`torch.jit.script_method`:DeprecationWarning")  # PyTorch's own, on import
    def test_compiled_network_scores_as_it_stands_in_the_checkpoint(
        self, config: Callable[..., Any], tmp_path: Path
    ) -> None:
        record = train(config("equal.npz", "compile=true", "trainer.max_epochs=1"), tmp_path / "run")
        assert verb(inference.evaluate, run=tmp_path / "run") == record.metrics.test
