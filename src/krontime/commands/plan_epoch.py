"""Measures how long an epoch takes: a few steps of a training, as many times as there are batches."""

import itertools
import statistics
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch.nn import functional as F

from krontime.data.datamodule import SeriesDataset, TrainBatches
from krontime.data.normalizer import Normalizer
from krontime.data.series import SeriesData
from krontime.runs.prepare import split_of
from krontime.training import build
from krontime.training.clock import now_s

WARM_UP = 3
MEASURED = 15
"""Number of steps, of different batches."""


class Epoch(NamedTuple):
    """What an epoch of training takes.

    Attributes:
        num_batches: of one pass over the training series.
        seconds: of all of them; of the processor where there is one thread.
        num_measured: batches that this was measured on.
    """

    num_batches: int
    seconds: float
    num_measured: int


def measured_epoch(options: Mapping[str, Any], data: SeriesData) -> Epoch:
    """Train the network of a plain config for a few steps, each with reading its batch.

    Raises:
        UserError: the data can't be split as asked.
    """
    split, spec = split_of(options, data), data.spec
    torch.manual_seed(options["seed"])
    normalizer = Normalizer(scaling=options["data"]["scaling"], num_channels=spec.num_channels)
    network = build.network(options, spec).train()
    optimizer = torch.optim.AdamW(network.parameters())
    dataset = SeriesDataset(data)
    batches = TrainBatches(
        split.train,
        lengths=data.lengths,
        batch_size=options["batch_size"],
        seed=options["seed"],
        position=lambda: (0, 0),
    )
    device = torch.device("cpu")
    ended_s: list[float] = []
    for indices in itertools.islice(batches, WARM_UP + MEASURED):
        batch = dataset.__getitems__(indices)
        loss = F.cross_entropy(network(normalizer(batch.x, batch.mask), batch.mask), batch.y)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        ended_s.append(now_s(device))
    steps = [later - earlier for earlier, later in itertools.pairwise(ended_s)][-MEASURED:] or [0.0]
    return Epoch(len(batches), len(batches) * statistics.median(steps), len(steps))
