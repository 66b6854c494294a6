"""Multi-head self-attention over tokens that have levels, in every kind of the ablation.

Shape letters: B batch, N padded tokens, D model width, H heads, E head width (D / H).
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from krontime.ops.attention import Order, axial_attention, level_factors
from krontime.ops.levels import LevelPlan
from krontime.ops.projections import channels_first, mix_and_project

AttentionKind = Literal["kronecker", "pooled", "axial", "full", "none"]


_INITIAL_SCALE = 0.1


class LevelAttention(nn.Module):
    """Self-attention along the levels of a plan.

    Projections have no bias, so that a token set to zero gives nothing to any score. What comes out is multiplied by a
    learned scale for each feature, small at first (layer scale, Touvron et al. 2021, arXiv 2103.17239): maps that have
    learned nothing are means over nearly all tokens, and would hide what a token says itself.

    Args:
        d_model: D.
        key_dim: width of queries and of keys over all heads, a multiple of H.
        num_heads: H, a divisor of D.
        plan: level sizes.
        kind: `kronecker`, `pooled`, `axial`; `full` is one level whatever the plan; `none` leaves the attention maps
            (and with them queries and keys) out and is the floor that the cost of attention is measured against.
        order: order of the levels.
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
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.plan = LevelPlan((plan.padded_tokens,), plan.num_tokens) if kind == "full" else plan
        self.kind = kind
        self.order = order
        if kind != "none":
            self.query = nn.Linear(d_model, key_dim, bias=False)
            self.key = nn.Linear(d_model, key_dim, bias=False)
        self.value = nn.Linear(d_model, d_model, bias=False)
        self.out = nn.Linear(d_model, d_model, bias=False)
        self.out_scale = nn.Parameter(torch.full((d_model,), _INITIAL_SCALE))

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Mix the tokens.

        Args:
            x: `(B, N, D)` with N a product of trimmed level sizes.
            mask: bool `(B, N)` or `(1, N)`, true where a token is valid; None where all are.

        Returns:
            `(B, N, D)`; meaningless at invalid tokens.
        """
        out_weight = self.out.weight * self.out_scale[:, None]  # one product less than scaling tokens
        if self.kind == "none":
            return F.linear(self.value(x), out_weight)
        if mask is not None:
            x = x * mask[:, :, None]
        if self.kind in ("axial", "full"):
            q, k, v = (p(x).unflatten(-1, (self.num_heads, -1)) for p in (self.query, self.key, self.value))
            mixed = axial_attention(q, k, v, self.plan, order=self.order, mask=mask).flatten(2)
            return F.linear(mixed, out_weight)
        v, qk = channels_first(x, self.value.weight, self._qk_weight())
        factors = self._factors(qk, mask)
        return mix_and_project(self._heads(v), factors, out_weight, order=self.order, mask=mask)

    def factors(self, x: Tensor, mask: Tensor | None) -> list[Tensor]:
        """The attention maps for the input of `forward`, to look at: one `(B, H, k_i, k_i)` per level, lowest first.

        Only the kinds `kronecker` and `pooled` have one map per level.
        """
        assert self.kind in ("kronecker", "pooled")
        (qk,) = channels_first(x if mask is None else x * mask[:, :, None], self._qk_weight())
        return self._factors(qk, mask)

    def _qk_weight(self) -> Tensor:
        """One weight for both: they are narrow, and a product of few rows costs as much as one of twice as many."""
        return torch.cat([self.query.weight, self.key.weight])

    def _factors(self, qk: Tensor, mask: Tensor | None) -> list[Tensor]:
        q, k = (self._heads(part.contiguous()) for part in qk.chunk(2, dim=1))
        return level_factors(q, k, self.plan, pooled=self.kind == "pooled", mask=mask)

    def _heads(self, x: Tensor) -> Tensor:
        """`(B, D, N)` to `(B, H, E, N)`."""
        return x.unflatten(1, (self.num_heads, -1))
