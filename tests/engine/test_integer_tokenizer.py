"""The tokenizer in integers: near the one that it rounds, and the same in every batch and however sums are ordered."""

from __future__ import annotations

import copy
import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bisquit.engine.arithmetic import to_codes
from bisquit.engine.integer_tokenizer import IntegerConvolution, IntegerTokenizer
from bisquit.errors import ModelError, ShapeError
from bisquit.frames import load_frames
from bisquit.generate import load
from bisquit.quantizers import BSQConfig, FSQConfig, LFQConfig, QuantizerConfig, VQConfig
from bisquit.quantizers.bits import unpack_bits


@pytest.mark.parametrize("config", [BSQConfig(bits=6), FSQConfig((8, 4, 2)), VQConfig(bits=6, code_width=3)])
def test_tokens_and_pixels_are_near_those_of_the_tokenizer(make_tokenizer, make_noise, config: QuantizerConfig) -> None:
    tokenizer = make_tokenizer(width=32, quantizer=config)
    frames = torch.from_numpy(make_noise(6)[:])
    integer = IntegerTokenizer(tokenizer)
    tokens = tokenizer.encode(frames)
    assert (integer.encode(frames) == tokens).double().mean() > 0.8
    apart = (integer.decode(tokens, (8, 12)).double() - tokenizer.decode(tokens).double()).abs()
    assert apart.mean() < 3
    assert tokenizer.decode(tokens).double().std() > 30


@pytest.mark.parametrize("size", [(8, 12), (7, 9)])
def test_tokens_and_pixels_do_not_depend_on_the_batch(make_tokenizer, make_noise, size: tuple[int, int]) -> None:
    integer = IntegerTokenizer(make_tokenizer(width=24, depth=2))
    frames = torch.from_numpy(make_noise(7, *size)[:])
    tokens = integer.encode(frames)
    decoded = integer.decode(tokens, size)
    assert decoded.shape == frames.shape
    for batch in (1, 2, 3):
        assert torch.equal(torch.cat([integer.encode(part) for part in frames.split(batch)]), tokens)
        assert torch.equal(torch.cat([integer.decode(part, size) for part in tokens.split(batch)]), decoded)


@pytest.mark.parametrize("threads", [1, 2])
def test_tokens_and_pixels_do_not_depend_on_threads(make_tokenizer, make_noise, threads: int) -> None:
    integer = IntegerTokenizer(make_tokenizer(width=64))
    frames, before = torch.from_numpy(make_noise(9, 40, 60)[:]), torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        tokens = integer.encode(frames)
        decoded = integer.decode(tokens, (40, 60))
        torch.set_num_threads(threads)
        assert torch.equal(integer.encode(frames), tokens)
        assert torch.equal(integer.decode(tokens, (40, 60)), decoded)
    finally:
        torch.set_num_threads(before)


def test_what_surrounds_it_changes_nothing(make_tokenizer, make_noise) -> None:
    integer, frames = IntegerTokenizer(make_tokenizer(width=64)), torch.from_numpy(make_noise(3)[:])
    tokens = integer.encode(frames)
    decoded = integer.decode(tokens, (8, 12))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(integer.encode(frames), tokens)
        assert torch.equal(integer.decode(tokens, (8, 12)), decoded)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("config", [BSQConfig(bits=3), FSQConfig((8, 2)), VQConfig(bits=4)])
def test_a_gpu_gives_the_same_tokens_and_pixels(make_tokenizer, make_noise, config: QuantizerConfig) -> None:
    tokenizer, frames = make_tokenizer(width=64, quantizer=config), torch.from_numpy(make_noise(9, 40, 60)[:])
    integer, on_gpu = IntegerTokenizer(tokenizer), IntegerTokenizer(copy.deepcopy(tokenizer).cuda())
    tokens = integer.encode(frames)
    assert torch.equal(on_gpu.encode(frames).cpu(), tokens)
    assert torch.equal(on_gpu.decode(tokens, (40, 60)).cpu(), integer.decode(tokens, (40, 60)))


def test_a_convolution_is_its_definition_to_the_last_bit() -> None:
    """Whole numbers by Python's own sums; then one multiplication and one addition of float32 for each tap."""
    torch.manual_seed(0)
    convolution = nn.Conv2d(5, 3, kernel_size=3, padding=1)
    nn.init.normal_(convolution.bias)
    x = torch.randn(2, 4, 6, 5) * 10
    got = IntegerConvolution(convolution)(x)
    cells, weight = to_codes(x), to_codes(convolution.weight.detach().flatten(1))
    kernel = weight.codes.view_as(convolution.weight)
    for b, i, j, o in itertools.product(range(2), range(4), range(6), range(3)):
        total = np.float32(0)
        for row, column in itertools.product(range(3), range(3)):
            y, z = i + row - 1, j + column - 1
            if 0 <= y < 4 and 0 <= z < 6:
                product = sum(
                    int(a) * int(w) for a, w in zip(cells.codes[b, y, z], kernel[o, :, row, column], strict=True)
                )
                total = np.float32(total + np.float32(np.float32(product) * np.float32(cells.step[b, y, z, 0])))
        wanted = np.float32(np.float32(total * np.float32(weight.step[o, 0])) + np.float32(convolution.bias[o].item()))
        assert got[b, i, j, o].item() == wanted
    plain = F.conv2d(x.permute(0, 3, 1, 2), convolution.weight, convolution.bias, padding=1).permute(0, 2, 3, 1)
    assert (got - plain).abs().max() < 0.02 * plain.std()


def test_a_convolution_back_takes_slopes_to_those_of_the_inputs() -> None:
    torch.manual_seed(0)
    for size in (1, 3):
        convolution = nn.Conv2d(24, 16, kernel_size=size, padding=size // 2)
        x, slope = torch.randn(2, 24, 5, 4, requires_grad=True), torch.randn(2, 16, 5, 4)
        (wanted,) = torch.autograd.grad(convolution(x), x, slope)
        got = IntegerConvolution(convolution, is_back=True)(slope.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        assert (got - wanted).abs().max() < 0.05 * wanted.std()


def test_slopes_are_those_that_autograd_finds() -> None:
    """Of a trained tokenizer: the pixels of a random one lie outside of their range, where autograd has no slopes."""
    tokenizer = load("seed").tokenizer
    frames = torch.from_numpy(load_frames("bundled:valid")[:3])
    tokens = tokenizer.encode(frames)
    bits = (unpack_bits(tokens, tokenizer.bits).float() * 2 - 1).requires_grad_()
    decoded = tokenizer.autoencoder.decode(tokenizer.quantizer.up(bits / math.sqrt(tokenizer.bits)))
    levels = ((decoded + 0.5) * 255).clamp(0, 255)
    error = (levels - frames.permute(0, 3, 1, 2)).square().sum()
    (wanted,) = torch.autograd.grad(error, bits)
    got = IntegerTokenizer(tokenizer).slopes(tokens, frames).permute(0, 3, 1, 2)
    together = torch.stack((got.flatten(), wanted.flatten()))
    assert torch.corrcoef(together)[0, 1] > 0.99
    assert 0.97 < got.std() / wanted.std() < 1.03


def test_the_tokenizer_is_left_as_it_is(make_tokenizer) -> None:
    tokenizer = make_tokenizer()
    before = tokenizer.fingerprint()
    for parameter in IntegerTokenizer(tokenizer).state_dict().values():
        parameter.zero_()
    assert tokenizer.fingerprint() == before


def test_signs_without_a_sphere_are_those_of_a_sphere_of_another_size(make_tokenizer, make_noise) -> None:
    lookup_free = make_tokenizer(bits=4, quantizer=LFQConfig(bits=4))
    spherical = make_tokenizer(bits=4)
    with torch.no_grad():
        spherical.quantizer.up.weight *= 2  # whose corners are half as far off
    ours, theirs = IntegerTokenizer(lookup_free), IntegerTokenizer(spherical)
    frames = torch.from_numpy(make_noise(3)[:])
    tokens = ours.encode(frames)
    assert torch.equal(tokens, theirs.encode(frames))
    assert torch.equal(ours.decode(tokens, (8, 12)), theirs.decode(tokens, (8, 12)))
    assert torch.equal(ours.slopes(tokens, frames), theirs.slopes(tokens, frames))
    apart = (ours.decode(tokens, (8, 12)).double() - lookup_free.decode(tokens).double()).abs()
    assert apart.mean() < 5


@torch.no_grad()
def test_vectors_that_are_corners_are_signs(make_tokenizer, make_noise) -> None:
    """Whatever a codebook is made of: tokens, pixels and slopes, which are those of smaller steps."""
    signs, frames = make_tokenizer(bits=4, width=32), torch.from_numpy(make_noise(5)[:])
    vectors = make_tokenizer(width=32, quantizer=VQConfig(bits=4, code_width=4))
    levels = make_tokenizer(width=32, quantizer=FSQConfig((2, 2, 2, 2)))
    all_tokens = torch.arange(16).view(1, 4, 4)
    corners = signs.quantizer.corners(unpack_bits(all_tokens, 4))
    for other, size in ((vectors, 1.0), (levels, signs.quantizer.corner)):
        other.autoencoder.load_state_dict(signs.autoencoder.state_dict())
        other.quantizer.down.load_state_dict(signs.quantizer.down.state_dict())
        other.quantizer.up.load_state_dict(signs.quantizer.up.state_dict())
        other.quantizer.up.weight *= size
    vectors.quantizer.codebook.copy_(corners.flatten(2)[0].T)
    ours = IntegerTokenizer(signs)
    tokens = ours.encode(frames)
    decoded, slopes = ours.decode(tokens, (8, 12)), ours.slopes(tokens, frames)
    for theirs in map(IntegerTokenizer, (vectors, levels)):
        assert torch.equal(theirs.encode(frames), tokens)
        assert (theirs.decode(tokens, (8, 12)).double() - decoded.double()).abs().max() <= 1
        assert torch.allclose(theirs.slopes(tokens, frames) * 127, slopes, rtol=1e-3, atol=slopes.std().item() / 100)


def test_weights_that_are_not_finite_are_refused(make_tokenizer) -> None:
    tokenizer = make_tokenizer(seed=1)
    with torch.no_grad():
        tokenizer.quantizer.up.bias[0] = torch.nan
    with pytest.raises(ModelError, match="not finite"):
        IntegerTokenizer(tokenizer)


def test_other_arrays_are_refused(make_tokenizer) -> None:
    with pytest.raises(ShapeError, match="uint8"):
        IntegerTokenizer(make_tokenizer()).encode(torch.zeros(1, 8, 12, 3))
