"""The pyramid of quantisers: its tokens by brute force, what each scale adds, and how magnitudes are learned."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bisquit.autoencoder import AutoEncoderConfig
from bisquit.checkpoint import load_tokenizer, save_tokenizer
from bisquit.errors import ConfigError, ShapeError
from bisquit.priors import PyramidConfig, PyramidPrior
from bisquit.pyramids import enlarged
from bisquit.quantizers import BSQ, BSQConfig, PyramidBSQ, PyramidBSQConfig
from bisquit.quantizers.bits import pack_bits
from bisquit.tokenizer import Tokenizer, TokenizerConfig
from bisquit.tokens import TokenSet, tokenize
from bisquit.transformer import TransformerConfig

HALVES = (0.25, 0.5, 1.0)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def smooth(batch: int, width: int, grid: tuple[int, int]) -> Tensor:
    """Latents that places near one another have much of in common."""
    return noise(batch, width, 1, 1) + F.interpolate(noise(batch, width, 3, 3), size=grid, mode="bilinear")


def plain(bits: int, **fields: object) -> PyramidBSQ:
    """A quantizer whose two linear maps leave everything as it is, so that latents are v and codes the estimate."""
    quantizer = PyramidBSQ(PyramidBSQConfig(bits=bits, **fields), width=bits)
    with torch.no_grad():
        for linear in (quantizer.down, quantizer.up):
            linear.weight.copy_(torch.eye(bits).view(bits, bits, 1, 1))
            linear.bias.zero_()
    return quantizer


def fit_magnitudes(quantizer: PyramidBSQ, latents: Tensor, steps: int = 100) -> float:
    """Learn the magnitudes by the quantizer's own loss; return what is left of it."""
    optimizer = torch.optim.Adam([quantizer.magnitudes], lr=0.02)
    for _ in range(steps):
        optimizer.zero_grad()
        loss = quantizer(latents).loss
        loss.backward()
        optimizer.step()
    return loss.item()


def test_a_grid_of_20_by_30_has_781_tokens():
    assert plain(3).grid((20, 30)) == (1, 781)
    assert plain(3)(noise(2, 3, 20, 30)).tokens.shape == (2, 1, 781)


def test_tokens_and_codes_are_those_of_the_algorithm_by_brute_force():
    quantizer, x = plain(3, scales=HALVES), noise(4, 3, 8, 4)
    with torch.no_grad():
        quantizer.magnitudes.copy_(torch.tensor([0.5, 0.3, 0.7]))
    u = x / x.norm(dim=1, keepdim=True)
    residual, estimate, tokens = u, torch.zeros_like(u), []
    for magnitude, size in zip((0.5, 0.3, 0.7), ((2, 1), (4, 2), (8, 4)), strict=True):
        s = F.interpolate(residual, size=size, mode="area")
        tokens.append(pack_bits(s >= 0).flatten(1))
        detail = enlarged(magnitude * torch.where(s >= 0, 1.0, -1.0) / math.sqrt(3), (8, 4))
        residual, estimate = residual - detail, estimate + detail
    quantized = quantizer(x)
    assert torch.equal(quantized.tokens[:, 0], torch.cat(tokens, dim=1))
    torch.testing.assert_close(quantized.codes, estimate)


def test_a_pyramid_of_one_scale_has_the_tokens_of_a_single_quantizer():
    torch.manual_seed(0)
    single, pyramid = BSQ(BSQConfig(bits=5), 6), PyramidBSQ(PyramidBSQConfig(bits=5, scales=(1.0,)), 6)
    pyramid.load_state_dict(single.state_dict(), strict=False)
    x = noise(2, 6, 4, 5)
    assert torch.equal(pyramid(x).tokens, single(x).tokens.view(2, 1, 20))
    with torch.no_grad():
        pyramid.magnitudes.fill_(1)
    torch.testing.assert_close(pyramid(x).codes, single(x).codes)


@pytest.mark.parametrize("bits", [1, 10, 18, 32])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_codes_are_those_of_the_forward_pass_to_the_last_bit(bits: int, layout: torch.memory_format):
    torch.manual_seed(bits)
    quantizer = PyramidBSQ(PyramidBSQConfig(bits=bits), width=9)
    quantized = quantizer(noise(3, 9, 20, 30).to(memory_format=layout))
    assert torch.equal(quantizer.codes(quantized.tokens, (20, 30)), quantized.codes)


def test_with_each_scale_codes_come_nearer():
    quantizer, x = plain(6), smooth(2, 6, (20, 30))
    fit_magnitudes(quantizer, x)
    u, tokens = F.normalize(x, dim=1), quantizer(x).tokens
    with torch.no_grad():
        errors = [(quantizer.coarse(tokens, (20, 30), k) - u).square().sum(dim=1).mean().item() for k in range(6)]
    assert errors[0] == pytest.approx(1)
    assert all(after < 0.8 * before for before, after in pairwise(errors))
    single = F.mse_loss(torch.where(u >= 0, 1.0, -1.0) / math.sqrt(6), u).item() * 6
    assert errors[-1] < 0.5 * single


def test_magnitudes_learn_to_fit_the_residuals_and_the_loss_becomes_zero():
    quantizer, x = plain(3, scales=HALVES), smooth(4, 3, (8, 4))
    assert quantizer(x).loss > 1e-3
    assert fit_magnitudes(quantizer, x) < 1e-5
    u, first = F.normalize(x, dim=1), quantizer.magnitudes[0]
    s = F.interpolate(u, size=(2, 1), mode="area")
    assert first.item() == pytest.approx(math.sqrt(3) * s.abs().mean().item(), abs=1e-2)
    corners = torch.where(s >= 0, 1.0, -1.0) / math.sqrt(3)
    errors = [(s - (first.item() + off) * corners).square().mean().item() for off in (-0.05, 0, 0.05)]
    assert min(errors) == errors[1]


def test_the_gradient_is_the_straight_through_one_and_leaves_magnitudes_alone():
    torch.manual_seed(0)
    quantizer = PyramidBSQ(PyramidBSQConfig(bits=5), width=7)
    x, weights = noise(3, 7, 4, 5), noise(3, 7, 4, 5, seed=1)
    through, smoothly = x.clone().requires_grad_(), x.clone().requires_grad_()
    (quantizer(through).codes * weights).sum().backward()
    (quantizer.up(F.normalize(quantizer.down(smoothly), dim=1)) * weights).sum().backward()
    torch.testing.assert_close(through.grad, smoothly.grad)
    assert quantizer.magnitudes.grad is None


@pytest.mark.parametrize("scales", range(6))
def test_coarse_codes_do_not_depend_on_tokens_of_finer_scales(scales: int):
    torch.manual_seed(0)
    quantizer = PyramidBSQ(PyramidBSQConfig(), width=7)
    tokens = quantizer(noise(2, 7, 20, 30)).tokens
    seen = sum(h * w for h, w in quantizer.scale_grids((20, 30))[:scales])
    other = tokens.clone()
    other[:, :, seen:] = (other[:, :, seen:] + 5) % 1024
    coarse = quantizer.coarse(tokens, (20, 30), scales)
    assert torch.equal(quantizer.coarse(other, (20, 30), scales), coarse)
    if scales:
        other[:, :, seen - 1] = (other[:, :, seen - 1] + 1) % 1024
        assert not torch.equal(quantizer.coarse(other, (20, 30), scales), coarse)
    else:
        assert torch.equal(coarse, quantizer.up.bias.view(1, 7, 1, 1).expand_as(coarse))


def test_all_scales_make_the_codes_and_more_there_are_not():
    quantizer = plain(3)
    tokens = quantizer(noise(1, 3, 4, 5)).tokens
    assert torch.equal(quantizer.coarse(tokens, (4, 5), 5), quantizer.codes(tokens, (4, 5)))
    for scales in (-1, 6):
        with pytest.raises(ConfigError, match=f"scales is {scales}: it must be between 0 and 5"):
            quantizer.coarse(tokens, (4, 5), scales)


def test_in_training_some_pictures_show_their_first_scales_alone():
    torch.manual_seed(0)
    quantizer, x = plain(3, truncated=0.5), noise(64, 3, 20, 30)
    quantized = quantizer(x)
    coarse = torch.stack([quantizer.coarse(quantized.tokens, (20, 30), k) for k in range(6)])
    is_equal = (coarse == quantized.codes).flatten(2).all(dim=2)  # (6, B)
    assert (is_equal.sum(dim=0) == 1).all()
    counts = is_equal.sum(dim=1).tolist()
    assert counts[0] == 0
    assert min(counts[1:5]) > 0
    assert 16 < counts[5] < 48
    whole = quantizer.eval()(x)
    assert torch.equal(whole.codes, coarse[5])
    assert torch.equal(whole.tokens, quantized.tokens)


def test_what_decides_on_tokens_can_be_frozen():
    quantizer = plain(3)
    quantizer.freeze_encoding()
    quantized = quantizer(noise(2, 3, 4, 5))
    assert not quantized.loss.requires_grad
    quantized.codes.sum().backward()
    assert {name for name, parameter in quantizer.named_parameters() if parameter.grad is not None} == {
        "up.weight",
        "up.bias",
    }


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("bits", 0),
        ("bits", 33),
        ("scales", ()),
        ("scales", (0.0, 0.5)),
        ("scales", (0.5, 0.25, 1.0)),
        ("scales", (0.5, 0.5, 1.0)),
        ("scales", (-0.1, 1.0)),
        ("scales", (0.5, math.nan, 1.0)),
        ("truncated", -0.1),
        ("truncated", 1.1),
    ],
)
def test_settings_out_of_range_are_refused(field: str, value: object):
    with pytest.raises(ConfigError, match=f"^{field} is "):
        PyramidBSQConfig(**{field: value})


def test_a_single_scale_cannot_be_truncated():
    with pytest.raises(ConfigError, match=r"^truncated is "):
        PyramidBSQConfig(scales=(1.0,), truncated=0.5)


@pytest.fixture
def tokenizer() -> Tokenizer:
    """One of random weights, with patches of 4 x 4 pixels."""
    torch.manual_seed(0)
    return Tokenizer(TokenizerConfig(AutoEncoderConfig(patch_size=4, width=8), PyramidBSQConfig(bits=3))).eval()


def frames_of(*shape: int) -> Tensor:
    return torch.randint(256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("size", [(8, 12), (37, 51), (1, 1)], ids=str)
def test_frames_of_any_size_go_through_a_row_of_tokens(tokenizer: Tokenizer, size: tuple[int, int]):
    tokens = tokenizer.encode(frames_of(2, *size, 3))
    assert tokens.dtype == torch.int64
    assert tuple(tokens.shape[1:]) == tokenizer.grid(*size)
    assert tokens.shape[1] == 1
    frames = tokenizer.decode(tokens, size)
    assert frames.dtype == torch.uint8
    assert frames.shape == (2, *size, 3)


def test_a_row_of_tokens_does_not_tell_the_size_of_its_frames(tokenizer: Tokenizer):
    tokens = tokenizer.encode(frames_of(1, 8, 12, 3))
    with pytest.raises(ShapeError, match="pass the size of their frames"):
        tokenizer.decode(tokens)
    with pytest.raises(ShapeError, match="frames of 16 x 12 have"):
        tokenizer.decode(tokens, (16, 12))


def test_a_tokenizer_with_a_pyramid_is_saved_and_loaded(tokenizer: Tokenizer, tmp_path: Path):
    save_tokenizer(tokenizer, tmp_path / "t.safetensors")
    loaded = load_tokenizer(tmp_path / "t.safetensors")
    assert loaded.fingerprint() == tokenizer.fingerprint()
    assert isinstance(loaded.quantizer, PyramidBSQ)
    frames = frames_of(2, 8, 12, 3)
    assert torch.equal(loaded.encode(frames), tokenizer.encode(frames))


def test_a_file_holds_rows_of_tokens_as_it_holds_grids(tokenizer: Tokenizer, make_noise, tmp_path: Path):
    frames = make_noise(3, height=8, width=12)
    made = tokenize(tokenizer, frames)
    assert made.grid == tokenizer.grid(8, 12)
    made.save(tmp_path / "tokens.safetensors")
    loaded = TokenSet.load(tmp_path / "tokens.safetensors")
    wanted = [tokenizer.encode(torch.from_numpy(frames[i : i + 1])) for i in range(3)]
    assert torch.equal(loaded.batch(slice(None)), torch.cat(wanted))


def test_a_prior_learns_from_tokens_as_they_come(tokenizer: Tokenizer):
    quantizer = tokenizer.quantizer
    assert isinstance(quantizer, PyramidBSQ)
    config = PyramidConfig(TransformerConfig(8, 1, 2, 12), scales=quantizer.scale_grids((2, 3)))
    prior = PyramidPrior(config, tokenizer.bits, tokenizer.grid(8, 12))
    prior.loss(tokenizer.encode(frames_of(2, 8, 12, 3))).backward()


def test_a_tokenizer_with_a_pyramid_learns(tokenizer: Tokenizer):
    x = frames_of(4, 16, 16, 3).permute(0, 3, 1, 2) / 255 - 0.5
    optimizer = torch.optim.Adam(tokenizer.train().parameters(), lr=5e-3)

    def loss() -> Tensor:
        output = tokenizer(x)
        return nn.functional.mse_loss(output.frames, x) + output.quantizer_loss

    before = loss().item()
    for _ in range(40):
        optimizer.zero_grad()
        (now := loss()).backward()
        optimizer.step()
    assert now.item() < 0.8 * before


def test_flawed_tokens_without_a_flaw_are_the_tokens():
    quantizer, x = plain(3, scales=HALVES), noise(4, 3, 8, 4)
    seen, right = quantizer.flawed(x, 0.0)
    assert torch.equal(seen, quantizer.tokens_of(x))
    assert torch.equal(right, seen)


def test_what_is_right_mends_what_the_scales_before_show():
    quantizer, x = plain(3, scales=HALVES), noise(4, 3, 8, 4)
    torch.manual_seed(0)
    seen, right = quantizer.flawed(x, 0.5)
    sizes = quantizer.scale_grids((8, 4))
    u = F.normalize(x, dim=1)
    start = 0
    for scale, (rows, columns) in enumerate(sizes):
        estimate = quantizer.coarse(seen, (8, 4), scale)  # `up` leaves everything as it is
        wanted = pack_bits(F.interpolate(u - estimate, size=(rows, columns), mode="area") >= 0).flatten(1)
        assert torch.equal(right[:, 0, start : start + rows * columns], wanted)
        start += rows * columns


def test_each_picture_has_a_share_of_flaws_of_its_own():
    quantizer, x = plain(4), noise(64, 4, 20, 30)
    torch.manual_seed(0)
    seen, right = quantizer.flawed(x, 0.4)
    bits = (seen ^ right).unsqueeze(-1) >> torch.arange(4) & 1
    shares = bits.float().mean(dim=(1, 2, 3))
    assert shares.min() < 0.04
    assert 0.36 < shares.max() < 0.42
    assert shares.mean() == pytest.approx(0.2, abs=0.04)
    torch.manual_seed(0)
    again = quantizer.flawed(x, 0.4)
    assert torch.equal(seen, again.seen)
    assert torch.equal(right, again.right)
