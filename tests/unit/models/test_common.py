"""What every network must do. A new `configs/model/NAME.yaml` is found by glob and needs no change here."""

import copy
import functools
import math
import warnings
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from torch import Tensor, nn

from krontime.config.files import config_dir, options
from krontime.data.series import SeriesSpec
from krontime.training import build

MODELS = [name for name in options("model") if name.partition("_")[0] not in ("aeon", "closed")]
"""The others are classifiers to compare with, which are no networks."""
SPECS = [(num_channels, length) for num_channels in (1, 3) for length in (1, 7, 50, 333)]
NUM_CLASSES = 4

each_model = pytest.mark.parametrize("name", MODELS)
each_spec = pytest.mark.parametrize(("num_channels", "length"), SPECS)
on_gpu = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]
each_device = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=on_gpu)])


@functools.cache
def model_config(name: str) -> dict[str, Any]:
    """What `model=NAME` composes to, with the groups that it brings along."""
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        return OmegaConf.to_container(compose(f"model/{name}"), resolve=True)


def make_network(name: str, num_channels: int, length: int, seed: int = 0) -> nn.Module:
    """The network of `configs/model/NAME.yaml` with its defaults, fitted to noise and in training mode."""
    return copy.deepcopy(fitted_network(name, num_channels, length, seed))


@functools.cache
def fitted_network(name: str, num_channels: int, length: int, seed: int) -> nn.Module:
    spec = SeriesSpec(num_channels, length, NUM_CLASSES, tuple(str(label) for label in range(NUM_CLASSES)))
    torch.manual_seed(seed)
    network = build.network(model_config(name), spec)
    x, _ = make_batch(num_channels, length)
    if hasattr(network, "fit_tokens"):
        network.fit_tokens(x, None)
    network.train()(x)  # moves running statistics away from where they start
    return network


def make_batch(num_channels: int, length: int, *, batch_size: int = 5, seed: int = 1):
    """Noise, and a mask with points missing channel by channel; the noise is not yet zeroed there."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(batch_size, num_channels, length, generator=generator)
    mask = torch.rand(batch_size, num_channels, length, generator=generator) > 0.2
    return x, mask


def make_case(name: str, length: int, device: str) -> tuple[nn.Module, Tensor, Tensor]:
    """A network in evaluation mode, a batch and its mask, on a device."""
    x, mask = make_batch(3, length)
    return make_network(name, 3, length).eval().to(device), x.to(device), mask.to(device)


def assert_same(logits: Tensor, expected: Tensor, tolerance: float) -> None:
    """Up to `tolerance`, as a share of the largest logit where that is above 1, since rounding grows with it."""
    torch.testing.assert_close(logits, expected, atol=tolerance * max(1.0, expected.abs().max().item()), rtol=0)


def test_the_models_are_found():
    assert {"patchtst", "tcn"} <= set(MODELS)


@each_model
@each_spec
@pytest.mark.parametrize("train", [True, False])
def test_logits_are_finite_and_one_per_class(name, num_channels, length, train):
    network = make_network(name, num_channels, length).train(train)
    x, mask = make_batch(num_channels, length)
    for logits in (network(x), network(x * mask, mask)):
        assert logits.shape == (len(x), NUM_CLASSES)
        assert logits.isfinite().all()


@each_model
def test_logits_depend_on_each_channel(name):
    network = make_network(name, 3, 333).eval()
    x, _ = make_batch(3, 333)
    logits = network(x)
    for channel in range(3):
        changed = x.clone()
        changed[:, channel] = changed[:, channel].flip(-1) * 2
        assert not torch.allclose(network(changed), logits, atol=1e-4)


@each_model
@each_spec
def test_gradient_reaches_every_parameter(name, num_channels, length):
    network = make_network(name, num_channels, length).eval()
    x, mask = make_batch(num_channels, length)
    network.zero_grad()
    logits = network(x) + network(x * mask, mask)
    nn.functional.cross_entropy(logits, torch.arange(len(x)) % NUM_CLASSES).backward()
    for key, parameter in network.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
        if length == 333:  # with a single token there is nothing to attend to, and queries and keys have gradient 0
            assert parameter.grad.abs().max() > 0, key


@each_model
@each_spec
def test_mask_of_true_changes_nothing(name, num_channels, length):
    network = make_network(name, num_channels, length).eval()
    x, _ = make_batch(num_channels, length)
    assert_same(network(x, torch.ones_like(x, dtype=torch.bool)), network(x), 1e-5)


@each_model
@each_spec
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_padding_and_batch_mates_never_change_logits(name, num_channels, length, dtype, tolerance):
    network = make_network(name, num_channels, length).eval().to(dtype)
    x, observed = make_batch(num_channels, length, batch_size=8)
    x = x.to(dtype)
    own_length = torch.tensor([1, 2, length // 3, length // 2, length - 17, length - 9, length - 1, length])
    own_length = own_length.clamp(1, length)
    mask = torch.arange(length) < own_length[:, None, None]
    together = network(x * mask, mask.expand_as(x))
    with_missing = network(x * mask * observed, mask & observed)
    for i, end in enumerate(own_length.tolist()):
        own, own_observed = x[i : i + 1, :, :end], observed[i : i + 1, :, :end]
        assert_same(network(own), together[i : i + 1], tolerance)
        assert_same(network(own * own_observed, own_observed), with_missing[i : i + 1], tolerance)


@each_model
@each_spec
@pytest.mark.parametrize("train", [True, False])
def test_series_without_a_single_value_is_harmless(name, num_channels, length, train):
    network = make_network(name, num_channels, length).train(train)
    x, mask = make_batch(num_channels, length)
    for missing in (slice(0, 2), slice(None)):
        mask[missing] = False
        network.zero_grad()
        logits = network(x * mask, mask)
        logits.square().sum().backward()
        assert logits.isfinite().all()
        for key, parameter in network.named_parameters():
            assert parameter.grad is None or parameter.grad.isfinite().all(), key
    assert network.eval()(x * mask, mask).isfinite().all()  # running statistics have stayed finite


@each_model
def test_saved_weights_give_the_same_logits(name, tmp_path):
    network = make_network(name, 3, 50).eval()
    torch.save(network.state_dict(), tmp_path / "weights.pt")
    other = make_network(name, 3, 50, seed=1).eval()
    x, mask = make_batch(3, 50)
    assert not torch.equal(other(x), network(x))
    other.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    assert torch.equal(other(x), network(x))
    assert torch.equal(other(x * mask, mask), network(x * mask, mask))


@pytest.fixture
def smooth(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand-ins without an edge for what has one.

    Where a value is rounded to the other side of zero, or past its neighbour, a gradient jumps; which value does so
    differs from processor to processor, and no limit holds on all of them.
    """

    def largest(x: Tensor, size: int, *, stride: int, padding: int) -> Tensor:
        windows = nn.functional.pad(x, (padding, padding), value=-math.inf).unfold(-1, size, stride)
        return windows.logsumexp(dim=-1)

    monkeypatch.setattr(Tensor, "relu", lambda x: nn.functional.softplus(x))
    monkeypatch.setattr(nn.functional, "max_pool1d", largest)


@each_model
@each_device
@pytest.mark.parametrize("masked", [True, False])
def test_logits_and_gradients_are_those_of_double_precision(smooth, name, masked, device):
    network = make_network(name, 3, 333).eval()
    twin = copy.deepcopy(network).double()
    x, mask = make_batch(3, 333)
    x = (64 * x).round() / 64  # fixed kernels of whole numbers respond to it without rounding
    logits: list[Tensor] = []
    for model, values in ((network.to(device), x), (twin, x.double())):
        where = next(model.parameters()).device
        inputs = [t.to(where) for t in ((values * mask, mask) if masked else (values,))]
        model.zero_grad()
        logits.append(model(*inputs))
        nn.functional.cross_entropy(logits[-1], torch.arange(len(x), device=where) % NUM_CLASSES).backward()
    assert_same(logits[0].double().cpu(), logits[1], 1e-5)
    largest = max(parameter.grad.abs().max().item() for parameter in twin.parameters())
    for (key, one), other in zip(network.named_parameters(), twin.parameters(), strict=True):
        limit = 1e-3 * max(other.grad.abs().max().item(), 1e-2 * largest)
        assert (one.grad.double().cpu() - other.grad).abs().max() < limit, key


@each_model
@each_device
@pytest.mark.parametrize("masked", [True, False])
def test_bfloat16_autocast_is_close(name, masked, device):
    network, x, mask = make_case(name, 333, device)
    mask[0] = False
    inputs = (x * mask, mask) if masked else (x,)
    with torch.autocast(device, dtype=torch.bfloat16):
        logits = network(*inputs)
    logits.float().square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
    exact = network(*inputs)
    assert (logits.float() - exact).abs().max() < 0.05 * exact.abs().max()


@each_model
@each_device
@pytest.mark.parametrize("masked", [True, False])
def test_compiles_without_graph_breaks(name, masked, device):
    network, x, mask = make_case(name, 50, device)
    inputs = (x * mask, mask) if masked else (x,)
    torch.compiler.reset()
    backend = "eager" if device == "cpu" else "inductor"
    compiled = torch.compile(network, backend=backend, fullgraph=True)
    with warnings.catch_warnings():
        if device != "cpu":
            warnings.simplefilter("ignore")  # Inductor's own: of modules that it imports, of TensorFloat32
        logits = compiled(*inputs)
    torch.testing.assert_close(logits, network(*inputs), atol=1e-5 if device == "cpu" else 1e-3, rtol=0)
