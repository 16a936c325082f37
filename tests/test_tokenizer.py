"""The tokenizer: frames of any size to tokens and back, and its fingerprint."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bisquit.autoencoder import to_float
from bisquit.checkpoint import load_tokenizer, save_tokenizer
from bisquit.errors import ShapeError, TokenError
from bisquit.tokenizer import Tokenizer, TokenizerConfig


def frames_of(*shape: int) -> torch.Tensor:
    return torch.randint(256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("size", [(8, 12), (97, 151), (1, 1), (4, 5)])
def test_frames_of_any_size_come_back_in_their_size(make_tokenizer, size: tuple[int, int]):
    tokenizer = make_tokenizer(patch_size=4)
    tokens = tokenizer.encode(frames_of(2, *size, 3))
    assert tokens.dtype == torch.int64
    assert tuple(tokens.shape) == (2, *tokenizer.grid(*size))
    frames = tokenizer.decode(tokens, size)
    assert frames.dtype == torch.uint8
    assert frames.shape == (2, *size, 3)
    assert frames.is_contiguous()


def test_without_a_size_whole_patches_come_back_of_which_the_size_is_a_part(make_tokenizer):
    tokenizer = make_tokenizer(patch_size=4)
    tokens = tokenizer.encode(frames_of(1, 9, 7, 3))
    whole = tokenizer.decode(tokens)
    assert whole.shape == (1, 12, 8, 3)
    assert torch.equal(tokenizer.decode(tokens, (9, 7)), whole[:, :9, :7])


def test_padding_is_that_of_repeated_edges(make_tokenizer):
    tokenizer = make_tokenizer(patch_size=4)
    frames = frames_of(1, 7, 10, 3)
    padded = torch.cat((frames, frames[:, -1:]), dim=1)
    padded = torch.cat((padded, padded[:, :, -1:], padded[:, :, -1:]), dim=2)
    assert torch.equal(tokenizer.encode(frames), tokenizer.encode(padded))


@pytest.mark.parametrize(
    ("size", "grid"), [((8, 12), (2, 3)), ((9, 12), (3, 3)), ((1, 1), (1, 1)), ((97, 151), (25, 38))]
)
def test_a_patch_that_is_begun_counts(make_tokenizer, size: tuple[int, int], grid: tuple[int, int]):
    assert make_tokenizer(patch_size=4).grid(*size) == grid


def test_encode_and_decode_are_the_halves_of_the_forward_pass(make_tokenizer):
    tokenizer = make_tokenizer(bits=10)
    frames = frames_of(2, 8, 12, 3)
    reconstruction = tokenizer(to_float(frames))
    assert torch.equal(tokenizer.encode(frames), reconstruction.tokens)
    remade = (reconstruction.frames.clamp(-0.5, 0.5) + 0.5) * 255
    difference = tokenizer.decode(reconstruction.tokens).permute(0, 3, 1, 2) - remade
    assert difference.abs().max() <= 0.5 + 1e-3  # the rounding to whole numbers


def test_the_codebook_has_two_to_the_bits_codes(make_tokenizer):
    tokenizer = make_tokenizer(bits=7)
    assert (tokenizer.bits, tokenizer.codebook_size) == (7, 128)


def test_the_quantizers_loss_is_handed_on(make_tokenizer):
    x = to_float(frames_of(1, 8, 12, 3))
    assert make_tokenizer()(x).quantizer_loss == 0
    assert make_tokenizer(sample_entropy_weight=1.0)(x).quantizer_loss > 0


@pytest.mark.parametrize("outside", [-1, 8])
def test_tokens_outside_of_the_codebook_are_refused(make_tokenizer, outside: int):
    with pytest.raises(TokenError, match=str(outside)):
        make_tokenizer(bits=3).decode(torch.full((1, 2, 3), outside))


def test_arrays_that_do_not_fit_are_refused(make_tokenizer):
    tokenizer = make_tokenizer(patch_size=4)
    with pytest.raises(ShapeError, match=r"\(B, h, w\)"):
        tokenizer.decode(torch.zeros(2, 3, dtype=torch.int64))
    with pytest.raises(ShapeError, match=r"frames of 8 x 8 have \(2, 2\)"):
        tokenizer.decode(torch.zeros(1, 2, 3, dtype=torch.int64), (8, 8))
    with pytest.raises(ShapeError, match="uint8"):
        tokenizer.encode(torch.zeros(1, 8, 12, 3))


def test_a_prior_can_learn_from_tokens_as_they_come(make_tokenizer, make_prior):
    tokens = make_tokenizer(bits=3).encode(frames_of(2, 8, 12, 3))
    make_prior(bits=3, grid=(2, 3)).loss(tokens).backward()


def test_frames_without_a_pixel_are_refused(make_tokenizer):
    with pytest.raises(ShapeError):
        make_tokenizer().encode(torch.zeros(1, 0, 12, 3, dtype=torch.uint8))


def test_the_fingerprint_survives_saving_and_loading(make_tokenizer, tmp_path: Path):
    tokenizer = make_tokenizer()
    save_tokenizer(tokenizer, tmp_path / "t.safetensors")
    assert load_tokenizer(tmp_path / "t.safetensors").fingerprint() == tokenizer.fingerprint()
    assert len(tokenizer.fingerprint()) == 16
    assert int(tokenizer.fingerprint(), base=16) >= 0


def test_the_fingerprint_does_not_depend_on_how_weights_lie_in_memory(make_tokenizer):
    tokenizer = make_tokenizer()
    before = tokenizer.fingerprint()
    assert tokenizer.to(memory_format=torch.channels_last).fingerprint() == before


def test_fingerprints_are_what_they_have_always_been():
    tokenizer = Tokenizer(TokenizerConfig())
    with torch.no_grad():
        for i, parameter in enumerate(tokenizer.parameters()):
            parameter.fill_(i / 8)
    assert tokenizer.fingerprint() == "bf2c98e0925c9f7b"  # written into priors and picture files


def test_another_weight_or_setting_gives_another_fingerprint(make_tokenizer):
    tokenizer = make_tokenizer()
    fingerprints = {tokenizer.fingerprint(), make_tokenizer(entropy_temperature=0.1).fingerprint()}
    for parameter in tokenizer.parameters():
        with torch.no_grad():
            parameter.view(-1)[-1] += 1e-3
        fingerprints.add(tokenizer.fingerprint())
    assert len(fingerprints) == 2 + len(list(tokenizer.parameters()))
