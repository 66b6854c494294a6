"""The one data module: batches of any data set, gathered from its memory map, in an order that a resume repeats.

Shape letters: B batch, C channels, L time points.
"""

import math
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import lightning as L
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from krontime.data.series import HeldOut, SeriesBatch, SeriesData, unscaled
from krontime.data.split import Split
from krontime.errors import UserError, ending_signals


class SeriesDataset(Dataset[SeriesBatch]):
    """Gathers whole batches: `__getitems__` takes positions in the data and gives one `SeriesBatch`.

    Equal lengths are read in one indexed copy, windows one by one; unequal lengths are padded to the longest of the
    batch.

    Args:
        data: the series.
        masked: whether batches have a mask; None where any series of the data needs one. Without one, no series that is
            asked for may.
        held_out: of some series; batches of these alone have it.
    """

    def __init__(self, data: SeriesData, masked: bool | None = None, held_out: HeldOut | None = None) -> None:
        self.data = data
        self.held_out = held_out or {}
        self.equal_length = data.equal_length and data.read_length is None and data.windows is None
        self.masked = data.has_missing or not data.equal_length if masked is None else masked

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> SeriesBatch:
        return self.__getitems__([index])

    def __getitems__(self, indices: Sequence[int]) -> SeriesBatch:
        data = self.data
        index = np.asarray(indices, dtype=np.int64)
        if self.equal_length:
            # `asarray` drops the memory-map subclass, whose every view costs extra.
            all_series = np.asarray(data.values).reshape(len(data), data.num_channels, -1)
            stored = all_series[index]
            data.pages.read(data.values, stored.nbytes)
            if data.scale is not None:
                stored = unscaled(stored, data.scale[index], data.missing_code)
            x = torch.from_numpy(stored)
        else:
            lengths = data.lengths[index]
            is_full = bool((lengths == lengths[0]).all())
            shape = (len(index), data.num_channels, int(lengths.max()))
            padded = np.empty(shape, np.float32) if is_full else np.full(shape, np.nan, np.float32)
            for row, (i, length) in enumerate(zip(index, lengths, strict=True)):
                padded[row, :, :length] = data.series(i)
            x = torch.from_numpy(padded)
        mask = None
        if self.masked:
            missing = x.isnan()
            x.masked_fill_(missing, 0.0)
            mask = ~missing
        labels = torch.from_numpy(data.labels[index])
        known = [self.held_out[i] for i in indices if i in self.held_out]
        held_out = torch.stack(known) if known and len(known) == len(index) else None
        period = None if data.windows is None else torch.from_numpy(data.period_of(index))
        return SeriesBatch(x, mask, labels, torch.from_numpy(index), held_out, period)


class TrainBatches(Sampler[list[int]]):
    """Shuffled batches of one rank, a pure function of (seed, epoch), which can begin in the middle of an epoch.

    Each rank gets the same number of series, none of them twice: what is left over after an even division sits out
    that epoch. A last batch of a single series is left out too (batch statistics of one series are degenerate) unless
    it is the only batch.

    Series of unequal length are padded to the longest of their batch. So that little is, each few batches are sorted by
    length before they are cut, and then come in random order. The ranks deal out the batches that one process with as
    many series in a batch as they have together would train on.

    Few series make few batches, and a network needs thousands of steps for few series too: an epoch passes over the
    series as often as `min_batches` takes, each time in another order. Short epochs would go by in validation.

    With `labels`, each pass draws as many series of every class, and as many in all as without: the series of a rare
    class come several times, each of them equally often but for one, and of a frequent class another part in each pass.

    Args:
        indices: positions to draw from.
        lengths: of all series of the data, by position.
        labels: of all series of the data, by position, to draw all classes equally often; None for each series once.
        batch_size: series in a batch of one rank.
        seed: of the order.
        position: gives (epoch, batches of it already done) when iteration begins.
        min_batches: of an epoch, on each rank.
        rank: of this process.
        world_size: number of ranks.

    Raises:
        UserError: there are more ranks than series.
    """

    def __init__(
        self,
        indices: np.ndarray,
        *,
        lengths: np.ndarray,
        labels: np.ndarray | None = None,
        batch_size: int,
        seed: int,
        position: Callable[[], tuple[int, int]],
        min_batches: int = 1,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.indices = indices
        self.lengths = lengths
        self.labels = labels
        self.equal_length = len(np.unique(lengths[indices])) <= 1
        self.batch_size = batch_size
        self.seed = seed
        self.position = position
        self.rank = rank
        self.world_size = world_size
        self.num_series = len(indices) // world_size
        if self.num_series < 1:
            raise UserError(
                f"{len(indices)} training series for {world_size} processes: expected one for each at least, that is "
                "fewer of trainer.devices (or trainer.num_nodes)"
            )
        full, rest = divmod(self.num_series, batch_size)
        self.pass_batches = full + (rest > 1 or (rest == 1 and full == 0))
        self.num_passes = max(1, math.ceil(min_batches / self.pass_batches))

    def __len__(self) -> int:
        return self.num_passes * self.pass_batches

    def __iter__(self) -> Iterator[list[int]]:
        epoch, done = self.position()
        first, done = divmod(done, self.pass_batches)
        for number in range(first, self.num_passes):
            yield from self._pass(epoch * self.num_passes + number)[done if number == first else 0 :]

    def _pass(self, number: int) -> list[list[int]]:
        """The batches of one pass over the series, of all epochs' passes the one of that number."""
        rng = np.random.default_rng([self.seed, number])
        drawn = self.indices if self.labels is None else _of_all_classes(self.indices, self.labels[self.indices], rng)
        order = rng.permutation(drawn)[: self.num_series * self.world_size]
        order_of_batches = np.arange(self.pass_batches)
        size = self.batch_size * self.world_size
        if not self.equal_length:
            parts = [
                order[start : start + _SORTED_BATCHES * size] for start in range(0, len(order), _SORTED_BATCHES * size)
            ]
            order = np.concatenate([part[np.argsort(self.lengths[part], kind="stable")] for part in parts])
            order_of_batches = rng.permutation(order_of_batches)
        return [
            order[batch * size : (batch + 1) * size][self.rank :: self.world_size].tolist()
            for batch in order_of_batches
        ]


def _of_all_classes(indices: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw as many positions as there are, equally many of each class but for one more of some.

    Args:
        indices: `(n,)` positions.
        labels: `(n,)` their classes.
        rng: decides which.
    """
    classes = rng.permutation(np.unique(labels))  # the first ones get what is left over
    drawn = []
    for number, label in enumerate(classes):
        own = indices[labels == label]
        count = len(indices) // len(classes) + (number < len(indices) % len(classes))
        repeats = [rng.permutation(own) for _ in range(-(-count // len(own)))]
        drawn.append(np.concatenate(repeats)[:count])
    return np.concatenate(drawn)


_SORTED_BATCHES = 8
"""Batches of all ranks that are sorted by length together."""


class ConsecutiveBatches(Sampler[list[int]]):
    """All of `indices` in order, on every rank.

    Not torch's `BatchSampler`, which Lightning replaces by one over the whole data set when it predicts.
    """

    def __init__(self, indices: np.ndarray, *, batch_size: int) -> None:
        self.indices = indices
        self.batch_size = batch_size

    def __len__(self) -> int:
        return -(-len(self.indices) // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        for start in range(0, len(self.indices), self.batch_size):
            yield self.indices[start : start + self.batch_size].tolist()


class ResumableLoader(DataLoader[SeriesBatch]):
    """Says to Lightning that a mid-epoch resume is handled: `TrainBatches` asks the trainer where it stands.

    It asks when the first batch is: workers would draw ahead as soon as there is an iterator, and Lightning makes one
    before it restores a checkpoint when an optimiser asks for the number of steps.
    """

    def __iter__(self) -> Any:
        with _ending_signals_blocked():  # and so in the workers, from their first moment
            batches = super().__iter__()
        yield from batches

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        pass


class SeriesDataModule(L.LightningDataModule):
    """Batches of `SeriesBatch` for every stage.

    Training is sharded over ranks here (build the trainer with `use_distributed_sampler=False`). Validation, test and
    prediction run whole on every rank: their metrics are exact, without the duplicates that padding shards would add.

    Args:
        data: the series.
        split: which of them train, validate and test; None for new files, which can only be predicted.
        batch_size: training series in a batch of one device.
        eval_batch_size: series in a batch elsewhere; None for `batch_size`.
        num_workers: processes that gather batches; 0 gathers in the training process.
        min_batches: of a training epoch on each device, which passes over few series several times.
        balanced: whether training draws all classes equally often.
        seed: of the training order.
        masked, held_out: see `SeriesDataset`.
    """

    def __init__(
        self,
        *,
        data: SeriesData,
        split: Split | None = None,
        batch_size: int,
        eval_batch_size: int | None = None,
        num_workers: int = 0,
        min_batches: int = 1,
        balanced: bool = False,
        seed: int = 0,
        masked: bool | None = None,
        held_out: HeldOut | None = None,
    ) -> None:
        super().__init__()
        self.data = data
        self.split = split
        self.batch_size = batch_size
        self.eval_batch_size = batch_size if eval_batch_size is None else eval_batch_size
        self.num_workers = num_workers
        self.min_batches = min_batches
        self.balanced = balanced
        self.seed = seed
        self.dataset = SeriesDataset(data, masked, held_out)

    def train_dataloader(self) -> DataLoader[SeriesBatch]:
        assert self.split is not None
        trainer = self.trainer
        batches = TrainBatches(
            self.split.train,
            lengths=self.data.lengths,
            labels=self.data.labels if self.balanced else None,
            batch_size=self.batch_size,
            seed=self.seed,
            position=(lambda: (0, 0)) if trainer is None else (lambda: fit_position(trainer)),
            min_batches=self.min_batches,
            rank=0 if trainer is None else trainer.global_rank,
            world_size=1 if trainer is None else trainer.world_size,
        )
        return self._loader(batches)

    def val_dataloader(self) -> DataLoader[SeriesBatch]:
        assert self.split is not None
        return self.eval_dataloader(self.split.validation)

    def test_dataloader(self) -> DataLoader[SeriesBatch]:
        """The test series, with a mask where training has one, or they need it."""
        assert self.split is not None
        masked = self.dataset.masked or self.data.needs_mask(self.split.test)
        return self._loader(
            ConsecutiveBatches(self.split.test, batch_size=self.eval_batch_size), SeriesDataset(self.data, masked)
        )

    def predict_dataloader(self) -> DataLoader[SeriesBatch]:
        """All series of the data, in order."""
        return self.eval_dataloader(np.arange(len(self.data)))

    def eval_dataloader(self, indices: np.ndarray) -> DataLoader[SeriesBatch]:
        """The series at `indices`, in that order."""
        return self._loader(ConsecutiveBatches(indices, batch_size=self.eval_batch_size))

    def _loader(self, batches: Sampler[list[int]], dataset: SeriesDataset | None = None) -> DataLoader[SeriesBatch]:
        return ResumableLoader(
            dataset or self.dataset,
            batch_sampler=batches,
            collate_fn=_as_is,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            worker_init_fn=_outlive_signals if self.num_workers > 0 and hasattr(signal, "sigwaitinfo") else None,
            pin_memory=self.trainer is not None and self.trainer.strategy.root_device.type == "cuda",
        )


def fit_position(trainer: L.Trainer) -> tuple[int, int]:
    """(epoch, batches of it already trained on), also between a checkpoint's restoring and the first step after it.

    Lightning makes the first iterator before it gives a sampler its epoch, and with workers the first batches are then
    drawn from epoch 0's order (Lightning issue 21938). Its progress counters are right at that moment, so they are read
    when iteration begins.
    """
    epoch: Any = trainer.fit_loop.epoch_progress.current
    batch: Any = trainer.fit_loop.epoch_loop.batch_progress.current
    if epoch.processed >= epoch.started:  # between epochs
        return epoch.processed, 0
    if trainer.fit_loop.epoch_loop.batch_progress.is_last_batch and batch.processed == batch.ready:
        return epoch.processed + 1, 0  # all steps are done, and the epoch is not closed yet
    return epoch.processed, batch.processed


@contextmanager
def _ending_signals_blocked() -> Iterator[None]:
    if not hasattr(signal, "sigwaitinfo"):  # Windows, macOS
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ending_signals())
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _outlive_signals(worker: int) -> None:
    """End on a SIGTERM of the training process alone.

    Schedulers send one to all processes of a job, and a terminal that is closed its SIGHUP. The training process
    finishes its batch and saves, and a worker that was gone by then would be an error there.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, ending_signals())
    parent = os.getppid()

    def wait() -> None:
        while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
            pass
        os._exit(0)

    threading.Thread(target=wait, daemon=True).start()


def _as_is(batch: Any) -> Any:
    return batch
