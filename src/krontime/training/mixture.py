"""A closed form beside a network: how far the network is mixed in, and what travels in a checkpoint.

Shape letters: B batch, C channels, L time points, n series, K classes.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from krontime.models.kernel_ridge.classifier import ClosedForm
from krontime.models.kernel_ridge.mixture import NetworkMixing, mixed, network_mixing

PREFIX = "closed_form."
"""Of the names of its tensors in checkpoints and bundles."""

MIXING = PREFIX + "share"
"""How the network is mixed in, under the name that files have had from the start."""


class Mixture:
    """A closed form and the network's weight in the answer.

    No module of torch, so that what is meant for trained weights leaves its tensors alone: averaging them over steps,
    sending them to other ranks before each step, sharding them.

    Args:
        closed_form: classifies raw series.

    Attributes:
        mixing: how the network is mixed in; not at all until validation speaks for it.
    """

    def __init__(self, closed_form: ClosedForm) -> None:
        self.closed_form = closed_form.eval()
        self.mixing = NetworkMixing(factor=1.0, weight=0.0, gain=0.0, error=0.0)

    def own(self, x: Tensor, mask: Tensor | None, held_out: Tensor | None = None) -> Tensor:
        """Logarithms of the closed form's probabilities `(B, K)` of raw series `(B, C, L)`; `held_out` where given."""
        return self.closed_form.to(x.device)(x, mask) if held_out is None else held_out

    def mixed(self, logits: Tensor | None, own: Tensor) -> Tensor:
        """Logarithms of the mixture's probabilities `(B, K)`, from a network's logits, where there are any."""
        return own if logits is None else mixed(logits, own, self.mixing.factor, self.mixing.weight)

    def fit(self, logits: Tensor, own: Tensor, labels: Tensor, prior: Tensor) -> None:
        """Take the network's weight from validation series: see `network_mixing`."""
        self.mixing = network_mixing(logits.cpu(), own.cpu(), labels.cpu(), prior.cpu())

    def tensors(self) -> dict[str, Tensor]:
        """All that has to be kept, by name."""
        kept = {PREFIX + name: value for name, value in self.closed_form.state_dict().items()}
        return kept | {MIXING: torch.tensor(self.mixing, dtype=torch.float64)}

    def load_tensors(self, tensors: Mapping[str, Tensor], *, assign: bool = False) -> None:
        """Take what `tensors` gave.

        Args:
            tensors: by name; others than its own are ignored.
            assign: take the tensors themselves instead of copies.

        Raises:
            RuntimeError: one is missing, or of another size.
        """
        own = {name.removeprefix(PREFIX): value for name, value in tensors.items() if name.startswith(PREFIX)}
        mixing = own.pop(MIXING.removeprefix(PREFIX), None)
        if mixing is None or mixing.shape != (4,):
            raise RuntimeError(f"{MIXING} is missing, or of another size")
        self.closed_form.load_state_dict(own, assign=assign)
        self.mixing = NetworkMixing(*mixing.tolist())
