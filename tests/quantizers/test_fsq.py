"""Finite scalar quantisation: levels and their borders, digits and their places in a token."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from bisquit.errors import ConfigError
from bisquit.quantizers import FSQ, LFQ, FSQConfig, LFQConfig

LEVELS = st.lists(st.sampled_from([2, 4, 8, 16, 64]), min_size=1, max_size=5).map(tuple)


def plain(*levels: int) -> FSQ:
    """A quantizer whose two linear maps leave everything as it is, so that latents are z and codes are levels."""
    quantizer = FSQ(FSQConfig(levels), width=len(levels))
    with torch.no_grad():
        for linear in (quantizer.down, quantizer.up):
            linear.weight.copy_(torch.eye(len(levels)).view(len(levels), len(levels), 1, 1))
            linear.bias.zero_()
    return quantizer


def at_one_place(*z: float) -> Tensor:
    """Latents (1, channels, 1, 1)."""
    return torch.tensor(z).view(1, -1, 1, 1)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_a_token_packs_its_digits_the_first_in_the_lowest_bits():
    quantized = plain(8, 2, 4)(at_one_place(math.atanh(3 / 7), -0.5, 9.0))  # digits 5, 0, 3
    assert quantized.tokens.item() == 5 | 0 << 3 | 3 << 4
    assert quantized.codes.flatten().tolist() == pytest.approx([3 / 7, -1, 1])


@pytest.mark.parametrize(("border", "below", "above"), [(-2 / 3, -1, -1 / 3), (0, -1 / 3, 1 / 3), (2 / 3, 1 / 3, 1)])
def test_four_levels_have_their_borders_half_way_between_them(border: float, below: float, above: float):
    for y, level in ((border - 1e-4, below), (border + 1e-4, above)):
        assert plain(4)(at_one_place(math.atanh(y))).codes.item() == pytest.approx(level)


@pytest.mark.parametrize("levels", [2, 4, 8, 4096])
def test_zero_is_a_border_and_rounds_up(levels: int):
    assert plain(levels)(at_one_place(0.0)).tokens.item() == levels // 2
    assert plain(levels)(at_one_place(-1e-6)).tokens.item() == levels // 2 - 1


@pytest.mark.parametrize("levels", [2, 4, 8, 4096])
@pytest.mark.parametrize("far", [20.0, 1e30, math.inf])
def test_what_is_far_off_rounds_to_the_outermost_levels(levels: int, far: float):
    assert plain(levels)(at_one_place(far)).tokens.item() == levels - 1
    assert plain(levels)(at_one_place(far)).codes.item() == 1
    assert plain(levels)(at_one_place(-far)).tokens.item() == 0
    assert plain(levels)(at_one_place(-far)).codes.item() == -1


def test_the_levels_are_evenly_spaced_from_minus_one_to_one():
    codes = plain(8, 4).codes(torch.arange(32).view(1, 4, 8))[0]  # one digit along each side
    torch.testing.assert_close(codes[0], torch.linspace(-1, 1, 8).expand(4, 8))
    torch.testing.assert_close(codes[1], torch.linspace(-1, 1, 4).unsqueeze(1).expand(4, 8))


@given(LEVELS)
def test_levels_are_their_own_tokens(levels: tuple[int, ...]):
    quantizer = plain(*levels)
    tokens = torch.randint(2**quantizer.bits, (1, 3, 5), generator=torch.Generator().manual_seed(0))
    tokens[0, 0, :2] = torch.tensor([0, 2**quantizer.bits - 1])
    assert math.prod(levels) == 2**quantizer.bits
    assert torch.equal(quantizer.tokens_of(torch.atanh(quantizer.codes(tokens))), tokens)


def test_the_gradient_is_that_of_the_bounded_vector():
    x, weights = noise(2, 3, 2, 2), noise(2, 3, 2, 2, seed=1)
    x.requires_grad_()
    (plain(8, 4, 2)(x).codes * weights).sum().backward()
    torch.testing.assert_close(x.grad, weights * (1 - torch.tanh(x.detach()) ** 2))


def test_channels_of_two_levels_are_signs():
    x = noise(4, 5, 3, 3)
    fsq, lfq = plain(2, 2, 2, 2, 2), LFQ(LFQConfig(bits=5), width=5)
    lfq.load_state_dict(fsq.state_dict())
    assert torch.equal(fsq(x).tokens, lfq(x).tokens)
    assert torch.equal(fsq(x).codes, lfq(x).codes)


def test_there_is_no_loss():
    assert plain(4, 4)(noise(2, 2, 2, 2)).loss.item() == 0


@pytest.mark.parametrize(
    ("bits", "levels"),
    [(1, (2,)), (2, (4,)), (3, (8,)), (4, (4, 4)), (5, (8, 4)), (10, (8, 8, 4, 4)), (12, (8, 8, 8, 8))],
)
def test_a_number_of_bits_has_channels_of_eight_levels_and_of_four(bits: int, levels: tuple[int, ...]):
    assert FSQConfig.of_bits(bits).levels == levels


@pytest.mark.parametrize("levels", [(), (3,), (8, 5), (1,), (0,), (-2,), (8192,), (8,) * 11])
def test_levels_that_fill_no_bits_or_too_many_are_refused(levels: tuple[int, ...]):
    with pytest.raises(ConfigError, match=r"^levels is .*: it must be "):
        FSQConfig(levels)
