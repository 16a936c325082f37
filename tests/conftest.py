"""Tiny models and frames that every test may ask for; the weights are large enough for each to matter."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from hypothesis import settings
from torch import Tensor, nn

from bisquit import text
from bisquit.autoencoder import AutoEncoderConfig
from bisquit.frames import FrameSet
from bisquit.priors import RasterConfig, RasterPrior
from bisquit.quantizers import BSQConfig, QuantizerConfig
from bisquit.tokenizer import Tokenizer, TokenizerConfig
from bisquit.transformer import TransformerConfig

MakeTokenizer = Callable[..., Tokenizer]
MakePrior = Callable[..., RasterPrior]
MakeFrames = Callable[..., FrameSet]

# Examples are the same each time, and none has too little time on a machine that others use.
settings.register_profile("bisquit", derandomize=True, deadline=None)
settings.load_profile("bisquit")


def roughen(module: nn.Module, seed: int) -> None:
    """Draw all weights anew: as they start, some are zero and logits are nearly uniform, which hides mistakes."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator))


@pytest.fixture(scope="session")
def make_tokenizer() -> MakeTokenizer:
    """A function that returns a tokenizer of random weights."""

    def make(
        patch_size: int = 4,
        width: int = 8,
        depth: int = 1,
        bits: int = 3,
        seed: int = 0,
        decoder_depth: int = 0,
        quantizer: QuantizerConfig | None = None,
        **bsq: Any,
    ) -> Tokenizer:
        autoencoder = AutoEncoderConfig(patch_size, width, depth, decoder_depth)
        config = TokenizerConfig(autoencoder, quantizer or BSQConfig(bits=bits, **bsq))
        tokenizer = Tokenizer(config)
        roughen(tokenizer, seed)
        return tokenizer.eval()

    return make


@pytest.fixture(scope="session")
def make_prior() -> MakePrior:
    """A function that returns a raster prior of random weights."""

    def make(
        bits: int = 3,
        grid: tuple[int, int] = (2, 3),
        positions: Any = "learned",
        neighbours: int = 0,
        dropout: float = 0.0,
        seed: int = 0,
    ) -> RasterPrior:
        transformer = TransformerConfig(width=8, n_layers=2, n_heads=2, feed_forward=12, dropout=dropout)
        config = RasterConfig(transformer=transformer, positions=positions, neighbours=neighbours)
        prior = RasterPrior(config, bits, grid)
        roughen(prior, seed)
        return prior.eval()

    return make


@pytest.fixture(scope="session")
def make_noise() -> MakeFrames:
    """A function that returns a set of frames of noise; every other one has a class, pairs are of one race."""

    def make(count: int, height: int = 8, width: int = 12, seed: int = 0) -> FrameSet:
        rng = np.random.default_rng(seed)
        return FrameSet(
            pixels=rng.integers(0, 256, (count, height, width, 3), dtype=np.uint8),
            rows=np.arange(count),
            names=tuple(f"frame-{seed}-{index}.png" for index in range(count)),
            classes=("ice", "sand"),
            labels=np.arange(count) % 3 - 1,
            groups=np.arange(count) // 2,
        )

    return make


class Letters:
    """A sentence encoder that counts five vowels."""

    width: ClassVar[int] = 5

    def encode(self, sentences: Sequence[str]) -> Tensor:
        counts = torch.tensor([[sentence.count(vowel) for vowel in "aeiou"] for sentence in sentences])
        return nn.functional.normalize(counts.float(), dim=1)


@contextmanager
def letters_read() -> Iterator[str]:
    """Have sentences read by their letters, and not by a package that may not be there; yield the encoder's name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(text.TEXT_ENCODERS, text.TEXT_ENCODER, Letters)
        text.load_text_encoder.cache_clear()
        yield text.TEXT_ENCODER
    text.load_text_encoder.cache_clear()


@pytest.fixture
def letters() -> Iterator[str]:
    """The name of a sentence encoder that needs no package."""
    with letters_read() as name:
        yield name
