"""What a run takes from its training series before the first step."""

from typing import Any

import numpy as np
import pytest
import torch

from krontime import experiment
from krontime.data.series import SeriesData
from krontime.data.split import Split
from krontime.experiment import Experiment
from krontime.results.record import Protocol

TINY = [
    "tokenizer.patch_length=16",
    "tokenizer.stride=16",
    "tokenizer.num_dilations=2",
    "model.d_model=8",
    "model.num_heads=2",
    "model.num_layers=1",
]


def make_job(*, train: list[int], labels: list[int], lengths: list[int] | None = None, seed: int = 0) -> Experiment:
    """Twelve series, of which `train` trains; a quarter each of the others validate and test."""
    rng = np.random.default_rng(seed)
    lengths = lengths or [40] * 12
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    data = SeriesData(
        values=(rng.standard_normal(2 * offsets[-1]) + 3).astype(np.float32),
        offsets=offsets,
        labels=np.array(labels),
        is_test=np.array([False] * 9 + [True] * 3),
        class_names=("a", "b", "c"),
        num_channels=2,
        has_missing=False,
        sha256="0" * 64,
    )
    others = np.setdiff1d(np.arange(9), train)
    split = Split(np.array(train), others, np.arange(9, 12), {"method": "stratified"})
    counts = np.bincount(data.labels[train], minlength=3)
    protocol = Protocol(
        data_sha256="0" * 64,
        split_method="stratified",
        split_seed=0,
        num_train=len(train),
        num_val=len(others),
        num_test=3,
        train_class_counts=dict(zip("abc", counts.tolist(), strict=True)),
        selection_metric=None,
        scaling="series",
    )
    return Experiment(data=data, spec=data.spec, split=split, protocol=protocol)


LABELS = [0, 1, 2, 0, 1, 0, 0, 1, 2, 0, 1, 2]


def state(config: dict[str, Any], job: Experiment) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return experiment.fitted_module(config, job).state_dict()


@pytest.mark.parametrize("scaling", ["channel", "series"])
@pytest.mark.parametrize("lengths", [None, [40, 13, 25, 40, 7, 31, 22, 19, 40, 40, 5, 38]])
def test_validation_and_test_series_change_nothing(compose, scaling, lengths):
    config = compose(*TINY, f"data.scaling={scaling}", "loss.class_weights=balanced")
    job = make_job(train=[0, 1, 2, 5], labels=LABELS, lengths=lengths)
    before = state(config, job)
    for index in (3, 4, 6, 7, 8, 9, 10, 11):
        job.data.series(index)[:] = 1e4
    after = state(config, job)
    assert all(torch.equal(after[key], value) for key, value in before.items())
    job.data.series(5)[:] *= 3
    job.data.series(5)[0, 0] += 9
    changed = {key for key, value in state(config, job).items() if not torch.equal(value, before[key])}
    assert any("biases" in key for key in changed)
    assert ("normalizer.mean" in changed) == (scaling == "channel")


def test_tokens_are_fitted_to_scaled_series(compose):
    """The unit of the data leaves no trace where each series is scaled."""
    config = compose(*TINY, "data.scaling=series")
    small, large = make_job(train=[0, 1, 2, 5], labels=LABELS), make_job(train=[0, 1, 2, 5], labels=LABELS)
    large.data.values[:] *= 1000
    biases = [value for job in (small, large) for key, value in state(config, job).items() if "biases" in key]
    torch.testing.assert_close(biases[0], biases[1], atol=1e-3, rtol=1e-3)
    assert biases[0].abs().max() < 30


def test_no_more_series_than_needed_are_read(compose, monkeypatch):
    config = compose(*TINY)
    seen = []
    monkeypatch.setattr("krontime.models.krontime.KronTime.fit_tokens", lambda self, x, mask: seen.append(x.shape))
    job = make_job(train=[0, 1, 2, 5, 6, 7], labels=LABELS)
    experiment.fitted_module(config, job)
    monkeypatch.setattr(experiment, "FIT_SERIES", 4)
    experiment.fitted_module(config, job)
    monkeypatch.setattr(experiment, "FIT_POINTS", 3 * 2 * 40)
    experiment.fitted_module(config, job)
    monkeypatch.setattr(experiment, "FIT_POINTS", 1)
    experiment.fitted_module(config, job)
    assert seen == [(count, 2, 40) for count in (6, 4, 3, 1)]


def test_balanced_weights_give_each_class_the_same_say(compose):
    config = compose(*TINY, "loss.class_weights=balanced")
    job = make_job(train=[0, 1, 2, 3, 4, 5], labels=LABELS)
    weights = experiment.fitted_module(config, job).class_weights
    counts = torch.tensor([3.0, 2.0, 1.0])
    torch.testing.assert_close(weights * counts, torch.full((3,), 2.0))
    assert experiment.fitted_module(compose(*TINY), job).class_weights is None


def test_a_module_is_built_again_from_its_checkpoint(compose, tmp_path):
    config = compose(*TINY, "data.scaling=channel", "augment.shift=0.1")
    job = make_job(train=[0, 1, 2, 5], labels=LABELS)
    module = experiment.fitted_module(config, job).eval()
    checkpoint: dict[str, Any] = {"state_dict": module.state_dict()}
    module.on_save_checkpoint(checkpoint)
    (tmp_path / experiment.CHECKPOINTS).mkdir()
    torch.save(checkpoint, tmp_path / experiment.CHECKPOINTS / experiment.LAST)
    run = experiment.load_run(tmp_path)
    assert run.config == config
    assert run.spec == job.spec
    x = torch.randn(3, 2, 40)
    assert torch.equal(run.module(x), module(x))
    assert not run.module.training
