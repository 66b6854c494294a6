"""S4D: parity with the recurrence in double precision, its initialisation, missing points, what can't work."""

import math

import numpy as np
import pytest
import torch

from krontime.models.s4d import S4D, DiagonalSSM, _fast_size, long_convolution


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def make_ssm(*, bidirectional: bool, init: str = "lin", d_model: int = 3, d_state: int = 8) -> DiagonalSSM:
    """Away from where it begins: each feature and direction with states of its own."""
    ssm = DiagonalSSM(d_model=d_model, d_state=d_state, bidirectional=bidirectional, init=init, dt_min=0.01, dt_max=0.3)
    with torch.no_grad():
        for parameter in ssm.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return ssm.double()


def make_s4d(**options) -> S4D:
    defaults = {"d_model": 6, "d_state": 4, "num_layers": 2}
    return S4D(num_channels=2, length=40, num_classes=3, **defaults | options).eval()


def recurrent(ssm: DiagonalSSM, u: np.ndarray) -> np.ndarray:
    """The state space one point after the other, `(D, L)` to `(D, L)`; the future as the reversed series, one later."""
    state = {key: value.detach().numpy() for key, value in ssm.named_parameters()}
    length = u.shape[1]
    y = state["skip"][:, None] * u
    for direction, log_dt in enumerate(state["log_dt"]):
        rate = -np.exp(state["log_decay"][direction]) + 1j * state["frequency"][direction]
        output = state["output"][direction, ..., 0] + 1j * state["output"][direction, ..., 1]
        step = np.exp(np.exp(log_dt)[:, None] * rate)
        enter = (step - 1) / rate
        x = np.zeros_like(rate)
        points = range(length) if direction == 0 else range(length - 1, -1, -1)
        for t in points:
            if direction == 1:
                y[:, t] += 2 * (output * x).sum(axis=1).real
            x = step * x + enter * u[:, t, None]
            if direction == 0:
                y[:, t] += 2 * (output * x).sum(axis=1).real
    return y


@pytest.mark.parametrize("length", [1, 2, 3, 17, 64, 100])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_convolution_equals_the_recurrence(length, bidirectional):
    ssm = make_ssm(bidirectional=bidirectional)
    u = torch.randn(2, 3, length, dtype=torch.float64)
    expected = np.stack([recurrent(ssm, row) for row in u.numpy()])
    np.testing.assert_allclose(ssm(u).detach().numpy(), expected, atol=1e-12)


def test_gradients_are_those_of_the_recurrence():
    ssm = make_ssm(bidirectional=True, d_model=2, d_state=4)
    u = torch.randn(1, 2, 9, dtype=torch.float64)
    weight = torch.randn(1, 2, 9, dtype=torch.float64)
    (ssm(u) * weight).sum().backward()
    for key, parameter in ssm.named_parameters():
        for position in np.ndindex(*parameter.shape):
            values = []
            for offset in (1e-5, -1e-5):
                with torch.no_grad():
                    parameter[position] += offset
                    values.append((recurrent(ssm, u[0].numpy()) * weight[0].numpy()).sum())
                    parameter[position] -= offset
            assert parameter.grad[position].item() == pytest.approx((values[0] - values[1]) / 2e-5, abs=1e-6), key


def test_gradients_of_the_convolution_are_those_of_its_values():
    u = torch.randn(2, 3, 5, dtype=torch.float64, requires_grad=True)
    kernel = torch.randn(3, 12, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(long_convolution, (u, kernel))


def test_long_responses_are_exact_in_single_precision():
    ssm = DiagonalSSM(d_model=4, d_state=64, bidirectional=False, init="lin", dt_min=0.001, dt_max=0.1)
    exact = DiagonalSSM(d_model=4, d_state=64, bidirectional=False, init="lin", dt_min=0.001, dt_max=0.1)
    exact.load_state_dict(ssm.state_dict())
    expected = exact.double().response(40_000)
    assert (ssm.response(40_000) - expected).abs().max() < 1e-4 * expected.abs().max()


@pytest.mark.parametrize(
    ("init", "expected"),
    [
        ("lin", [0, math.pi, 2 * math.pi, 3 * math.pi]),
        ("inv", [8 / math.pi * (8 / (2 * n + 1) - 1) for n in range(4)]),
    ],
)
def test_states_begin_as_published(init, expected):
    ssm = DiagonalSSM(d_model=5, d_state=8, bidirectional=True, init=init, dt_min=0.01, dt_max=0.3)
    for direction in range(2):
        for feature in range(5):
            np.testing.assert_allclose(ssm.frequency[direction, feature].tolist(), expected, rtol=1e-5)
    np.testing.assert_allclose(ssm.log_decay.exp().detach(), 0.5, rtol=1e-6)
    assert (ssm.log_dt.exp() > 0.0099).all()
    assert (ssm.log_dt.exp() < 0.301).all()


@pytest.mark.parametrize("bidirectional", [False, True])
def test_only_a_bidirectional_one_sees_the_future(bidirectional):
    ssm = make_ssm(bidirectional=bidirectional)
    u = torch.randn(1, 3, 20, dtype=torch.float64)
    changed = u.clone()
    changed[..., 12:] += 1
    before = (ssm(changed) - ssm(u))[..., :12].abs().max()
    assert before > 1e-3 if bidirectional else before < 1e-12


def test_state_parameters_have_no_weight_decay():
    without = {key.rpartition(".")[2] for key, p in make_s4d().named_parameters() if getattr(p, "no_weight_decay", 0)}
    assert without == {"log_dt", "log_decay", "frequency"}


def test_points_without_an_observation_are_zeros_and_out_of_the_mean():
    network = make_s4d()
    x, mask = torch.randn(1, 2, 40), torch.rand(1, 1, 40).expand(1, 2, 40) > 0.4
    logits = network(x * mask, mask)
    hidden = network.embed((x * mask).transpose(1, 2))
    for block in network.blocks:
        hidden = block(hidden, mask[:, 0])
    expected = network.head(network.norm(hidden)[0, mask[0, 0]].mean(dim=0))
    torch.testing.assert_close(logits[0], expected)


@pytest.mark.parametrize("least", [2, 3, 4, 5, 7, 96, 97, 2920, 3073])
def test_transforms_are_long_enough_and_fast(least):
    size = _fast_size(least)
    assert least <= size < max(5, 1.51 * least)
    assert size // (size & -size) in (1, 3)


def test_all_wrong_options_are_named_at_once():
    with pytest.raises(ValueError, match="d_model=0") as caught:
        make_s4d(d_model=0, d_state=3, num_layers=0, dropout=1.0, init="legs", dt_min=0.1, dt_max=0.01)
    assert len(str(caught.value).splitlines()) == 6
    for key in ("d_model", "d_state", "num_layers", "dropout", "init", "dt_max"):
        assert f"{key}=" in str(caught.value)
