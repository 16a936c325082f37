"""The stages as Lightning modules."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tests.conftest import roughen
from torch import Tensor

from bisquit.autoencoder import AutoEncoderConfig
from bisquit.frames.augment import Augmentation
from bisquit.priors import FlowConfig, FlowPrior, Prior, PyramidConfig, PyramidPrior
from bisquit.quantizers import PyramidBSQConfig
from bisquit.tokenizer import Tokenizer, TokenizerConfig
from bisquit.tokens import FreshTokens, tokenize
from bisquit.training import PriorRecipe, TrainingConfig, modules, train_prior
from bisquit.training.modules import PriorModule, psnr_db, rarity_weights
from bisquit.transformer import TransformerConfig


@pytest.fixture
def train_pyramid(make_noise, tmp_path: Path) -> Callable[..., Prior]:
    """A function that trains a pyramid prior on frames of which tokens are flawed."""
    config = TokenizerConfig(AutoEncoderConfig(patch_size=4, width=8, depth=1), PyramidBSQConfig(4, (0.0, 1.0)))
    tokenizer = Tokenizer(config).eval()
    roughen(tokenizer, 1)
    frames, valid = make_noise(41), make_noise(6, seed=1)
    prior = PyramidConfig(TransformerConfig(width=8, n_layers=1, n_heads=2, feed_forward=12))

    def train(name: str, resume: bool = False, **changes: Any) -> Prior:
        settings = TrainingConfig(epochs=2, batch_size=4, precision="float32", warmup_steps=3)
        recipe = PriorRecipe(prior, Augmentation(flip=True), settings).replace(**changes)
        fresh, valid_tokens = FreshTokens(frames, tokenizer), tokenize(tokenizer, valid)
        return train_prior(recipe, fresh, valid_tokens, tmp_path / name, resume=resume)

    return train


def test_a_pyramid_learns_from_flawed_tokens_the_same_each_time(train_pyramid, monkeypatch: pytest.MonkeyPatch):
    flawed: list[float] = []
    loss = PyramidPrior.loss

    def watched(prior: PyramidPrior, tokens: Tensor, condition: Tensor | None = None, seen: Tensor | None = None):
        flawed.extend([] if seen is None else [(tokens != seen).float().mean().item()])
        return loss(prior, tokens, condition, seen)

    monkeypatch.setattr(PyramidPrior, "loss", watched)
    first = train_pyramid("first", flipped=0.4).fingerprint()
    assert len(flawed) == 20  # two epochs of ten steps; validation is of tokens as they are
    assert 0.1 < np.mean(flawed) < 0.9
    assert train_pyramid("second", flipped=0.4).fingerprint() == first
    assert flawed[:20] == flawed[20:]
    assert train_pyramid("third").fingerprint() != first
    assert len(flawed) == 40


def test_psnr_is_on_a_range_of_length_one():
    assert psnr_db(torch.tensor([1.0, 0.1, 0.001, 0.0])).tolist() == pytest.approx([0, 10, 30, 100], abs=1e-4)


def test_muon_takes_the_inner_matrices_at_its_own_rate(make_prior):
    prior = make_prior()
    module = PriorModule(prior, TrainingConfig(learning_rate=0.5, muon_learning_rate=0.25, warmup_steps=4))
    module.trainer = SimpleNamespace(estimated_stepping_batches=100, precision="bf16-mixed")
    groups = module.configure_optimizers()["optimizer"].param_groups
    taken = {id(p): group["lr"] for group in groups for p in group["params"]}
    assert len(taken) == len(list(prior.parameters()))
    inner = {id(p) for p in prior.transformer.blocks.parameters() if p.ndim == 2}
    assert {p for p, rate in taken.items() if rate == pytest.approx(0.05)} == inner
    assert [group["stacked"] for group in groups if group["muon"]] == [1, 3]


def test_weight_decay_is_of_matrices_alone_and_the_rate_starts_warm(make_prior):
    prior = make_prior()
    module = PriorModule(prior, TrainingConfig(learning_rate=0.5, weight_decay=0.3, warmup_steps=4))
    module.trainer = SimpleNamespace(estimated_stepping_batches=100, precision="32-true")
    configured = module.configure_optimizers()
    decays = {
        id(parameter): group["weight_decay"]
        for group in configured["optimizer"].param_groups
        for parameter in group["params"]
    }
    assert decays == {id(parameter): 0.3 if parameter.ndim >= 2 else 0.0 for parameter in prior.parameters()}
    assert [group["lr"] for group in configured["optimizer"].param_groups] == [0.1, 0.1]
    assert configured["lr_scheduler"]["interval"] == "step"


def test_each_step_is_augmented_from_a_seed_of_its_own(train, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    seeds: list[int] = []
    augment = modules.augment

    def watched(x: torch.Tensor, settings: object, generator: torch.Generator, part: object) -> torch.Tensor:
        seeds.append(generator.initial_seed())
        return augment(x, settings, generator, part)

    monkeypatch.setattr(modules, "augment", watched)
    train("tokenizer", tmp_path)
    assert len(set(seeds)) == len(seeds) == 20  # two epochs of ten; validation is not augmented


def test_every_class_has_an_equal_part_in_the_weights_whose_mean_is_one():
    labels = np.array([0] * 6 + [1] * 3 + [2])
    weights = rarity_weights(labels, 3)
    assert (weights * torch.tensor([6, 3, 1])).tolist() == pytest.approx([10 / 3] * 3)
    assert weights[torch.from_numpy(labels)].mean().item() == pytest.approx(1)


def logged(prior: Prior) -> dict[str, float]:
    """What a step of validation of a prior over tokens of 3 bits, on a grid of 2 x 3, logs."""
    found: dict[str, float] = {}
    module = PriorModule(prior, TrainingConfig()).eval()
    module.log = lambda name, value, **_: found.update({name: value.item()})
    tokens = torch.randint(8, (4, 2, 3), generator=torch.Generator().manual_seed(0))
    module.validation_step(tokens, 0)
    assert found["valid/loss"] == pytest.approx(prior.loss(tokens).item())
    return found


def test_a_loss_in_nats_is_logged_in_bits_too(make_prior):
    found = logged(make_prior())
    assert found["valid/bits_per_token"] == pytest.approx(found["valid/loss"] / np.log(2))
    assert found["valid/bits_per_image"] == pytest.approx(6 * found["valid/bits_per_token"])
    assert len(found) == 3


def test_a_loss_that_is_no_likelihood_is_logged_by_its_name():
    found = logged(FlowPrior(FlowConfig(transformer=TransformerConfig(8, 1, 2, 12)), 3, (2, 3)))
    assert set(found) == {"valid/loss", "valid/velocity_error"}
    assert found["valid/velocity_error"] == found["valid/loss"]
