"""Vector quantisation: the nearest vector, the terms that learn it, and vectors that are never nearest."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from bisquit.errors import ConfigError
from bisquit.quantizers import VQ, VQConfig, vq

SQUARE = torch.tensor([[0.0, 0.0], [4.0, 0.0], [0.0, 4.0], [4.0, 4.0]])


def plain(codebook: Tensor, **settings: Any) -> VQ:
    """A quantizer of these vectors whose two linear maps leave everything as it is."""
    count, width = codebook.shape
    config = VQConfig(bits=count.bit_length() - 1, code_width=width, **{"restart_steps": 0, **settings})
    quantizer = VQ(config, width=width)
    with torch.no_grad():
        quantizer.codebook.copy_(codebook)
        for linear in (quantizer.down, quantizer.up):
            linear.weight.copy_(torch.eye(width).view(width, width, 1, 1))
            linear.bias.zero_()
    return quantizer


def row(*latents: tuple[float, ...]) -> Tensor:
    """Latents (1, width, 1, number)."""
    return torch.tensor(latents).T[None, :, None]


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_a_token_is_the_number_of_the_nearest_vector_and_its_code_that_vector():
    quantized = plain(SQUARE)(row((1.0, -1.0), (3.0, 0.5), (1.5, 2.5), (9.0, 9.0)))
    assert quantized.tokens.flatten().tolist() == [0, 1, 2, 3]
    assert torch.equal(quantized.codes[0, :, 0].T, SQUARE)


def test_of_vectors_as_near_the_first_is_taken():
    assert plain(SQUARE)(row((2.0, 2.0), (2.0, 3.0))).tokens.flatten().tolist() == [0, 2]


def test_the_loss_is_the_squared_distance_for_the_codebook_and_its_share_for_the_latents():
    loss = plain(SQUARE, commitment_weight=0.25)(row((1.0, -1.0), (3.0, 0.5))).loss
    assert loss.item() == pytest.approx(1.25 * (1 + 1 + 1 + 0.25) / 4)


def test_the_gradient_goes_straight_through_to_the_latents():
    x, weights = noise(2, 2, 3, 3), noise(2, 2, 3, 3, seed=1)
    x.requires_grad_()
    (plain(SQUARE)(x).codes * weights).sum().backward()
    torch.testing.assert_close(x.grad, weights)


def test_the_loss_draws_vectors_to_latents_and_latents_to_vectors():
    quantizer, x = plain(SQUARE, commitment_weight=0.25), row((1.0, -1.0), (3.0, 0.5)).requires_grad_()
    quantizer(x).loss.backward()
    drawn = torch.tensor([[-1.0, 1.0], [1.0, -0.5], [0.0, 0.0], [0.0, 0.0]]) * 2 / 4  # of the mean over 4 numbers
    torch.testing.assert_close(quantizer.codebook.grad, drawn)
    torch.testing.assert_close(x.grad, -0.25 * drawn[:2].T[None, :, None])


@pytest.mark.parametrize("most", [1, 100, 1000])
def test_tokens_are_the_same_however_many_distances_are_held(monkeypatch: pytest.MonkeyPatch, most: int):
    quantizer, x = plain(noise(32, 3)), noise(2, 3, 4, 5, seed=1)
    wanted = quantizer(x).tokens
    monkeypatch.setattr(vq, "MOST_DISTANCES", most)
    assert torch.equal(quantizer(x).tokens, wanted)
    by_hand = torch.cdist(x.movedim(1, -1).flatten(0, 2), quantizer.codebook.detach()).argmin(dim=1)
    assert torch.equal(wanted.flatten(), by_hand)


def test_vectors_that_bfloat16_cannot_tell_apart_are_told_apart_under_autocast():
    quantizer = plain(1 + torch.arange(64).view(-1, 1) / 512)
    with torch.autocast("cpu", torch.bfloat16):
        assert quantizer.tokens_of(quantizer.codebook.T[None, :, None]).flatten().tolist() == list(range(64))


def test_the_first_step_moves_what_it_does_not_use_onto_latents():
    quantizer, x = plain(SQUARE + 100, restart_steps=9), noise(1, 2, 5, 5)
    (used,) = quantizer(x).tokens.unique().tolist()
    latents = x[0].flatten(1).T
    for i, vector in enumerate(quantizer.codebook.detach()):
        assert (vector == latents).all(dim=1).any() == (i != used)


def test_a_vector_begins_anew_after_so_many_steps_in_a_row_without_a_latent():
    quantizer = plain(SQUARE, restart_steps=3)
    quantizer.idle_steps.zero_()
    near_all, near_two = row((0.1, 0.0), (4.1, 0.0), (0.0, 4.1), (4.0, 4.1)), row((0.1, 0.0), (4.1, 0.0))
    for x in (near_two, near_two, near_all, near_two, near_two):
        quantizer(x)
    assert torch.equal(quantizer.codebook, SQUARE)
    assert quantizer.idle_steps.tolist() == [0, 0, 2, 2]
    quantizer(near_two)
    assert torch.equal(quantizer.codebook[:2], SQUARE[:2])
    assert {tuple(vector) for vector in quantizer.codebook[2:].tolist()} == {
        tuple(vector) for vector in near_two[0, :, 0].T.tolist()
    }
    assert quantizer.idle_steps.tolist() == [0, 0, 0, 0]


def test_the_codes_of_a_step_are_still_those_of_its_tokens_after_others_began_anew():
    quantizer, x = plain(noise(64, 3), restart_steps=1), noise(2, 3, 2, 2, seed=1)
    quantized = quantizer(x)
    assert torch.equal(quantizer.codes(quantized.tokens), quantized.codes)
    quantized.loss.backward()  # what moved was no part of it


def test_vectors_begin_anew_as_the_seed_has_it():
    def moved(seed: int) -> Tensor:
        torch.manual_seed(seed)
        quantizer = plain(SQUARE + 100, restart_steps=5)
        torch.manual_seed(seed)
        quantizer(noise(1, 2, 5, 5))
        return quantizer.codebook.detach()

    assert torch.equal(moved(1), moved(1))
    assert not torch.equal(moved(1), moved(2))


@pytest.mark.parametrize("why", ["evaluated", "without gradients", "frozen", "told not to"])
def test_vectors_stay_where_nothing_is_trained(why: str):
    quantizer = plain(SQUARE + 100, restart_steps=0 if why == "told not to" else 1)
    if why == "evaluated":
        quantizer.eval()
    if why == "frozen":
        quantizer.freeze_encoding()
    with torch.set_grad_enabled(why != "without gradients"):
        for seed in range(3):
            quantizer(noise(1, 2, 3, 3, seed=seed))
    assert torch.equal(quantizer.codebook, SQUARE + 100)


def test_a_codebook_far_from_the_latents_comes_to_be_used():
    def codes_used(restart_steps: int) -> int:
        torch.manual_seed(0)
        quantizer, x = plain(noise(64, 2) + 20, restart_steps=restart_steps), noise(4, 2, 8, 8, seed=1)
        optimizer = torch.optim.Adam([quantizer.codebook], lr=0.02)
        for _ in range(40):
            optimizer.zero_grad()
            quantizer(x).loss.backward()
            optimizer.step()
        return len(quantizer.eval()(x).tokens.unique())

    assert codes_used(restart_steps=0) == 1
    assert codes_used(restart_steps=10) > 50


@pytest.mark.parametrize(
    ("field", "value"),
    [("bits", 0), ("bits", 17), ("code_width", 0), ("commitment_weight", -1.0), ("restart_steps", -1)],
)
def test_settings_out_of_range_are_refused(field: str, value: float):
    with pytest.raises(ConfigError, match=f"^{field} is {value}: it must be "):
        VQConfig(**{field: value})


def test_too_many_bits_for_a_codebook_are_refused_with_the_kinds_that_take_them():
    with pytest.raises(ConfigError, match="bsq, lfq and fsq take more"):
        VQConfig(bits=17)
