"""TCN: causality, receptive field, parity with a block written out by hand."""

import numpy as np
import pytest
import torch

from krontime.models.tcn import TCN, CausalConv, ResidualBlock


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def make_tcn(*, num_channels: int = 2, length: int = 60, seed: int = 0, **options) -> TCN:
    torch.manual_seed(seed)
    return TCN(num_channels=num_channels, length=length, num_classes=3, **({"channels": 4} | options)).eval()


def linearised(network: TCN) -> TCN:
    """All weights positive, so that with positive input no ReLU is closed and no two paths cancel."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(parameter.abs() + 0.01)
    return network.double()


@pytest.mark.parametrize(("in_channels", "dilation"), [(3, 1), (3, 4), (5, 2), (5, 16)])
def test_block_equals_one_written_out_by_hand(in_channels, dilation):
    torch.manual_seed(dilation)
    kernel_size, width, length = 3, 5, 23
    block = ResidualBlock(in_channels, width, kernel_size=kernel_size, dilation=dilation, dropout=0.3).eval()
    with torch.no_grad():  # the norms start as those of the directions, which would hide a norm over wrong axes
        for parameter in block.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    state = {key: value.numpy().astype(np.float64) for key, value in block.state_dict().items()}
    x = torch.randn(2, in_channels, length)

    def causal_conv(signal: np.ndarray, name: str) -> np.ndarray:
        norms = state[f"{name}.parametrizations.weight.original0"]
        directions = state[f"{name}.parametrizations.weight.original1"]
        out = np.zeros((width, length))
        for o in range(width):
            weight = norms[o, 0, 0] * directions[o] / np.sqrt((directions[o] ** 2).sum())
            for t in range(length):
                out[o, t] = state[f"{name}.bias"][o]
                for k in range(kernel_size):
                    source = t - (kernel_size - 1 - k) * dilation
                    if source >= 0:
                        out[o, t] += weight[:, k] @ signal[:, source]
        return out

    expected = []
    for signal in x.numpy().astype(np.float64):
        hidden = np.maximum(causal_conv(signal, "conv1"), 0)
        hidden = np.maximum(causal_conv(hidden, "conv2"), 0)
        residual = signal
        if in_channels != width:
            residual = state["downsample.weight"][:, :, 0] @ signal + state["downsample.bias"][:, None]
        expected.append(np.maximum(hidden + residual, 0))
    np.testing.assert_allclose(block(x).detach().numpy(), np.stack(expected), atol=1e-5)


@pytest.mark.parametrize("dilation", [1, 2, 3, 8, 64])
@pytest.mark.parametrize("length", [1, 5, 16, 31])
def test_convolution_equals_a_padded_dilated_one_in_values_and_gradients(dilation, length):
    torch.manual_seed(0)
    conv = CausalConv(3, 4, kernel_size=5, dilation=dilation).double()
    results = []
    x = torch.randn(2, 3, length, dtype=torch.float64)
    for forward in (
        conv,
        lambda x: torch.nn.functional.conv1d(
            torch.nn.functional.pad(x, (4 * dilation, 0)), conv.weight, conv.bias, dilation=dilation
        ),
    ):
        leaf = x.clone().requires_grad_()
        conv.zero_grad()
        out = forward(leaf)
        out.pow(3).sum().backward()
        results.append([out, leaf.grad, conv.weight.grad.clone(), conv.bias.grad.clone()])
    for ours, plain in zip(*results, strict=True):
        torch.testing.assert_close(ours, plain, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize(("kernel_size", "num_levels"), [(2, 1), (2, 4), (3, 3), (5, 2)])
def test_output_depends_on_exactly_the_receptive_field(kernel_size, num_levels):
    network = linearised(make_tcn(length=100, kernel_size=kernel_size, num_levels=num_levels))
    x = torch.rand(1, 2, 100, dtype=torch.float64, requires_grad=True)
    time = 80
    network.blocks(x)[0, :, time].sum().backward()
    reached = (x.grad[0] != 0).all(dim=0)
    untouched = (x.grad[0] == 0).all(dim=0)
    inside = torch.zeros(100, dtype=torch.bool)
    inside[time - network.receptive_field + 1 : time + 1] = True
    assert torch.equal(reached, inside)
    assert torch.equal(untouched, ~inside)  # the future among it: causal, exactly


@pytest.mark.parametrize("length", [1, 2, 9, 10, 57, 4096])
@pytest.mark.parametrize("kernel_size", [2, 5])
def test_default_levels_are_the_least_that_cover_the_series(length, kernel_size):
    network = make_tcn(length=length, kernel_size=kernel_size, channels=1)
    assert network.receptive_field >= length
    num_levels = len(network.blocks)
    if num_levels > 1:
        fewer = make_tcn(length=length, kernel_size=kernel_size, channels=1, num_levels=num_levels - 1)
        assert fewer.receptive_field < length


def test_size_of_the_published_comparison():
    # 16,384 points, kernel 5, 58 channels. Eleven levels see 16,377 points; the twelfth is needed for the last seven.
    sizes = {"num_channels": 1, "length": 16_384, "channels": 58, "kernel_size": 5}
    eleven = make_tcn(**sizes, num_levels=11)
    assert eleven.receptive_field == 16_377
    assert sum(parameter.numel() for parameter in eleven.parameters()) == pytest.approx(357_000, rel=0.005)
    assert len(make_tcn(**sizes).blocks) == 12


def test_times_without_an_observation_are_left_out_of_the_mean():
    network = make_tcn()
    x, mask = torch.randn(1, 2, 60), torch.rand(1, 2, 60) > 0.5
    features = network.blocks(x * mask)
    expected = network.head(features[..., mask[0].any(dim=0)].mean(dim=-1))
    torch.testing.assert_close(network(x * mask, mask), expected)
    nothing = network(torch.zeros(1, 2, 60), torch.zeros(1, 2, 60, dtype=torch.bool))
    torch.testing.assert_close(nothing, network.head.bias[None])


def test_dropout_zeroes_whole_channels():
    block = ResidualBlock(40, 40, kernel_size=3, dilation=2, dropout=0.5)
    dropped = (block.dropout(torch.ones(1, 40, 9)) == 0)[0]
    assert torch.equal(dropped.all(dim=1), dropped.any(dim=1))
    assert 0 < dropped[:, 0].sum() < 40


def test_all_wrong_options_are_named_at_once():
    with pytest.raises(ValueError, match="channels=0") as caught:
        make_tcn(channels=0, kernel_size=1, num_levels=0, dropout=-0.1)
    assert len(str(caught.value).splitlines()) == 4
    for text in ("channels=0", "kernel_size=1", "num_levels=0", "dropout=-0.1"):
        assert text in str(caught.value)
