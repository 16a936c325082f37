"""The one transformer that every prior is built from, and its key-value cache.

    x (B, T, width) ──[ + attention(norm(x)) ──> + mlp(norm(x)) ] x n_layers──norm──> (B, T, width)

Pre-norm blocks as in GPT-2 (Radford et al. 2019); optional rotary positions (Su et al. 2021, arXiv:2104.09864), which
may have several axes. A prior's embedding, positions and head are its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from bisquit.config import Settings, require
from bisquit.errors import ShapeError

CAUSAL_BLOCK_STEPS = 100
FIRST_REACH = 128  # steps that attention reads of a static cache at first; it doubles as they fill up


@dataclass(frozen=True)
class TransformerConfig(Settings):
    """The shape of a `Transformer`."""

    width: int = 128
    """Channels of the residual stream."""
    n_layers: int = 3
    """Blocks of attention and feed-forward."""
    n_heads: int = 4
    """Attention heads; they share the width out among them."""
    feed_forward: int = 512
    """Hidden channels of the feed-forward part."""
    dropout: float = 0.0
    """Chance of dropping a value in training: after the embedding, in attention, after each half of a block."""

    def __post_init__(self) -> None:
        require(1 <= self.width <= 16384, "width", self.width, "between 1 and 16384")
        require(1 <= self.n_layers <= 512, "n_layers", self.n_layers, "between 1 and 512")
        require(
            1 <= self.n_heads <= self.width and self.width % self.n_heads == 0,
            "n_heads",
            self.n_heads,
            f"a divisor of the width {self.width}",
        )
        require(1 <= self.feed_forward <= 65536, "feed_forward", self.feed_forward, "between 1 and 65536")
        require(0 <= self.dropout < 1, "dropout", self.dropout, "in [0, 1)")

    @property
    def head_width(self) -> int:
        """Channels of one head."""
        return self.width // self.n_heads


class KeyValueCache:
    """Keys and values of all layers for up to `capacity` steps, in place; `length` steps are filled."""

    mask: Tensor | None = None
    """Added to the scores of attention, where it must not read all that `append` returns."""

    def __init__(self, config: TransformerConfig, batch: int, capacity: int, like: Tensor) -> None:
        shape = (config.n_layers, batch, config.n_heads, capacity, config.head_width)
        self.keys, self.values = like.new_zeros(shape), like.new_zeros(shape)
        self.length = 0

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Store k and v (B, n_heads, T, head_width) behind what is there, and return all of the layer's so far.

        Raises ShapeError if there is no room for them.
        """
        end = self.length + k.shape[2]
        if end > self.keys.shape[3]:
            raise ShapeError(f"{k.shape[2]} steps do not fit a cache with {self.length} of {self.keys.shape[3]} filled")
        self.keys[layer, :, :, self.length : end] = k
        self.values[layer, :, :, self.length : end] = v
        return self.keys[layer, :, :, :end], self.values[layer, :, :, :end]


class StaticCache(KeyValueCache):
    """A `KeyValueCache` whose work on the device is the same for every step, as a CUDA graph needs it.

    It takes one step at a time, each announced by `prepare_step`. Where a step goes is read from `step`, on the device.
    Attention reads `reach` places, of which `mask` closes (-inf) those to come; only a new reach changes a shape. To do
    a step's work twice leaves what doing it once does.
    """

    mask: Tensor

    def __init__(self, config: TransformerConfig, batch: int, capacity: int, like: Tensor) -> None:
        super().__init__(config, batch, capacity=-(-capacity // 16) * 16, like=like)  # fused kernels want masks aligned
        self.capacity = capacity
        self.step = torch.zeros(1, dtype=torch.int64, device=like.device)
        self._closed = like.new_empty(1, 1, 1, self.keys.shape[3])
        self.clear()

    def clear(self) -> None:
        """Empty it, where it is."""
        self.length = 0
        self.keys.zero_()  # or what is not finite would get through the mask: 0 times NaN is NaN
        self.values.zero_()
        self._closed.fill_(-torch.inf)
        self._reach(FIRST_REACH)

    def prepare_step(self) -> None:
        """Make ready for one more step. Raises ShapeError if the cache is full."""
        if self.length == self.capacity:
            raise ShapeError(f"1 steps do not fit a cache with {self.length} of {self.capacity} filled")
        if self.length == self.reach:
            self._reach(2 * self.reach)
        self.step.fill_(self.length)

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Store k and v (B, n_heads, 1, head_width) at `step`, and return what of the layer is within reach.

        The first layer opens the step to attention. Raises ShapeError if there are more steps than one.
        """
        if k.shape[2] != 1:
            raise ShapeError(f"{k.shape[2]} steps at once: a static cache takes one at a time")
        if layer == 0:
            self._closed.index_fill_(3, self.step, 0.0)
        self.keys[layer].index_copy_(2, self.step, k)
        self.values[layer].index_copy_(2, self.step, v)
        return self.keys[layer, :, :, : self.reach], self.values[layer, :, :, : self.reach]

    def _reach(self, steps: int) -> None:
        self.reach = min(steps, self.keys.shape[3])
        self.mask = self._closed[..., : self.reach]


class Attention(nn.Module):
    """Multi-head attention to oneself, causal where asked for."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.n_heads = config.n_heads
        self.dropout = config.dropout
        self.qkv = nn.Linear(config.width, 3 * config.width)
        self.out = nn.Linear(config.width, config.width)

    def forward(
        self,
        x: Tensor,
        *,
        causal: bool,
        rotary: Tensor | None,
        cache: KeyValueCache | None,
        layer: int,
        mask: Tensor | None = None,
    ) -> Tensor:
        q, k, v = self._heads(x, rotary)
        if cache is not None:
            k, v = cache.append(layer, k, v)
        dropout = self.dropout if self.training else 0.0
        if causal and mask is None and q.shape[2] > 1 and q.device.type == "cpu":
            y = causal_attention(q, k, v, dropout)
        else:
            mask = cache.mask if mask is None and cache is not None else mask
            y = F.scaled_dot_product_attention(q, k, v, mask, dropout, is_causal=causal and q.shape[2] > 1)
        out: Tensor = self.out(y.transpose(1, 2).flatten(2))
        return out

    def weights(self, x: Tensor, step: int, rotary: Tensor | None) -> Tensor:
        """Return how much a step of x (B, T, width) looks at itself and each before it: (B, n_heads, step + 1)."""
        q, k, _ = self._heads(x, rotary)
        scores = (k[:, :, : step + 1] @ q[:, :, step].unsqueeze(-1)).squeeze(-1)
        return (scores * q.shape[3] ** -0.5).softmax(dim=-1)

    def _heads(self, x: Tensor, rotary: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values of x (B, T, width), each (B, n_heads, T, head_width)."""
        q, k, v = self.qkv(x).unflatten(2, (3, self.n_heads, -1)).permute(2, 0, 3, 1, 4)
        if rotary is not None:
            q, k = rotate(q, rotary), rotate(k, rotary)
        return q, k, v


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(config.width)
        self.attention = Attention(config)
        self.mlp_norm = nn.LayerNorm(config.width)
        self.mlp = nn.Sequential(
            nn.Linear(config.width, config.feed_forward), nn.GELU(), nn.Linear(config.feed_forward, config.width)
        )
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self,
        x: Tensor,
        *,
        causal: bool,
        rotary: Tensor | None,
        cache: KeyValueCache | None,
        layer: int,
        mask: Tensor | None = None,
    ) -> Tensor:
        x = x + self.dropout(
            self.attention(self.attention_norm(x), causal=causal, rotary=rotary, cache=cache, layer=layer, mask=mask)
        )
        return x + self.dropout(self.mlp(self.mlp_norm(x)))


class Transformer(nn.Module):
    """A stack of blocks and a last norm; what it computes is drawn at the top of this module."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layers))
        self.norm = nn.LayerNorm(config.width)
        self._initialise()

    def _initialise(self) -> None:
        """Start as GPT-2 does: deviation 0.02, less by sqrt(2 n_layers) where a block adds to the residual stream."""
        residual_deviation = 0.02 / (2 * self.config.n_layers) ** 0.5
        for name, parameter in self.blocks.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif parameter.ndim == 2:
                is_residual = name.endswith(("attention.out.weight", "mlp.2.weight"))
                nn.init.normal_(parameter, std=residual_deviation if is_residual else 0.02)

    def forward(
        self,
        x: Tensor,
        *,
        causal: bool,
        rotary: Tensor | None = None,
        cache: KeyValueCache | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Map x (B, T, width) to the same shape.

        rotary: (T, head_width / 2) angles in radians, of these T steps. cache: holds the steps before; these T are
        added to it. causal: step t sees steps up to t only; with a filled cache T must then be 1. mask: added to the
        scores of attention, (T, steps to see), -inf where one is not to be seen, if it is not causal. Raises ShapeError
        for causal steps that do not go alone.
        """
        if causal and cache is not None and cache.length and x.shape[1] != 1:
            raise ShapeError(f"{x.shape[1]} causal steps behind {cache.length} in a cache: they must go one by one")
        x = self.dropout(x)
        for layer, block in enumerate(self.blocks):
            x = block(x, causal=causal, rotary=rotary, cache=cache, layer=layer, mask=mask)
        if cache is not None:
            cache.length += x.shape[1]
        normed: Tensor = self.norm(x)
        return normed

    def attention_at(self, x: Tensor, step: int, rotary: Tensor | None = None) -> Tensor:
        """Return how much a step of x (B, T, width) looks at itself and each before: (B, n_layers, n_heads, step + 1).

        x, rotary: as `forward` takes them, causal and without a cache.
        """
        found = []
        for layer, block in enumerate(self.blocks):
            assert isinstance(block, Block)
            found.append(block.attention.weights(block.attention_norm(x), step, rotary))
            x = block(x, causal=True, rotary=rotary, cache=None, layer=layer)
        return torch.stack(found, dim=1)


def causal_attention(q: Tensor, k: Tensor, v: Tensor, dropout: float) -> Tensor:
    """Attend causally, a block of steps at a time: equal to `scaled_dot_product_attention`, faster on a CPU.

    q, k, v: (B, n_heads, T, head_width). A block's products stop at its own last step, so that near half of the masked
    ones are never made; on 600 steps of 4 heads of 32 channels, forward and backward in bfloat16 take 0.4 times the
    fused kernel's time.
    """
    y: Tensor = CausalAttention.apply(q, k, v, dropout)  # type: ignore[no-untyped-call]
    return y


class CausalAttention(torch.autograd.Function):
    """`causal_attention` with a gradient of its own, in which each block adds its share to that of keys and values.

    PyTorch's gradient of a slice is as large as what was sliced, so that every block would fill and add all of it.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, dropout: float) -> Tensor:
        shape, steps, block = q.shape, q.shape[2], CAUSAL_BLOCK_STEPS
        q, k, v = (x.flatten(0, 1) for x in (q * shape[3] ** -0.5, k, v))  # each (B n_heads, T, head_width)
        future = torch.full((block, block), -torch.inf, dtype=q.dtype, device=q.device).triu(1)
        y = torch.empty_like(q)
        is_differentiated = any(ctx.needs_input_grad)
        chances, masks = [], []
        for start in range(0, steps, block):
            end = min(start + block, steps)
            scores = q[:, start:end] @ k[:, :end].mT  # (B n_heads, block, end)
            scores[:, :, start:] += future[: end - start, : end - start]
            kept = weights = scores.softmax(dim=-1)
            if dropout:
                weights, mask = torch.native_dropout(weights, dropout, True)
                masks.append(mask)
            if is_differentiated:
                chances.append(kept)
            y[:, start:end] = weights @ v[:, :end]
        if is_differentiated:
            ctx.dropout = dropout
            ctx.save_for_backward(q, k, v, *chances, *masks)
        return y.view(shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        shape, steps, block = grad.shape, grad.shape[2], CAUSAL_BLOCK_STEPS
        starts = range(0, steps, block)
        q, k, v, *blocks = ctx.saved_tensors
        grad = grad.flatten(0, 1)
        grad_q = torch.empty_like(q)
        grad_k, grad_v = k.new_zeros(k.mT.shape), v.new_zeros(v.mT.shape)  # their products are faster in this order
        for i, start in enumerate(starts):
            end = min(start + block, steps)
            weights = chances = blocks[i]
            grad_weights = grad[:, start:end] @ v[:, :end].mT
            if ctx.dropout:
                mask, scale = blocks[len(starts) + i], 1 / (1 - ctx.dropout)
                weights, grad_weights = (x * mask * scale for x in (weights, grad_weights))
            grad_scores = torch.ops.aten._softmax_backward_data(grad_weights, chances, -1, q.dtype)
            grad_q[:, start:end] = grad_scores @ k[:, :end]
            grad_k[:, :, :end] += q[:, start:end].mT @ grad_scores
            grad_v[:, :, :end] += grad[:, start:end].mT @ weights
        return (grad_q * shape[3] ** -0.5).view(shape), grad_k.mT.view(shape), grad_v.mT.view(shape), None


def rotate(x: Tensor, angles: Tensor) -> Tensor:
    """Turn each pair of channels (c, c + half) of x (B, n_heads, T, 2 half) by angles (T, half) in radians."""
    return turn_pairs(x, angles.cos().to(x.dtype), angles.sin().to(x.dtype))


def turn_pairs(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each pair of channels (c, c + half) of x (B, n_heads, T, 2 half) by cosines and sines (T, half)."""
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, a * sin + b * cos), dim=-1)
