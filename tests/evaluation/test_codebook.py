"""What is found in tokens made to have it, and what is advised."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bisquit.errors import ConfigError, ShapeError, TokenError
from bisquit.evaluation import codebook_health


def every_code(bits: int, copies: int) -> np.ndarray:
    """Return tokens (copies, 1, 2**bits) that use each code evenly; rotated, so that no grid cell is constant."""
    return np.stack([np.roll(np.arange(2**bits), copy)[None] for copy in range(copies)])


def test_evenly_used_codes_are_healthy():
    health = codebook_health(every_code(bits=3, copies=10), bits=3)
    assert (health.codes_used, health.dead_codes, health.listed_dead_codes) == (8, 0, ())
    assert health.joint_entropy_bits == pytest.approx(3)
    assert health.perplexity == pytest.approx(8)
    assert health.shared_bits == pytest.approx(0)
    np.testing.assert_allclose(health.bit_means, 0.5)
    np.testing.assert_allclose(health.bit_entropies_bits, 1)
    np.testing.assert_allclose(health.bit_correlation, np.eye(3), atol=1e-12)
    assert health.advice == ()


def test_a_constant_bit_is_found_and_named_in_the_advice():
    tokens = every_code(bits=3, copies=20) | 0b010
    health = codebook_health(tokens, bits=3)
    assert health.constant_bits == (1,)
    assert health.bit_entropies_bits[1] == 0
    assert any("bit 1 is always 1: use 2 bits instead of 3" in advice for advice in health.advice)


def test_a_bit_that_is_always_zero_is_constant_as_well():
    assert codebook_health(every_code(bits=2, copies=3) & 0b01, bits=2).constant_bits == (1,)


def test_equal_bits_have_correlation_one_and_share_a_bit():
    codes = np.array([0b000, 0b011, 0b100, 0b111])  # bits 0 and 1 are equal
    health = codebook_health(np.stack([np.roll(codes, i)[None] for i in range(20)]), bits=3)
    assert health.strongest_pairs[0] == (0, 1, pytest.approx(1))
    assert health.bit_correlation[0, 2] == pytest.approx(0)
    assert health.shared_bits == pytest.approx(1)
    assert any("bits 0 and 1 correlate by 1.00" in advice for advice in health.advice)


def test_opposite_bits_have_correlation_minus_one():
    assert codebook_health(np.array([[[0b01, 0b10]]]), bits=2).strongest_pairs == ((0, 1, pytest.approx(-1)),)


def test_the_strongest_pair_is_the_furthest_from_zero_of_either_sign():
    tokens = np.array([[[0b001, 0b010, 0b001, 0b010, 0b101, 0b110, 0b101, 0b010]]])  # bit 2 goes a little with bit 0
    pairs = codebook_health(tokens, bits=3).strongest_pairs
    assert (pairs[0].first, pairs[0].second) == (0, 1)
    assert pairs[0].correlation == pytest.approx(-1)
    assert 0 < abs(pairs[1].correlation) < 1


def test_correlation_is_that_of_numpy():
    tokens = np.random.default_rng(0).integers(0, 64, (4, 5, 6)) & 0b101111 | 1 << 4
    tokens[tokens > 50] |= 0b11
    varying = [0, 1, 2, 3, 5]
    wanted = np.corrcoef([tokens.ravel() >> bit & 1 for bit in varying])
    np.testing.assert_allclose(codebook_health(tokens, 6).bit_correlation[np.ix_(varying, varying)], wanted, atol=1e-12)


def test_a_lopsided_bit_is_advised_on_with_its_share():
    tokens = np.zeros((100, 1, 1), dtype=np.uint8)
    tokens[:3] = 1
    (advice,) = (line for line in codebook_health(tokens, bits=1).advice if line.startswith("bit 0"))
    assert "bit 0 is 1 in 3.0% of tokens and tells 0.19 bits" in advice


def test_dead_codes_are_counted_listed_and_advised_on():
    tokens = np.array([[[0, 2]], [[2, 0]]]).repeat(10, axis=0)
    health = codebook_health(tokens, bits=2)
    assert (health.codes_used, health.usage_share, health.dead_codes) == (2, 0.5, 2)
    assert health.listed_dead_codes == (1, 3)
    assert any(advice.startswith("2 of 4 codes are dead (50%)") for advice in health.advice)
    assert any("the tokens tell 1.00 of 2 bits" in advice for advice in health.advice)


def test_few_tokens_are_not_blamed_on_the_codebook():
    (advice,) = codebook_health(np.array([[[0, 1, 2, 3]]]), bits=2).advice
    assert "4 tokens are 1 for each of 4 codes, too few" in advice


def test_constant_grid_cells_are_found():
    tokens = np.array([[[0, 3], [1, 2]], [[0, 1], [2, 2]]])
    health = codebook_health(tokens, bits=2)
    assert health.constant_positions == ((0, 0), (1, 1))
    assert any("2 of 4 grid cells hold the same token in all 2 images" in advice for advice in health.advice)


def test_a_single_image_has_no_constant_cells():
    assert codebook_health(np.array([[[0, 1]]]), bits=1).constant_positions == ()


@pytest.mark.parametrize("bits", range(1, 33))
def test_any_number_of_bits_to_32_is_counted(bits: int):
    highest = 2**bits - 1
    health = codebook_health(np.array([[[0, highest]]], dtype=np.uint32), bits)
    assert (health.codes, health.codes_used, health.dead_codes) == (2**bits, 2, 2**bits - 2)
    assert health.listed_dead_codes == tuple(range(1, min(17, highest)))
    np.testing.assert_array_equal(health.bit_means, 0.5)
    np.testing.assert_allclose(health.bit_correlation, 1)
    assert health.shared_bits == pytest.approx(bits - 1)


def test_tensors_and_arrays_of_any_integer_type_give_the_same():
    tokens = every_code(bits=4, copies=2)
    healths = [codebook_health(tokens.astype(np.uint8), 4), codebook_health(torch.from_numpy(tokens), 4)]
    assert healths[0].joint_entropy_bits == healths[1].joint_entropy_bits == 4


@pytest.mark.parametrize("bits", [0, 33])
def test_bits_out_of_range_are_refused(bits: int):
    with pytest.raises(ConfigError, match=f"bits is {bits}"):
        codebook_health(np.zeros((1, 1, 1), dtype=np.int64), bits)


@pytest.mark.parametrize("tokens", [np.zeros((2, 2), int), np.zeros((0, 2, 2), int), np.zeros((1, 2, 2))])
def test_unfit_arrays_are_refused(tokens: np.ndarray):
    with pytest.raises(ShapeError, match="integers"):
        codebook_health(tokens, bits=2)


@pytest.mark.parametrize("token", [-1, 4])
def test_tokens_outside_of_the_codebook_are_refused(token: int):
    with pytest.raises(TokenError, match="2 bits hold 0 to 3"):
        codebook_health(np.array([[[0, token]]]), bits=2)
