"""Binary spherical quantisation: bits and their order, the straight-through gradient, the entropy terms."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from bisquit.errors import ConfigError, TokenError
from bisquit.quantizers import BSQ, BSQConfig


def plain(bits: int, **entropy: float) -> BSQ:
    """A quantizer whose two linear maps leave everything as it is, so that latents are v and codes are corners."""
    quantizer = BSQ(BSQConfig(bits=bits, **entropy), width=bits)
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


def test_bit_zero_is_the_least_significant():
    assert plain(3)(at_one_place(1.0, -1.0, -1.0)).tokens.item() == 1
    assert plain(3)(at_one_place(-1.0, -1.0, 1.0)).tokens.item() == 4


def test_zero_counts_as_plus_one():
    quantized = plain(2)(at_one_place(0.0, -1.0))
    assert quantized.tokens.item() == 1
    assert quantized.codes.flatten().tolist() == pytest.approx([math.sqrt(0.5), -math.sqrt(0.5)])


@pytest.mark.parametrize("bits", range(1, 33))
def test_corners_have_norm_one_and_are_their_own_tokens(bits: int):
    quantizer = plain(bits)
    tokens = torch.randint(2**bits, (2, 3, 4), generator=torch.Generator().manual_seed(bits))
    tokens[0, 0, :2] = torch.tensor([0, 2**bits - 1])
    corners = quantizer.codes(tokens)
    assert corners.norm(dim=1).allclose(torch.ones(2, 3, 4))
    assert torch.equal(quantizer(corners).tokens, tokens)
    assert torch.equal(quantizer(3 * corners).tokens, tokens)


@pytest.mark.parametrize("bits", range(1, 33))
def test_codes_of_tokens_are_those_of_the_forward_pass_for_every_number_of_bits(bits: int):
    torch.manual_seed(bits)
    quantizer = BSQ(BSQConfig(bits=bits), width=4)
    quantized = quantizer(noise(2, 4, 10, 10))
    assert torch.equal(quantizer.codes(quantized.tokens), quantized.codes)


def test_each_place_is_quantized_by_itself():
    torch.manual_seed(0)
    quantizer, x = BSQ(BSQConfig(), width=12), noise(3, 12, 4, 5)
    parts = [quantizer(x[i : i + 1, :, :, j : j + 1]).tokens for i in range(3) for j in range(5)]
    assert torch.equal(quantizer(x).tokens, torch.cat(parts).view(3, 5, 4).transpose(1, 2))


def test_tokens_are_on_the_grid_of_the_latents():
    assert plain(3).grid((4, 5)) == (4, 5)


def test_all_ones_of_32_bits_overflow_nothing():
    tokens = plain(32)(torch.ones(1, 32, 1, 1)).tokens
    assert tokens.dtype == torch.int64
    assert tokens.item() == 2**32 - 1
    with pytest.raises(TokenError, match=r"2\*\*32"):
        plain(32).codes(tokens + 1)


def test_the_gradient_is_the_straight_through_one():
    torch.manual_seed(0)
    quantizer = BSQ(BSQConfig(bits=5), width=7)
    x, weights = noise(3, 7, 2, 2), noise(3, 7, 2, 2, seed=1)
    through, smooth = x.clone().requires_grad_(), x.clone().requires_grad_()
    (quantizer(through).codes * weights).sum().backward()
    (quantizer.up(F.normalize(quantizer.down(smooth), dim=1)) * weights).sum().backward()
    torch.testing.assert_close(through.grad, smooth.grad)


def soft_distributions(u: Tensor, temperature: float) -> Tensor:
    """The chances (N, 2**bits) of each code by its definition: the product over bits of a sigmoid. u: (N, bits)."""
    n, bits = u.shape
    chances = torch.ones(n, 2**bits, dtype=torch.float64)
    for i, signs in itertools.product(range(n), itertools.product((-1, 1), repeat=bits)):
        code = sum(2**k for k, sign in enumerate(signs) if sign > 0)
        for k, sign in enumerate(signs):
            chances[i, code] /= 1 + math.exp(-2 * sign * u[i, k].item() * math.sqrt(bits) / temperature)
    return chances


def entropy_bits(chances: Tensor) -> Tensor:
    return -torch.xlogy(chances, chances).sum(dim=-1) / math.log(2)


def test_the_sample_entropy_is_that_of_each_soft_token_by_brute_force():
    x = noise(2, 3, 2, 2)
    u = F.normalize(x.double(), dim=1).movedim(1, -1).flatten(0, -2)
    loss = plain(3, sample_entropy_weight=0.7, entropy_temperature=0.8)(x).loss
    assert loss.item() == pytest.approx(0.7 * entropy_bits(soft_distributions(u, 0.8)).mean().item() / 3, rel=1e-5)


@pytest.mark.parametrize("group_bits", [1, 2, 3, 12])
def test_the_codebook_entropy_lacks_what_the_mean_distribution_of_each_group_lacks(group_bits: int):
    x = noise(2, 3, 2, 2)
    u = F.normalize(x.double(), dim=1).movedim(1, -1).flatten(0, -2)
    mean = soft_distributions(u, 0.8).mean(dim=0).view(2, 2, 2)  # axes: bit 2, bit 1, bit 0
    axes = {1: [(2,), (1,), (0,)], 2: [(1, 2), (0,)]}.get(group_bits, [(0, 1, 2)])
    groups = [mean.sum(dim=tuple({0, 1, 2} - set(kept))) if len(kept) < 3 else mean for kept in axes]
    lacking = 1 - sum(entropy_bits(group.flatten()).item() for group in groups) / 3
    loss = plain(3, codebook_entropy_weight=0.4, entropy_temperature=0.8, entropy_group_bits=group_bits)(x).loss
    assert loss.item() == pytest.approx(0.4 * lacking, rel=1e-4)


def test_both_terms_add_up():
    x = noise(2, 4, 3, 3)
    sample = plain(4, sample_entropy_weight=0.3)(x).loss
    codebook = plain(4, codebook_entropy_weight=0.2)(x).loss
    both = plain(4, sample_entropy_weight=0.3, codebook_entropy_weight=0.2)(x).loss
    assert both.item() == pytest.approx(sample.item() + codebook.item(), rel=1e-6)


def test_hard_tokens_have_no_entropy_and_soft_ones_a_bit_a_bit():
    x = noise(4, 5, 3, 3)
    assert plain(5, sample_entropy_weight=1.0, entropy_temperature=1e-4)(x).loss.item() == pytest.approx(0, abs=1e-2)
    assert plain(5, sample_entropy_weight=1.0, entropy_temperature=1e4)(x).loss.item() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("group_bits", [2, 3, 5])
def test_a_codebook_used_evenly_lacks_nothing_and_a_single_code_all(group_bits: int):
    quantizer = plain(5, codebook_entropy_weight=1.0, entropy_temperature=0.01, entropy_group_bits=group_bits)
    every_code = quantizer.codes(torch.arange(32).view(1, 4, 8)).detach()
    assert quantizer(every_code).loss.item() == pytest.approx(0, abs=1e-5)
    assert quantizer(every_code[:, :, :1, :1]).loss.item() == pytest.approx(1, abs=1e-5)


def test_groups_see_that_bits_go_together():
    """Two bits that are always equal use half of their codes; each by itself looks even."""
    equal = plain(2).codes(torch.tensor([[[0, 3]]])).detach()
    terms = {"codebook_entropy_weight": 1.0, "entropy_temperature": 0.01}
    assert plain(2, entropy_group_bits=1, **terms)(equal).loss.item() == pytest.approx(0, abs=1e-5)
    assert plain(2, entropy_group_bits=2, **terms)(equal).loss.item() == pytest.approx(0.5, abs=1e-5)


@pytest.mark.parametrize(
    ("term", "change"), [("sample_entropy_weight", "hardens"), ("codebook_entropy_weight", "spreads")]
)
def test_a_step_down_the_loss_hardens_or_spreads_the_tokens(term: str, change: str):
    x = noise(4, 4, 3, 3).add_(0.5).requires_grad_()
    loss = plain(4, **{term: 1.0})(x).loss
    loss.backward()
    assert x.grad is not None
    after = (x - x.grad / x.grad.norm()).detach()
    u, moved = F.normalize(x.detach(), dim=1), F.normalize(after, dim=1)
    if change == "hardens":
        assert moved.abs().min(dim=1).values.mean() > u.abs().min(dim=1).values.mean()
    else:
        assert moved.mean(dim=(0, 2, 3)).norm() < u.mean(dim=(0, 2, 3)).norm()


def test_weights_of_zero_give_a_loss_of_zero():
    assert plain(3)(noise(2, 3, 2, 2)).loss.item() == 0


def test_thirty_two_bits_in_groups_have_a_finite_loss():
    x = noise(2, 32, 2, 2).requires_grad_()
    loss = plain(32, sample_entropy_weight=1.0, codebook_entropy_weight=1.0, entropy_group_bits=12)(x).loss
    loss.backward()
    assert loss.isfinite()
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_codes_that_have_no_chance_at_all_leave_the_gradient_finite():
    """All latents alike and sure: most codes' mean chance is below what float32 can hold."""
    x = torch.ones(1, 10, 2, 2).requires_grad_()
    terms = {"codebook_entropy_weight": 1.0, "entropy_temperature": 0.1, "entropy_group_bits": 10}
    loss = plain(10, **terms)(x).loss
    loss.backward()
    assert loss.item() == pytest.approx(1, abs=1e-3)
    assert x.grad is not None
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("bits", [0, 33, -1])
def test_numbers_of_bits_outside_of_1_to_32_are_refused(bits: int):
    with pytest.raises(ConfigError) as error:
        BSQConfig(bits=bits)
    assert str(error.value) == f"bits is {bits}: it must be between 1 and 32"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("sample_entropy_weight", -0.1),
        ("codebook_entropy_weight", -0.1),
        ("entropy_group_bits", 0),
        ("entropy_group_bits", 13),
        ("entropy_temperature", 0.0),
    ],
)
def test_entropy_settings_out_of_range_are_refused(field: str, value: float):
    with pytest.raises(ConfigError, match=f"^{field} is {value}: it must be "):
        BSQConfig(**{field: value})


def test_the_entropy_terms_do_not_change_under_autocast():
    def gradient(autocast: bool) -> Tensor:
        quantizer = plain(5, codebook_entropy_weight=1.0, entropy_temperature=0.8)
        x = noise(2, 5, 16, 16).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            loss = quantizer._entropy_loss(F.normalize(x, dim=1))
        loss.backward()
        assert x.grad is not None
        return x.grad

    torch.testing.assert_close(gradient(True), gradient(False), rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("bits", [4, 7, 32])
def test_a_quantizer_grows_from_one_of_fewer_bits_and_begins_as_that_one(bits: int):
    torch.manual_seed(0)
    small, grown = (BSQ(BSQConfig(bits=n), width=6) for n in (3, bits))
    assert grown.grow_from(small)
    latents = noise(2, 6, 3, 4)
    before, after = small(latents), grown(latents)
    assert torch.equal(after.tokens % 8, before.tokens)
    torch.testing.assert_close(after.codes, before.codes)
    assert len(after.tokens.unique()) > len(before.tokens.unique())
    latents.requires_grad_()
    grown(latents).codes.square().sum().backward()
    assert grown.up.weight.grad[:, 3:].abs().min() > 0  # further bits can learn to have a say


def test_a_quantizer_grows_from_no_other():
    four = BSQ(BSQConfig(bits=4), width=6)
    before = {name: array.clone() for name, array in four.state_dict().items()}
    for other in (BSQ(BSQConfig(bits=4), width=6), BSQ(BSQConfig(bits=5), width=6), BSQ(BSQConfig(bits=3), width=7)):
        assert not four.grow_from(other)
    assert all(torch.equal(array, before[name]) for name, array in four.state_dict().items())
