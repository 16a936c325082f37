"""What holds for every quantizer: the tests run on each in `QUANTIZERS`, as it is by default."""

from __future__ import annotations

import pytest
import torch

from bisquit.config import parse_settings
from bisquit.errors import ConfigError, ShapeError, TokenError
from bisquit.quantizers import (
    QUANTIZERS,
    Quantizer,
    QuantizerConfig,
    build_quantizer,
    default_quantizer,
    quantizer_kinds,
)

WIDTH = 12
GRIDS = [(1, 1), (2, 3), (5, 1)]


@pytest.fixture(params=QUANTIZERS, ids=lambda config: config.__name__)
def quantizer(request: pytest.FixtureRequest) -> Quantizer:
    torch.manual_seed(0)
    return build_quantizer(request.param(), WIDTH)


def latents(batch: int, grid: tuple[int, int], seed: int = 1) -> torch.Tensor:
    return torch.randn(batch, WIDTH, *grid, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("grid", GRIDS)
def test_tokens_are_integers_of_the_codebook_on_any_grid(quantizer: Quantizer, grid: tuple[int, int]):
    tokens = quantizer(latents(64, grid)).tokens
    assert tokens.dtype == torch.int64
    assert tokens.shape == (64, *quantizer.grid(grid))
    assert tokens.min() >= 0
    assert tokens.max() < 2**quantizer.bits
    assert len(tokens.unique()) > 1


@pytest.mark.parametrize("grid", GRIDS)
def test_codes_of_tokens_are_those_of_the_forward_pass_to_the_last_bit(quantizer: Quantizer, grid: tuple[int, int]):
    quantized = quantizer(latents(64, grid))
    assert quantized.codes.shape == (64, WIDTH, *grid)
    assert torch.equal(quantizer.codes(quantized.tokens, grid), quantized.codes)


@pytest.mark.parametrize("grid", GRIDS)
def test_codes_do_not_depend_on_how_latents_lie_in_memory(quantizer: Quantizer, grid: tuple[int, int]):
    quantized = quantizer(latents(64, grid).to(memory_format=torch.channels_last))
    torch.testing.assert_close(quantizer.codes(quantized.tokens, grid), quantized.codes)


@pytest.mark.parametrize("grid", GRIDS)
def test_tokens_are_those_of_what_the_first_map_gives(quantizer: Quantizer, grid: tuple[int, int]):
    x = latents(64, grid)
    tokens = quantizer.eval()(x).tokens
    assert torch.equal(quantizer.tokens_of(quantizer.down(x)), tokens)


def test_codes_of_tokens_are_those_of_the_forward_pass_in_bfloat16_too(quantizer: Quantizer):
    with torch.autocast("cpu", torch.bfloat16):
        quantized = quantizer(latents(64, (2, 3)))
        assert torch.equal(quantizer.codes(quantized.tokens, (2, 3)), quantized.codes)


def test_each_picture_is_quantized_by_itself(quantizer: Quantizer):
    quantizer.eval()  # in training, codes may move from one batch to the next
    x = latents(3, (4, 5))
    whole = quantizer(x)
    for i in range(3):
        alone = quantizer(x[i : i + 1])
        assert torch.equal(alone.tokens[0], whole.tokens[i])
        torch.testing.assert_close(alone.codes[0], whole.codes[i])


def test_the_gradient_reaches_latents_and_parameters(quantizer: Quantizer):
    x = latents(8, (2, 3)).requires_grad_()
    quantized = quantizer(x)
    weights = torch.randn(quantized.codes.shape, generator=torch.Generator().manual_seed(2))
    ((quantized.codes * weights).sum() + quantized.loss).backward()
    for tensor in (x, *quantizer.parameters()):
        assert tensor.grad is not None
        assert tensor.grad.isfinite().all()
        assert tensor.grad.abs().sum() > 0


def test_the_loss_is_a_finite_number(quantizer: Quantizer):
    loss = quantizer(latents(8, (2, 3))).loss
    assert loss.shape == ()
    assert loss.isfinite()


def test_latents_of_zero_make_no_trouble(quantizer: Quantizer):
    x = torch.zeros(1, WIDTH, 1, 1, requires_grad=True)
    quantized = quantizer(x)
    quantized.codes.sum().backward()
    assert quantized.codes.isfinite().all()
    assert x.grad is not None
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("shape", [(1, WIDTH + 1, 2, 2), (WIDTH, 2, 2)])
def test_latents_of_another_shape_are_refused(quantizer: Quantizer, shape: tuple[int, ...]):
    with pytest.raises(ShapeError, match=f"{WIDTH}, h, w"):
        quantizer(torch.zeros(shape))


def test_tokens_outside_of_the_codebook_are_refused(quantizer: Quantizer):
    top = 2**quantizer.bits
    tokens = torch.zeros(1, *quantizer.grid((1, 2)), dtype=torch.int64)
    tokens[0, -1, -1] = top - 1
    quantizer.codes(tokens, (1, 2))
    for outside in (-1, top):
        tokens[0, -1, -1] = outside
        with pytest.raises(TokenError, match=str(outside)):
            quantizer.codes(tokens, (1, 2))


@pytest.mark.parametrize("shape", [(1, 2, 3), (1, 1, 1), (2, 4)], ids=str)
def test_tokens_of_another_grid_are_refused(quantizer: Quantizer, shape: tuple[int, ...]):
    h, w = quantizer.grid((2, 4))
    with pytest.raises(ShapeError, match=rf"\(2, 4\) are \(B, {h}, {w}\)"):
        quantizer.codes(torch.zeros(shape, dtype=torch.int64), (2, 4))


@pytest.mark.parametrize("config", QUANTIZERS, ids=lambda config: config.__name__)
def test_the_configuration_survives_plain_data(config: type):
    assert config.from_dict(config().to_dict()) == config()
    with pytest.raises(ConfigError, match="no_such_field"):
        config.from_dict({"no_such_field": 1})


def test_what_is_frozen_makes_the_same_tokens_and_learns_their_codes(quantizer: Quantizer):
    x = latents(8, (2, 3))
    quantizer.freeze_encoding()
    before = quantizer(x)
    optimizer = torch.optim.SGD(quantizer.parameters(), lr=0.1)
    for _ in range(3):
        quantized = quantizer(x)
        (quantized.codes.square().sum() + quantized.loss).backward()
        optimizer.step()
    after = quantizer(x)
    assert torch.equal(after.tokens, before.tokens)
    assert not torch.equal(after.codes, before.codes)


@pytest.mark.parametrize("bits", range(1, 17))
@pytest.mark.parametrize("kind", quantizer_kinds())
def test_every_kind_has_settings_for_a_number_of_bits(kind: str, bits: int):
    config = default_quantizer(kind, bits)
    assert (config.kind, config.bits) == (kind, bits)
    assert build_quantizer(config, WIDTH).bits == bits
    assert parse_settings(QuantizerConfig, config.to_dict()) == config


@pytest.mark.parametrize("kind", quantizer_kinds())
@pytest.mark.parametrize("bits", [0, 33])
def test_no_kind_has_settings_for_other_numbers(kind: str, bits: int):
    with pytest.raises(ConfigError, match=f"bits is {bits}: it must be between 1 and "):
        default_quantizer(kind, bits)


def test_an_unknown_kind_is_refused_with_those_there_are():
    with pytest.raises(ConfigError, match="no quantizer abacus: there are bsq, lfq, fsq, vq"):
        default_quantizer("abacus", 10)
    with pytest.raises(ConfigError, match="abacus"):
        parse_settings(QuantizerConfig, {"kind": "abacus"})


def test_what_is_wrong_with_a_kinds_settings_is_said_of_that_kind():
    with pytest.raises(ConfigError, match=r"lfq\.levels"):
        parse_settings(QuantizerConfig, {"kind": "lfq", "levels": [4, 4]})
