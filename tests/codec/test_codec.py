"""The codec: frames to files and back, the same everywhere, and nothing wrong without an error."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from torch import nn

from bisquit.codec import Codec, picture_file
from bisquit.engine import engine_missing
from bisquit.errors import CodecError, ModelError, ShapeError

BACKENDS = ["torch", pytest.param("engine", marks=pytest.mark.skipif(engine_missing() is not None, reason="no engine"))]


@pytest.fixture(scope="module")
def make_codec(make_tokenizer, make_prior):
    def make(backend: str = "torch", size: tuple[int, int] | None = None, positions: str = "learned") -> Codec:
        prior = make_prior(bits=3, grid=(2, 3), neighbours=3, positions=positions)
        return Codec(set_weights(make_tokenizer()), set_weights(prior), size, backend)

    return make


def set_weights(module: nn.Module) -> nn.Module:
    """Draw weights that are the same on every machine, which numbers of a normal distribution are not."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randint(-48, 49, parameter.shape, generator=generator) / 64)
    return module


def digest(codec: Codec, frames: np.ndarray) -> str:
    """Name what a codec makes of frames, bytes and pixels."""
    files = codec.compress(frames)
    return hashlib.sha256(b"".join(files) + np.stack(codec.decompress(files)).tobytes()).hexdigest()[:16]


@pytest.mark.parametrize("backend", BACKENDS)
def test_bytes_and_pixels_are_the_same_in_any_batch(make_codec, make_noise, backend: str) -> None:
    codec, frames = make_codec(backend), make_noise(7)[:]
    files = make_codec("torch").compress(frames)
    assert codec.compress(frames) == files
    assert [file for frame in frames for file in codec.compress(frame[None])] == files
    decoded = codec.decompress(files)
    assert (np.stack(decoded) == np.stack([codec.decompress([file])[0] for file in files])).all()
    assert [picture_file.unpack(file).size for file in files] == [None] * 7


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("positions", ["learned", "rotary"])
def test_a_file_is_this_for_ever(make_codec, make_noise, backend: str, positions: str) -> None:
    """Whatever changes this, a rounding somewhere, makes all files unreadable that were written before."""
    assert digest(make_codec(backend, positions=positions), make_noise(5)[:]) == GOLDEN[positions]


def test_what_surrounds_it_changes_nothing(make_codec, make_noise) -> None:
    frames = make_noise(2)[:]
    wanted = digest(make_codec(positions="rotary"), frames)
    with torch.autocast("cpu", torch.bfloat16):
        assert digest(make_codec(positions="rotary"), frames) == wanted
    before = torch.get_default_dtype()
    for dtype in (torch.float64, torch.bfloat16):
        codec = make_codec(positions="rotary")
        try:
            torch.set_default_dtype(dtype)
            assert digest(codec, frames) == wanted
        finally:
            torch.set_default_dtype(before)


def test_sizes_of_the_same_grid_are_kept(make_codec, make_noise) -> None:
    codec, frames = make_codec(), make_noise(2, 7, 10)[:]
    files = codec.compress(frames)
    assert [picture_file.unpack(file).size for file in files] == [(7, 10)] * 2
    assert [frame.shape for frame in codec.decompress(files)] == [(7, 10, 3)] * 2
    with pytest.raises(ShapeError, match="--size 8x12"):
        codec.compress(make_noise(1, 9, 12)[:])


def test_a_model_is_known_by_its_frames_size_too(make_codec, make_noise) -> None:
    files = make_codec(size=(7, 11)).compress(make_noise(1, 7, 11)[:])
    for size in ((8, 12), (7, 12)):
        with pytest.raises(CodecError, match="of model"):
            make_codec(size=size).decompress(files)


def test_a_crafted_size_is_refused(make_codec) -> None:
    codec = make_codec()
    with pytest.raises(CodecError, match="9 x 12"):
        codec.decompress([picture_file.pack(b"1", codec.fingerprint, (9, 12))])


def test_a_crafted_content_is_pixels_or_an_error(make_codec) -> None:
    codec, generator = make_codec(), np.random.default_rng(0)
    for length in (0, 1, 4, 30, 5000):
        file = picture_file.pack(generator.bytes(length), codec.fingerprint)
        try:
            assert codec.decompress([file])[0].shape == (8, 12, 3)
        except CodecError as error:
            assert "damaged" in str(error)  # noqa: PT017 - either is right


def test_nothing_is_nothing(make_codec, make_noise) -> None:
    assert make_codec().decompress([]) == []
    with pytest.raises(ShapeError, match="none empty"):
        make_codec().compress(make_noise(1)[:0])


def test_a_model_without_a_prior_is_refused(make_tokenizer) -> None:
    with pytest.raises(ModelError, match="raster prior"):
        Codec(make_tokenizer(), None, None)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_a_gpu_gives_the_same_bytes_and_pixels(make_codec, make_tokenizer, make_prior, make_noise) -> None:
    frames = make_noise(5)[:]
    prior = make_prior(bits=3, grid=(2, 3), neighbours=3, seed=1).cuda()
    on_gpu = Codec(make_tokenizer(seed=1).cuda(), prior, None, "torch")
    on_cpu = Codec(make_tokenizer(seed=1).cpu(), prior.cpu(), None, "torch")
    assert digest(on_gpu, frames) == digest(on_cpu, frames)


GOLDEN = {"learned": "a25f2ee9bca6a7f9", "rotary": "12b906e6192260da"}
