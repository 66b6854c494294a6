"""Nothing of the test split but its scores depends on it: what is trained is the same to the bit."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from krontime.commands import evaluate, predict
from krontime.data.datamodule import SeriesDataset
from krontime.data.series import SeriesData
from krontime.runs.classical_fit import Arrays
from krontime.runs.predictions import read_predictions
from krontime.runs.record import Status
from tests.cli.run.small import NETWORKS, call, equal, labelled, train, weights, write_npz

NUM_TRAIN, NUM_TEST = 24, 9


def same(test: list[np.ndarray]) -> list[np.ndarray]:
    return test


def longer(test: list[np.ndarray]) -> list[np.ndarray]:
    return [np.concatenate([x, x[:, : 10 + 20 * (i % 3)]], axis=1) for i, x in enumerate(test)]


def shorter(test: list[np.ndarray]) -> list[np.ndarray]:
    return [x[:, : 50 + i] for i, x in enumerate(test)]


def missing(test: list[np.ndarray]) -> list[np.ndarray]:
    return [np.where(np.arange(x.shape[1]) % 7 == 3, np.nan, x).astype(np.float32) for x in test]


def constant(test: list[np.ndarray]) -> list[np.ndarray]:
    return [np.stack([x[0], np.full_like(x[1], 5e3)]) for x in test]


CHANGES = (longer, shorter, missing, constant)


@pytest.fixture(scope="module")
def trained(
    compose: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, Callable[..., Any]], tuple[Any, Path]]:
    """A run of a network on the same training series and a test split that was changed; each of them once."""
    folder = tmp_path_factory.mktemp("splits")
    done: dict[tuple[str, str], tuple[Any, Path]] = {}

    def trained(network: str, change: Callable[[list[np.ndarray]], list[np.ndarray]]) -> tuple[Any, Path]:
        key = (network, change.__name__)
        if key not in done:
            series, y = labelled(NUM_TRAIN, 2, seed=0, num_channels=2)
            test, y_test = labelled(NUM_TEST, 2, seed=1, num_channels=2)
            path = write_npz(folder / f"{change.__name__}.npz", series, change(test), np.r_[y, y_test])
            run_dir = folder / "-".join(key)
            options = ("trainer.max_epochs=1", "data.scaling=channel")
            config = compose("data=npz", f"data.path={path}", *NETWORKS[network], *options)
            done[key] = train(config, run_dir), run_dir
        return done[key]

    return trained


@pytest.mark.parametrize("network", ["rocket", "tcn"])
@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_weights_do_not_depend_on_the_test_split(
    network: str, change: Callable[..., Any], trained: Callable[..., Any]
) -> None:
    expected, first = trained(network, same)
    record, second = trained(network, change)
    assert record.num_parameters == expected.num_parameters
    assert equal(weights(first, "best.ckpt"), weights(second, "best.ckpt"))
    assert record.metrics.val == expected.metrics.val


@pytest.mark.parametrize("change", [longer, shorter, missing], ids=lambda change: change.__name__)
def test_such_a_test_split_is_scored_and_said_what_of_it(
    change: Callable[..., Any], trained: Callable[..., Any]
) -> None:
    record, folder = trained("tcn", change)
    assert record.status is Status.COMPLETED
    assert record.protocol.num_test_cropped == (NUM_TEST if change is longer else 0)
    assert call(evaluate.evaluate, run=folder) == record.metrics.test


def test_longer_test_series_count_as_far_as_training_reaches(trained: Callable[..., Any]) -> None:
    """What is longer here only has more points at its end."""
    assert trained("tcn", longer)[0].metrics.test == trained("tcn", same)[0].metrics.test


@pytest.mark.parametrize("part", ["center", "end"])
def test_longer_test_series_are_cut_as_new_ones_are(part: str, compose: Callable[..., Any], tmp_path: Path) -> None:
    series, y = labelled(12, 2, seed=0)
    test, y_test = labelled(4, 2, seed=1, lengths=(90, 130))
    path = write_npz(tmp_path / "set.npz", series, test, np.r_[y, y_test])
    cropping = ("data.prepare.crop_length=110", f"data.prepare.crop_from={part}")
    train(compose("data=npz", f"data.path={path}", *cropping, *NETWORKS["tcn"]), tmp_path / "run")
    output = tmp_path / "out.parquet"
    call(predict.predict, run=tmp_path / "run", input=path, split="test", output=output, allow=["length"])
    stored = read_predictions(tmp_path / "run" / "test_predictions.parquet")
    assert (read_predictions(output).probabilities == stored.probabilities).all()


def data(train: list[np.ndarray], test: list[np.ndarray]) -> SeriesData:
    series = [*train, *test]
    values = np.concatenate([x.ravel() for x in series])
    return SeriesData(
        values=values,
        offsets=np.cumsum([0, *(x.shape[1] for x in series)]),
        labels=np.arange(len(series)) % 2,
        is_test=np.arange(len(series)) >= len(train),
        class_names=("a", "b"),
        num_channels=2,
        has_missing=bool(np.isnan(values).any()),
    )


@pytest.mark.parametrize("scaling", ["series", "channel"])
@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_what_a_reference_is_fitted_on_does_not_either(scaling: Any, change: Callable[..., Any]) -> None:
    series, _ = labelled(NUM_TRAIN, 2, seed=0, num_channels=2)
    test, _ = labelled(NUM_TEST, 2, seed=1, num_channels=2)
    fitted_on = np.arange(NUM_TRAIN)

    def read(changed: list[np.ndarray]) -> np.ndarray:
        arrays = Arrays(data(series, changed), fitted_on, scaling=scaling, length=None, batch_size=5)
        return arrays.read(fitted_on)

    assert np.array_equal(read(test), read(change(test)))


@pytest.mark.parametrize("read_length", [1, 30, 80, 1000])
def test_series_are_read_as_far_as_asked(read_length: int) -> None:
    series, _ = labelled(5, 2, seed=0, num_channels=2, lengths=(20, 80))
    whole = data(series, [])
    part = SeriesData(**{**whole.__dict__, "read_length": read_length})
    assert part.lengths.tolist() == [min(x.shape[1], read_length) for x in series]
    assert part.spec.length == part.lengths.max()
    batch = SeriesDataset(part).__getitems__([3, 1])
    for row, index in enumerate([3, 1]):
        length = min(series[index].shape[1], read_length)
        assert np.array_equal(batch.x[row, :, :length].numpy(), series[index][:, :read_length])
        assert not batch.x[row, :, length:].any()
    for part_read, first in (("center", lambda spare: spare // 2), ("end", lambda spare: spare)):
        part = SeriesData(**{**whole.__dict__, "read_length": read_length, "read_from": part_read})
        for index, x in enumerate(series):
            start = first(max(0, x.shape[1] - read_length))
            assert np.array_equal(part.series(index), x[:, start : start + read_length])
