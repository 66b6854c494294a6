"""The one LightningModule, driven by a real trainer on a few tiny series."""

from types import SimpleNamespace
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint, RichProgressBar
from torch import Tensor, nn
from torch.utils.data import DataLoader

from krontime.data.series import SeriesBatch
from krontime.training.augment import Augment
from krontime.training.metrics import metric_collection
from krontime.training.module import FORMAT_VERSION, SeriesClassifier
from krontime.training.progress import Bar, EpochLines, History

NUM_CLASSES = 3

pytestmark = [
    pytest.mark.filterwarnings("ignore:The '\\w+_dataloader' does not have many workers"),
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty"),
    pytest.mark.filterwarnings("ignore:The number of training batches"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec.* is deprecated"),
    pytest.mark.filterwarnings("ignore:Trying to infer the `batch_size`"),
]


class Tiny(nn.Module):
    """Matrices, vectors, and dropout, whose draws show the state of the generator."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Conv1d(2, 4, 3, padding=1)
        self.norm = nn.LayerNorm(4)
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(4, NUM_CLASSES)
        self.masks_seen: list[bool] = []
        self.draws: list[Tensor] = []

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        self.masks_seen.append(mask is not None)
        hidden = self.norm(self.hidden(x).relu().mean(dim=-1))
        dropped = self.dropout(hidden)
        if self.training:
            self.draws.append((dropped == 0).detach().clone())
        return self.head(dropped)


class Doubler(nn.Module):
    """A normaliser that is easy to see."""

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return 2 * x


def make_batches(num_batches: int = 3, batch_size: int = 4, masked: bool = True) -> list[SeriesBatch]:
    generator = torch.Generator().manual_seed(0)
    batches = []
    for i in range(num_batches):
        x = torch.randn(batch_size, 2, 12, generator=generator)
        mask = torch.rand(x.shape, generator=generator) > 0.2
        batches.append(
            SeriesBatch(
                x=x * mask,
                mask=mask if masked else None,
                y=torch.randint(NUM_CLASSES, (batch_size,), generator=generator),
                index=torch.arange(batch_size) + i * batch_size,
            )
        )
    return batches


def loader(batches: list[SeriesBatch]) -> DataLoader[SeriesBatch]:
    return DataLoader(batches, batch_size=None, shuffle=False)


def adamw(groups: Any) -> torch.optim.Optimizer:
    return torch.optim.AdamW(groups, lr=0.01, weight_decay=0.1)


def make_module(**options: Any) -> SeriesClassifier:
    torch.manual_seed(0)
    return SeriesClassifier(
        **{"network": Tiny(), "normalizer": Doubler(), "num_classes": NUM_CLASSES, "optimizer": adamw, **options}
    )


def loss_of(module: SeriesClassifier, batch: SeriesBatch, monkeypatch: pytest.MonkeyPatch) -> Tensor:
    """The training loss of a module that no trainer runs."""
    monkeypatch.setattr(module, "log", lambda *args, **options: None)
    return module.training_step(batch, 0)


def make_trainer(
    tmp_path, *callbacks: pl.Callback, epochs: int = 2, progress: bool = False, **options: Any
) -> pl.Trainer:
    return pl.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        logger=False,
        callbacks=list(callbacks),
        enable_progress_bar=progress,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=str(tmp_path),
        **{"enable_checkpointing": any(isinstance(c, ModelCheckpoint) for c in callbacks), **options},
    )


def fit(tmp_path, module: SeriesClassifier, *callbacks: pl.Callback, num_batches: int = 3, **options: Any):
    ckpt_path = options.pop("ckpt_path", None)
    trainer = make_trainer(tmp_path, *callbacks, **options)
    batches = make_batches(num_batches)
    trainer.fit(module, loader(batches), loader(make_batches(2)), ckpt_path=ckpt_path, weights_only=True)
    return trainer


def validated(module: SeriesClassifier, logits: Tensor, y: Tensor, monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """The validation metrics of a module whose network answered so."""
    logged: dict[str, float] = {}
    monkeypatch.setattr(module, "log", lambda name, value, **_: logged.__setitem__(name, float(value)))
    module._validated = [(logits, logits, y)]
    module.on_validation_epoch_end()
    return logged


def test_what_selects_is_what_decides_and_scores(monkeypatch):
    """Where classes are unlike in number, to answer the most frequent one is neither selected nor scored well."""
    frequencies = torch.tensor([0.8, 0.15, 0.05])
    y = torch.repeat_interleave(torch.arange(NUM_CLASSES), (100 * frequencies).round().long())
    majority = frequencies.log().expand(100, -1)
    right = nn.functional.one_hot(y, NUM_CLASSES).float()
    # Evidence for the right class that the frequencies outweigh in every series, and too much of it in frequent ones.
    evidence = majority + 1.5 * right - 2.6 * (y == 0)[:, None] * right
    balanced = make_module(prior=frequencies)
    plain = make_module()
    judged = {
        name: validated(balanced, logits, y, monkeypatch) for name, logits in (("no", majority), ("yes", evidence))
    }
    alike = {name: validated(plain, logits, y, monkeypatch) for name, logits in (("no", majority), ("yes", evidence))}
    assert judged["yes"]["val/nll"] > judged["no"]["val/nll"]  # what would select without the rule
    assert judged["yes"]["val/loss"] < judged["no"]["val/loss"]
    assert judged["yes"]["val/balanced_accuracy"] > judged["no"]["val/balanced_accuracy"]
    assert alike["yes"]["val/loss"] > alike["no"]["val/loss"]
    assert alike["no"]["val/accuracy"] == pytest.approx(0.8)


@pytest.mark.parametrize("weights", [None, torch.tensor([0.5, 1.0, 4.0])])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_loss_equals_the_formula(weights, smoothing, monkeypatch):
    module = make_module(class_weights=weights, label_smoothing=smoothing).eval()
    batch = make_batches(1)[0]
    loss = loss_of(module, batch, monkeypatch)
    log_p = module.network(2 * batch.x, batch.mask).log_softmax(dim=-1)
    w = torch.ones(NUM_CLASSES) if weights is None else weights
    rows = []
    for row, label in zip(log_p, batch.y, strict=True):
        share = torch.full((NUM_CLASSES,), smoothing / NUM_CLASSES)
        share[label] += 1 - smoothing
        rows.append(-(w * share * row).sum())
    torch.testing.assert_close(loss, torch.stack(rows).mean())


def test_weights_of_classes_that_are_sampled_are_not_in_the_loss(monkeypatch):
    weights = torch.tensor([0.5, 1.0, 4.0])
    sampled, plain = make_module(class_weights=weights, has_weighted_loss=False).eval(), make_module().eval()
    plain.network.load_state_dict(sampled.network.state_dict())
    batch = make_batches(1)[0]
    assert torch.equal(loss_of(sampled, batch, monkeypatch), loss_of(plain, batch, monkeypatch))
    torch.testing.assert_close(sampled(batch.x, batch.mask), plain(batch.x, batch.mask) - weights.log())


def test_augmentation_happens_in_training_alone(monkeypatch):
    module = make_module(augment=Augment(jitter=1.0)).eval()  # no dropout
    batch = make_batches(1)[0]
    first, second = loss_of(module, batch, monkeypatch), loss_of(module, batch, monkeypatch)
    assert first != second
    assert torch.equal(module(batch.x, batch.mask), module(batch.x, batch.mask))
    assert torch.equal(module.predict_step(batch, 0)[1], module.predict_step(batch, 0)[1])


def test_forward_scales_and_hands_the_mask_on():
    module = make_module().eval()
    masked, plain = make_batches(1)[0], make_batches(1, masked=False)[0]
    for batch in (masked, plain):
        torch.testing.assert_close(module(batch.x, batch.mask), module.network(2 * batch.x))
    assert module.network.masks_seen[0] is True
    assert module.network.masks_seen[2] is False


def test_predictions_are_probabilities_in_float32():
    module = make_module().eval()
    batch = make_batches(1)[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        index, probability = module.predict_step(batch, 0)
    assert torch.equal(index, batch.index)
    assert probability.dtype == torch.float32
    torch.testing.assert_close(probability.sum(dim=1), torch.ones(4), atol=1e-6, rtol=0)


def test_weight_decay_on_matrices_only(tmp_path):
    module = make_module()
    module.network.norm.bias.requires_grad_(False)
    trainer = fit(tmp_path, module, epochs=1)
    decay = {id(p): group["weight_decay"] for group in trainer.optimizers[0].param_groups for p in group["params"]}
    learned = {name: p for name, p in module.named_parameters() if p.requires_grad}
    assert {name: decay[id(p)] for name, p in learned.items()} == {
        "network.hidden.weight": 0.1,
        "network.hidden.bias": 0.0,
        "network.norm.weight": 0.0,
        "network.head.weight": 0.1,
        "network.head.bias": 0.0,
    }
    assert len(decay) == len(learned)


def test_a_matrix_can_refuse_weight_decay(tmp_path):
    module = make_module()
    module.network.head.weight.no_weight_decay = True
    groups = make_module(network=module.network)
    decay = fit(tmp_path, groups, epochs=1).optimizers[0].param_groups
    refusing = next(group for group in decay if any(p is module.network.head.weight for p in group["params"]))
    assert refusing["weight_decay"] == 0


@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_rate_follows_the_schedule_by_optimiser_steps(tmp_path, accumulate):
    rates = []

    class Rates(pl.Callback):
        def on_before_optimizer_step(self, trainer, pl_module, optimizer):
            rates.append(optimizer.param_groups[0]["lr"])

    module = make_module(warmup_fraction=0.5, min_lr_ratio=0.1)
    fit(tmp_path, module, Rates(), epochs=2, num_batches=4, accumulate_grad_batches=accumulate)
    total = 8 // accumulate
    assert len(rates) == total
    assert rates[total // 2] == max(rates) == pytest.approx(0.01)
    assert rates == sorted(rates[: total // 2]) + sorted(rates[total // 2 :], reverse=True)


def test_validation_scores_are_those_of_all_series_at_once(tmp_path):
    module = make_module()
    trainer = fit(tmp_path, module, epochs=2)
    batches = make_batches(2)
    module.eval()
    with torch.no_grad():
        probability = torch.cat([module(batch.x, batch.mask).softmax(dim=-1) for batch in batches])
    expected = metric_collection(NUM_CLASSES, torch.full((NUM_CLASSES,), 1 / NUM_CLASSES))
    expected.update(probability, torch.cat([batch.y for batch in batches]))
    for name, value in expected.compute().items():
        torch.testing.assert_close(trainer.callback_metrics[f"val/{name}"], value.float(), msg=name)
    assert trainer.callback_metrics["series_per_s"] > 0
    assert "train/loss" in trainer.callback_metrics


def test_the_training_loss_is_a_mean_over_series(tmp_path):
    batches = [*make_batches(2), *make_batches(1, batch_size=1)]
    losses: list[Tensor] = []

    class Watch(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            losses.append(outputs["loss"].detach() * len(batch.y))

    trainer = make_trainer(tmp_path, Watch(), epochs=1)
    trainer.fit(make_module(), loader(batches), loader(batches))
    assert len(losses) == 3
    assert trainer.callback_metrics["train/loss"] == pytest.approx(float(sum(losses)) / 9)


def test_the_randomness_of_a_step_depends_on_seed_and_step_alone(tmp_path):
    def draws(seed: int, disturb: int = 0) -> list[Tensor]:
        class Disturb(pl.Callback):
            def on_train_batch_end(self, *args: Any) -> None:
                torch.rand(disturb)

        module = make_module(seed=seed)
        fit(tmp_path, module, Disturb())
        return module.network.draws

    first, disturbed, other = draws(5), draws(5, disturb=17), draws(6)
    assert len(first) == 6
    assert all(torch.equal(a, b) for a, b in zip(first, disturbed, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first, other, strict=True))
    assert len({tuple(draw.flatten().tolist()) for draw in first}) == len(first)


@pytest.mark.parametrize("world_size", [64, 200])
@pytest.mark.parametrize("seeds", [(0, 1), (1, 2), (0, 2**32 - 1)])
def test_no_two_seeds_share_a_batch(seeds, world_size, monkeypatch):
    """Neither do the ranks of a run."""
    module, at = make_module(), SimpleNamespace(total_batch_idx=0)
    module._trainer = SimpleNamespace(fit_loop=SimpleNamespace(epoch_loop=at), world_size=world_size)
    states = set()
    for seed in seeds:
        for number in (0, 1, 2, 63, 64, 1000):
            for rank in (0, 1, world_size - 1):
                module.seed, at.total_batch_idx = seed, number
                monkeypatch.setattr(type(module), "global_rank", rank)
                module.on_train_batch_start(make_batches(1)[0], 0)
                states.add(torch.initial_seed())
    assert len(states) == len(seeds) * 6 * 3


def test_batches_of_one_step_draw_anew(tmp_path):
    """Two batches to an optimiser step, the last of an epoch to a step of its own."""
    module = make_module()
    fit(tmp_path, module, accumulate_grad_batches=2)
    draws = {tuple(draw.flatten().tolist()) for draw in module.network.draws}
    assert len(draws) == len(module.network.draws) == 6


def test_the_checkpoint_is_plain_and_loads_with_weights_only(tmp_path):
    about = {"config": {"seed": 0, "data": {"x": [1, None, "a"]}}, "spec": {"num_classes": 3}}
    weights = torch.arange(1.0, NUM_CLASSES + 1)
    module = make_module(about=about, class_weights=weights)
    history = History()
    fit(tmp_path, module, history, ModelCheckpoint(tmp_path, filename="last"))
    checkpoint = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert checkpoint["krontime"] == {"format_version": FORMAT_VERSION, "world_size": 1, **about}
    assert torch.equal(checkpoint["state_dict"]["class_weights"], weights)  # which answers need too

    def kinds(node: Any) -> set[type]:
        if isinstance(node, dict):
            return {type(node)}.union(*map(kinds, node.values()), *map(kinds, node))
        if isinstance(node, list | tuple | set):
            return {type(node)}.union(*map(kinds, node))
        return {type(node)}

    result = kinds({key: value for key, value in checkpoint.items() if key != "state_dict"})
    assert {kind.__module__ for kind in result} <= {"builtins", "torch", "collections"}, result
    other = make_module(class_weights=torch.ones(NUM_CLASSES))
    other.load_state_dict(checkpoint["state_dict"])
    batch = make_batches(1)[0]
    assert torch.equal(other.eval()(batch.x, batch.mask), module.eval()(batch.x, batch.mask))


def test_a_resumed_run_ends_where_an_uninterrupted_one_does(tmp_path):
    whole, history = make_module(augment=Augment(mixup=0.3)), History()
    fit(tmp_path, whole, history, epochs=4)
    part, part_history = make_module(augment=Augment(mixup=0.3)), History()

    class Stop(pl.Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            trainer.should_stop = trainer.current_epoch == 1

    def checkpoint() -> ModelCheckpoint:
        return ModelCheckpoint(
            tmp_path, filename="best", monitor="val/nll", save_last=True, enable_version_counter=False
        )

    fit(tmp_path, part, part_history, Stop(), checkpoint(), epochs=4)
    resumed, resumed_history = make_module(augment=Augment(mixup=0.3)), History()
    fit(tmp_path, resumed, resumed_history, checkpoint(), epochs=4, ckpt_path=tmp_path / "last.ckpt")
    for key, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[key], value), key
    assert [row["epoch"] for row in resumed_history.rows] == [0, 1, 2, 3]
    strip = [{k: v for k, v in row.items() if k != "series_per_s"} for row in resumed_history.rows]
    assert strip == [{k: v for k, v in row.items() if k != "series_per_s"} for row in history.rows]


def test_history_holds_every_epoch_in_plain_numbers(tmp_path):
    history = History()
    fit(tmp_path, make_module(), history, epochs=3)
    assert [row["epoch"] for row in history.rows] == [0, 1, 2]
    for row in history.rows:
        assert {"train/loss", "val/nll", "val/accuracy"} <= set(row)
        assert {type(value) for value in row.values()} <= {int, float}
    other = History()
    other.load_state_dict(history.state_dict())
    assert other.rows == history.rows


def test_one_line_for_each_epoch(tmp_path, caplog):
    with caplog.at_level("INFO", logger="krontime"):
        fit(tmp_path, make_module(), EpochLines(), epochs=2)
    lines = [record.getMessage() for record in caplog.records if record.name.startswith("krontime")]
    assert len(lines) == 2
    for epoch, line in enumerate(lines, start=1):
        assert line.startswith(f"epoch {epoch} of 2: loss ")
        for part in ("validation loss", "validation accuracy", "series/s"):
            assert part in line


@pytest.mark.parametrize(("every_s", "expected"), [(0.0, list(range(11))), (1e9, [10])])
def test_the_bar_asks_for_the_metrics_now_and_then_and_at_the_end_of_an_epoch(every_s, expected, tmp_path, monkeypatch):
    shown: list[int] = []
    monkeypatch.setattr(Bar, "EVERY_S", every_s)
    monkeypatch.setattr(RichProgressBar, "on_train_batch_end", lambda *arguments: shown.append(arguments[-1]))
    trainer = make_trainer(tmp_path, Bar(), epochs=1, progress=True)
    trainer.fit(make_module(), loader(make_batches(11)), loader(make_batches(2)))
    assert shown == expected
