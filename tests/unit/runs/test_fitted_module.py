"""What a run takes from its training series before the first step."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from krontime.data.datamodule import SeriesDataset
from krontime.data.series import UNKNOWN_LABEL, SeriesData
from krontime.data.split import Split
from krontime.models.kernel_ridge.classifier import ClosedForm
from krontime.runs import fitted_module, load
from krontime.runs.prepare import PreparedData, prepare
from krontime.runs.record import Protocol

TINY = [
    "tokenizer=rocket",
    "tokenizer.patch_length=16",
    "tokenizer.stride=16",
    "tokenizer.num_dilations=2",
    "closed_form.fit_on=train",
    "closed_form.min_network_series=0",
    "model.d_model=8",
    "model.num_heads=2",
    "model.num_layers=1",
]


def make_job(*, train: list[int], labels: list[int], lengths: list[int] | None = None, seed: int = 0) -> PreparedData:
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
    return PreparedData(data=data, spec=data.spec, split=split, protocol=protocol)


LABELS = [0, 1, 2, 0, 1, 0, 0, 1, 2, 0, 1, 2]


def state(config: dict[str, Any], job: PreparedData) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return fitted_module.fitted_module(config, job)[0].tensors()


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
    states = [state(config, job) for job in (small, large)]
    biases = [
        next(tensors[key] for key in tensors if key.startswith("network") and "biases" in key) for tensors in states
    ]
    torch.testing.assert_close(biases[0], biases[1], atol=1e-3, rtol=1e-3)
    assert biases[0].abs().max() < 30


def test_no_more_series_than_needed_are_read(compose, monkeypatch):
    config = compose(*TINY)
    seen = []
    monkeypatch.setattr("krontime.models.krontime.KronTime.fit_tokens", lambda self, x, mask: seen.append(x.shape))
    job = make_job(train=[0, 1, 2, 5, 6, 7], labels=LABELS)
    fitted_module.fitted_module(config, job)
    monkeypatch.setattr(fitted_module, "FIT_SERIES", 4)
    fitted_module.fitted_module(config, job)
    monkeypatch.setattr(fitted_module, "FIT_POINTS", 3 * 2 * 40)
    fitted_module.fitted_module(config, job)
    monkeypatch.setattr(fitted_module, "FIT_POINTS", 1)
    fitted_module.fitted_module(config, job)
    assert seen == [(count, 2, 40) for count in (6, 4, 3, 1)]


class TestClosedForm:
    """Beside the network."""

    JOB = make_job(train=[0, 1, 2, 5, 6], labels=LABELS)

    @staticmethod
    def module(compose: Any, job: PreparedData, *overrides: str) -> Any:
        return fitted_module.fitted_module(compose(*TINY, *overrides), job)[0]

    @pytest.mark.parametrize("fit_on", ["train", "train_and_validation"])
    def test_another_process_is_sent_what_the_first_one_has_fitted(self, compose, fit_on):
        config = compose(*TINY, f"closed_form.fit_on={fit_on}")
        first, held_out = fitted_module.fitted_module(config, self.JOB)
        other, nothing = fitted_module.fitted_module(config, self.JOB, is_first=False)
        assert nothing == {}
        sent = (first.mixture.tensors(), held_out)
        datasets = [SeriesDataset(self.JOB.data, None, known) for known in (held_out, nothing)]
        for rank, module in enumerate((first, other)):
            strategy = SimpleNamespace(broadcast=lambda given, rank=rank: self.received(given, rank, sent))
            module._trainer = SimpleNamespace(
                world_size=2, strategy=strategy, global_rank=rank, datamodule=SimpleNamespace(dataset=datasets[rank])
            )
            module.setup("fit")
        assert all(torch.equal(value, other.tensors()[name]) for name, value in first.mixture.tensors().items())
        batches = [dataset.__getitems__([3, 4]) for dataset in datasets]
        assert torch.equal(batches[0].held_out, batches[1].held_out)
        assert torch.equal(
            *(module.mixture.closed_form_log_probability(batches[0].x, None) for module in (first, other))
        )

    @staticmethod
    def received(given: Any, rank: int, sent: Any) -> Any:
        assert (given is None) == (rank > 0)
        return sent

    def test_validation_series_are_judged_by_a_fit_without_them(self, compose):
        for fit_on in ("train", "train_and_validation"):
            module, held_out = fitted_module.fitted_module(compose(*TINY, f"closed_form.fit_on={fit_on}"), self.JOB)
            assert sorted(held_out) == list(range(9))
            batch = SeriesDataset(self.JOB.data, held_out=held_out).__getitems__([3, 4, 7, 8])
            torch.testing.assert_close(module.predict_step(batch, 0)[1], batch.held_out.softmax(dim=-1))
            fitted = module(batch.x, batch.mask)
            assert torch.allclose(batch.held_out, fitted, atol=1e-4) == (fit_on == "train")

    @pytest.mark.parametrize("fit_on", ["train", "train_and_validation"])
    def test_test_series_change_nothing(self, compose, fit_on):
        job = make_job(train=[0, 1, 2, 5, 6], labels=LABELS)

        def tensors() -> dict[str, torch.Tensor]:
            torch.manual_seed(0)
            return self.module(compose, job, f"closed_form.fit_on={fit_on}").tensors()

        before = tensors()
        for index in (9, 10, 11):
            job.data.series(index)[:] = 1e4
        after = tensors()
        assert all(torch.equal(after[key], value) for key, value in before.items())
        job.data.series(7)[:] *= job.data.series(7)  # validates
        changed = tensors()
        names = [key for key in before if key.endswith(".weight") and "parts" in key and "features" not in key]
        assert names
        for key in names:
            assert torch.equal(changed[key], before[key]) == (fit_on == "train")

    def test_with_groups_none_is_judged_by_a_fit_to_its_own(self, compose, monkeypatch):
        job = make_job(train=[0, 1, 2, 5, 6], labels=LABELS)
        groups = np.arange(12) // 2
        job = replace(
            job,
            data=replace(job.data, groups=groups, group_name="speaker"),
            protocol=job.protocol.model_copy(update={"split_method": "group", "group": "speaker"}),
        )
        seen = []
        fit = ClosedForm.fit
        monkeypatch.setattr(ClosedForm, "fit", lambda self, sample, task: seen.append(task) or fit(self, sample, task))
        self.module(compose, job)
        self.module(compose, self.JOB)
        assert sorted(seen[0].groups.code.tolist()) == sorted(groups[:9].tolist())
        assert seen[1].groups is None

    @pytest.mark.parametrize(
        ("method", "num_assets"), [("time", 1), ("given", 1), ("given", 3)], ids=["time", "a period", "assets"]
    )
    def test_windows_that_overlap_do_not_answer_for_each_other(self, compose, method, num_assets):
        """Of noise whose labels say nothing, held-out windows are not known better than by chance."""
        rng = np.random.default_rng(0)
        market = rng.standard_normal(4000)
        periods = [(0, 4000)] if method == "time" else [(0, 3000), (3000, 4000)]  # one that validates is a recording
        values, rows, lengths = [], [], []
        for _ in range(num_assets):  # which go up and down together
            own = (market + 0.3 * rng.standard_normal(4000)).astype(np.float32)
            for start, stop in periods:
                rows += [(len(values), at, at + 200, (start + at) // 200 % 2) for at in range(0, stop - start, 200)]
                values.append(own[start:stop])
                lengths.append(stop - start)
        num = len(values)
        data = SeriesData(
            values=np.concatenate(values),
            offsets=np.concatenate([[0], np.cumsum(lengths)]),
            labels=np.full(num, UNKNOWN_LABEL),
            is_test=np.zeros(num, bool),
            is_validation=np.arange(num) % 2 == 1 if method == "given" else None,
            class_names=("a", "b"),
            num_channels=1,
            has_missing=False,
            by_time=method == "given",
            annotations=np.array(rows),
            sha256="0" * 64,
        )
        window = ["data.window.length=100", "data.window.stride=20", "data.window.label=end"]
        config = compose("model=closed_form", *window, f"data.validation.method={method}")
        job = prepare(config, data)
        held_out = fitted_module.fitted_module(config, job)[1]
        for indices in (job.split.train, job.split.validation):
            right = [held_out[i].argmax() == job.data.labels[i] for i in indices.tolist()]
            assert np.mean(right) < 0.65

    def test_without_one_the_network_is_alone(self, compose):
        config = compose("model=patchtst", "model.d_model=8", "model.num_heads=2", "model.num_layers=1")
        module = fitted_module.fitted_module(config, self.JOB)[0]
        assert module.mixture is None

    def test_without_a_network_it_answers_alone(self, compose):
        module = fitted_module.fitted_module(compose("model=closed_form"), self.JOB)[0]
        assert module.network is None
        batch = SeriesDataset(self.JOB.data).__getitems__([9, 10])
        torch.testing.assert_close(module(batch.x), module.mixture.closed_form(batch.x))

    def test_the_seed_is_that_of_the_run(self, compose):
        kernels = [
            self.module(compose, self.JOB, f"seed={seed}").tensors()["closed_form.parts.groups.features.weight"]
            for seed in (0, 1)
        ]
        assert not torch.equal(*kernels)


def test_balanced_weights_give_each_class_the_same_say(compose):
    config = compose(*TINY, "loss.class_weights=balanced")
    job = make_job(train=[0, 1, 2, 3, 4, 5], labels=LABELS)
    weights = fitted_module.fitted_module(config, job)[0].class_weights
    counts = torch.tensor([3.0, 2.0, 1.0])
    torch.testing.assert_close(weights * counts, torch.full((3,), 2.0))
    assert fitted_module.fitted_module(compose(*TINY, "loss.class_weights=none"), job)[0].class_weights is None


@pytest.mark.parametrize("chosen", ["none", "balanced", "sampled"])
def test_probabilities_keep_the_training_frequencies(compose, chosen):
    """Weights of the loss, and drawing classes more often, move the logits; they are moved back for every answer."""
    config = compose("model=tcn", f"loss.class_weights={chosen}")
    job = make_job(train=[0, 1, 2, 3, 4, 5], labels=LABELS)
    module = fitted_module.fitted_module(config, job)[0].eval()
    x = torch.randn(3, 2, 40)
    logits = module.network(module.normalizer(x, None))
    shift = 0 if chosen == "none" else module.class_weights.log()
    assert module.has_weighted_loss == (chosen == "balanced")
    assert job.batches(config).balanced == (chosen == "sampled")
    torch.testing.assert_close(module(x), logits - shift)


@pytest.mark.parametrize(("score", "prior"), [("accuracy", [1 / 3] * 3), ("balanced_accuracy", [0.5, 1 / 3, 1 / 6])])
def test_the_prior_is_that_of_the_stated_score(compose, score, prior):
    job = make_job(train=[0, 1, 2, 3, 4, 5], labels=LABELS)
    job = replace(job, protocol=job.protocol.model_copy(update={"score": score}))
    module = fitted_module.fitted_module(compose("model=tcn"), job)[0]
    torch.testing.assert_close(module.prior, torch.tensor(prior))


@pytest.mark.parametrize("class_weights", ["none", "balanced"])
def test_a_module_is_built_again_from_its_checkpoint(compose, tmp_path, class_weights):
    config = compose(*TINY, "data.scaling=channel", "augment.shift=0.1", f"loss.class_weights={class_weights}")
    job = make_job(train=[0, 1, 2, 5], labels=LABELS)
    module = fitted_module.fitted_module(config, job)[0].eval()
    checkpoint: dict[str, Any] = {"state_dict": module.state_dict()}
    module.on_save_checkpoint(checkpoint)
    (tmp_path / load.CHECKPOINTS).mkdir()
    torch.save(checkpoint, tmp_path / load.CHECKPOINTS / load.LAST)
    run = load.load_run(tmp_path)
    assert run.config == config
    assert run.spec == job.spec
    x = torch.randn(3, 2, 40)
    assert torch.equal(run.module(x), module(x))
    assert torch.equal(run.module.network_logits(x), module.network_logits(x))
    assert not run.module.training
