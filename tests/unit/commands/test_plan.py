"""What a network costs: counted by hand for a tiny one, and measured on real tensors for all."""

import itertools
from typing import Any, get_args

import pytest
import torch
from omegaconf import OmegaConf

from krontime.commands import plan
from krontime.data.series import SeriesSpec
from krontime.errors import UserError
from krontime.models.layers.attention import AttentionKind
from krontime.ops.levels import plan_levels
from krontime.training import build

B, C, L, K = 3, 2, 64, 5
D, H, F, LAYERS = 12, 3, 20, 2
PATCH = 8
TINY = [f"model.d_model={D}", f"model.num_heads={H}", f"model.ffn_dim={F}", f"model.num_layers={LAYERS}"]
LINEAR = ["tokenizer=linear", f"tokenizer.patch_length={PATCH}", f"tokenizer.stride={PATCH}"]


def spec(length: int = L, num_channels: int = C) -> SeriesSpec:
    return SeriesSpec(num_channels, length, K, tuple("abcde"))


@pytest.mark.parametrize("attention", ["fused", "naive"])
def test_parameters_and_flops_of_a_tiny_network_by_hand(compose, attention):
    """PatchTST's, whichever kernels compute it."""
    config = compose(
        "model=patchtst", f"model.attention={attention}", "model.norm=layer", *TINY, *LINEAR, command="plan"
    )
    cost = plan.cost(config, spec(), batch_size=B)
    tokens = L // PATCH
    assert (cost.num_tokens, cost.levels) == (tokens, None)

    layer = 4 * (D * D + D) + (D * F + F) + (F * D + D) + 2 * 2 * D
    assert cost.num_parameters == (PATCH * D + D) + tokens * D + LAYERS * layer + (C * D * K + K)

    rows = B * C * tokens  # each channel is a series of its own
    layer = 4 * rows * D * D + 2 * rows * D * tokens + 2 * rows * D * F  # multiply-adds
    assert cost.forward_flops == 2 * (rows * PATCH * D + LAYERS * layer + B * C * D * K)


@pytest.mark.parametrize(
    ("kind", "reach"), [("kronecker", sum((4, 2))), ("axial", sum((4, 2))), ("full", 8)], ids=lambda value: str(value)
)
def test_what_attention_adds_by_hand(compose, kind, reach):
    """Two projections, and for each token a score and a mode product over the tokens along each level."""
    overrides = [*TINY, *LINEAR, "decomposition=depth2", f"model.key_dim={D}"]
    cost, floor = (
        plan.cost(compose(*overrides, f"model.attention={name}", command="plan"), spec(), batch_size=B)
        for name in (kind, "none")
    )
    assert (cost.num_tokens, cost.levels.sizes, cost.levels.waste) == (8, (4, 2), 0)
    assert cost.num_parameters - floor.num_parameters == LAYERS * 2 * D * D
    rows = B * C * 8
    added = LAYERS * (2 * rows * D * D + 2 * rows * D * reach)
    assert cost.forward_flops - floor.forward_flops == 2 * added


def measured(config: dict[str, Any], batch_size: int, length: int) -> int:
    """The most bytes that PyTorch's own allocator held in a real training step, beside the network and its input."""
    torch.manual_seed(0)
    network = build.network(config, spec(length))
    x = torch.randn(batch_size, C, length)
    network(x).sum().backward()  # whatever is made once is made now
    network.zero_grad()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        network(x).sum().backward()
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    return max(itertools.accumulate(event.nbytes() for event in events))


@pytest.mark.parametrize(
    "overrides",
    [
        *(["model=krontime", *TINY, *LINEAR, f"model.attention={kind}"] for kind in get_args(AttentionKind)),
        ["model=krontime", *TINY, "tokenizer=conv", "decomposition=depth3"],
        ["model=krontime", *TINY, "tokenizer=rocket", "tokenizer.patch_length=16", "tokenizer.stride=16"],
        ["model=krontime", *TINY, *LINEAR, "model.checkpointing=true"],
        ["model=krontime", *TINY, *LINEAR, "model.channel_mixing=true", "model.dropout=0"],
        ["model=patchtst", *TINY, "model.attention=naive"],
        ["model=patchtst", *TINY, "model.attention=fused", "model.norm=layer"],
        ["model=tcn", "model.channels=6"],
    ],
    ids=" ".join,
)
def test_activation_bytes_are_what_a_real_step_holds(compose, overrides):
    config = compose(*overrides, command="plan")
    cost = plan.cost(config, spec(1000), batch_size=B)
    # Working memory inside an operator is not seen; convolutions and fixed kernels have some.
    convolves = {"tokenizer=rocket", "tokenizer=conv", "model=tcn"} & set(overrides)
    tolerance = 0.3 if convolves else 0.06
    assert cost.activation_bytes == pytest.approx(measured(config, B, 1000), rel=tolerance)


@pytest.mark.parametrize("model", ["krontime", "patchtst", "tcn"])
def test_costs_grow_with_the_batch_and_parameters_do_not(compose, model):
    config = compose(f"model={model}", command="plan")
    small, large = (plan.cost(config, spec(500), batch_size=size) for size in (2, 4))
    assert large.num_parameters == small.num_parameters
    assert large.forward_flops == 2 * small.forward_flops
    # A step also holds the gradients of the parameters, which don't grow.
    gradients = 4 * small.num_parameters
    assert large.activation_bytes - gradients > 1.8 * (small.activation_bytes - gradients)
    assert large.activation_bytes <= 2 * small.activation_bytes
    network = build.network(config, spec(500))
    assert small.num_parameters == sum(parameter.numel() for parameter in network.parameters())


def test_counting_a_cost_needs_no_memory(compose):
    """A batch that no machine could hold."""
    config = compose(*TINY, *LINEAR, "decomposition=depth4", command="plan")
    assert plan.cost(config, spec(2_000_000), batch_size=10_000).activation_bytes > 2**41


@pytest.mark.parametrize("length", [1, 7, 64, 65, 500])
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_levels_and_padding_are_the_planners(compose, length, depth):
    config = compose(*TINY, *LINEAR, f"decomposition=depth{depth}", command="plan")
    cost = plan.cost(config, spec(length), batch_size=B)
    tokens = -(-length // PATCH)
    assert cost.num_tokens == tokens
    assert cost.levels == plan_levels(tokens, depth=depth)


def test_tokens_of_a_windowed_network_are_those_of_a_window(compose):
    config = compose(*TINY, *LINEAR, "data=synthetic", "data.window.length=512", command="plan")
    cost = plan.cost(config, spec(2048), batch_size=B)
    assert cost.num_tokens == 512 // PATCH
    whole = plan.cost(compose(*TINY, *LINEAR, "data=synthetic", command="plan"), spec(2048), batch_size=B)
    assert whole.num_tokens == 2048 // PATCH


@pytest.mark.parametrize(
    ("model", "kinds"),
    [("krontime", list(get_args(AttentionKind))), ("patchtst", ["fused", "naive"]), ("tcn", [None])],
)
def test_every_attention_kind_is_listed(compose, capsys, model, kinds):
    small = [f"model={model}", *([] if model == "tcn" else ["model.num_layers=1"])]
    config = compose(*small, "length=200", "num_channels=2", "num_classes=3", "batch_size=4", command="plan")
    costs = plan.plan(OmegaConf.create(config))
    assert sorted(map(str, costs)) == sorted(map(str, kinds))
    out = capsys.readouterr().out
    for kind, cost in costs.items():
        line = next(line for line in out.splitlines() if f" {kind or '-'} " in line.replace("│", " "))
        assert f"{cost.num_parameters:,}" in line
        assert f"{cost.forward_flops / 1e9:,.2f}" in line
        assert f"{cost.activation_bytes / 2**20:,.1f}" in line
        if cost.levels is not None:
            assert " x ".join(map(str, cost.levels.sizes)) in line
    assert "2 x 200 points, 3 classes, batch 4" in out
    for kind, cost in costs.items():
        chosen = compose(*small, *([f"model.attention={kind}"] if kind else []), command="plan")
        assert cost == plan.cost(chosen, SeriesSpec(2, 200, 3, ("0", "1", "2")), batch_size=4)
    assert len({cost.activation_bytes for cost in costs.values()}) > 1 or kinds == [None]


def test_a_data_set_gives_the_sizes(compose, capsys):
    config = compose(
        "model=tcn", "data=synthetic", "data.source.num_train=16", "data.source.length=512", command="plan"
    )
    costs = plan.plan(OmegaConf.create(config))
    assert "tcn on 1 x 512 points, 4 classes" in capsys.readouterr().out
    assert list(costs) == [None]


@pytest.mark.parametrize(
    ("overrides", "keys"),
    [
        ([], ["length"]),
        (
            ["length=0", "num_channels=0", "num_classes=x", "batch_size=-1"],
            ["batch_size", "length", "num_channels", "num_classes"],
        ),
        (["length=100", "data=synthetic"], ["length"]),
        (["data=synthetic", "num_channels=3", "num_classes=5"], ["num_channels", "num_classes"]),
        (["length=true", "batch_size=true"], ["batch_size", "length"]),
        (["length=3.5"], ["length"]),
        (["length=100", "model.num_heads=7", "model.dropout=2"], ["model.dropout", "model.num_heads"]),
        (["length=100", "decomposition=sizes", "decomposition.sizes=[1]"], ["decomposition.sizes"]),
        (["length=100", "model._target_=os.system"], ["model._target_"]),
        (["length=100", "tokenizer._target_=os.system"], ["model.tokenizer._target_", "tokenizer._target_"]),
    ],
)
def test_mistakes_are_named_all_at_once(compose, overrides, keys):
    with pytest.raises(UserError) as error:
        plan.plan(OmegaConf.create(compose(*overrides, command="plan")))
    assert sorted(problem.split("=")[0] for problem in error.value.problems) == keys


@pytest.mark.parametrize("model", ["closed_form", "aeon_quant"])
def test_a_classifier_without_a_network_is_refused(compose, model):
    with pytest.raises(UserError, match=f"model={model}: expected a network"):
        plan.plan(OmegaConf.create(compose(f"model={model}", "length=64", command="plan")))


def test_an_unknown_option_is_named(compose):
    with pytest.raises(UserError, match="nonsense"):
        plan.plan(OmegaConf.create(compose("length=100", "+model.nonsense=1", command="plan")))


def test_an_epoch_takes_a_measured_step_for_each_batch(compose, capsys, monkeypatch):
    ticks = itertools.count(0.0, 0.5)
    monkeypatch.setattr("krontime.commands.plan_epoch.now_s", lambda device: next(ticks))
    options = ("model=tcn", "data=synthetic", "data.source.num_train=50", "data.source.length=512", "batch_size=4")
    plan.plan(OmegaConf.create(compose(*options, "epoch=true", command="plan")))
    assert "an epoch: 10 batches of 4 series, about 5 s" in " ".join(capsys.readouterr().out.split())
    with pytest.raises(UserError, match="epoch=True: expected false without data=NAME"):
        plan.plan(OmegaConf.create(compose("length=100", "epoch=true", command="plan")))
