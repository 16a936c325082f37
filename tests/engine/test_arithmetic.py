"""The arithmetic of int8: how near it is to the functions it stands for, and that its sums are exact in any order."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from bisquit.engine.arithmetic import (
    SIGNED_LIMIT,
    UNSIGNED_LIMIT,
    Codes,
    attention,
    exp2,
    gelu,
    layer_norm,
    linear,
    product,
    to_codes,
)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def random_codes(*shape: int, limit: int = SIGNED_LIMIT, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    least = -limit if limit == SIGNED_LIMIT else 0
    return torch.randint(least, limit + 1, shape, generator=generator).float()


# Functions.


def test_exp2_is_that_of_float64_to_rounding():
    x = torch.linspace(-100, 0, 200_001)
    wanted = x.double().exp2()
    assert ((exp2(x) - wanted) / wanted).abs().max() < 3e-7


def test_exp2_of_whole_numbers_is_exact():
    x = -torch.arange(101.0)
    assert torch.equal(exp2(x), x.exp2())


def test_exp2_goes_no_lower_than_two_to_the_minus_hundred():
    x = torch.tensor([-100.0, -100.5, -127.0, -1e30, -torch.inf])
    assert torch.equal(exp2(x), torch.full_like(x, 2.0**-100))


@pytest.mark.parametrize("reach", [6.0, 100.0, 1e6])
def test_gelu_is_that_of_float64_to_rounding(reach: float):
    x = torch.linspace(-reach, reach, 200_001)
    wanted = x.double() * torch.special.ndtr(x.double())
    error = (gelu(x) - wanted).abs()
    assert (error / x.abs().clamp_min(1)).max() < 3e-7
    assert error[x.abs() < 6].max() < 2e-6


def test_gelu_of_zero_is_zero_and_of_infinity_infinite():
    assert gelu(torch.tensor([0.0, torch.inf])).tolist() == [0.0, torch.inf]


@pytest.mark.parametrize("n", [2, 7, 128, 1000])
@pytest.mark.parametrize("scale", [1e-12, 1e-3, 1.0, 1e12])
@pytest.mark.parametrize("shift", [0.0, 100.0])
def test_layer_norm_is_pytorchs_up_to_its_grid(n: int, scale: float, shift: float):
    """Rows are rounded to 2**-18 of their largest: where their deviation is small beside that, it shows."""
    x = scale * (normal(50, n) + shift)
    weight, bias = normal(n, seed=1), normal(n, seed=2)
    wanted = F.layer_norm(x.double(), (n,), weight.double(), bias.double(), 1e-5)
    deviation = (x.double().var(dim=-1, correction=0, keepdim=True) + 1e-5).sqrt()
    grid = 2.0**-18 * x.abs().amax(dim=-1, keepdim=True) / deviation
    bound = (grid + 1e-6) * weight.abs() * wanted.abs().amax(dim=-1, keepdim=True).clamp_min(1)
    assert ((layer_norm(x, weight, bias, 1e-5) - wanted).abs() <= bound + 1e-6).all()


def test_layer_norm_of_zeros_is_the_bias():
    weight, bias = normal(5), normal(5, seed=1)
    assert torch.equal(layer_norm(torch.zeros(2, 5), weight, bias, 1e-5), bias.expand(2, 5))


def test_layer_norm_of_a_row_is_the_same_in_any_order_of_its_channels():
    x, weight, bias = normal(20, 100), normal(100, seed=1), normal(100, seed=2)
    order = torch.randperm(100, generator=torch.Generator().manual_seed(0))
    shuffled = layer_norm(x[:, order], weight[order], bias[order], 1e-5)
    assert torch.equal(shuffled, layer_norm(x, weight, bias, 1e-5)[:, order])


# Codes.

ROWS = st.lists(st.floats(-(2.0**99), 2.0**99, width=32), min_size=1, max_size=20)


@given(ROWS, st.sampled_from([SIGNED_LIMIT, UNSIGNED_LIMIT]))
def test_codes_are_integers_at_most_half_a_step_off(row: list[float], limit: int):
    x = torch.tensor([row])
    codes, step = to_codes(x, limit)
    assert torch.equal(codes, codes.round())
    assert codes.abs().max() <= limit
    if x.abs().max() > 1e-30:
        assert codes.abs().max() == limit
        error = (codes.double() * step.double() - x.double()).abs().max()
        assert error <= (0.5 + 1e-4) * step.item()  # float32 divides and multiplies to 1e-7 of up to 255 steps


@given(ROWS)
def test_codes_of_the_negative_are_the_negative_codes(row: list[float]):
    x = torch.tensor([row])
    assert torch.equal(to_codes(-x).codes, -to_codes(x).codes)
    assert torch.equal(to_codes(-x).step, to_codes(x).step)


@given(st.lists(st.integers(-127, 127), min_size=1, max_size=20), st.integers(-60, 60))
def test_codes_times_a_power_of_two_come_back(codes: list[int], exponent: int):
    row = torch.tensor([[*codes, 127]], dtype=torch.float32)
    assert torch.equal(to_codes(row * 2.0**exponent).codes, row)


def test_codes_of_zeros_are_zeros():
    assert not to_codes(torch.zeros(2, 5)).codes.any()
    assert to_codes(torch.zeros(2, 5)).step.isfinite().all()


def test_rows_have_steps_of_their_own():
    codes, step = to_codes(torch.tensor([[1.0, 0.5], [-1000.0, 500.0]]))
    assert codes.tolist() == [[127, 64], [-127, 64]]  # 63.5 is rounded to the even one
    assert step.shape == (2, 1)


# Sums.


@pytest.mark.parametrize("k", [1, 511, 512, 513, 1024, 1025, 2000])
@pytest.mark.parametrize("limit", [SIGNED_LIMIT, UNSIGNED_LIMIT])
def test_products_are_those_of_int64_rounded_once(k: int, limit: int):
    a = torch.cat((random_codes(4, k, limit=limit), torch.full((1, k), float(limit)), -torch.full((1, k), 127.0)))
    b = torch.cat((random_codes(k, 3, seed=1), torch.full((k, 1), 127.0)), dim=1)
    assert torch.equal(product(a, b), (a.long() @ b.long()).float())


def test_products_of_batches_are_those_of_their_matrices():
    a, b = random_codes(2, 3, 4, 700), random_codes(2, 3, 700, 5, seed=1)
    wanted = torch.stack([product(x, y) for x, y in zip(a.flatten(0, 1), b.flatten(0, 1), strict=True)])
    assert torch.equal(product(a, b).flatten(0, 1), wanted)


def test_a_linear_map_is_near_that_of_float64():
    x, weight, bias = normal(50, 600), normal(30, 600, seed=1), normal(30, seed=2)
    wanted = F.linear(x.double(), weight.double(), bias.double())
    error = linear(x, to_codes(weight), bias) - wanted
    assert error.std() < 0.015 * wanted.std()  # steps of both are near 3/127 of a deviation, errors uniform in them


def causal(steps: int) -> Tensor:
    return torch.ones(steps, steps, dtype=torch.bool).tril()


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    per_score = 1.4426950408889634 * q.shape[-1] ** -0.5
    return attention(to_codes(q), to_codes(k), to_codes(v), per_score, mask)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("steps", [1, 7, 600])
def test_attention_is_near_that_of_float64(steps: int, masked: bool):
    q, k, v = normal(3, 2, 4, steps, 8)
    mask = causal(steps) if masked else None
    wanted = F.scaled_dot_product_attention(q.double(), k.double(), v.double(), mask)
    error = attend(q, k, v, mask) - wanted
    assert error.abs().max() < 0.05
    assert error.std() < 0.02 * wanted.std()


def test_masked_keys_change_nothing():
    q, k, v = normal(3, 1, 2, 9, 8)
    found = attend(q, k, v, causal(9))
    k[:, :, 5:], v[:, :, 5:] = 100.0, -100.0
    assert torch.equal(attend(q, k, v, causal(9))[:, :, :5], found[:, :, :5])
    alone = attention(to_codes(q[:, :, 4:5]), *(Codes(*(x[:, :, :5] for x in to_codes(y))) for y in (k, v)), 0.51, None)
    among = attention(to_codes(q), to_codes(k), to_codes(v), 0.51, causal(9))
    assert torch.equal(alone, among[:, :, 4:5])


def test_keys_are_attended_to_in_any_order_alike():
    q, k, v = normal(3, 1, 2, 700, 8)
    order = torch.randperm(700, generator=torch.Generator().manual_seed(0))
    assert torch.equal(attend(q, k[:, :, order], v[:, :, order]), attend(q, k, v))


def test_a_single_key_gives_its_value():
    q, k, v = normal(3, 1, 2, 1, 8)
    torch.testing.assert_close(attend(q, k, v), v, rtol=0, atol=0.5 * v.abs().max().item() / 127 + 1e-6)
