"""Codebooks in whole numbers: tokens decided and undone as their quantizers do, and nothing left open."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch

from bisquit.engine import codebooks
from bisquit.engine.codebooks import BORDER_UNITS, LevelsCodebook, VectorsCodebook, codebook_of
from bisquit.errors import ModelError, TokenError
from bisquit.quantizers import (
    BSQConfig,
    FSQConfig,
    LFQConfig,
    PyramidBSQConfig,
    Quantizer,
    QuantizerConfig,
    VQConfig,
    build_quantizer,
    quantizer_kinds,
)

CONFIGS: dict[str, QuantizerConfig] = {
    "bsq": BSQConfig(bits=10),
    "lfq": LFQConfig(bits=3),
    "fsq": FSQConfig((8, 2, 4)),
    "fsq of many levels": FSQConfig((128,)),
    "vq": VQConfig(bits=6, code_width=5),
}


@pytest.fixture(params=CONFIGS)
def quantizer(request: pytest.FixtureRequest) -> Quantizer:
    torch.manual_seed(0)
    return build_quantizer(CONFIGS[request.param], 8).eval()


def projections(quantizer: Quantizer) -> torch.Tensor:
    """Return what `down` might give, (B, channels, h, w)."""
    return torch.randn(3, quantizer.down.out_channels, 9, 11, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_tokens_are_the_quantizers_but_near_borders(quantizer: Quantizer) -> None:
    projected = projections(quantizer)
    got, wanted = codebook_of(quantizer).tokens_of(projected.permute(0, 2, 3, 1)), quantizer.tokens_of(projected)
    assert got.dtype == torch.int64
    assert (got == wanted).double().mean() > (0.9 if "vq" in quantizer.config.kind else 0.999)


@torch.no_grad()
def test_vectors_are_what_the_quantizer_takes_up(quantizer: Quantizer) -> None:
    codebook, tokens = codebook_of(quantizer), torch.arange(2**quantizer.bits).view(1, 1, -1)
    vectors = codebook.vectors(tokens)
    assert vectors.dtype == torch.int8
    assert vectors.shape == (1, 1, 2**quantizer.bits, quantizer.up.in_channels)
    codes = quantizer.up(vectors.permute(0, 3, 1, 2) * codebook.step)
    furthest = 0.5 * codebook.step * quantizer.up.weight.abs().sum(dim=1).max()  # each number rounded by half a step
    assert (codes - quantizer.codes(tokens)).abs().max() <= furthest + 1e-5


@torch.no_grad()
def test_what_a_token_stands_for_is_that_token(quantizer: Quantizer) -> None:
    codebook, tokens = codebook_of(quantizer), torch.arange(2**quantizer.bits).view(1, 1, -1)
    inner = codebook.vectors(tokens) * codebook.step
    projected = torch.atanh(inner * (1 - 1e-6)) if isinstance(quantizer.config, FSQConfig) else inner
    assert torch.equal(codebook.tokens_of(projected), tokens)


def test_a_level_begins_at_its_border() -> None:
    codebook = LevelsCodebook([[0.0], [-1.0, 0.0, 1.0]], [[-1, 1], [-3, -1, 1, 3]], 1.0)
    z = torch.tensor([[[[0.0, -1.0], [-0.0, 1.0], [-1e-30, -1.1], [5.0, 0.0], [-5.0, -1e-30]]]])
    assert codebook.tokens_of(z).flatten().tolist() == [0b011, 0b111, 0b000, 0b101, 0b010]
    assert codebook.vectors(torch.tensor([0b011, 0b110])).tolist() == [[1, -1], [-1, 3]]
    assert codebook.spread.tolist() == [2, 2]


def test_the_nearest_vector_is_that_of_all_tried_one_by_one() -> None:
    """By Python's own integers; of vectors that are as near, the first."""
    rng = np.random.default_rng(0)
    table = rng.integers(-127, 128, (16, 3))
    table[0], table[9], table[12] = 127, table[4], table[4]  # so that a step is 1, and some are alike
    codebook = VectorsCodebook(torch.from_numpy(table).float())
    assert codebook.step == pytest.approx(1)
    projected = torch.from_numpy(rng.normal(0, 90, (2, 5, 7, 3))).float()
    projected[0, 0, 0], projected[0, 0, 1, 1] = torch.from_numpy(table[4]), 1e20
    got = codebook.tokens_of(projected)
    assert got[0, 0, 0] == 4
    for place in np.ndindex(2, 5, 7):
        steps = [max(-4096, min(4096, round(Fraction(value.item())))) for value in projected[place]]
        apart = [sum((a - int(b)) ** 2 for a, b in zip(steps, vector, strict=True)) for vector in table]
        assert got[place] == apart.index(min(apart))


@pytest.mark.parametrize("most", [1, 16 * 3])
def test_how_many_are_looked_at_together_changes_nothing(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    codebook, projected = VectorsCodebook(torch.randn(16, 5)), torch.randn(3, 4, 5, 5)
    wanted = codebook.tokens_of(projected)
    monkeypatch.setattr(codebooks, "MOST_DISTANCES", most)
    assert torch.equal(codebook.tokens_of(projected), wanted)


@pytest.mark.parametrize("width", range(1, 13))
def test_borders_between_levels_are_the_same_by_any_library(width: int) -> None:
    """What is rounded lies so far from half-way that the last bits of an inverse hyperbolic tangent decide nothing."""
    levels = 2**width
    borders = codebooks._borders(levels)
    assert borders == sorted(set(borders))
    assert borders[levels // 2 - 1] == 0
    assert [-border for border in reversed(borders)] == borders
    for digit, border in enumerate(borders, 1):
        units = math.atanh((2 * digit - levels) / (levels - 1)) * BORDER_UNITS
        assert abs(units - border * BORDER_UNITS) < 0.5 - 1e-6


def test_spread_is_how_far_vectors_lie_apart() -> None:
    assert codebook_of(build_quantizer(BSQConfig(bits=3), 8)).spread.tolist() == [2, 2, 2]
    assert codebook_of(build_quantizer(FSQConfig((8, 2, 4)), 8)).spread.tolist() == [36, 254, 85]
    vectors = VectorsCodebook(torch.tensor([[127.0, 3.0, 0.0], [-127.0, -4.0, 0.0]]))
    assert vectors.spread.tolist() == [127, 3, 1]  # of one that is always 0, the least that can be


def test_tokens_outside_of_the_codebook_are_refused(quantizer: Quantizer) -> None:
    codebook = codebook_of(quantizer)
    for token in (-1, 2**quantizer.bits):
        with pytest.raises(TokenError, match=f"must be in \\[0, 2\\*\\*{quantizer.bits}\\)"):
            codebook.vectors(torch.tensor([[[0, token]]]))


def test_what_is_infinite_or_no_number_is_of_the_codebook(quantizer: Quantizer) -> None:
    codebook, projected = codebook_of(quantizer), projections(quantizer).permute(0, 2, 3, 1).contiguous()
    for bad in (math.inf, -math.inf, math.nan):
        for channel in range(projected.shape[-1]):
            odd = projected.clone()
            odd[..., channel] = bad
            codebook.vectors(codebook.tokens_of(odd))
    if isinstance(codebook, LevelsCodebook):
        odd = torch.full_like(projected, math.inf)
        assert (codebook.tokens_of(odd) == 2**quantizer.bits - 1).all()
        assert (codebook.tokens_of(-odd) == 0).all()


def test_a_codebook_is_where_its_quantizer_is() -> None:
    codebook = codebook_of(build_quantizer(FSQConfig((8, 2, 4)), 8).to("meta"))
    assert {buffer.device.type for buffer in codebook.buffers()} == {"meta"}


def test_every_quantizer_of_a_token_for_each_place_is_tried() -> None:
    assert {config.kind for config in CONFIGS.values()} == set(quantizer_kinds()) - {"pyramid"}


def test_levels_that_could_not_be_told_apart_are_refused() -> None:
    with pytest.raises(ModelError, match="a channel has 256 levels: in integers it can have 128 at most"):
        codebook_of(build_quantizer(FSQConfig((2, 256)), 8))


def test_tokens_of_more_than_a_place_are_refused() -> None:
    with pytest.raises(ModelError, match="quantizer is PyramidBSQ: only tokens that stand for a place each"):
        codebook_of(build_quantizer(PyramidBSQConfig(), 8))
