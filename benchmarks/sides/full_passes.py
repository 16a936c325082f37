"""The original way to paint with the weights of a `RasterPrior`: for each token, a pass over the whole sequence.

As a plain user writes it: PyTorch's fused attention with `is_causal`, which is faster here without gradients than the
prior's own causal attention and than `nn.TransformerEncoder`, and `torch.multinomial` over the softmax.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from bisquit.priors import RasterPrior
from bisquit.transformer import Block


@torch.inference_mode()
def logits(prior: RasterPrior, tokens: Tensor) -> Tensor:
    """Return the logits (B, h w, codebook) of each token of (B, h, w) given those before it."""
    start = prior.start_vector.expand(tokens.shape[0], 1, -1)
    x = torch.cat((start, prior.embedding(tokens.flatten(1)[:, :-1])), dim=1) + prior.places()
    for block in prior.transformer.blocks:
        x = _block(block, x)
    return prior.head(prior.transformer.norm(x))


def _block(block: Block, x: Tensor) -> Tensor:
    qkv = block.attention.qkv(block.attention_norm(x)).unflatten(2, (3, block.attention.n_heads, -1))
    q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (B, n_heads, T, head_width)
    y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    x = x + block.attention.out(y.transpose(1, 2).flatten(2))
    return x + block.mlp(block.mlp_norm(x))


def painter(prior: RasterPrior, batch: int, steps: int) -> Callable[[], Tensor]:
    """Return what paints the first `steps` tokens of `batch` pictures, (batch, h, w); every step costs the same."""

    def paint() -> Tensor:
        tokens = torch.zeros(batch, *prior.grid, dtype=torch.int64)
        flat = tokens.view(batch, -1)
        for step in range(steps):
            chances = logits(prior, tokens)[:, step].softmax(dim=1)
            flat[:, step] = torch.multinomial(chances, 1)[:, 0]
        return tokens

    return paint
