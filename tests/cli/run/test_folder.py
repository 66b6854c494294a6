"""A finished run: what its folder holds, what a second start does, and that everything repeats."""

import contextlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf

import krontime
from krontime.commands import evaluate, predict
from krontime.config.identity import config_hash
from krontime.errors import UserError
from krontime.runs import run
from krontime.runs.predictions import read_predictions
from krontime.runs.record import Record, Status
from tests.cli.run.small import NETWORKS, SMALL, call, command, equal, labelled, train, weights, write_npz


@pytest.fixture(scope="module", autouse=True)
def undrawn() -> None:
    """Here plots are drawn."""


class TestFolder:
    def test_holds_all_there_is_to_know(self, finished: tuple[Path, str], config: Callable[..., Any]) -> None:
        folder, _ = finished
        names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
        assert names - {"hparams.yaml"} == {
            *("config.yaml", "record.json", "metrics.csv", "test_predictions.parquet"),
            "held_out_predictions.parquet",
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
        assert record.protocol.selection_metric == "val/loss"
        assert set(record.metrics.val) == set(record.metrics.test)
        times_s = record.part_times_s
        assert set(times_s) == {"reading", "closed_form", "network", "scoring"}
        assert times_s["closed_form"] + times_s["network"] == pytest.approx(record.train_time_s)

    def test_predictions_are_those_that_were_scored(self, finished: tuple[Path, str]) -> None:
        folder, _ = finished
        predictions = read_predictions(folder / "test_predictions.parquet")
        accuracy = np.mean([p == t for p, t in zip(predictions.predicted, predictions.labels, strict=True)])
        record = Record.read(folder / "record.json")
        assert record.metrics.test["accuracy"] == pytest.approx(accuracy, abs=1e-6)
        assert predictions.index.tolist() == list(range(30, 42))
        assert predictions.class_names == ("a", "b", "c")

    def test_held_out_predictions_are_of_all_series_that_are_not_tested(self, finished: tuple[Path, str]) -> None:
        folder, _ = finished
        held_out = read_predictions(folder / "held_out_predictions.parquet")
        assert held_out.index.tolist() == list(range(30))
        assert held_out.groups is None

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

    @pytest.mark.slow
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
            call(evaluate.evaluate, run=tmp_path / "run")
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
        assert call(evaluate.evaluate, run=folder) == Record.read(folder / "record.json").metrics.test

    @pytest.mark.parametrize("network", NETWORKS)
    def test_predict_on_the_test_series_gives_the_stored_predictions(
        self, config: Callable[..., Any], files: Path, tmp_path: Path, network: str
    ) -> None:
        """Two channels, unequal lengths, and gaps that only training series have."""
        record = train(config("gaps.npz", "trainer.max_epochs=1", network=network), tmp_path / "run")
        assert record.protocol is not None
        assert call(evaluate.evaluate, run=tmp_path / "run") == record.metrics.test
        output = tmp_path / "out.parquet"
        call(predict.predict, run=tmp_path / "run", input=files / "gaps.npz", split="test", output=output)
        stored, predictions = (
            read_predictions(path) for path in (tmp_path / "run" / "test_predictions.parquet", output)
        )
        assert (predictions.probabilities == stored.probabilities).all()
        assert predictions.labels == stored.labels
        assert predictions.predicted == stored.predicted

    def test_predict_on_a_ts_file_gives_the_stored_predictions(
        self, config: Callable[..., Any], files: Path, tmp_path: Path
    ) -> None:
        train(config("TRAIN.ts", f"data.test={files / 'TEST.ts'}", "trainer.max_epochs=1"), tmp_path / "run")
        stored = read_predictions(tmp_path / "run" / "test_predictions.parquet")
        output = tmp_path / "out.csv"
        call(predict.predict, run=tmp_path / "run", input=files / "TEST.ts", output=output)
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
        call(predict.predict, run=tmp_path / "run", input=path, split="test", output=output)
        stored = read_predictions(tmp_path / "run" / "test_predictions.parquet")
        assert (read_predictions(output).probabilities == stored.probabilities).all()
        in_python = krontime.load(tmp_path / "run").predict_proba(test_series)
        assert (in_python == stored.probabilities).all()

    def test_predict_and_follow_scale_as_training_did(self, compose: Callable[..., Any], tmp_path: Path) -> None:
        series, y = labelled(17, 2, seed=7)
        folder = tmp_path / "set"
        folder.mkdir()
        X = np.rint(100 * np.stack(series)).astype(np.int16)
        for name, array in {"X": X, "y": y, "split": np.arange(17) >= 12}.items():
            np.save(folder / f"{name}.npy", array)
        given = ("data=stacked", f"data.path={folder}", "data.source.scale=0.01", "data.source.sampling_rate_hz=100")
        options = ("data.prepare.resample_hz=50", "data.scaling=none", *SMALL, "trainer.max_epochs=1")
        train(compose(*given, *options), tmp_path / "run")
        stored = read_predictions(tmp_path / "run" / "test_predictions.parquet").probabilities
        np.save(tmp_path / "new.npy", X[12:])
        np.savez(tmp_path / "new.npz", X=X[12:])
        np.savez(tmp_path / "scaled.npz", X=X[12:], scale=np.float32(0.01))
        for name in ("new.npy", "new.npz", "scaled.npz"):
            output = tmp_path / f"{name}.parquet"
            call(predict.predict, run=tmp_path / "run", input=tmp_path / name, output=output)
            assert (read_predictions(output).probabilities == stored).all()
        (tmp_path / "new.txt").write_text("".join(f"{value}\n" for value in X[12:].ravel()))
        with (tmp_path / "new.txt").open() as points, pytest.MonkeyPatch.context() as patched:
            patched.setattr("sys.stdin", points)
            out = command(
                "predict", f"run={tmp_path / 'run'}", "follow=true", "input=-", "output=-", "window.length=80"
            )
        rows = np.genfromtxt(io.StringIO(out), delimiter=",", names=True, dtype=None, encoding="utf-8")
        assert rows["stop_s"][0] == 0.8
        np.testing.assert_allclose(np.stack([rows["p_0"], rows["p_1"]], axis=1), stored, atol=1e-6)

    def test_predict_resamples_as_training_did(self, config: Callable[..., Any], files: Path, tmp_path: Path) -> None:
        train(config("equal.npz", "data.prepare.resample_hz=50", "trainer.max_epochs=1"), tmp_path / "run")
        with np.load(files / "equal.npz") as given:
            np.save(tmp_path / "bare.npy", given["X_flat"].reshape(42, 1, 80)[30:])
        options = {"run": tmp_path / "run", "input": tmp_path / "bare.npy", "output": tmp_path / "out.parquet"}
        with pytest.raises(UserError, match=r"sampling_rate_hz=None.*bare\.npy.*resampled to 50 Hz"):
            call(predict.predict, **options)
        call(predict.predict, **options, sampling_rate_hz=100.0)
        stored = read_predictions(tmp_path / "run" / "test_predictions.parquet")
        assert (read_predictions(tmp_path / "out.parquet").probabilities == stored.probabilities).all()

    def test_nothing_is_overwritten_unasked(self, finished: tuple[Path, str], files: Path, tmp_path: Path) -> None:
        output = tmp_path / "mine.csv"
        output.write_text("mine")
        options = {"run": finished[0], "input": files / "equal.npz", "output": output}
        with pytest.raises(UserError, match=r"mine\.csv.*force=true"):
            call(predict.predict, **options)
        assert output.read_text() == "mine"
        with contextlib.redirect_stdout(io.StringIO()):
            predict.predict(
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
            call(evaluate.evaluate, run=tmp_path / "run")
        options = {"run": str(tmp_path / "run"), "accelerator": None, "paths": {"data": str(new), "cache": None}}
        with contextlib.redirect_stdout(io.StringIO()):
            assert evaluate.evaluate(OmegaConf.create(options)) == record.metrics.test
