"""What the checks of a config refuse, each by its key and value, and all at once."""

from typing import Any

import pytest

from krontime.config import schema
from krontime.errors import UserError

MISTAKES = {
    "data.batch_size=0": "data.batch_size=0",
    "data.eval_batch_size=many": "data.eval_batch_size='many'",
    "data.num_workers=-1": "data.num_workers=-1",
    "data.scaling=batch": "data.scaling='batch'",
    "data.name=a/b": "data.name='a/b'",
    "data.validation.method=random": "data.validation.method='random'",
    "data.validation.fraction=1": "data.validation.fraction=1",
    "data.validation.num_folds=1": "data.validation.num_folds=1",
    "data.prepare.crop_length=0": "data.prepare.crop_length=0",
    "data.prepare.resample_hz=-8": "data.prepare.resample_hz=-8",
    "data.prepare.crop_from=middle": "data.prepare.crop_from='middle'",
    "+data.prepare.nonsense=1": "data.prepare.nonsense=1",
    "data.prepare.resample_length=1": "data.prepare.resample_length=1",
    "data.window.stride=5": "data.window: stride has no effect without length",
    "loss.label_smoothing=1": "loss.label_smoothing=1",
    "loss.class_weights=equal": "loss.class_weights='equal'",
    "+loss.nonsense=1": "loss.nonsense=1",
    "augment.shift=1.5": "augment.shift=1.5",
    "augment.mixup=-1": "augment.mixup=-1",
    "augment.jitter=x": "augment.jitter='x'",
    "optim.warmup_fraction=2": "optim.warmup_fraction=2",
    "optim.min_lr_ratio=-1": "optim.min_lr_ratio=-1",
    "optim.optimizer.lr=0": "optim.optimizer.lr=0",
    "trainer.max_epochs=0": "trainer.max_epochs=0",
    "trainer.devices=x": "trainer.devices='x'",
    "seed=-1": "seed=-1",
    "seed=1.5": "seed=1.5",
    "seed=null": "seed=None",
    "force=maybe": "force='maybe'",
    "compile=2": "compile=2",
    "model._target_=os.system": "model._target_='os.system'",
    "callbacks.checkpoint._target_=builtins.eval": "callbacks.checkpoint._target_='builtins.eval'",
    "tokenizer._target_=torch.load": "tokenizer._target_='torch.load'",
    "model.name=": "model.name=''",
}

CROSS_MISTAKES = {
    "callbacks.checkpoint.monitor=test/accuracy": "callbacks.checkpoint.monitor='test/accuracy'",
    "callbacks.early_stopping.monitor=val/acc": "callbacks.early_stopping.monitor='val/acc'",
    "callbacks.early_stopping.mode=max": "callbacks.early_stopping.mode='max'",
    "trainer.devices=2": "trainer.devices=2",
    "trainer.num_nodes=2": "trainer.num_nodes=2",
    "trainer.strategy=fsdp": "trainer.strategy='fsdp'",
    "+nonsense=1": "nonsense=1",
    "+data.nonsense=1": "data.nonsense=1",
}


def problems(config: dict[str, Any]) -> list[str]:
    with pytest.raises(UserError) as error:
        schema.check_train(config, is_multirun=True)
    return error.value.problems


@pytest.mark.parametrize(("override", "line"), [*MISTAKES.items(), *CROSS_MISTAKES.items()])
def test_a_mistake_is_named_with_its_key_and_value(compose, override, line):
    lines = problems(compose(override))
    assert any(problem.startswith(line) for problem in lines), lines
    others = [problem for problem in lines if not problem.startswith((line, "model.tokenizer", "data.source.name"))]
    assert others == []
    assert all("Traceback" not in problem and "\n" not in problem for problem in lines)


@pytest.mark.parametrize("mistakes", [MISTAKES, CROSS_MISTAKES])
def test_all_mistakes_are_named_at_once(compose, mistakes):
    """One for each key; a callback without a metric has no direction that could be wrong."""
    chosen = {override.partition("=")[0]: override for override in mistakes if not override.endswith("mode=max")}
    lines = problems(compose(*chosen.values()))
    for override in chosen.values():
        assert any(problem.startswith(mistakes[override]) for problem in lines), override


def test_several_devices_are_refused_in_a_multirun_only(compose):
    config = compose("trainer=ddp_cpu")
    schema.check_train(config, is_multirun=False)
    assert any("one command for each job" in problem for problem in problems(config))


def test_seed_zero_is_a_seed(compose):
    config = compose("seed=0")
    schema.check_train(config, is_multirun=True)
    assert config["seed"] == 0


def test_a_mistake_is_found_before_anything_is_built_or_read(compose, monkeypatch):
    def never(*args: Any, **options: Any) -> None:
        raise AssertionError("built")

    monkeypatch.setattr("hydra.utils.instantiate", never)
    problems(compose("data=npz", "data.path=/nowhere.npz", "data.batch_size=0"))
