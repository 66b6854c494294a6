"""Probabilities of chosen series: in the order asked for, whatever the batches are."""

import numpy as np
import pytest
import torch
from torch import nn

from krontime.data.datamodule import SeriesDataset
from krontime.data.series import SeriesData
from krontime.errors import UserError
from krontime.metrics import METRICS
from krontime.runs.predictions import named
from krontime.training.metrics import metric_collection
from krontime.training.module import SeriesClassifier
from krontime.training.predict import Scorer, scores

LENGTHS = [20, 7, 13, 20, 1, 9, 20, 16]
LABELS = [0, 2, 1, 0, 1, 2, 0, 1]


class Probe(nn.Module):
    """Logits that tell every series apart; dropout shows a module left in training mode."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(2, 3)
        self.dropout = nn.Dropout(0.9)

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        count = x.shape[-1] if mask is None else mask.sum(dim=-1).clamp(min=1)
        return self.dropout(self.head(x.sum(dim=-1) / count))


@pytest.fixture
def data() -> SeriesData:
    rng = np.random.default_rng(0)
    offsets = np.concatenate([[0], np.cumsum(LENGTHS)])
    return SeriesData(
        values=rng.standard_normal(2 * offsets[-1]).astype(np.float32),
        offsets=offsets,
        labels=np.array(LABELS),
        is_test=np.zeros(len(LABELS), bool),
        class_names=("x", "y", "z"),
        num_channels=2,
        has_missing=False,
    )


@pytest.fixture
def module() -> SeriesClassifier:
    torch.manual_seed(0)
    return SeriesClassifier(network=Probe(), normalizer=Same(), num_classes=3)


class Same(nn.Module):
    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        return x


@pytest.mark.parametrize("batch_size", [1, 3, 100])
@pytest.mark.parametrize("indices", [[0, 1, 2, 3, 4, 5, 6, 7], [6, 2, 4], [5]])
def test_order_is_kept_and_batches_do_not_matter(data, module, batch_size, indices):
    scorer = Scorer(batch_size=batch_size, accelerator="cpu", precision="32-true")
    probability = scorer.probabilities(module.train(), data, np.array(indices))
    assert probability.dtype == torch.float32
    module.eval()
    for row, index in zip(probability, indices, strict=True):
        batch = SeriesDataset(data).__getitems__([index])
        torch.testing.assert_close(row, module(batch.x, batch.mask).softmax(dim=-1)[0])


def test_scores_are_those_of_the_collection():
    torch.manual_seed(0)
    probability = torch.randn(50, 3).softmax(dim=-1)
    labels = np.random.default_rng(0).integers(0, 3, 50)
    prior = torch.tensor([0.2, 0.5, 0.3])
    collection = metric_collection(3, prior)
    collection.update(probability, torch.from_numpy(labels))
    values = scores(probability, labels, prior)
    assert tuple(values) == METRICS
    assert values == pytest.approx({name: value.item() for name, value in collection.compute().items()})


def test_names_stand_beside_probabilities(data):
    probability = torch.tensor([[0.1, 0.7, 0.2], [0.6, 0.3, 0.1]])
    predictions = named(probability, data, np.array([2, 1]), torch.tensor([0.1, 0.8, 0.1]))
    assert predictions.predicted == [data.class_names[2], data.class_names[0]]  # those that exceed their frequency most
    assert list(predictions.index) == [2, 1]
    assert predictions.labels == ["y", "z"]
    assert predictions.class_names == data.class_names
    np.testing.assert_allclose(predictions.probabilities, probability)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_an_accelerator_that_is_not_there_is_named(data, module):
    with pytest.raises(UserError, match="accelerator='gpu'"):
        Scorer(batch_size=2, accelerator="gpu", precision="32-true").probabilities(module, data, np.array([0]))


def test_scorer_follows_the_run_unless_asked_otherwise(compose):
    config = compose("data.eval_batch_size=7", "trainer.precision=bf16-mixed")
    assert Scorer.of(config) == Scorer(batch_size=7, accelerator="cpu", precision="bf16-mixed")
    assert Scorer.of(config, "gpu").accelerator == "gpu"
