"""What a run may see, when, and what of it is stated in its record."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from krontime.commands import evaluate, predict
from krontime.data.datamodule import SeriesDataset
from krontime.errors import UserError
from krontime.runs import fitted_module, prepare, run
from krontime.runs.record import Status
from tests.cli.run.small import call, train


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
        assert call(evaluate.evaluate, run=tmp_path / "run") == record.metrics.test

    def test_without_a_test_split_nothing_is_tested(
        self, config: Callable[..., Any], files: Path, tmp_path: Path
    ) -> None:
        record = train(config("TRAIN.ts", "trainer.max_epochs=1"), tmp_path / "run")
        assert record.status is Status.COMPLETED
        assert not record.metrics.test
        assert record.metrics.val["accuracy"] is not None
        assert not (tmp_path / "run" / "test_predictions.parquet").exists()
        with pytest.raises(UserError, match="no test split"):
            call(evaluate.evaluate, run=tmp_path / "run")
        call(predict.predict, run=tmp_path / "run", input=files / "TEST.ts", output=tmp_path / "out.csv")
        assert len((tmp_path / "out.csv").read_text().splitlines()) == 13

    def test_class_weights_come_from_the_training_series(self, config: Callable[..., Any]) -> None:
        options = config("equal.npz", "loss.class_weights=balanced")
        job = prepare.prepare(options)
        weight = fitted_module.fitted_module(options, job)[0].class_weights
        counts = np.bincount(job.data.labels[job.split.train])
        assert weight is not None
        np.testing.assert_allclose(weight.numpy(), counts.sum() / (len(counts) * counts), rtol=1e-6)

    def test_without_selection_the_last_epoch_counts(self, config: Callable[..., Any], tmp_path: Path) -> None:
        record = train(config("equal.npz", "callbacks.checkpoint=null"), tmp_path / "run")
        assert record.protocol is not None
        assert record.protocol.selection_metric is None
        assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["last.ckpt"]
        assert call(evaluate.evaluate, run=tmp_path / "run") == record.metrics.test
