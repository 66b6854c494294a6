import math
from functools import partial

import pytest
import torch
from torch import Tensor

from krontime.models.krontime import KronTime, LevelPositions, default_key_dim, level_features
from krontime.models.layers.attention import LevelAttention
from krontime.models.layers.tokenizers import ConvPatch, LinearPatch, RocketPatch
from krontime.ops.attention import mode_products
from krontime.ops.levels import LevelPlan

TOKENIZERS = {
    "linear": partial(LinearPatch, patch_length=6, stride=4),
    "conv": partial(ConvPatch, patch_length=4, stride=4, width=4, kernel_size=3),
    "rocket": partial(RocketPatch, patch_length=5, stride=4, num_dilations=2),
}
VARIANTS = [("kronecker", "bottom_up"), ("kronecker", "parallel"), ("pooled", "bottom_up"), ("pooled", "parallel")]
VARIANTS += [("axial", order) for order in ("bottom_up", "top_down", "parallel")]
VARIANTS += [("full", "bottom_up"), ("none", "bottom_up")]


def make(seed: int = 0, tokenizer: str = "linear", **options) -> KronTime:
    """A small network, its weights enlarged so that attention is far from uniform, fitted and ready to evaluate."""
    sizes = {"num_channels": 1, "length": 107, "num_classes": 3, "d_model": 8, "num_heads": 2, "num_layers": 2}
    torch.manual_seed(seed)
    network = KronTime(tokenizer=TOKENIZERS[tokenizer], **(sizes | {"ffn_dim": 16} | options))
    with torch.no_grad():
        for parameter in network.blocks.parameters():
            parameter.mul_(10)
    network.fit_tokens(torch.randn(4, (sizes | options)["num_channels"], 107))
    return network.eval()


def make_batch(num_channels: int = 1, length: int = 107, seed: int = 1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(4, num_channels, length, generator=generator)
    # Whole stretches go missing, so that tokens do too.
    missing = torch.rand(4, num_channels, -(-length // 9), generator=generator) < 0.3
    return x, ~missing.repeat_interleave(9, dim=-1)[..., :length]


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
@pytest.mark.parametrize(("attention", "order"), VARIANTS)
def test_padding_and_batch_mates_never_change_logits(attention: str, order: str, tokenizer: str) -> None:
    for depth in (1, 2, 3):
        network = make(tokenizer=tokenizer, attention=attention, order=order, depth=depth)
        x, observed = make_batch()
        lengths = [3, 31, 80, 107]
        mask = observed & (torch.arange(107) < torch.tensor(lengths)[:, None, None])
        together = network(x * mask, mask)
        assert together.isfinite().all()
        for i, length in enumerate(lengths):
            own = mask[i : i + 1, :, :length]
            alone = network(x[i : i + 1, :, :length] * own, own)
            torch.testing.assert_close(alone, together[i : i + 1], atol=1e-5, rtol=0)


@pytest.mark.parametrize(("attention", "order"), VARIANTS)
def test_series_without_a_value_is_harmless(attention: str, order: str) -> None:
    network = make(attention=attention, order=order)
    x, mask = make_batch()
    mask[0] = False
    logits = network(x * mask, mask)
    logits.square().sum().backward()
    assert logits.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters())
    torch.testing.assert_close(network(x[1:] * mask[1:], mask[1:]), logits[1:], atol=1e-5, rtol=0)


def test_attention_maps_matter_and_orders_agree_where_they_should() -> None:
    x, mask = make_batch()

    def logits(attention: str, order: str = "bottom_up") -> Tensor:
        return make(attention=attention, order=order)(x * mask, mask)

    for attention in ("kronecker", "pooled"):
        torch.testing.assert_close(logits(attention), logits(attention, "top_down"), atol=1e-5, rtol=0)
    kinds = [logits(*variant) for variant in VARIANTS]
    for i, one in enumerate(kinds):
        for other in kinds[:i]:
            assert (one - other).abs().max() > 1e-3


def test_the_floor_has_no_queries_and_keys() -> None:
    def count(attention: str) -> int:
        return sum(parameter.numel() for parameter in make(attention=attention, key_dim=8).parameters())

    assert count("kronecker") - count("none") == 2 * 2 * 8 * 8  # two layers, two projections of D x D without bias


@pytest.mark.parametrize(
    ("sizes", "attention", "expected"),
    [
        ((64, 32), "kronecker", 1),  # 32 slices are more than the 16 numbers of a head
        ((5, 5), "kronecker", 4),  # 5 slices of 4 numbers make up the 16 of a head
        ((2, 2), "kronecker", 8),
        ((16, 16, 8), "kronecker", 1),
        ((2048,), "kronecker", 16),
        ((64, 32), "pooled", 16),
        ((64, 32), "axial", 16),
    ],
)
def test_queries_and_keys_are_as_wide_as_the_scores_need(sizes, attention, expected) -> None:
    plan = LevelPlan(sizes, math.prod(sizes))
    assert default_key_dim(plan, attention, d_model=128, num_heads=8) == 8 * expected


def test_factors_are_the_maps_that_the_network_applies() -> None:
    plan = LevelPlan((5, 4), 20)
    torch.manual_seed(0)
    layer = LevelAttention(d_model=8, key_dim=4, num_heads=2, plan=plan, kind="kronecker", order="bottom_up")
    x = torch.randn(3, 20, 8)
    factors = layer.factors(x, None)
    assert [tuple(factor.shape) for factor in factors] == [(3, 2, 5, 5), (3, 2, 4, 4)]
    values = layer.value(x).mT.unflatten(1, (2, 4))
    expected = layer.out_scale * layer.out(mode_products(values, factors, "bottom_up").flatten(1, 2).mT)
    torch.testing.assert_close(layer(x, None), expected)


@pytest.mark.parametrize("masked", [False, True])
def test_level_features_are_group_means_then_the_maximum(masked: bool) -> None:
    torch.manual_seed(0)
    sizes = (3, 2, 4)
    x = torch.randn(3, 24, 5)
    mask = torch.rand(3, 24) < 0.3 if masked else torch.ones(3, 24, dtype=torch.bool)
    mask[0] = not masked
    expected = torch.zeros(3, 4, 5)
    for series in range(3):
        for level in range(4):
            group = math.prod(sizes[:level])
            means = [
                x[series, start : start + group][mask[series, start : start + group]].mean(0)
                for start in range(0, 24, group)
                if mask[series, start : start + group].any()
            ]
            if means:
                expected[series, level] = torch.stack(means).amax(0)
    torch.testing.assert_close(level_features(x, mask if masked else None, sizes), expected.flatten(1))


def test_positions_are_sums_of_level_rows_and_survive_trimming() -> None:
    plan = LevelPlan((3, 2, 4), 24)
    positions = LevelPositions(plan=plan, d_model=5)
    assert sum(parameter.shape[0] for parameter in positions.parameters()) == 3 + 2 + 4
    whole = positions(plan.sizes)
    lowest, middle, highest = positions.tables
    for token in range(24):
        expected = lowest[token % 3] + middle[token // 3 % 2] + highest[token // 6]
        torch.testing.assert_close(whole[token], expected)
    for num_tokens in range(1, 25):
        trimmed = positions(plan.trim(num_tokens))
        torch.testing.assert_close(trimmed, whole[: len(trimmed)])


@pytest.mark.parametrize("head", ["levels", "mean"])
@pytest.mark.parametrize("positions", ["levels", "none"])
def test_positions_tell_the_order_of_tokens(positions: str, head: str) -> None:
    """Without positions and with one level, the network does not see the order of patches."""
    network = make(positions=positions, head=head, depth=1, length=104)
    with torch.no_grad():
        for table in network.positions.tables if network.positions else ():
            table.mul_(50)
    network.tokenizer.patch_length = network.tokenizer.stride = 6
    x = make_batch(length=102)[0]
    shuffled = x.unflatten(-1, (17, 6)).flip(2).flatten(2)
    same = torch.allclose(network(x), network(shuffled), atol=1e-5)
    assert same == (positions == "none")


def test_channels_are_independent_series_until_the_head_joins_them() -> None:
    network = make(num_channels=3, length=107)
    x, mask = make_batch(3)
    mask[:, 1] = False  # a channel without any value gives zeros
    joined: list[torch.Tensor] = []
    network.head.register_forward_pre_hook(lambda _, inputs: joined.append(inputs[0]))
    network(x * mask, mask)
    network((x * mask)[:, [2, 1, 0]], mask[:, [2, 1, 0]])
    first, second = (features.unflatten(1, (3, -1)) for features in joined)
    assert not first[:, 1].any()
    assert first[:, 0].abs().sum() > 0
    torch.testing.assert_close(first[:, [2, 1, 0]], second, atol=1e-5, rtol=0)


def test_channel_mixing_sees_all_channels_in_one_token() -> None:
    network = make(num_channels=3, channel_mixing=True)
    assert network.tokenizer.projection.in_features == 3 * 6
    x, mask = make_batch(3)
    logits = network(x * mask, mask)
    assert not torch.allclose(network((x * mask).flip(1), mask.flip(1)), logits, atol=1e-3)
    own = mask[:1, :, :50]
    alone = network(x[:1, :, :50] * own, own)
    mask[0, :, 50:] = False
    torch.testing.assert_close(network(x * mask, mask)[:1], alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize("attention", ["kronecker", "pooled", "axial", "full"])
def test_narrow_queries_and_keys(attention: str) -> None:
    network = make(attention=attention, key_dim=2)
    x, mask = make_batch()
    network(x * mask, mask).sum().backward()
    for block in network.blocks:
        assert block.attention.query.weight.shape == (2, 8)
        assert block.attention.key.weight.grad.abs().max() > 0


def test_dropout_skips_branches_token_by_token_and_keeps_the_mean() -> None:
    network = make(dropout=0.25)
    block = network.blocks[0].train()
    x, branch = torch.zeros(50, 40, 8), torch.rand(50, 40, 8) + 1
    dropped = block._add(x, branch)
    kept = (dropped != 0).all(-1)
    assert ((dropped == 0).all(-1) | kept).all()
    assert kept.float().mean() == pytest.approx(0.75, abs=0.05)
    torch.testing.assert_close(dropped[kept], branch[kept] / 0.75)
    torch.testing.assert_close(block.eval()._add(x, branch), branch)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("attention", ["kronecker", "axial"])
def test_checkpointing_changes_no_gradient(attention: str, masked: bool) -> None:
    x, mask = make_batch()
    gradients = []
    for checkpointing in (False, True):
        network = make(attention=attention, checkpointing=checkpointing, dropout=0.2).train()
        torch.manual_seed(7)
        loss = network(x * mask, mask if masked else None).square().sum()
        gradients.append([loss, *torch.autograd.grad(loss, list(network.parameters()))])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("attention", "order"), VARIANTS)
def test_bfloat16_autocast_is_close(attention: str, order: str, masked: bool) -> None:
    torch.manual_seed(0)
    network = KronTime(
        num_channels=1,
        length=256,
        num_classes=3,
        tokenizer=TOKENIZERS["linear"],
        attention=attention,
        order=order,
        d_model=32,
    ).eval()
    x, mask = make_batch(length=256)
    inputs = (x * mask, mask) if masked else (x, None)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = network(*inputs)
    logits.float().square().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters())
    exact = network(*inputs)
    assert (logits.float() - exact).abs().max() < 0.05 * exact.abs().max()


@pytest.mark.slow
@pytest.mark.parametrize(("attention", "order"), VARIANTS)
@pytest.mark.parametrize("masked", [False, True])
def test_compiles_whole(attention: str, order: str, masked: bool) -> None:
    network = make(attention=attention, order=order).train()
    x, mask = make_batch()
    torch.compiler.reset()
    compiled = torch.compile(network, backend="eager", fullgraph=True)
    for length in (107, 31):  # shorter batches trim the plan
        inputs = (x[..., :length] * mask[..., :length], mask[..., :length] if masked else None)
        logits = []
        for function in (network, compiled):
            torch.manual_seed(0)
            logits.append(function(*inputs))
        torch.testing.assert_close(*logits, atol=1e-4, rtol=1e-4)
        logits[1].sum().backward()


def test_depth_or_sizes_make_the_plan() -> None:
    assert make(depth=3).plan.depth == 3
    assert make(depth=None, level_sizes=[9, 4]).plan.sizes == (9, 4)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num_heads": 3}, ["num_heads=3"]),
        ({"key_dim": 3}, ["key_dim=3", "multiple of num_heads=2"]),
        ({"attention": "fast"}, ["attention='fast'", "kronecker"]),
        ({"order": "sideways", "head": "max", "positions": "sin"}, ["order", "head", "positions"]),
        ({"attention": "full", "order": "parallel"}, ["order='parallel'", "no order"]),
        ({"dropout": 1.0}, ["dropout=1.0"]),
        ({"depth": None}, ["either a depth or sizes"]),
        ({"depth": None, "level_sizes": [4, 4]}, ["sizes=[4, 4]", "at least 27"]),
    ],
)
def test_problems_are_told_at_once(options: dict, words: list[str]) -> None:
    with pytest.raises(ValueError, match="expected") as error:
        make(**options)
    for word in words:
        assert word in str(error.value)
