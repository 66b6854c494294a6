"""Values of which float32 keeps too little are refused in training, and give a warning later; all others do not."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from krontime.data.cache import load_cached
from krontime.data.in_memory import labelled_series, unlabelled_series
from krontime.data.new_recordings import read_new_recordings
from krontime.data.new_series import Reading, read_files
from krontime.data.prepare import Prepare
from krontime.data.recordings import Recording, store
from krontime.data.rounding import Rounding, Variation
from krontime.data.series import SeriesSpec
from krontime.data.sources.array_files import ArrayFilesSource
from krontime.data.sources.long_table import LongTableSource
from krontime.data.sources.npz import NpzSource
from krontime.data.sources.prices import PricesSource
from krontime.data.sources.stacked import StackedSource
from krontime.data.sources.table import TableSource
from krontime.data.sources.ts import TsSource
from krontime.errors import UserError

RNG = np.random.default_rng(0)
N, LENGTH = 8, 40
NOISE = RNG.standard_normal((N, 1, LENGTH))
MANY = np.int64(1_700_000_000_000_000_000) + RNG.integers(0, 10, (1, LENGTH))
SAID = "are rounded by"


def problems_of(*series: np.ndarray) -> list[str]:
    rounding = Rounding()
    for one in series:
        rounding.add(one)
    return rounding.problems()


@pytest.mark.parametrize(
    "series",
    [
        1e9 + NOISE[0],
        101325.12 + 0.01 * NOISE[0],
        (1e9 + NOISE[0]).astype(">f8"),
        np.where(NOISE[0] > 1, np.nan, 1e9 + NOISE[0]),
        np.where(NOISE[0] > 2, np.inf, 1e9 + NOISE[0]),
        2**24 + RNG.integers(0, 5, (1, LENGTH)),
        1e9 + np.arange(2**17)[None] % 8,
        MANY,
        MANY.astype(np.uint64) + np.uint64(2**63),
        1_700_000_000 + np.arange(LENGTH, dtype=np.uint32)[None],
        1e-60 * NOISE[0],
    ],
)
def test_variation_that_float32_does_not_hold_is_refused(series):
    (problem,) = problems_of(series)
    assert SAID in problem
    assert problem.endswith(("is left out", "another unit"))


@pytest.mark.parametrize(
    "series",
    [
        np.full((1, LENGTH), 1e9 + 0.3),
        np.full((1, LENGTH), 2**62 + 1),
        0.1 + 2.0**-56 * RNG.integers(-9, 10, (1, LENGTH)),  # as a mean of constants comes out
        1000 + NOISE[0],
        101325 + NOISE[0],
        (1e9 + NOISE[0]).astype(np.float32),  # lost before, if at all
        RNG.integers(-(2**15), 2**15, (1, LENGTH)).astype(np.int16),
        2**23 + RNG.integers(0, 5, (1, LENGTH)),
        12.3456781 + 1e-7 * RNG.integers(0, 3, (1, LENGTH)),  # the last digit of a sensor that stands still
        116.3 + 1e-4 * NOISE[0],  # degrees of longitude of a walk of 10 m
        60_000 + 0.03 * NOISE[0],
        RNG.integers(0, 2**32, (1, LENGTH), dtype=np.uint32),
        np.arange(100_000.0)[None] + 1.7e9,
        np.full((1, LENGTH), np.nan),
        np.array([[1e300, 1.0, 2.0]]),
        np.empty((1, 0)),
        np.array([[1e9]]),
    ],
)
def test_all_else_is_not(series):
    assert problems_of(series) == []


def test_series_that_hardly_vary_count_by_what_the_others_vary_by():
    still = 116.3 + 1e-6 * NOISE[0]
    assert problems_of(still) != []
    assert problems_of(*[still] * 20, *(116.3 + NOISE)) == []
    assert problems_of(*NOISE, 1e9 + NOISE[0]) != []
    dropout = 1e9 + NOISE[0] - 1e9 * (np.arange(LENGTH) == 3)
    assert problems_of(*(1e9 + NOISE), dropout) != []


def test_each_channel_is_looked_at_and_named():
    rounding = Rounding()
    rounding.add(np.concatenate([NOISE[0], 1e9 + NOISE[1]]), "r7")
    (problem,) = rounding.problems(["volt", "time"])
    assert problem.startswith("channel 'time': values that vary by")
    assert "as in r7" in problem
    assert rounding.problems()[0].startswith("channel 1: ")


def test_stretches_together_are_the_whole():
    whole = 1e5 + np.stack([NOISE.ravel(), 0.01 * NOISE.ravel()])
    whole[0, 7] = np.nan
    parts = [Variation.of(whole[:, start:stop]) for start, stop in ((0, 1), (1, 100), (100, None))]
    first, second, third = [part for part in parts if part is not None]
    together, expected = first | second | third, Variation.of(whole)
    assert expected is not None
    np.testing.assert_allclose(np.stack(together[:-1]), np.stack(expected[:-1]), rtol=1e-6, atol=1e-12)
    assert together.is_lost.tolist() == [False, True]
    flickering = 12.3456781 + 1e-7 * RNG.integers(0, 3, (1, 2 * LENGTH))
    halves = [Variation.of(flickering[:, half]) for half in (slice(LENGTH), slice(LENGTH, None))]
    assert not (halves[0] | halves[1]).varies.any()


def test_integers_lose_by_their_summand_alone():
    stored = RNG.integers(-100, 100, (1, LENGTH)).astype(np.int16)
    for summand, is_refused in ((0.0, False), (1e3, False), (1e9, True)):
        rounding = Rounding()
        rounding.add(Variation.of_scaled(stored, np.array([[0.01, summand]]), None))
        assert bool(rounding.problems()) == is_refused


def test_of_a_long_recording_some_points_are_looked_at():
    assert Variation.of(np.broadcast_to(1.5, (2, 2**40))) is not None


def test_values_that_are_missing_do_not_count():
    values = np.where(NOISE[0] > 1, 0, 2**24 + RNG.integers(0, 5, (1, LENGTH)))
    for missing, is_lost in ((None, False), (values == 0, True)):
        variation = Variation.of(values, missing)
        assert variation is not None
        assert variation.is_lost.tolist() == [is_lost]


def test_series_of_other_channels_are_left_to_others():
    assert problems_of(NOISE[0], np.concatenate([NOISE[0], 1e9 + NOISE[1]])) == []


def test_names_of_other_channels_are_not_those_of_the_series():
    rounding = Rounding()
    rounding.add(np.concatenate([NOISE[0], 1e9 + NOISE[1]]))
    assert rounding.problems(["volt"])[0].startswith("channel 1: ")


def npz(folder: Path, offset: float) -> NpzSource:
    y = np.arange(N) % 2
    np.savez(folder / "x.npz", X=offset + NOISE, y=y, split=np.zeros(N, int))
    return NpzSource(str(folder / "x.npz"))


def csv(folder: Path, offset: float) -> TableSource:
    rows = [f"{'ab'[i % 2]}," + ",".join(map(repr, row.tolist())) for i, row in enumerate(offset + NOISE[:, 0])]
    (folder / "x.csv").write_text("\n".join(["label," + ",".join(f"t{i}" for i in range(LENGTH)), *rows]))
    return TableSource(str(folder / "x.csv"))


def ts(folder: Path, offset: float) -> TsSource:
    rows = [",".join(map(repr, row.tolist())) + f":{'ab'[i % 2]}" for i, row in enumerate(offset + NOISE[:, 0])]
    (folder / "x.ts").write_text("\n".join(["@classLabel true a b", "@data", *rows]))
    return TsSource(str(folder / "x.ts"))


def long_rows(offset: float) -> dict[str, Any]:
    return {
        "recording": np.repeat([f"r{i}" for i in range(N)], LENGTH),
        "label": np.repeat(["a", "b"] * (N // 2), LENGTH),
        "p": (offset + NOISE).ravel(),
        "q": NOISE.ravel(),
    }


def long_csv(folder: Path, offset: float) -> LongTableSource:
    rows = zip(*(map(str, column.tolist()) for column in long_rows(offset).values()), strict=True)
    (folder / "x.csv").write_text("\n".join(["recording,label,p,q", *map(",".join, rows)]))
    return LongTableSource(str(folder / "x.csv"), sampling_rate_hz=10)


def long_parquet(folder: Path, offset: float) -> LongTableSource:
    parquet.write_table(pa.table(long_rows(offset)), folder / "x.parquet")
    return LongTableSource(str(folder / "x.parquet"), sampling_rate_hz=10)


def stacked(folder: Path, offset: float) -> StackedSource:
    np.save(folder / "X.npy", offset + NOISE)
    np.save(folder / "y.npy", np.arange(N) % 2)
    return StackedSource(str(folder))


def arrays(folder: Path, offset: float) -> ArrayFilesSource:
    for i, one in enumerate(offset + NOISE):
        np.save(folder / f"{'ab'[i % 2]}{i}.npy", one)
    return ArrayFilesSource(str(folder), pattern="^(?P<label>[ab])")


def prices(folder: Path, offset: float) -> PricesSource:
    rows = [f"2020-01-{i // 24 + 1:02}T{i % 24:02}:00,{100 + NOISE.ravel()[i]},{offset + i % 7}" for i in range(200)]
    (folder / "x.csv").write_text("\n".join(["time,close,v", *rows]))
    start = "2020-01-05T00:00"
    return PricesSource(str(folder / "x.csv"), validation_from=start, asset=None, channels=["v"])


READERS: list[Callable[[Path, float], Any]] = [npz, csv, ts, long_csv, long_parquet, stacked, arrays, prices]


@pytest.mark.parametrize("write", READERS)
def test_every_reader_refuses_what_is_lost_in_training(tmp_path, write):
    (tmp_path / "x").mkdir()
    assert len(load_cached(write(tmp_path / "x", 100.0), Prepare(), tmp_path / "cache")) > 1
    with pytest.raises(UserError, match=SAID):
        load_cached(write(tmp_path / "x", 1e9), Prepare(), tmp_path / "cache")


@pytest.mark.parametrize("write", [npz, csv, ts])
def test_new_series_give_a_warning(tmp_path, caplog, write):
    path = tmp_path / f"x.{write.__name__}"
    for offset in (100.0, 1e9):
        write(tmp_path, offset)
        options: dict[str, Any] = {"scratch": tmp_path, "skip": False}
        assert len(read_files([(path, path.name)], Reading(), ("a", "b"), **options).data) == N
        assert (SAID in caplog.text) == (offset == 1e9)


def test_new_arrays_give_a_warning_by_all_of_the_files(tmp_path, caplog):
    for i, one in enumerate(1e9 + NOISE[:2]):
        np.save(tmp_path / f"{i}.npy", one)
    files = [(tmp_path / f"{i}.npy", f"{i}.npy") for i in range(2)]
    read_files(files, Reading(), ("a", "b"), tmp_path, skip=False)
    (message,) = caplog.messages
    assert message.startswith("input: values that vary by")
    assert "as in series 0 of 0.npy" in message


@pytest.mark.parametrize("write", [long_csv, long_parquet, arrays])
def test_new_recordings_give_a_warning(tmp_path, caplog, write):
    (tmp_path / "x").mkdir()
    spec = SeriesSpec(num_channels=2, length=LENGTH, num_classes=2, class_names=("a", "b"))
    for offset in (100.0, 1e9):
        source = write(tmp_path / "x", offset)
        files = [(file, file.name) for file in source.files(source.path, "input")]
        assert len(read_new_recordings(source, files, spec, tmp_path, skip=False).data) == N
        assert (SAID in caplog.text) == (offset == 1e9)


def test_series_in_memory_are_refused_in_training_and_else_give_a_warning(caplog):
    y = np.arange(N) % 2
    assert len(labelled_series(100 + NOISE, y)) == len(unlabelled_series(100 + NOISE, ("a", "b"))) == N
    assert not caplog.messages
    for lost in (1e9 + NOISE, list(np.rint(1e9 + 3 * NOISE).astype(np.int64))):
        with pytest.raises(ValueError, match=f"X: .*{SAID}"):
            labelled_series(lost, y)
        assert len(unlabelled_series(lost, ("a", "b"))) == N
        assert caplog.messages.pop().startswith("X: values that vary by")
        caplog.clear()


def test_stored_integers_with_a_large_summand_are_refused(tmp_path):
    stored = RNG.integers(-100, 100, (N, 2, LENGTH)).astype(np.int16)
    scale = np.array([[0.01, 0.0], [0.01, 1e9]])
    recordings = [Recording(f"r{i}", one, label="ab"[i % 2], scale=scale) for i, one in enumerate(stored)]
    with pytest.raises(UserError, match=f"channel 1: .* as in r0, {SAID}"):
        store(recordings, tmp_path / "values.npy", Prepare(), where="data", group_name="recording")
