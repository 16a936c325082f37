"""Hugging Face's GPT-2 with the weights of a `RasterPrior`: `generate` with its key-value cache, sampling.

Two things of ours have no name in GPT-2. Our start vector is no token: it becomes the embedding of one token more,
whose logit is minus infinity. Our head is not tied to the embedding and has a bias: so is the one that is put here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel

from bisquit.priors import RasterPrior
from bisquit.transformer import TransformerConfig


def gpt2_config(shape: TransformerConfig, vocabulary: int, places: int, **others: Any) -> GPT2Config:
    """Return the configuration of a GPT-2 of our transformer's shape, without dropout."""
    return GPT2Config(
        vocab_size=vocabulary,
        n_positions=places,
        n_embd=shape.width,
        n_layer=shape.n_layers,
        n_head=shape.n_heads,
        n_inner=shape.feed_forward,
        activation_function="gelu",
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        eos_token_id=None,
        attn_implementation="sdpa",
        **others,
    )


def gpt2(prior: RasterPrior) -> GPT2LMHeadModel:
    """Return the GPT-2 that computes what `prior` does, with one token more in its vocabulary: the start."""
    shape, codebook = prior.config.transformer, prior.codebook_size
    places = prior.length + 1  # `generate` warns where the last token, which is never put in, has no place
    config = gpt2_config(shape, codebook + 1, places, bos_token_id=codebook, tie_word_embeddings=False)
    model = GPT2LMHeadModel(config)
    model.lm_head = nn.Linear(shape.width, codebook + 1)
    missing, unexpected = model.load_state_dict(_weights(prior), strict=False)
    if missing or unexpected:
        raise RuntimeError(f"GPT-2 takes other weights in this release: {missing} have none, {unexpected} no place")
    return model.eval()


def _weights(prior: RasterPrior) -> dict[str, Tensor]:
    """Return the prior's weights under GPT-2's names; its Conv1D keeps matrices the other way round."""
    width = prior.start_vector.shape[0]
    places = prior.places()
    weights = {
        "transformer.wte.weight": torch.cat((prior.embedding.weight, prior.start_vector[None])),
        "transformer.wpe.weight": torch.cat((places, torch.zeros(1, width))),
        "lm_head.weight": torch.cat((prior.head.weight, torch.zeros(1, width))),
        "lm_head.bias": torch.cat((prior.head.bias, torch.tensor([-torch.inf]))),
        **_named("transformer.ln_f", prior.transformer.norm),
    }
    for i, block in enumerate(prior.transformer.blocks):
        name = f"transformer.h.{i}"
        weights |= _named(f"{name}.ln_1", block.attention_norm) | _named(f"{name}.ln_2", block.mlp_norm)
        weights |= _named(f"{name}.attn.c_attn", block.attention.qkv) | _named(
            f"{name}.attn.c_proj", block.attention.out
        )
        weights |= _named(f"{name}.mlp.c_fc", block.mlp[0]) | _named(f"{name}.mlp.c_proj", block.mlp[2])
    return weights


def _named(name: str, module: nn.Module) -> dict[str, Tensor]:
    weight = module.weight.T if isinstance(module, nn.Linear) else module.weight
    return {f"{name}.weight": weight, f"{name}.bias": module.bias}


@torch.inference_mode()
def logits(prior: RasterPrior, tokens: Tensor) -> Tensor:
    """Return GPT-2's logits (B, h w, codebook) of tokens (B, h, w), to be compared with `prior.logits`."""
    start = tokens.new_full((tokens.shape[0], 1), prior.codebook_size)
    ids = torch.cat((start, tokens.flatten(1)[:, :-1]), dim=1)
    return gpt2(prior)(ids).logits[..., : prior.codebook_size]


def painter(prior: RasterPrior, batch: int) -> Callable[[], Tensor]:
    """Return what paints `batch` pictures: their tokens, (batch, h w)."""
    model = gpt2(prior)
    start = torch.full((batch, 1), prior.codebook_size)

    def paint() -> Tensor:
        with torch.inference_mode():
            tokens: Tensor = model.generate(
                start, attention_mask=torch.ones_like(start), max_new_tokens=prior.length, do_sample=True, top_k=0
            )
        return tokens[:, 1:]

    return paint
