"""Diagonal state-space network (S4D: Gu, Gupta, Goel, Ré 2022, arXiv 2206.11893) for classification.

Shape letters: B batch, C channels, L time points, D model width, S directions in time (1, or 2 where bidirectional),
N half the state size (one of each pair of conjugate states).
"""

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from krontime.errors import Problems
from krontime.models.layers.options import check_options
from krontime.models.layers.pooling import masked_mean
from krontime.models.network import SeriesNetwork

Initialisation = Literal["lin", "inv"]


class DiagonalSSM(nn.Module):
    """A linear state space with a diagonal matrix for each feature and direction, as one long convolution.

    In continuous time `x' = A x + u`, `y = 2 Re(C x) + u * skip`; made discrete by a zero-order hold over a step
    `dt`, the response to an impulse is `2 Re(sum_n C_n (exp(dt A_n) - 1) / A_n exp(dt A_n l))` after `l` points.

    Args:
        d_model: D.
        d_state: states of a feature, an even number.
        bidirectional: whether there is a second response, from the future.
        init: of A: `lin` (frequencies in equal steps) or `inv` (those of the Legendre measure of S4).
        dt_min: smallest initial step, in time points.
        dt_max: largest initial step.
    """

    def __init__(
        self, *, d_model: int, d_state: int, bidirectional: bool, init: Initialisation, dt_min: float, dt_max: float
    ) -> None:
        super().__init__()
        directions, half = 1 + bidirectional, d_state // 2
        n = torch.arange(half, dtype=torch.float32)
        frequency = math.pi * n if init == "lin" else d_state / math.pi * (d_state / (2 * n + 1) - 1)
        log_dt = torch.empty(directions, d_model).uniform_(math.log(dt_min), math.log(dt_max))
        self.log_dt = nn.Parameter(log_dt)
        self.log_decay = nn.Parameter(torch.full((directions, d_model, half), math.log(0.5)))
        self.frequency = nn.Parameter(frequency.repeat(directions, d_model, 1))
        self.output = nn.Parameter(torch.randn(directions, d_model, half, 2) * math.sqrt(0.5))  # C, real and imaginary
        self.skip = nn.Parameter(torch.randn(d_model))
        for parameter in (self.log_dt, self.log_decay, self.frequency):
            parameter.no_weight_decay = True  # type: ignore[attr-defined]  # zero is no neutral value of theirs

    def response(self, length: int) -> Tensor:
        """The impulse responses `(S, D, length)`.

        With `l = q * m + r`, the power `exp(dt A l)` is that of `q * m` times that of `r`: a matrix product over the
        states, whose factors hold about `sqrt(length)` powers each, where all of them would take `length`.
        """
        chunk = math.isqrt(length - 1) + 1
        num_chunks = -(-length // chunk)
        dt_SD1 = self.log_dt.exp()[..., None]
        decay_SDN = self.log_decay.exp()
        rate_SDN, angle_SDN = -decay_SDN * dt_SD1, self.frequency * dt_SD1
        real_SDN, imag_SDN = self._coefficients(decay_SDN, rate_SDN, angle_SDN)
        steps = torch.arange(max(chunk, num_chunks), dtype=rate_SDN.dtype, device=rate_SDN.device)
        cos_SDNQ, sin_SDNQ = _powers(rate_SDN, angle_SDN, chunk * steps[:num_chunks])
        real, imag = real_SDN[..., None], imag_SDN[..., None]
        left = torch.cat([cos_SDNQ * real - sin_SDNQ * imag, -cos_SDNQ * imag - sin_SDNQ * real], dim=-2)
        right = torch.cat(_powers(rate_SDN, angle_SDN, steps[:chunk]), dim=-2)
        return 2 * (left.transpose(-2, -1) @ right).flatten(-2)[..., :length]

    def _coefficients(self, decay: Tensor, rate: Tensor, angle: Tensor) -> tuple[Tensor, Tensor]:
        """Real and imaginary part of `C (exp(dt A) - 1) / A`, each `(S, D, N)`."""
        cos, sin = rate.exp() * angle.cos() - 1, rate.exp() * angle.sin()
        square = decay.square() + self.frequency.square()
        enter_real = (sin * self.frequency - cos * decay) / square
        enter_imag = -(cos * self.frequency + sin * decay) / square
        real, imag = self.output.unbind(dim=-1)
        return real * enter_real - imag * enter_imag, real * enter_imag + imag * enter_real

    def forward(self, u: Tensor) -> Tensor:
        """`(B, D, L)`, zero where nothing is observed, to `(B, D, L)`; in float32 at least."""
        with torch.autocast(u.device.type, enabled=False):
            u = u.to(torch.promote_types(u.dtype, torch.float32))
            length = u.shape[-1]
            size = _fast_size(2 * length)
            past, *future = self.response(length).unbind()
            kernel = F.pad(past, (0, size - length))
            if future:  # that of one point on stands at the end: the convolution is circular
                kernel = kernel + F.pad(future[0].flip(-1), (size - length, 0))
            return long_convolution(u, kernel) + u * self.skip[:, None]


# An operator of its own: the spectra are complex, which torch.compile has no code for.
@torch.library.custom_op("krontime::long_convolution", mutates_args=())
def long_convolution(u: Tensor, kernel: Tensor) -> Tensor:
    """The first L points of the circular convolution of `u` `(B, D, L)`, zeros appended, with `kernel` `(D, T)`."""
    return convolved(u, kernel)


def convolved(u: Tensor, kernel: Tensor) -> Tensor:
    """`long_convolution` in operators that other programs know."""
    size = kernel.shape[-1]
    spectrum = torch.fft.rfft(u, n=size) * torch.fft.rfft(kernel)
    return torch.fft.irfft(spectrum, n=size)[..., : u.shape[-1]].contiguous()


@torch.library.custom_op("krontime::long_convolution_backward", mutates_args=())
def _long_convolution_backward(grad: Tensor, u: Tensor, kernel: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of `u` and of `kernel`: both are correlations with that of the output."""
    size = kernel.shape[-1]
    spectrum = torch.fft.rfft(grad, n=size)
    of_kernel = torch.fft.irfft((spectrum * torch.fft.rfft(u, n=size).conj()).sum(dim=0), n=size)
    of_u = torch.fft.irfft(spectrum.mul_(torch.fft.rfft(kernel).conj()), n=size)
    return of_u[..., : u.shape[-1]].contiguous(), of_kernel


@long_convolution.register_fake
def _(u: Tensor, kernel: Tensor) -> Tensor:
    return u.new_empty(u.shape)


@_long_convolution_backward.register_fake
def _(grad: Tensor, u: Tensor, kernel: Tensor) -> tuple[Tensor, Tensor]:
    return u.new_empty(u.shape), kernel.new_empty(kernel.shape)


def _keep(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
    return _long_convolution_backward(grad, *ctx.saved_tensors)


long_convolution.register_autograd(_backward, setup_context=_keep)


class S4DBlock(nn.Module):
    """Layer norm, state space, GELU, and a gated linear unit, added to the input (pre-norm)."""

    def __init__(self, ssm: DiagonalSSM, *, d_model: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(d_model)
        self.ssm = ssm
        self.dropout = nn.Dropout1d(dropout)
        self.mix = nn.Linear(d_model, 2 * d_model)

    def forward(self, x: Tensor, observed: Tensor | None) -> Tensor:
        """`(B, L, D)` and which points count `(B, L)` to `(B, L, D)`."""
        normed_BLD = self.norm(x)
        if observed is not None:
            normed_BLD = normed_BLD * observed[..., None].to(normed_BLD.dtype)
        hidden_BDL = self.dropout(F.gelu(self.ssm(normed_BLD.transpose(1, 2))))
        return x + self.dropout(F.glu(self.mix(hidden_BDL.transpose(1, 2)), dim=-1).transpose(1, 2)).transpose(1, 2)


class S4D(SeriesNetwork):
    """A linear map to `d_model` features, S4D blocks, the mean over observed times, and a linear layer.

    As published: the zero-order hold, the initialisations S4D-Lin and S4D-Inv, and blocks with a gated linear unit.
    Differences: a learning rate and a schedule are shared by all parameters, where the authors train A and dt with a
    smaller one; those have no weight decay in either. Points at which no channel is observed are zeros for every state
    space and are left out of the mean, so that series of any length and with missing points are classified alike.

    Args:
        num_channels: C.
        length: longest series, in time points.
        num_classes: number of logits.
        d_model: D.
        d_state: states of each feature and direction, an even number.
        num_layers: blocks.
        bidirectional: whether each block sees the future too.
        init: of the states: `lin` or `inv`.
        dt_min: smallest initial time step; a state space forgets over about 1 / step points.
        dt_max: largest initial step.
        dropout: fraction of hidden channels dropped after the state space and after the gated unit.

    Raises:
        ValueError: names every option that cannot work.
    """

    def __init__(
        self,
        *,
        num_channels: int,
        length: int,
        num_classes: int,
        d_model: int = 128,
        d_state: int = 64,
        num_layers: int = 4,
        bidirectional: bool = True,
        init: Initialisation = "lin",
        dt_min: float = 0.001,
        dt_max: float = 0.1,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        problems = Problems()
        check_options(
            problems,
            sizes={"d_model": d_model, "num_layers": num_layers},
            fractions={"dropout": dropout},
            choices={"init": (init, Initialisation)},
        )
        if d_state < 2 or d_state % 2:
            problems.add("d_state", d_state, "an even number of at least 2")
        if not 0 < dt_min < math.inf:
            problems.add("dt_min", dt_min, "a number above 0")
        elif not dt_min <= dt_max < math.inf:
            problems.add("dt_max", dt_max, f"at least dt_min={dt_min}")
        problems.raise_value_error()

        self.embed = nn.Linear(num_channels, d_model)
        self.blocks = nn.ModuleList(
            S4DBlock(
                DiagonalSSM(
                    d_model=d_model,
                    d_state=d_state,
                    bidirectional=bidirectional,
                    init=init,
                    dt_min=dt_min,
                    dt_max=dt_max,
                ),
                d_model=d_model,
                dropout=dropout,
            )
            for _ in range(num_layers)
        )
        self.norm = nn.LayerNorm(d_model)
        self.head = nn.Linear(d_model, num_classes)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Classify.

        Args:
            x: `(B, C, L)`, 0 where not observed; L may be anything.
            mask: `(B, C, L)` bool, true where observed; None when all is.

        Returns:
            Logits `(B, num_classes)`.
        """
        observed_BL = None if mask is None else mask.any(dim=1)
        hidden_BLD = self.embed(x.transpose(1, 2))
        for block in self.blocks:
            hidden_BLD = block(hidden_BLD, observed_BL)
        return self.head(masked_mean(self.norm(hidden_BLD), observed_BL))


def _powers(rate: Tensor, angle: Tensor, times: Tensor) -> tuple[Tensor, Tensor]:
    """Real and imaginary part of `exp((rate + i angle) * times)`: `(..., N)` and `(T,)` to `(..., N, T)`."""
    size, phase = (rate[..., None] * times).exp(), angle[..., None] * times
    return size * phase.cos(), size * phase.sin()


def _fast_size(least: int) -> int:
    """The smallest `2**k` or `3 * 2**k` of at least `least`, which transforms fast."""
    size = 4
    while size < least:
        size *= 2
    return 3 * size // 4 if 3 * size // 4 >= least else size
