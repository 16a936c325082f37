"""Lookup-free quantisation: signs as they come, and the terms of its loss by their definitions."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from bisquit.errors import ConfigError
from bisquit.quantizers import BSQ, LFQ, BSQConfig, LFQConfig

NO_TERMS = {"sample_entropy_weight": 0.0, "codebook_entropy_weight": 0.0, "commitment_weight": 0.0}


def plain(bits: int, **terms: float) -> LFQ:
    """A quantizer whose two linear maps leave everything as it is, and whose loss is of the terms that are named."""
    quantizer = LFQ(LFQConfig(bits=bits, **{**NO_TERMS, **terms}), width=bits)
    with torch.no_grad():
        for linear in (quantizer.down, quantizer.up):
            linear.weight.copy_(torch.eye(bits).view(bits, bits, 1, 1))
            linear.bias.zero_()
    return quantizer


def at_one_place(*v: float) -> Tensor:
    """Latents (1, bits, 1, 1)."""
    return torch.tensor(v).view(1, -1, 1, 1)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_a_token_is_the_signs_and_its_code_the_corner():
    quantized = plain(4)(at_one_place(0.2, -7.0, 0.0, -0.1))
    assert quantized.tokens.item() == 0b0101  # zero counts as +1
    assert quantized.codes.flatten().tolist() == [1.0, -1.0, 1.0, -1.0]


def test_the_gradient_is_that_of_the_vector_itself():
    x, weights = 3 * noise(2, 5, 2, 2), noise(2, 5, 2, 2, seed=1)
    x.requires_grad_()
    (plain(5)(x).codes * weights).sum().backward()
    torch.testing.assert_close(x.grad, weights)


def test_the_commitment_is_the_mean_squared_distance_to_the_corner():
    loss = plain(2, commitment_weight=0.5)(at_one_place(0.5, -3.0)).loss
    assert loss.item() == pytest.approx(0.5 * (0.5**2 + 2.0**2) / 2)


def soft_codes(v: Tensor, temperature: float) -> Tensor:
    """The chances (N, 2**bits) of each corner by their definition: a softmax of minus squared distances."""
    corners = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=v.shape[1])), dtype=torch.float64)
    return torch.softmax(-(v.double().unsqueeze(1) - corners).square().sum(dim=2) / temperature, dim=1)


def entropy_bits(chances: Tensor) -> Tensor:
    return -torch.xlogy(chances, chances).sum(dim=-1) / math.log(2)


@pytest.mark.parametrize("temperature", [0.7, 3.0])
def test_the_entropy_terms_are_those_of_the_soft_codes_by_brute_force(temperature: float):
    x = noise(2, 3, 2, 2)
    chances = soft_codes(x.movedim(1, -1).flatten(0, -2), temperature)
    sample = plain(3, sample_entropy_weight=0.4, entropy_temperature=temperature)(x).loss
    assert sample.item() == pytest.approx(0.4 * entropy_bits(chances).mean().item() / 3, rel=1e-5)
    codebook = plain(3, codebook_entropy_weight=0.4, entropy_temperature=temperature)(x).loss
    assert codebook.item() == pytest.approx(0.4 * (1 - entropy_bits(chances.mean(dim=0)).item() / 3), rel=1e-4)


def test_the_terms_add_up():
    x = noise(2, 4, 3, 3)
    each = {"sample_entropy_weight": 0.3, "codebook_entropy_weight": 0.2, "commitment_weight": 0.1}
    alone = sum(plain(4, **{name: weight})(x).loss.item() for name, weight in each.items())
    assert plain(4, **each)(x).loss.item() == pytest.approx(alone, rel=1e-6)
    assert plain(4)(x).loss.item() == 0


def test_the_commitment_brings_latents_near_corners_from_within_and_without():
    x = at_one_place(0.1, -4.0).requires_grad_()
    plain(2, commitment_weight=1.0)(x).loss.backward()
    after = (x - 0.5 * x.grad).detach().flatten()
    assert 0.1 < after[0] < 1
    assert -4 < after[1] < -1


@pytest.mark.parametrize("bits", [4, 32])
def test_a_quantizer_grows_from_one_of_fewer_bits_and_begins_as_that_one(bits: int):
    torch.manual_seed(0)
    small, grown = (LFQ(LFQConfig(bits=n), width=6) for n in (3, bits))
    assert grown.grow_from(small)
    latents = noise(2, 6, 3, 4)
    before, after = small(latents), grown(latents)
    assert torch.equal(after.tokens % 8, before.tokens)
    torch.testing.assert_close(after.codes, before.codes)


def test_a_quantizer_grows_from_no_other():
    four = LFQ(LFQConfig(bits=4), width=6)
    for other in (LFQ(LFQConfig(bits=4), width=6), LFQ(LFQConfig(bits=3), width=7), BSQ(BSQConfig(bits=3), width=6)):
        assert not four.grow_from(other)


@pytest.mark.parametrize(("field", "value"), [("bits", 33), ("commitment_weight", -0.1), ("entropy_temperature", 0.0)])
def test_settings_out_of_range_are_refused(field: str, value: float):
    with pytest.raises(ConfigError, match=f"^{field} is {value}: it must be "):
        LFQConfig(**{field: value})
