"""KronTime (arXiv 2403.04882): a long series as a hierarchy of tokens, with Kronecker-decomposed attention.

Shape letters: B batch, C channels, L time points, R rows (B * C, or B where channels are mixed), N padded tokens,
D model width, h depth, k_i size of level i (lowest first).
"""

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from krontime.errors import Problems
from krontime.models.layers.attention import AttentionKind, LevelAttention
from krontime.models.layers.options import check_heads, check_options
from krontime.models.layers.patches import channel_rows
from krontime.models.layers.pooling import masked_mean
from krontime.models.layers.tokenizers import Tokenizer
from krontime.models.network import SeriesNetwork
from krontime.ops.attention import Order
from krontime.ops.feed_forward import norm_gelu_linear
from krontime.ops.levels import LevelPlan, plan_levels

Positions = Literal["levels", "none"]
Head = Literal["levels", "mean"]


def default_key_dim(plan: LevelPlan, attention: AttentionKind, *, d_model: int, num_heads: int) -> int:
    """Width of queries and of keys over all heads.

    The scores of a level of `kronecker` sum over all other levels as well as over a head's width, so that few numbers a
    head do: as many as make each score a sum of D / H products, as in full attention. The other kinds sum over the
    width alone, and get D.
    """
    head_width = d_model // num_heads
    if attention != "kronecker":
        return d_model
    slices = min(plan.padded_tokens // size for size in plan.sizes)
    return num_heads * math.ceil(head_width / slices)


class LevelPositions(nn.Module):
    """One learned table per level, summed: `sum(k_i)` rows instead of N."""

    def __init__(self, *, plan: LevelPlan, d_model: int) -> None:
        super().__init__()
        self.tables = nn.ParameterList(torch.empty(size, d_model) for size in plan.sizes)
        for table in self.tables:
            nn.init.trunc_normal_(table, std=0.02)

    def forward(self, sizes: Sequence[int]) -> Tensor:
        """Positions `(N, D)` of the tokens of a batch trimmed to the given level sizes."""
        positions = self.tables[0][: sizes[0]]
        for table, size in zip(list(self.tables)[1:], sizes[1:], strict=True):
            positions = (table[:size, None] + positions).flatten(0, 1)
        return positions


class Block(nn.Module):
    """Pre-norm attention and feed-forward network, each on a residual branch.

    Linear layers have no bias: the norm before each has one. Dropout skips a branch for single tokens, which needs one
    random number a token instead of D; on a CPU, where these are drawn one after the other, dropping single numbers
    costs as much as the rest of the block.
    """

    def __init__(
        self,
        *,
        d_model: int,
        key_dim: int,
        num_heads: int,
        ffn_dim: int,
        plan: LevelPlan,
        attention: AttentionKind,
        order: Order,
        dropout: float,
    ) -> None:
        super().__init__()
        self.norm_attention = nn.LayerNorm(d_model)
        self.attention = LevelAttention(
            d_model=d_model,
            key_dim=key_dim,
            num_heads=num_heads,
            plan=plan,
            kind=attention,
            order=order,
        )
        self.norm_feed_forward = nn.LayerNorm(d_model)
        self.expand = nn.Linear(d_model, ffn_dim, bias=False)
        self.contract = nn.Linear(ffn_dim, d_model, bias=False)
        self.dropout = dropout

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """`(R, N, D)` and its mask to `(R, N, D)`."""
        x = self._add(x, self.attention(self.norm_attention(x), mask))
        return self._add(x, norm_gelu_linear(x, self.norm_feed_forward, self.expand, self.contract))

    def _add(self, x: Tensor, branch: Tensor) -> Tensor:
        if self.training and self.dropout > 0:
            branch = branch * F.dropout(branch.new_ones(*branch.shape[:2], 1), self.dropout)
        return x + branch


def level_features(x: Tensor, mask: Tensor | None, sizes: Sequence[int]) -> Tensor:
    """Features of every level: for i = 0..h the tokens' mean within groups of the i lowest levels, then the maximum
    over the groups. Level 0 is the maximum over tokens, level h the mean over all.

    Args:
        x: `(R, N, D)`, `prod(sizes) == N`.
        mask: bool `(R, N)` or `(1, N)`, true where a token is valid; None where all are. Groups without a valid token
            don't count; a series without any gets zeros.
        sizes: level sizes, lowest first.

    Returns:
        `(R, (h + 1) * D)`, level 0 first.
    """
    features = []
    total = x if mask is None else x * mask[..., None]
    count = None if mask is None else mask[..., None].to(x.dtype)
    group_size = 1
    for size in (1, *sizes):
        group_size *= size
        total = total.unflatten(1, (-1, size)).sum(dim=2) if size > 1 else total
        if count is None:
            features.append(total.max(dim=1).values / group_size)
            continue
        count = count.unflatten(1, (-1, size)).sum(dim=2) if size > 1 else count
        mean = (total / count.clamp(min=1)).masked_fill(count == 0, torch.finfo(x.dtype).min)
        features.append(mean.max(dim=1).values.where((count > 0).any(dim=1), 0))
    return torch.cat(features, dim=-1)


class KronTime(SeriesNetwork):
    """KronTime: tokens of a series seen as a tensor with one axis per level, attention factorised over the levels.

    The backbone is PatchTST's with pre-norm blocks: by default each channel is a series of its own, all channels share
    the weights, and the features of the channels are joined before the last layer (zeros for a channel without any
    observed token).

    The source publishes neither positions nor padding nor scale where they could be read. Here positions are one
    learned table per level, summed; padded and unobserved tokens give nothing to any score, and outputs are
    renormalised by the same product applied to the mask (see `krontime.ops.attention`).

    Args:
        num_channels: C.
        length: longest series, in time points.
        num_classes: number of logits.
        tokenizer: makes the tokenizer, called as `tokenizer(num_channels=..., d_model=d_model)`.
        depth: number of levels, sizes chosen by `plan_levels`; None where `level_sizes` are given.
        level_sizes: explicit level sizes, lowest first; None where `depth` is given.
        d_model: D.
        key_dim: width of queries and of keys over all heads, a multiple of H; None for what the scores need, see
            `default_key_dim`.
        num_heads: H; divides `d_model`.
        num_layers: blocks.
        ffn_dim: hidden width of the feed-forward networks.
        attention: `kronecker`, `pooled` (queries and keys summed over the other levels), `axial` (a softmax for each
            group of tokens along a level), `full` (one level) or `none` (attention maps left out).
        order: in which order levels are applied, `bottom_up`, `top_down` or `parallel` (mean of the levels). The first
            two are equal for `kronecker` and `pooled`, whose products commute.
        positions: `levels` (one learned table per level, summed) or `none`.
        head: `levels` (features pooled at every level, joined) or `mean`.
        channel_mixing: the tokenizer sees all channels at once, instead of one at a time.
        dropout: fraction of tokens that skip a residual branch in training, drawn for each branch.
        checkpointing: keep only each block's input for the backward pass, and compute the rest again.

    Raises:
        ValueError: names every option that cannot work.
    """

    def __init__(
        self,
        *,
        num_channels: int,
        length: int,
        num_classes: int,
        tokenizer: Callable[..., Tokenizer],
        depth: int | None = 2,
        level_sizes: Sequence[int] | None = None,
        d_model: int = 128,
        key_dim: int | None = None,
        num_heads: int = 8,
        num_layers: int = 3,
        ffn_dim: int = 256,
        attention: AttentionKind = "kronecker",
        order: Order = "bottom_up",
        positions: Positions = "levels",
        head: Head = "levels",
        channel_mixing: bool = False,
        dropout: float = 0.1,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        problems = Problems()
        check_heads(problems, d_model=d_model, num_heads=num_heads)
        if key_dim is not None and num_heads >= 1 and (key_dim < 1 or key_dim % num_heads):
            problems.add("key_dim", key_dim, f"a multiple of num_heads={num_heads}")
        check_options(
            problems,
            sizes={"num_layers": num_layers, "ffn_dim": ffn_dim},
            fractions={"dropout": dropout},
            choices={
                "attention": (attention, AttentionKind),
                "order": (order, Order),
                "positions": (positions, Positions),
                "head": (head, Head),
            },
        )
        if attention in ("full", "none") and order != "bottom_up":
            problems.add("order", order, f"bottom_up, since attention={attention} has no order of levels")
        problems.raise_value_error()

        self.channel_mixing = channel_mixing
        self.checkpointing = checkpointing
        self.tokenizer = tokenizer(num_channels=num_channels if channel_mixing else 1, d_model=d_model)
        self.plan = plan_levels(self.tokenizer.num_tokens(length), depth=depth, sizes=level_sizes)
        self.positions = LevelPositions(plan=self.plan, d_model=d_model) if positions == "levels" else None
        self.blocks = nn.ModuleList(
            Block(
                d_model=d_model,
                key_dim=key_dim or default_key_dim(self.plan, attention, d_model=d_model, num_heads=num_heads),
                num_heads=num_heads,
                ffn_dim=ffn_dim,
                plan=self.plan,
                attention=attention,
                order=order,
                dropout=dropout,
            )
            for _ in range(num_layers)
        )
        self.head_by_level = head == "levels"
        num_features = d_model * (self.plan.depth + 1 if self.head_by_level else 1)
        self.norm_head = nn.LayerNorm(num_features)
        num_rows = 1 if channel_mixing else num_channels
        self.head = nn.Linear(num_rows * num_features, num_classes)
        for module in (*self.blocks.modules(), self.head):
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def fit_tokens(self, x: Tensor, mask: Tensor | None = None) -> None:
        """Let the tokenizer set what depends on training data.

        Args:
            x: `(B, C, L)` normalised training series.
            mask: `(B, C, L)` bool, or None.
        """
        self.tokenizer.fit(*self._rows(x, mask))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Classify.

        Args:
            x: `(B, C, L)`, 0 where not observed; L may be less than the `length` the network was built for.
            mask: `(B, C, L)` bool, true where observed; None when all is.

        Returns:
            Logits `(B, num_classes)`.
        """
        batch_size = x.shape[0]  # `len` would be a number of its own for a tracer
        tokens, token_mask = self.tokenizer(*self._rows(x, mask))
        observed = None if token_mask is None else token_mask.any(dim=1)
        tokens, token_mask, sizes = self._pad(tokens, token_mask)
        if self.positions is not None:
            tokens = tokens + self.positions(sizes)
        for block in self.blocks:
            if self.checkpointing and self.training:
                tokens = checkpoint(block, tokens, token_mask, use_reentrant=False)
            else:
                tokens = block(tokens, token_mask)
        features = level_features(tokens, token_mask, sizes) if self.head_by_level else masked_mean(tokens, token_mask)
        features = self.norm_head(features)
        if observed is not None:
            features = features * observed[:, None]
        return self.head(features.reshape(batch_size, -1))

    def _rows(self, x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """What the tokenizer sees: all channels of a series, or each as a series of its own."""
        return (x, mask) if self.channel_mixing else channel_rows(x, mask)

    def _pad(self, tokens: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None, tuple[int, ...]]:
        """Append zero tokens up to whole slices of the trimmed plan; the mask stays None where nothing is padded."""
        num_tokens = tokens.shape[1]
        sizes = self.plan.trim(num_tokens)
        padding = LevelPlan(sizes, num_tokens).padded_tokens - num_tokens
        if padding > 0:
            if mask is None:
                mask = torch.ones(1, num_tokens, dtype=torch.bool, device=tokens.device)
            tokens, mask = F.pad(tokens, (0, 0, 0, padding)), F.pad(mask, (0, padding))
        return tokens, mask, sizes
