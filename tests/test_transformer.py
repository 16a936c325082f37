"""The transformer: causal, its blockwise attention equal to the fused one, its rotation a rotation, its cache exact."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from bisquit.errors import ConfigError, ShapeError
from bisquit.transformer import (
    CAUSAL_BLOCK_STEPS,
    KeyValueCache,
    Transformer,
    TransformerConfig,
    causal_attention,
    rotate,
)

CONFIG = TransformerConfig(width=16, n_layers=2, n_heads=2, feed_forward=24)


def noise(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.fixture
def transformer() -> Transformer:
    torch.manual_seed(0)
    model = Transformer(CONFIG).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape))
    return model


@pytest.mark.parametrize("steps", [1, 99, 100, 101, 250])
def test_blockwise_attention_and_its_gradient_are_those_of_the_fused_kernel(steps: int):
    assert CAUSAL_BLOCK_STEPS == 100  # whose borders the numbers of steps lie around
    ours = [noise(2, 2, steps, 4, seed=seed, dtype=torch.float64).requires_grad_() for seed in range(3)]
    theirs = [tensor.detach().clone().requires_grad_() for tensor in ours]
    weights = noise(2, 2, steps, 4, seed=3, dtype=torch.float64)
    y = causal_attention(*ours, dropout=0.0)
    wanted = F.scaled_dot_product_attention(*theirs, is_causal=True)
    torch.testing.assert_close(y, wanted)
    (y * weights).sum().backward()
    (wanted * weights).sum().backward()
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine.grad, other.grad)


def test_dropout_in_attention_keeps_the_mean():
    q = k = torch.zeros(1, 1, 50, 2)  # every step attends evenly to those up to it
    v = torch.ones(400, 1, 50, 2)
    torch.manual_seed(0)
    last = causal_attention(q.expand(400, -1, -1, -1), k.expand(400, -1, -1, -1), v, dropout=0.5)[:, 0, -1, 0]
    assert last.std() > 0.05
    assert last.mean().item() == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_the_gradient_of_blockwise_attention_is_that_of_finite_differences(dropout: float):
    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        torch.manual_seed(0)  # the same values are dropped each time
        return causal_attention(q, k, v, dropout)

    inputs = [noise(1, 2, 103, 2, seed=seed, dtype=torch.float64).requires_grad_() for seed in range(3)]
    assert torch.autograd.gradcheck(attend, inputs, fast_mode=True)


def test_a_rotation_keeps_lengths_and_angles_between():
    x, y = noise(2, 2, 5, 8), noise(2, 2, 5, 8, seed=1)
    angles = 10 * noise(5, 4, seed=2)
    torch.testing.assert_close(rotate(x, angles).norm(dim=-1), x.norm(dim=-1))
    torch.testing.assert_close((rotate(x, angles) * rotate(y, angles)).sum(-1), (x * y).sum(-1))
    assert torch.equal(rotate(x, torch.zeros(5, 4)), x)


def test_a_quarter_turn_takes_the_first_half_to_the_second():
    x = torch.tensor([1.0, 2.0, 0.0, 0.0]).view(1, 1, 1, 4)
    turned = rotate(x, torch.full((1, 2), math.pi / 2))
    assert turned.flatten().tolist() == pytest.approx([0.0, 0.0, 1.0, 2.0], abs=1e-6)


def test_rotated_products_depend_on_the_difference_of_angles_only():
    q, k = noise(1, 1, 1, 8, dtype=torch.float64), noise(1, 1, 1, 8, seed=1, dtype=torch.float64)
    here, there, shift = (noise(1, 4, seed=seed, dtype=torch.float64) for seed in (2, 3, 4))
    product = (rotate(q, here) * rotate(k, there)).sum()
    torch.testing.assert_close((rotate(q, here + shift) * rotate(k, there + shift)).sum(), product)
    assert not torch.isclose((rotate(q, here + shift) * rotate(k, there)).sum(), product)


@pytest.mark.parametrize("changed", [0, 3, 6])
def test_a_step_is_seen_by_itself_and_later_ones_only(transformer: Transformer, changed: int):
    x = noise(1, 7, 16)
    other = x.clone()
    other[:, changed] += 1.0
    differs = (transformer(x, causal=True) != transformer(other, causal=True)).any(dim=-1)[0]
    assert differs.tolist() == [step >= changed for step in range(7)]


def test_without_causality_every_step_sees_every_other(transformer: Transformer):
    x = noise(1, 7, 16)
    other = x.clone()
    other[:, 6] += 1.0
    assert (transformer(x, causal=False) != transformer(other, causal=False)).any(dim=-1).all()


@pytest.mark.parametrize("rotary", [False, True])
@pytest.mark.parametrize("first", [1, 5])
def test_steps_with_a_cache_equal_one_pass(transformer: Transformer, rotary: bool, first: int):
    x = noise(2, 9, 16)
    angles = noise(9, 4, seed=1) if rotary else None
    whole = transformer(x, causal=True, rotary=angles)
    cache = KeyValueCache(CONFIG, batch=2, capacity=9, like=x)
    starts = [0, *range(first, 9)]
    parts = []
    for start, end in zip(starts, [*starts[1:], 9], strict=True):
        of_these = None if angles is None else angles[start:end]
        parts.append(transformer(x[:, start:end], causal=True, rotary=of_these, cache=cache))
        assert cache.length == end
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, rtol=0, atol=1e-5)


def test_a_mask_hides_what_it_says(transformer: Transformer):
    x = noise(2, 7, 16)
    mask = torch.full((7, 7), -torch.inf).triu(1)
    torch.testing.assert_close(transformer(x, causal=False, mask=mask), transformer(x, causal=True))
    mask[6, 2] = -torch.inf
    change = (transformer(x, causal=False, mask=mask) - transformer(x, causal=True)).abs().amax(dim=(0, 2))
    assert (change > 1e-3).tolist() == 6 * [False] + [True]


def test_blocks_of_steps_with_a_cache_equal_one_masked_pass(transformer: Transformer):
    x, block = noise(2, 9, 16), torch.tensor([0, 1, 1, 1, 2, 2, 2, 2, 2])
    mask = torch.zeros(9, 9).masked_fill_(block > block.unsqueeze(1), -torch.inf)
    cache = KeyValueCache(CONFIG, batch=2, capacity=9, like=x)
    parts = [transformer(part, causal=False, cache=cache) for part in x.split((1, 3, 5), dim=1)]
    torch.testing.assert_close(torch.cat(parts, dim=1), transformer(x, causal=False, mask=mask), rtol=0, atol=1e-5)


def test_causal_steps_behind_others_go_one_by_one(transformer: Transformer):
    x, cache = noise(1, 9, 16), KeyValueCache(CONFIG, batch=1, capacity=9, like=noise(1))
    transformer(x[:, :2], causal=True, cache=cache)
    with pytest.raises(ShapeError, match="2 causal steps behind 2"):
        transformer(x[:, 2:4], causal=True, cache=cache)
    with pytest.raises(ShapeError, match="8 steps do not fit a cache with 2 of 9 filled"):
        transformer(x[:, :8], causal=False, cache=cache)


def test_dropout_acts_in_training_only():
    torch.manual_seed(0)
    model = Transformer(TransformerConfig(width=16, n_layers=1, n_heads=2, feed_forward=24, dropout=0.5))
    x = noise(1, 7, 16)
    assert not torch.equal(model(x, causal=True), model(x, causal=True))
    model.eval()
    assert torch.equal(model(x, causal=True), model(x, causal=True))


@pytest.mark.parametrize(
    ("field", "value"),
    [("width", 0), ("n_layers", 0), ("n_heads", 0), ("n_heads", 3), ("feed_forward", 0), ("dropout", 1.0)],
)
def test_settings_out_of_range_are_refused(field: str, value: float):
    with pytest.raises(ConfigError, match=f"^{field} is {value}: it must be "):
        TransformerConfig(**{"width": 16, "n_heads": 2, field: value})
