"""Keeps a closed form beside a network: how far the network is mixed in, and what a checkpoint holds of both.

Shape letters: B batch, C channels, L time points, n series, K classes.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from krontime.models.kernel_ridge.classifier import ClosedForm
from krontime.models.kernel_ridge.mixture import NetworkMixing, mixed, network_mixing

PREFIX = "closed_form."
"""Prefix of the names of the closed form's tensors in checkpoints and bundles."""

MIXING = PREFIX + "share"
"""Name of the tensor of a `NetworkMixing`, as files have had it from the start."""


class Mixture:
    """A closed form and the network's weight in the answer.

    This is no torch module, so that what is meant for trained weights leaves its tensors alone: averaging them over
    steps, sending them to other ranks before each step.

    Args:
        closed_form: classifies raw series.

    Attributes:
        mixing: how the network is mixed in; not at all until validation speaks for it.
    """

    def __init__(self, closed_form: ClosedForm) -> None:
        self.closed_form = closed_form.eval()
        self.mixing = NetworkMixing(factor=1.0, weight=0.0, gain=0.0, error=0.0)

    def closed_form_log_probability(self, x: Tensor, mask: Tensor | None, held_out: Tensor | None = None) -> Tensor:
        """Return the logarithms of the closed form's probabilities `(B, K)`.

        Args:
            x: raw series `(B, C, L)`.
            mask: `(B, C, L)` bool, true where observed; None where all is.
            held_out: `(B, K)`, the same from fits without each series, returned instead where given.
        """
        return self.closed_form.to(x.device)(x, mask) if held_out is None else held_out

    def mixed(self, logits: Tensor | None, log_probability: Tensor) -> Tensor:
        """Return the logarithms of the mixture's probabilities `(B, K)`.

        Args:
            logits: `(B, K)`, the network's; None for the closed form alone.
            log_probability: `(B, K)`, the closed form's.
        """
        if logits is None:
            return log_probability
        return mixed(logits, log_probability, self.mixing.factor, self.mixing.weight)

    def fit(
        self, logits: Tensor, log_probability: Tensor, labels: Tensor, prior: Tensor, period: Tensor | None = None
    ) -> None:
        """Fit the network's weight to validation series; arguments of `network_mixing`."""
        period = None if period is None else period.cpu()
        self.mixing = network_mixing(logits.cpu(), log_probability.cpu(), labels.cpu(), prior.cpu(), period)

    def tensors(self) -> dict[str, Tensor]:
        """Return all tensors that have to be kept, by name."""
        tensors = {PREFIX + name: value for name, value in self.closed_form.state_dict().items()}
        return tensors | {MIXING: torch.tensor(self.mixing, dtype=torch.float64)}

    def load_tensors(self, tensors: Mapping[str, Tensor], *, assign: bool = False) -> None:
        """Load what `tensors` returned.

        Args:
            tensors: by name; those of other parts are ignored.
            assign: take the tensors themselves instead of copies.

        Raises:
            RuntimeError: one is missing, or of another size.
        """
        closed_form = {name.removeprefix(PREFIX): value for name, value in tensors.items() if name.startswith(PREFIX)}
        mixing = closed_form.pop(MIXING.removeprefix(PREFIX), None)
        if mixing is None or mixing.shape != (4,):
            raise RuntimeError(f"{MIXING} is missing, or of another size")
        self.closed_form.load_state_dict(closed_form, assign=assign)
        self.mixing = NetworkMixing(*mixing.tolist())
