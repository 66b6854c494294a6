"""PatchTST: parity with Hugging Face transformers, its two attention implementations, masked batch norm."""

import math
from functools import partial

import pytest
import torch
from torch import nn

from krontime.models.layers.norm import MaskedBatchNorm
from krontime.models.layers.tokenizers import LinearPatch
from krontime.models.patchtst import PatchTST

PATCH, STRIDE = 16, 8
D_MODEL, NUM_HEADS, NUM_LAYERS, FFN_DIM = 12, 3, 2, 20


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def make_patchtst(*, num_channels: int = 2, length: int = 72, num_classes: int = 5, seed: int = 0, **changes):
    torch.manual_seed(seed)
    sizes = {"d_model": D_MODEL, "num_heads": NUM_HEADS, "num_layers": NUM_LAYERS, "ffn_dim": FFN_DIM, "dropout": 0.0}
    return PatchTST(
        num_channels=num_channels,
        length=length,
        num_classes=num_classes,
        tokenizer=partial(LinearPatch, patch_length=PATCH, stride=STRIDE),
        **(sizes | changes),
    )


def reference_patchtst(*, num_channels: int, length: int, num_classes: int, norm: str, head: str, attention: str):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(1)
    config = transformers.PatchTSTConfig(
        num_input_channels=num_channels,
        context_length=length,
        num_targets=num_classes,
        patch_length=PATCH,
        patch_stride=STRIDE,
        num_hidden_layers=NUM_LAYERS,
        d_model=D_MODEL,
        num_attention_heads=NUM_HEADS,
        ffn_dim=FFN_DIM,
        norm_type={"batch": "batchnorm", "layer": "layernorm"}[norm],
        pre_norm=False,
        positional_encoding_type="random",  # learned
        scaling=None,
        do_mask_input=False,
        pooling_type=head,
        attn_implementation={"naive": "eager", "fused": "sdpa"}[attention],
    )
    model = transformers.PatchTSTForClassification(config)
    with torch.no_grad():
        for parameter in model.parameters():  # biases start at zero and norms at one, which would hide mistakes
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def copied_weights(reference: nn.Module, norm: str) -> dict[str, torch.Tensor]:
    """The reference's state under our names."""
    state = reference.state_dict()
    copied = {
        "tokenizer.projection.weight": state["model.encoder.embedder.input_embedding.weight"],
        "tokenizer.projection.bias": state["model.encoder.embedder.input_embedding.bias"],
        "positions": state["model.encoder.positional_encoder.position_enc"],
        "head.weight": state["head.linear.weight"],
        "head.bias": state["head.linear.bias"],
    }
    for i in range(NUM_LAYERS):
        ours, theirs = f"layers.{i}", f"model.encoder.layers.{i}"
        for kind in ("weight", "bias"):
            copied[f"{ours}.attention.qkv.{kind}"] = torch.cat(
                [state[f"{theirs}.self_attn.{projection}_proj.{kind}"] for projection in "qkv"]
            )
            copied[f"{ours}.attention.out.{kind}"] = state[f"{theirs}.self_attn.out_proj.{kind}"]
            for layer in (0, 3):
                copied[f"{ours}.feed_forward.{layer}.{kind}"] = state[f"{theirs}.ff.{layer}.{kind}"]
        for name, number in (("attention", 1), ("feed_forward", 3)):
            prefix = f"{theirs}.norm_sublayer{number}." + ("batchnorm." if norm == "batch" else "")
            for key, value in state.items():
                if key.startswith(prefix):
                    copied[f"{ours}.norm_{name}.{key.removeprefix(prefix)}"] = value
    return copied


@pytest.mark.parametrize("attention", ["naive", "fused"])
@pytest.mark.parametrize("norm", ["batch", "layer"])
@pytest.mark.parametrize("head", ["mean", "max"])
@pytest.mark.slow
def test_hidden_states_and_logits_equal_the_reference_implementation(attention, norm, head):
    # A length at which patches cover the series exactly: elsewhere the reference drops points at the start, and ours
    # fills the last patch with zeros.
    sizes = {"num_channels": 3, "length": PATCH + 7 * STRIDE, "num_classes": 5}
    reference = reference_patchtst(**sizes, norm=norm, head=head, attention=attention)
    network = make_patchtst(**sizes, norm=norm, head=head, attention=attention)
    network.load_state_dict(copied_weights(reference, norm))
    x = torch.randn(4, sizes["num_channels"], sizes["length"])
    for train in (True, False):  # in training batch norm takes the batch's statistics, in evaluation the running ones
        reference.train(train)
        network.train(train)
        expected_hidden = reference.model(x.transpose(1, 2)).last_hidden_state
        torch.testing.assert_close(network.encode(x).hidden, expected_hidden, atol=1e-5, rtol=0)
        expected_logits = reference(x.transpose(1, 2)).prediction_logits
        torch.testing.assert_close(network(x), expected_logits, atol=1e-5, rtol=0)
    for key, value in copied_weights(reference, norm).items():  # and the running statistics have moved alike
        torch.testing.assert_close(network.state_dict()[key], value, atol=1e-5, rtol=0)


@pytest.mark.parametrize("masked", [False, True])
def test_naive_and_fused_attention_agree_in_values_and_gradients(masked):
    x = torch.randn(3, 2, 100, dtype=torch.float64)
    mask = torch.arange(100) < torch.tensor([100, 40, 0])[:, None, None]
    mask = (mask & (torch.rand(3, 2, 100) > 0.2)) if masked else None
    results = []
    for attention in ("naive", "fused"):
        network = make_patchtst(length=100, attention=attention).double()
        logits = network(x if mask is None else x * mask, mask)
        logits.square().sum().backward()
        results.append([logits, *(parameter.grad for parameter in network.parameters())])
    for naive, fused in zip(*results, strict=True):
        torch.testing.assert_close(naive, fused, atol=1e-10, rtol=1e-8)


@pytest.mark.parametrize("attention", ["naive", "fused"])
def test_attention_dropout_acts_in_training_only(attention):
    network = make_patchtst(attention=attention, norm="layer", attention_dropout=0.5)
    x = torch.randn(2, 2, 72)
    assert not torch.equal(network(x), network(x))
    network.eval()
    assert torch.equal(network(x), network(x))


@pytest.mark.parametrize("norm", ["batch", "layer"])
def test_padding_changes_nothing_in_training_either(norm):
    x = torch.randn(4, 2, 72, dtype=torch.float64)
    mask = torch.arange(72) < torch.tensor([72, 50, 3, 0])[:, None, None]
    mask = mask & (torch.rand(4, 2, 72) > 0.2)
    x = x * mask
    short, padded = (make_patchtst(length=150, norm=norm).double() for _ in range(2))
    more = (0, 150 - 72)
    outputs = [short(x, mask), padded(nn.functional.pad(x, more), nn.functional.pad(mask, more))]
    torch.testing.assert_close(*outputs, atol=1e-10, rtol=0)
    torch.testing.assert_close(short.state_dict(), padded.state_dict(), atol=1e-10, rtol=0)


def test_channels_meet_in_the_head_only():
    network = make_patchtst(num_channels=3).eval()
    x = torch.randn(2, 3, 72)
    changed = x.clone()
    changed[:, 1] = torch.randn(2, 72)
    before, after = network.encode(x).hidden, network.encode(changed).hidden
    assert torch.equal(before[:, [0, 2]], after[:, [0, 2]])
    assert not torch.allclose(before[:, 1], after[:, 1])


def test_the_tokenizer_is_fitted_to_channels_as_series():
    class Fitted(LinearPatch):
        def fit(self, x, mask):
            self.fitted = x, mask

    network = PatchTST(num_channels=3, length=40, num_classes=4, tokenizer=Fitted, d_model=8, num_heads=2)
    x = torch.randn(5, 3, 40)
    network.fit_tokens(x, x > 0)
    for given, expected in zip(network.tokenizer.fitted, (x, x > 0), strict=True):
        assert torch.equal(given, expected.reshape(15, 1, 40))


class TestMaskedBatchNorm:
    @staticmethod
    def pair() -> tuple[MaskedBatchNorm, nn.BatchNorm1d]:
        ours, plain = MaskedBatchNorm(6).double(), nn.BatchNorm1d(6).double()
        with torch.no_grad():
            ours.weight.copy_(torch.randn(6))
            ours.bias.copy_(torch.randn(6))
        plain.load_state_dict(ours.state_dict())
        return ours, plain

    @pytest.mark.parametrize("mask", [None, torch.ones(3, 7, dtype=torch.bool)])
    def test_without_masked_tokens_it_is_batch_norm(self, mask):
        ours, plain = self.pair()
        x = torch.randn(3, 7, 6, dtype=torch.float64) * 3 + 1
        results = []
        for norm in (lambda x: ours(x, mask), lambda x: plain(x.transpose(1, 2)).transpose(1, 2)):
            leaf = x.clone().requires_grad_()
            out = norm(leaf)
            out.pow(3).sum().backward()
            results += [out, leaf.grad]
        torch.testing.assert_close(results[0], results[2])
        torch.testing.assert_close(results[1], results[3])
        torch.testing.assert_close(ours.state_dict(), plain.state_dict())
        torch.testing.assert_close(ours.eval()(x), plain.eval()(x.transpose(1, 2)).transpose(1, 2))

    def test_statistics_are_those_of_the_tokens_that_count(self):
        ours, plain = self.pair()
        x, mask = torch.randn(4, 9, 6, dtype=torch.float64), torch.rand(4, 9) > 0.5
        torch.testing.assert_close(ours(x, mask)[mask], plain(x[mask]))
        torch.testing.assert_close(ours.state_dict(), plain.state_dict())

    @pytest.mark.parametrize("num_counting", [0, 1])
    def test_too_few_tokens_for_a_variance(self, num_counting):
        ours, _ = self.pair()
        x, mask = torch.randn(2, 3, 6, dtype=torch.float64), torch.zeros(2, 3, dtype=torch.bool)
        mask[0, :num_counting] = True
        torch.testing.assert_close(ours(x, mask), ours.bias.expand(2, 3, 6))
        assert torch.equal(ours.running_mean, torch.zeros(6).double())
        assert torch.equal(ours.running_var, torch.ones(6).double())
        torch.testing.assert_close(ours(x[:1, :1]), ours.bias.expand(1, 1, 6))


def test_all_wrong_options_are_named_at_once():
    with pytest.raises(ValueError, match="num_heads=5") as caught:
        make_patchtst(num_heads=5, attention="flash", norm="none", head="first", attention_dropout=1.5)
    assert len(str(caught.value).splitlines()) == 5
    for text in (
        "attention_dropout=1.5",
        "num_heads=5",
        "attention='flash'",
        "naive, fused",
        "norm='none'",
        "head",
    ):
        assert text in str(caught.value)


def test_num_positions_is_the_number_of_tokens_of_the_longest_series():
    network = make_patchtst(length=1000)
    assert network.positions.shape == (math.ceil((1000 - PATCH) / STRIDE) + 1, D_MODEL)
