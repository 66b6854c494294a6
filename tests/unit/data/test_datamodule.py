"""Batches hold what the data holds, in an order that seed and epoch fix, on every rank and after every resume."""

import itertools
import warnings
from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn

from krontime.data.cache import load_cached
from krontime.data.datamodule import ConsecutiveBatches, SeriesDataModule, SeriesDataset, TrainBatches
from krontime.data.prepare import Prepare
from krontime.data.series import SeriesBatch, SeriesData
from krontime.data.sources.synthetic import SyntheticSource
from krontime.data.split import Split, split_indices


def order_of(batches: TrainBatches) -> list[int]:
    return [i for batch in batches for i in batch]


def train_batches(
    n: int, *, batch_size: int = 4, seed: int = 0, epoch: int = 0, done: int = 0, lengths=None, **options: int
):
    return TrainBatches(
        np.arange(n),
        lengths=np.full(n, 7) if lengths is None else lengths,
        batch_size=batch_size,
        seed=seed,
        position=lambda: (epoch, done),
        **options,
    )


class TestAllClassesEquallyOften:
    """22 series of class 0, 5 of class 1, 3 of class 2."""

    LABELS = np.repeat([0, 1, 2], [22, 5, 3])

    @pytest.mark.parametrize("lengths", [None, np.arange(30) % 7 + 1])
    def test_a_pass_holds_as_many_of_each(self, lengths):
        passes = [order_of(train_batches(30, epoch=epoch, lengths=lengths, labels=self.LABELS)) for epoch in range(3)]
        for order in passes:
            assert np.bincount(self.LABELS[order]).tolist() == [10, 10, 10]
            times = np.bincount(order, minlength=30)
            assert times[:22].max() == 1
            assert set(times[22:27]) == {2}
            assert set(times[27:]) == {3, 4}
        assert set(passes[0]) != set(passes[1])  # another part of the frequent class
        assert len(set().union(*passes)) > 25

    def test_seed_and_epoch_fix_the_order_on_every_rank(self):
        whole = list(train_batches(30, batch_size=6, epoch=2, labels=self.LABELS))
        assert list(train_batches(30, batch_size=6, epoch=2, labels=self.LABELS, done=3)) == whole[3:]
        ranks = [
            list(train_batches(30, batch_size=3, epoch=2, labels=self.LABELS, rank=rank, world_size=2))
            for rank in range(2)
        ]
        assert [sorted(itertools.chain(*batches)) for batches in zip(*ranks, strict=True)] == list(map(sorted, whole))
        assert list(train_batches(30, batch_size=6, epoch=2, labels=self.LABELS, seed=1)) != whole

    def test_workers_change_nothing(self, make_data):
        data = make_data(lengths=[4] * 30, labels=self.LABELS.tolist())
        everything = np.arange(30)
        orders = []
        for num_workers in (0, 2):
            module = SeriesDataModule(
                data=data,
                split=Split(everything, everything[:0], everything[:0], {}),
                batch_size=8,
                num_workers=num_workers,
                balanced=True,
            )
            orders.append([batch.index.tolist() for batch in module.train_dataloader()])
        assert orders[0] == orders[1]
        assert np.bincount(self.LABELS[list(itertools.chain(*orders[0]))]).tolist() == [10, 10, 10]


def test_series_of_like_length_share_a_batch_and_batches_come_in_random_order():
    n, batch_size = 1000, 10
    lengths = np.random.default_rng(0).integers(10, 1000, n)
    batches = list(train_batches(n, batch_size=batch_size, lengths=lengths))
    assert sorted(itertools.chain(*batches)) == list(range(n))
    padded = sum(len(batch) * lengths[batch].max() for batch in batches)
    shuffled = sum(len(batch) * lengths[batch].max() for batch in train_batches(n, batch_size=batch_size))
    assert padded < 1.2 * lengths.sum() < 1.5 * lengths.sum() < shuffled
    longest = np.array([lengths[batch].max() for batch in batches])
    assert np.corrcoef(longest[1:], longest[:-1])[0, 1] < 0.3
    assert list(train_batches(n, batch_size=batch_size, lengths=lengths, done=37)) == batches[37:]
    assert list(train_batches(n, batch_size=batch_size, lengths=lengths, epoch=1)) != batches


@pytest.mark.parametrize("missing", [0.0, 0.3])
@pytest.mark.parametrize("lengths", [[7, 7, 7, 7], [7, 3, 1, 5]])
def test_a_batch_holds_its_series_zero_and_masked_where_there_is_nothing(make_data, lengths, missing):
    data = make_data(lengths=lengths, labels=[0, 1, 0, 1], num_channels=2, missing=missing)
    batch = SeriesDataset(data).__getitems__([3, 0, 1])
    longest = max(lengths[i] for i in (3, 0, 1))
    assert batch.x.shape == (3, 2, longest)
    assert (batch.x.dtype, batch.y.dtype, batch.index.dtype) == (torch.float32, torch.int64, torch.int64)
    assert batch.index.tolist() == [3, 0, 1]
    assert batch.y.tolist() == [1, 0, 1]
    assert (batch.mask is None) == (len(set(lengths)) == 1 and missing == 0)
    for row, i in enumerate([3, 0, 1]):
        expected = np.full((2, longest), np.nan, np.float32)
        expected[:, : lengths[i]] = data.series(i)
        np.testing.assert_array_equal(batch.x[row], np.nan_to_num(expected))
        if batch.mask is not None:
            np.testing.assert_array_equal(batch.mask[row], ~np.isnan(expected))


def test_what_is_held_out_comes_with_batches_of_such_series_alone(make_data):
    held_out = {1: torch.tensor([0.1, 0.9]), 2: torch.tensor([0.3, 0.7])}
    dataset = SeriesDataset(make_data(lengths=[4, 4, 4], labels=[0, 1, 0]), held_out=held_out)
    assert dataset.__getitems__([2, 1]).held_out.tolist() == [held_out[2].tolist(), held_out[1].tolist()]
    assert dataset.__getitems__([0, 1]).held_out is None


def test_a_batch_may_be_changed_without_changing_the_data(make_data):
    data = make_data(lengths=[4, 4], labels=[0, 1])
    before = data.values.copy()
    SeriesDataset(data)[0].x.fill_(9)
    np.testing.assert_array_equal(data.values, before)


def test_a_series_of_40000_points_comes_whole(make_data):
    data = make_data(lengths=[40_000, 35_000], labels=[0, 1])
    batch = SeriesDataset(data).__getitems__([1, 0])
    assert batch.mask.sum(dim=-1).flatten().tolist() == [35_000, 40_000]
    np.testing.assert_array_equal(batch.x[1], data.series(0))


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("n", [6, 13, 64])
def test_ranks_share_an_epoch_without_overlap(n, world_size):
    shards = [order_of(train_batches(n, rank=rank, world_size=world_size, batch_size=3)) for rank in range(world_size)]
    assert len({len(shard) for shard in shards}) == 1
    joined = [i for shard in shards for i in shard]
    assert len(set(joined)) == len(joined)
    if world_size == 1 and n % 3 != 1:
        assert sorted(joined) == list(range(n))


@pytest.mark.parametrize("unequal", [False, True])
def test_ranks_deal_out_the_batches_that_one_process_would_train_on(unequal):
    lengths = np.random.default_rng(0).integers(10, 1000, 600) if unequal else None
    together = list(train_batches(600, batch_size=6, lengths=lengths))
    ranks = [list(train_batches(600, rank=rank, world_size=2, batch_size=3, lengths=lengths)) for rank in (0, 1)]
    assert [sorted(one + other) for one, other in zip(*ranks, strict=True)] == [sorted(batch) for batch in together]


@pytest.mark.parametrize(
    ("n", "sizes"), [(8, [4, 4]), (10, [4, 4, 2]), (9, [4, 4]), (5, [4]), (1, [1]), (3, [3]), (4, [4])]
)
def test_a_last_batch_of_one_series_is_left_out(n, sizes):
    batches = train_batches(n)
    assert [len(batch) for batch in batches] == sizes
    assert len(batches) == len(sizes)


def test_the_order_is_a_function_of_seed_and_epoch():
    first = order_of(train_batches(40, seed=3, epoch=1))
    assert order_of(train_batches(40, seed=3, epoch=1)) == first
    assert order_of(train_batches(40, seed=3, epoch=2)) != first
    assert order_of(train_batches(40, seed=4, epoch=1)) != first
    assert order_of(train_batches(40, seed=0, epoch=0)) != list(range(40))


@pytest.mark.parametrize("unequal", [False, True])
@pytest.mark.parametrize("world_size", [1, 2])
def test_an_epoch_of_few_series_is_several_passes(unequal, world_size):
    options = {"lengths": np.arange(1, 24) if unequal else None, "min_batches": 7, "world_size": world_size}
    passes = 2 if world_size == 1 else 3  # of 6 batches, or of 3
    size = 23 // world_size
    epochs = [order_of(train_batches(23, epoch=epoch, **options)) for epoch in (0, 1)]
    parts = [epoch[start : start + size] for epoch in epochs for start in range(0, len(epoch), size)]
    assert len(parts) == 2 * passes
    assert all(len(set(part)) == size for part in parts)
    assert len({tuple(part) for part in parts}) == len(parts)
    batches = train_batches(23, **options)
    assert len(list(batches)) == len(batches) == passes * (6 if world_size == 1 else 3)
    for done in range(len(batches) + 1):
        assert list(train_batches(23, done=done, **options)) == list(batches)[done:]


def test_an_epoch_of_many_series_is_one_pass():
    assert list(train_batches(40, min_batches=10)) == list(train_batches(40))


def test_beginning_in_the_middle_gives_the_rest():
    assert list(train_batches(40, done=3)) == list(train_batches(40))[3:]


@pytest.mark.parametrize("n", [0, 1, 7, 8])
def test_evaluation_sees_each_series_once_in_order(n):
    batches = ConsecutiveBatches(np.arange(10, 10 + n), batch_size=4)
    assert [i for batch in batches for i in batch] == list(range(10, 10 + n))
    assert len(list(batches)) == len(batches)


class Recorder(L.LightningModule):
    """Trains one weight and notes which series it saw."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.seen: list[tuple[int, list[int]]] = []

    def training_step(self, batch: SeriesBatch, batch_idx: int) -> torch.Tensor:
        self.seen.append((self.current_epoch, batch.index.tolist()))
        return self.weight * batch.x.mean()

    def validation_step(self, batch: SeriesBatch, batch_idx: int) -> None:
        pass

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.fixture
def cached(tmp_path: Path) -> SeriesData:
    source = SyntheticSource(num_train=16, num_test=4, length=512, num_classes=2)
    return load_cached(source, Prepare(), tmp_path / "cache")


def fit(data: SeriesData, tmp_path: Path, *, num_workers: int, epochs: int, resume: Path | None = None, **checkpoint):
    """Seen batches of a run; 12 training series in batches of 4 are 3 steps an epoch."""
    split = Split(train=np.arange(12), validation=np.arange(12, 16), test=np.arange(16, 20), protocol={})
    module = Recorder()
    callbacks = [ModelCheckpoint(tmp_path / "checkpoints", save_top_k=-1, **checkpoint)] if checkpoint else []
    with warnings.catch_warnings():
        for message in (
            ".*does not have many workers",
            ".*exists and is not empty",
            ".*LeafSpec",
            "Be aware that when",
        ):
            warnings.filterwarnings("ignore", message)
        trainer = L.Trainer(
            max_epochs=epochs,
            accelerator="cpu",
            logger=False,
            callbacks=callbacks,
            enable_checkpointing=bool(checkpoint),
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            log_every_n_steps=1,
        )
        batches = SeriesDataModule(data=data, split=split, batch_size=4, num_workers=num_workers, seed=5)
        trainer.fit(module, datamodule=batches, ckpt_path=resume, weights_only=True)
    return module.seen


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_resumed_run_sees_the_batches_that_an_uninterrupted_one_sees(cached, tmp_path, num_workers):
    """From every kind of checkpoint: between epochs, in mid-epoch, after an epoch's last step.

    Lightning alone replays the first epoch's order here (its issue 21938).
    """
    whole = fit(
        cached, tmp_path, num_workers=num_workers, epochs=3, every_n_train_steps=1, filename="{step}", save_last=False
    )
    assert len(whole) == 9
    assert len({tuple(batch) for _, batch in whole}) == 9
    for epoch in range(3):
        assert sorted(i for e, batch in whole if e == epoch for i in batch) == list(range(12))
    for step in (2, 3, 4) if num_workers else range(1, 9):
        rest = fit(
            cached,
            tmp_path,
            num_workers=num_workers,
            epochs=3,
            resume=tmp_path / "checkpoints" / f"step={step}.ckpt",
        )
        assert rest == whole[step:], f"resumed after step {step}"


@pytest.mark.parametrize("on_train_epoch_end", [True, False])
@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_run_resumed_between_epochs_goes_on_with_the_next_order(cached, tmp_path, num_workers, on_train_epoch_end):
    whole = fit(
        cached,
        tmp_path,
        num_workers=num_workers,
        epochs=3,
        every_n_epochs=1,
        filename="{epoch}",
        save_on_train_epoch_end=on_train_epoch_end,
    )
    for epoch in (0, 1):
        rest = fit(
            cached,
            tmp_path,
            num_workers=num_workers,
            epochs=3,
            resume=tmp_path / "checkpoints" / f"epoch={epoch}.ckpt",
        )
        assert rest == whole[3 * (epoch + 1) :]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_evaluation_loaders_give_their_parts(cached, num_workers):
    split = split_indices(cached, fraction=0.25)
    batches = SeriesDataModule(
        data=cached, split=split, batch_size=2, eval_batch_size=3, num_workers=num_workers, seed=0
    )
    for loader, part in (
        (batches.val_dataloader(), split.validation),
        (batches.test_dataloader(), split.test),
        (batches.predict_dataloader(), np.arange(len(cached))),
        (batches.eval_dataloader(np.array([5, 2])), np.array([5, 2])),
    ):
        assert torch.cat([batch.index for batch in loader]).tolist() == part.tolist()
