from __future__ import annotations

import pytest
import torch

from bisquit.autoencoder import AutoEncoderConfig
from bisquit.errors import ConfigError
from bisquit.features import FeatureNetwork, FeatureNetworkConfig
from bisquit.quantizers import BSQConfig
from bisquit.tokenizer import Tokenizer, TokenizerConfig
from bisquit.training import TokenizerRecipe, train_tokenizer
from bisquit.training.modules import TokenizerModule
from bisquit.training.sharpening import PatchDiscriminator, PerceptualDistance, Sharpening

SHAPE = TokenizerConfig(AutoEncoderConfig(patch_size=4, width=8), BSQConfig(bits=4))


@pytest.fixture
def network() -> FeatureNetwork:
    torch.manual_seed(0)
    return FeatureNetwork(FeatureNetworkConfig(widths=(8, 8), dimensions=4), ("a", "b"))


def frames(seed: int) -> torch.Tensor:
    return torch.rand(2, 3, 16, 24, generator=torch.Generator().manual_seed(seed)) - 0.5


def test_equal_frames_are_no_distance_apart_and_others_are(network):
    distance = PerceptualDistance(network)
    assert distance(frames(0), frames(0)).item() == pytest.approx(0, abs=1e-10)
    assert 0 < distance(frames(0), frames(1)).item() <= 2


def test_more_blur_is_further_away(network):
    distance, x = PerceptualDistance(network), frames(0)
    soft, softer = (torch.nn.functional.avg_pool2d(x, k, stride=1, padding=k // 2) for k in (3, 7))
    assert distance(x, soft) < distance(x, softer)


def test_the_distance_teaches_the_frames_and_not_its_network(network):
    distance, y = PerceptualDistance(network), frames(1).requires_grad_()
    distance(frames(0), y).backward()
    assert y.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in network.parameters())


def test_the_painter_does_not_train_the_discriminator_nor_the_other_way_round():
    discriminator, painted = PatchDiscriminator(8), frames(1).requires_grad_()
    judgement = discriminator.judge(frames(0), painted)
    judgement.painter_loss.backward()
    assert painted.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in discriminator.parameters())
    painted.grad = None
    judgement.loss.backward()
    assert painted.grad is None
    assert all(parameter.grad is not None for parameter in discriminator.parameters())


def test_a_discriminator_learns_to_tell_blur():
    torch.manual_seed(0)
    discriminator = PatchDiscriminator(8)
    optimizer = torch.optim.AdamW(discriminator.parameters(), lr=1e-2)
    x = frames(0)
    soft = torch.nn.functional.avg_pool2d(x, 3, stride=1, padding=1)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = discriminator.judge(x, soft).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_all_terms_are_in_the_loss(network):
    torch.manual_seed(0)
    plain = TokenizerRecipe(SHAPE)
    tokenizer, batch = Tokenizer(SHAPE), (255 * (frames(0) + 0.5)).byte().permute(0, 2, 3, 1)

    def loss(recipe: TokenizerRecipe) -> float:
        torch.manual_seed(1)  # of the discriminator
        module = TokenizerModule(tokenizer, recipe, network)
        module.keeps_figures = lambda step: False
        return module.training_step(batch, 0).item()

    base = loss(plain)
    assert loss(plain.replace(sharpening=Sharpening(perceptual_weight=0.5))) > base
    with_both = loss(plain.replace(sharpening=Sharpening(perceptual_weight=0.5, adversarial_weight=0.1)))
    assert (
        with_both > loss(plain.replace(sharpening=Sharpening(perceptual_weight=0.5))) + 0.5
    )  # the discriminator's own


def test_a_perceptual_weight_needs_a_network():
    with pytest.raises(ConfigError, match="feature network"):
        TokenizerModule(Tokenizer(SHAPE), TokenizerRecipe(SHAPE, sharpening=Sharpening(perceptual_weight=1.0)))


@pytest.mark.parametrize("name", ["perceptual_weight", "adversarial_weight"])
def test_weights_are_not_negative(name):
    with pytest.raises(ConfigError, match=name):
        Sharpening(**{name: -0.1})


@pytest.fixture
def recipe(network) -> TokenizerRecipe:
    recipe = TokenizerRecipe(SHAPE, sharpening=Sharpening(perceptual_weight=0.1, adversarial_weight=0.01))
    training = recipe.training.replace(epochs=1, batch_size=4, precision="float32", ema_decay=0.5)
    return recipe.replace(training=training, decoder_only=True)


def test_a_decoder_trained_alone_leaves_the_tokens(recipe, network, make_noise, tmp_path):
    torch.manual_seed(3)
    start, pictures = Tokenizer(SHAPE), make_noise(41)
    trained = train_tokenizer(recipe, pictures, pictures, tmp_path / "run", start=start, network=network)
    batch = torch.from_numpy(pictures[:8])
    tokens = start.encode(batch)
    assert torch.equal(trained.encode(batch), tokens)
    assert not torch.equal(trained.decode(tokens), start.decode(tokens))


def test_a_decoder_alone_needs_a_start(recipe, network, make_noise, tmp_path):
    with pytest.raises(ConfigError, match="start"):
        train_tokenizer(recipe, make_noise(41), make_noise(6), tmp_path / "run", network=network)


def test_a_start_of_another_shape_is_refused(recipe, network, make_noise, tmp_path):
    other = Tokenizer(TokenizerConfig(AutoEncoderConfig(patch_size=4, width=16), BSQConfig(bits=4)))
    with pytest.raises(ConfigError, match="width"):
        train_tokenizer(recipe, make_noise(41), make_noise(6), tmp_path / "run", start=other, network=network)
