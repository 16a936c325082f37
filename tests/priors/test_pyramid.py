"""The pyramid prior: what each scale is given, how often the network is used, and that scales come whole."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from tests.conftest import roughen
from torch import Tensor

from bisquit.checkpoint import SavedPrior, load_prior, save_prior
from bisquit.conditioning import Conditions
from bisquit.errors import ConfigError, ShapeError
from bisquit.priors import PyramidConfig, PyramidPrior
from bisquit.priors.pyramid import pictures_of_scales
from bisquit.pyramids import averaged, enlarged
from bisquit.transformer import TransformerConfig

TINY = TransformerConfig(width=8, n_layers=2, n_heads=2, feed_forward=12)
SCALES = ((1, 1), (2, 3), (4, 5))
GRID = (1, 27)


def made(scales: tuple[tuple[int, int], ...] = SCALES, bits: int = 3, condition_size: int = 0) -> PyramidPrior:
    """A prior of random weights, large enough for each to matter."""
    config = PyramidConfig(TINY, scales, condition_size)
    prior = PyramidPrior(config, bits, (1, sum(h * w for h, w in scales)))
    roughen(prior, 0)
    return prior.eval()


def tokens_of(batch: int, bits: int = 3) -> Tensor:
    return torch.randint(2**bits, (batch, *GRID), generator=torch.Generator().manual_seed(1))


def passes_of(prior: PyramidPrior) -> list[int]:
    """A list that grows by the number of steps of each pass of the network from now on."""
    passes: list[int] = []
    prior.transformer.register_forward_hook(lambda module, given, out: passes.append(out.shape[1]))
    return passes


@pytest.mark.parametrize("scale", range(3))
def test_a_scale_is_predicted_from_the_scales_before_it_and_from_nothing_else(scale: int):
    prior, tokens = made(), tokens_of(2)
    other, span = tokens.clone(), prior.spans[scale]
    other[:, 0, span] = 7 - other[:, 0, span]
    differs = (prior.logits(tokens) != prior.logits(other)).any(dim=2)
    assert not differs[:, : span.stop].any()
    assert differs[:, span.stop :].all()


def test_what_a_scale_is_given_is_the_sum_of_those_before_at_its_size():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(27, dtype=torch.float64, generator=generator)
    found = pictures_of_scales(SCALES) @ x
    estimate = torch.zeros(4, 5, dtype=torch.float64)
    for size, part, given in zip(SCALES, x.split((1, 6, 20)), found.split((1, 6, 20)), strict=True):
        torch.testing.assert_close(given.view(size), averaged(estimate, size))
        estimate = estimate + enlarged(part.view(size), (4, 5))


def test_tokens_that_differ_in_one_bit_are_given_as_corners_that_do():
    prior = made(((1, 1), (1, 1)))
    given = prior._inputs(torch.arange(8).unsqueeze(1), slice(1, 2), None)[:, 0]  # (8, width)
    step = 2 / math.sqrt(3) * prior.gains * prior.embedding.weight.T  # (bits, width)
    for bit in range(3):
        torch.testing.assert_close(given[1 << bit] - given[0], step[bit])
    torch.testing.assert_close(given[7] - given[0], step.sum(dim=0))


@pytest.mark.parametrize("told", [False, True])
def test_flawed_tokens_are_what_it_sees_and_right_ones_what_it_predicts(told: bool):
    prior, seen = made(condition_size=5 if told else 0), tokens_of(3)
    right = 7 - seen
    condition = torch.eye(5)[:3] if told else None
    path = prior.conditioned(condition, 3) if told else None
    chances = prior.logits(seen, path).log_softmax(dim=2).gather(2, right.view(3, 27, 1))
    torch.testing.assert_close(prior.loss(right, condition, seen), -chances.mean())
    torch.testing.assert_close(prior.loss(seen, condition, seen), prior.loss(seen, condition))
    with pytest.raises(ShapeError):
        prior.loss(right[..., 1:], condition, seen)


@pytest.mark.parametrize("told", [False, True])
def test_whole_scales_have_the_logits_of_one_pass_over_all(told: bool):
    prior, tokens = made(condition_size=5 if told else 0), tokens_of(3)
    path = prior.conditioned(torch.eye(5)[:3], 3) if told else None
    full, state, last = prior.logits(tokens, path), prior.start(3, path), None
    assert full.shape == (3, 27, 8)
    for span in prior.spans:
        torch.testing.assert_close(prior.next_scale(state, last), full[:, span], rtol=0, atol=1e-5)
        last = tokens[:, 0, span]


def test_the_network_is_used_once_for_each_scale():
    prior, tokens = made(), tokens_of(2)
    passes, state, last = passes_of(prior), prior.start(2), None
    for step in range(prior.length):
        prior.next_logits(state, last)
        assert state.passes == len(passes) == (1 if step < 1 else 2 if step < 7 else 3)
        last = tokens[:, 0, step]
    assert passes == [1, 6, 20]


def test_all_logits_take_one_pass():
    prior = made()
    passes = passes_of(prior)
    prior.logits(tokens_of(2))
    assert passes == [27]


def test_a_picture_has_no_more_tokens_and_scales_than_it_has():
    prior, tokens = made(), tokens_of(2)
    state, last = prior.start(2), None
    for span in prior.spans:
        prior.next_scale(state, last)
        last = tokens[:, 0, span]
    with pytest.raises(ShapeError, match="3 scales, and all are there"):
        prior.next_scale(state, last)
    state, last = prior.start(2), None
    for step in range(27):
        prior.next_logits(state, last)
        last = tokens[:, 0, step]
    with pytest.raises(ShapeError, match="27 tokens, and all are there"):
        prior.next_logits(state, last)


def test_what_is_not_the_scale_before_is_refused():
    prior = made()
    with pytest.raises(ShapeError, match=r"scale 0 was given tokens \(2, 1\): it takes None"):
        prior.next_scale(prior.start(2), torch.zeros(2, 1, dtype=torch.int64))
    state = prior.start(2)
    prior.next_scale(state, None)
    with pytest.raises(ShapeError, match=r"scale 1 was given no tokens: .* \(2, 1\)"):
        prior.next_scale(state, None)
    prior.next_scale(state, torch.zeros(2, 1, dtype=torch.int64))
    for wrong in ((2, 1), (1, 6)):
        with pytest.raises(ShapeError, match=r"scale 2 was given tokens .* \(2, 6\)"):
            prior.next_scale(state, torch.zeros(wrong, dtype=torch.int64))


def test_a_prior_of_one_scale_finds_each_place_by_itself():
    prior = made(((3, 9),))
    tokens = tokens_of(2)
    assert torch.equal(prior.logits(tokens)[0], prior.logits(tokens)[1])


def test_it_learns_in_half_precision_and_with_dropout():
    config = PyramidConfig(TINY.replace(dropout=0.3), SCALES)
    prior, tokens = PyramidPrior(config, 3, GRID), tokens_of(4)
    with torch.autocast("cpu", torch.bfloat16):
        loss = prior.loss(tokens)
    loss.backward()
    assert loss.item() == pytest.approx(math.log(8), rel=0.1)
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in prior.parameters())


def test_a_prior_over_other_scales_is_not_one_to_grow_from():
    assert not made(bits=4).grow_from(made(((1, 1), (2, 3), (2, 10)), bits=3))
    assert made(bits=4).grow_from(made(bits=3))


def test_it_is_saved_and_loaded_with_its_scales(tmp_path: Path):
    prior, tokens = made(), tokens_of(2)
    save_prior(SavedPrior(prior, (20, 25), "of-nothing", Conditions()), tmp_path / "prior.safetensors")
    loaded = load_prior(tmp_path / "prior.safetensors").prior
    assert isinstance(loaded, PyramidPrior)
    assert loaded.fingerprint() == prior.fingerprint()
    assert torch.equal(loaded.logits(tokens), prior.logits(tokens))


def test_scales_that_do_not_fill_the_grid_are_refused():
    with pytest.raises(ConfigError, match=r"grid is \(1, 28\): it must be of 27 places"):
        PyramidPrior(PyramidConfig(TINY, SCALES), 3, (1, 28))


@pytest.mark.parametrize("scales", [(), ((0, 1),), ((1, 1), (3, 2), (2, 3)), ((2, 2), (2, 1))], ids=str)
def test_scales_that_do_not_grow_are_refused(scales: tuple[tuple[int, int], ...]):
    with pytest.raises(ConfigError, match=r"^scales is "):
        PyramidConfig(scales=scales)


@pytest.mark.parametrize("bits", [0, 19])
def test_codebooks_too_large_for_one_softmax_are_refused(bits: int):
    with pytest.raises(ConfigError, match=f"bits is {bits}"):
        PyramidPrior(PyramidConfig(TINY, SCALES), bits, GRID)
