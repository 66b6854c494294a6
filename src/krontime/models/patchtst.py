"""PatchTST (Nie, Nguyen, Sinthong, Kalagnanam 2023, arXiv 2211.14730) for classification.

Shape letters: B batch, C channels, L time points, N tokens, D model width, H heads, E head width (D / H), R rows
(one for each channel of each series, B * C).
"""

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from krontime.errors import Problems
from krontime.models.layers.norm import MaskedBatchNorm
from krontime.models.layers.options import check_heads, check_options
from krontime.models.layers.patches import channel_rows
from krontime.models.layers.pooling import masked_mean
from krontime.models.layers.tokenizers import Tokenizer
from krontime.models.network import SeriesNetwork

AttentionImplementation = Literal["naive", "fused"]
Norm = Literal["batch", "layer"]
Pooling = Literal["mean", "max"]


class Encoded(NamedTuple):
    """What the encoder makes of a batch.

    Attributes:
        hidden: `(B, C, N, D)`, meaningless where `mask` is false.
        mask: `(B, C, N)` bool, or None when all tokens count.
    """

    hidden: Tensor
    mask: Tensor | None


def naive_attention(query: Tensor, key: Tensor, value: Tensor, *, attn_mask: Tensor | None, dropout_p: float) -> Tensor:
    """Attention with the whole `(R, H, N, N)` map in memory; same call and result as PyTorch's fused one.

    Args:
        query: `(R, H, N, E)`, as are `key` and `value`.
        attn_mask: bool, broadcastable to `(R, H, N, N)`, with at least one true in each row.
        dropout_p: fraction of the map's entries to drop.
    """
    scores_RHNN = (query / math.sqrt(query.shape[-1])) @ key.transpose(-2, -1)
    if attn_mask is not None:
        scores_RHNN = scores_RHNN.masked_fill(~attn_mask, -math.inf)
    # Softmax in at least float32, whatever autocast made of the scores.
    weights_RHNN = scores_RHNN.softmax(dim=-1, dtype=torch.promote_types(scores_RHNN.dtype, torch.float32))
    return F.dropout(weights_RHNN, dropout_p).to(value.dtype) @ value


class SelfAttention(nn.Module):
    """Multi-head self-attention over the tokens of one row."""

    def __init__(self, *, d_model: int, num_heads: int, attention: AttentionImplementation, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.dropout = dropout
        self.attend: Callable[..., Tensor] = naive_attention if attention == "naive" else F.scaled_dot_product_attention
        self.qkv = nn.Linear(d_model, 3 * d_model)
        self.out = nn.Linear(d_model, d_model)

    def forward(self, x: Tensor, keys: Tensor | None) -> Tensor:
        """Attend.

        Args:
            x: `(R, N, D)`.
            keys: `(R, N)` bool, which tokens may be attended to, at least one in each row; None for all.

        Returns:
            `(R, N, D)`.
        """
        query, key, value = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        attn_mask = None if keys is None else keys[:, None, None, :]
        out_RHNE = self.attend(query, key, value, attn_mask=attn_mask, dropout_p=self.dropout if self.training else 0.0)
        return self.out(out_RHNE.transpose(1, 2).flatten(2))


class EncoderLayer(nn.Module):
    """Attention and feed-forward, each added to its input and then normalised (post-norm), as published."""

    def __init__(
        self,
        *,
        d_model: int,
        num_heads: int,
        ffn_dim: int,
        attention: AttentionImplementation,
        norm: Norm,
        dropout: float,
        attention_dropout: float,
    ) -> None:
        super().__init__()
        self.attention = SelfAttention(
            d_model=d_model, num_heads=num_heads, attention=attention, dropout=attention_dropout
        )
        self.feed_forward = nn.Sequential(
            nn.Linear(d_model, ffn_dim), nn.GELU(), nn.Dropout(dropout), nn.Linear(ffn_dim, d_model)
        )
        self.dropout = nn.Dropout(dropout)
        make_norm = MaskedBatchNorm if norm == "batch" else nn.LayerNorm
        self.norm_attention = make_norm(d_model)
        self.norm_feed_forward = make_norm(d_model)

    def forward(self, x: Tensor, mask: Tensor | None, keys: Tensor | None) -> Tensor:
        """`(R, N, D)`, the tokens that count and those to attend to (both `(R, N)` or None), to `(R, N, D)`."""
        x = self._normalise(self.norm_attention, x + self.dropout(self.attention(x, keys)), mask)
        return self._normalise(self.norm_feed_forward, x + self.dropout(self.feed_forward(x)), mask)

    @staticmethod
    def _normalise(norm: nn.Module, x: Tensor, mask: Tensor | None) -> Tensor:
        return norm(x, mask) if isinstance(norm, MaskedBatchNorm) else norm(x)


class PatchTST(SeriesNetwork):
    """PatchTST: patches of each channel as tokens of a Transformer encoder that all channels share.

    Channels do not see each other before the head (channel independence). The head pools each channel's tokens, joins
    the channels, and is linear, as in Hugging Face transformers' `PatchTSTForClassification`; the encoder gives that
    implementation's hidden states (with `pre_norm=False`, the published order). Differences from the authors' code: a
    last partial patch is filled with zeros rather than by repeating the last value; attention scores are not carried
    from layer to layer; series may have missing points and different lengths. Tokens without an observed point are no
    keys, and enter neither batch statistics nor pooling.

    Args:
        num_channels: C.
        length: longest series, in time points.
        num_classes: number of logits.
        tokenizer: makes the tokenizer of one channel, called as `tokenizer(num_channels=1, d_model=d_model)`.
        d_model: D.
        num_heads: H; divides `d_model`.
        num_layers: encoder layers.
        ffn_dim: hidden width of the feed-forward networks.
        attention: `fused` (PyTorch's `scaled_dot_product_attention`) or `naive` (the N x N map is kept, as in the
            authors' code); the same numbers at different cost.
        norm: `batch` (published) or `layer`.
        head: how a channel's tokens are pooled, `mean` or `max`.
        dropout: fraction dropped after positions, in the feed-forward networks and on each residual branch.
        attention_dropout: fraction of attention weights dropped.
        head_dropout: fraction of features dropped before the last linear layer.

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
        d_model: int = 128,
        num_heads: int = 16,
        num_layers: int = 3,
        ffn_dim: int = 256,
        attention: AttentionImplementation = "fused",
        norm: Norm = "batch",
        head: Pooling = "mean",
        dropout: float = 0.2,
        attention_dropout: float = 0.0,
        head_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        problems = Problems()
        check_heads(problems, d_model=d_model, num_heads=num_heads)
        check_options(
            problems,
            sizes={"num_layers": num_layers, "ffn_dim": ffn_dim},
            fractions={"dropout": dropout, "attention_dropout": attention_dropout, "head_dropout": head_dropout},
            choices={"attention": (attention, AttentionImplementation), "norm": (norm, Norm), "head": (head, Pooling)},
        )
        problems.raise_value_error()

        self.head_pooling = head
        self.tokenizer = tokenizer(num_channels=1, d_model=d_model)
        self.positions = nn.Parameter(torch.empty(self.tokenizer.num_tokens(length), d_model).uniform_(-0.02, 0.02))
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.ModuleList(
            EncoderLayer(
                d_model=d_model,
                num_heads=num_heads,
                ffn_dim=ffn_dim,
                attention=attention,
                norm=norm,
                dropout=dropout,
                attention_dropout=attention_dropout,
            )
            for _ in range(num_layers)
        )
        self.head_dropout = nn.Dropout(head_dropout)
        self.head = nn.Linear(num_channels * d_model, num_classes)

    def fit_tokens(self, x: Tensor, mask: Tensor | None = None) -> None:
        """Let the tokenizer set what depends on training data.

        Args:
            x: `(B, C, L)` normalised training series.
            mask: `(B, C, L)` bool, or None.
        """
        self.tokenizer.fit(*channel_rows(x, mask))

    def encode(self, x: Tensor, mask: Tensor | None = None) -> Encoded:
        """Hidden states of the last layer.

        Args:
            x: `(B, C, L)`, 0 where not observed.
            mask: `(B, C, L)` bool, true where observed; None when all is.
        """
        tokens_RND, mask_RN = self.tokenizer(*channel_rows(x, mask))
        num_tokens = tokens_RND.shape[1]
        assert num_tokens <= len(self.positions), f"{num_tokens} tokens, built for {len(self.positions)}"
        hidden_RND = self.dropout(tokens_RND + self.positions[:num_tokens])
        # A row without any token attends to all of them, as a softmax over nothing is NaN; nothing reads the result.
        keys_RN = None if mask_RN is None else mask_RN | ~mask_RN.any(dim=1, keepdim=True)
        for layer in self.layers:
            hidden_RND = layer(hidden_RND, mask_RN, keys_RN)
        channels = x.shape[:2]
        return Encoded(
            hidden=hidden_RND.unflatten(0, channels),
            mask=None if mask_RN is None else mask_RN.unflatten(0, channels),
        )

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Classify.

        Args:
            x: `(B, C, L)`, 0 where not observed; L may be less than the `length` the network was built for.
            mask: `(B, C, L)` bool, true where observed; None when all is.

        Returns:
            Logits `(B, num_classes)`.
        """
        hidden_BCND, mask_BCN = self.encode(x, mask)
        features_BCD = (masked_mean if self.head_pooling == "mean" else _masked_max)(hidden_BCND, mask_BCN)
        return self.head(self.head_dropout(features_BCD.flatten(1)))


def _masked_max(hidden: Tensor, mask: Tensor | None) -> Tensor:
    """Largest over tokens that count, zero where none does: `(B, C, N, D)` to `(B, C, D)`."""
    if mask is None:
        return hidden.amax(dim=2)
    largest = hidden.masked_fill(~mask[..., None], -math.inf).amax(dim=2)
    return largest.masked_fill(~mask.any(dim=2)[..., None], 0.0)
