"""Multi-head self-attention over tokens that have levels, in every kind of the ablation.

Shape letters: B batch, N padded tokens, D model width, H heads, E head width (D / H).
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from krontime.ops.attention import Order, apply_factors, axial_attention, level_factors
from krontime.ops.decomposition import LevelPlan

AttentionKind = Literal["kronecker", "pooled", "axial", "full", "none"]


class LevelAttention(nn.Module):
    """Self-attention along the levels of a plan.

    Projections have no bias, so that a token set to zero gives nothing to any score.

    Args:
        d_model: D.
        key_dim: width of queries and of keys over all heads, a multiple of H.
        num_heads: H, a divisor of D.
        plan: level sizes.
        kind: `kronecker`, `pooled`, `axial`; `full` is one level whatever the plan; `none` leaves the attention maps
            (and with them queries and keys) out and is the floor that the cost of attention is measured against.
        order: order of the levels.
        recompute: `kronecker` and `pooled` compute the values and what the levels make of them again in the backward
            pass, instead of keeping one activation for each.
    """

    def __init__(
        self,
        *,
        d_model: int,
        key_dim: int,
        num_heads: int,
        plan: LevelPlan,
        kind: AttentionKind,
        order: Order,
        recompute: bool,
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.plan = LevelPlan((plan.padded_tokens,), plan.num_tokens) if kind == "full" else plan
        self.kind = kind
        self.order = order
        self.recompute = recompute
        if kind != "none":
            self.query = nn.Linear(d_model, key_dim, bias=False)
            self.key = nn.Linear(d_model, key_dim, bias=False)
        self.value = nn.Linear(d_model, d_model, bias=False)
        self.out = nn.Linear(d_model, d_model, bias=False)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Mix the tokens.

        Args:
            x: `(B, N, D)` with N a product of trimmed level sizes.
            mask: bool `(B, N)` or `(1, N)`, true where a token is valid; None where all are.

        Returns:
            `(B, N, D)`; meaningless at invalid tokens.
        """
        if self.kind == "none":
            return self.out(self.value(x))
        if mask is not None:
            x = x * mask[:, :, None]
        if self.kind in ("axial", "full"):
            q, k, v = (p(x).unflatten(-1, (self.num_heads, -1)) for p in (self.query, self.key, self.value))
            return self.out(axial_attention(q, k, v, self.plan, order=self.order, mask=mask).flatten(2))
        factors = self._factors(x, mask)
        if self.recompute and torch.is_grad_enabled():
            mixed = checkpoint(self._mix, x, mask, *factors, use_reentrant=False, preserve_rng_state=False)
        else:
            mixed = self._mix(x, mask, *factors)
        return torch.bmm(mixed.flatten(1, 2).mT, self.out.weight.mT.expand(len(x), -1, -1))

    def factors(self, x: Tensor, mask: Tensor | None) -> list[Tensor]:
        """The attention maps for the input of `forward`, to look at: one `(B, H, k_i, k_i)` per level, lowest first.

        Only the kinds `kronecker` and `pooled` have one map per level.
        """
        assert self.kind in ("kronecker", "pooled")
        return self._factors(x if mask is None else x * mask[:, :, None], mask)

    def _factors(self, x: Tensor, mask: Tensor | None) -> list[Tensor]:
        q, k = (self._channels_first(p.weight, x) for p in (self.query, self.key))
        return level_factors(q, k, self.plan, pooled=self.kind == "pooled", mask=mask)

    def _mix(self, x: Tensor, mask: Tensor | None, *factors: Tensor) -> Tensor:
        v = self._channels_first(self.value.weight, x)
        return apply_factors(v, factors, order=self.order, mask=mask)

    def _channels_first(self, weight: Tensor, x: Tensor) -> Tensor:
        """`(B, N, D)` to `(B, H, E, N)`: the matrix product writes the layout that the contractions read."""
        projected = torch.bmm(weight.expand(len(x), -1, -1), x.mT)
        return projected.unflatten(1, (self.num_heads, -1))
