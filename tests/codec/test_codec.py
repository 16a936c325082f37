"""The codec: frames to files and back, the same everywhere, and nothing wrong without an error."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import nn

from bisquit.codec import Codec, CodecModel, RateConfig, Rung, picture_file
from bisquit.engine import engine_missing
from bisquit.errors import CodecError, ConfigError, ModelError, ShapeError
from bisquit.frames import load_frames
from bisquit.generate import LADDER, load, load_codec, shipped_models
from bisquit.priors import RasterPrior
from bisquit.quantizers import BSQConfig, FSQConfig, LFQConfig, QuantizerConfig, VQConfig

BACKENDS = ["torch", pytest.param("engine", marks=pytest.mark.skipif(engine_missing() is not None, reason="no engine"))]


@pytest.fixture(scope="module")
def make_codec(make_tokenizer, make_prior):
    def make(
        backend: str = "torch",
        size: tuple[int, int] | None = None,
        positions: str = "learned",
        quantizer: QuantizerConfig | None = None,
    ) -> Codec:
        prior = make_prior(bits=3, grid=(2, 3), neighbours=3, positions=positions)
        tokenizer = make_tokenizer(quantizer=quantizer or BSQConfig(bits=3))
        return Codec([Rung(CodecModel(set_weights(tokenizer), set_weights(prior), size, backend))])

    return make


def set_weights(module: nn.Module) -> nn.Module:
    """Draw weights that are the same on every machine, which numbers of a normal distribution are not."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randint(-48, 49, parameter.shape, generator=generator) / 64)
    return module


def digest(codec: Codec, frames: np.ndarray) -> str:
    """Name the bytes and pixels of frames' nearest tokens: a search may become better."""
    files = codec.compress(frames, RateConfig(effort=0))
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


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("config", [LFQConfig(bits=3), FSQConfig((4, 2)), VQConfig(bits=3, code_width=2)])
def test_a_file_by_any_quantizer_is_this_for_ever(
    make_codec, make_noise, backend: str, config: QuantizerConfig
) -> None:
    codec, frames = make_codec(backend, quantizer=config), make_noise(5)[:]
    assert digest(codec, frames) == GOLDEN[config.kind]
    reference = make_codec("torch", quantizer=config)  # after a search, picture by picture
    assert codec.compress(frames) == [file for frame in frames for file in reference.compress(frame[None])]


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
        codec.decompress([picture_file.pack(b"1", codec.models[0].fingerprint, (9, 12))])


def test_a_crafted_content_is_pixels_or_an_error(make_codec) -> None:
    codec, generator = make_codec(), np.random.default_rng(0)
    for length in (0, 1, 4, 30, 5000):
        file = picture_file.pack(generator.bytes(length), codec.models[0].fingerprint)
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
        CodecModel(make_tokenizer(), None, None)


@pytest.fixture
def three(make_tokenizer, make_prior) -> list[CodecModel]:
    """Models of 2, 5 and 3 bits for pictures of 8 x 12."""
    return [
        CodecModel(make_tokenizer(bits=bits), make_prior(bits=bits, grid=(2, 3), seed=bits), None) for bits in (2, 5, 3)
    ]


@pytest.fixture
def ladder(three: list[CodecModel]) -> Codec:
    """A codec that writes with the first two, and reads with all."""
    return Codec([Rung(three[0]), Rung(three[1], 60)], readers=three[2:])


def model_of(codec: Codec, file: bytes) -> int:
    return [model.fingerprint[:2] for model in codec.models].index(picture_file.unpack(file).model)


def test_quality_decides_on_the_model_and_the_file_names_it(three, ladder: Codec, make_noise) -> None:
    frames = make_noise(3)[:]
    files = []
    for quality, model in ((0, 0), (59, 0), (60, 1), (100, 1)):
        of_quality = ladder.compress(frames, RateConfig(quality=quality))
        assert [model_of(ladder, file) for file in of_quality] == [model] * 3
        alone = Codec([Rung(three[model])])
        assert alone.compress(frames, RateConfig(quality=quality)) == of_quality
        files += of_quality
    files += Codec([Rung(three[2])]).compress(frames)
    mixed = np.random.default_rng(0).permutation(len(files))
    decoded = ladder.decompress([files[i] for i in mixed])
    wanted = [ladder.decompress([file])[0] for file in files]
    assert all((frame == wanted[i]).all() for i, frame in zip(mixed, decoded, strict=True))


def test_readers_are_taken_as_they_are_needed(ladder: Codec, make_noise) -> None:
    frames = make_noise(1)[:]
    coarse, fine = (rung.model for rung in ladder.rungs)
    taken = []

    def readers() -> Iterator[CodecModel]:
        for model in (coarse, fine):
            taken.append(model)
            yield model

    codec = Codec([Rung(coarse)], readers())
    files = codec.compress(frames)
    codec.decompress(files)
    assert codec.knows(picture_file.unpack(files[0]))
    assert not taken
    of_fine = ladder.compress(frames, RateConfig(quality=100))
    for _ in range(2):
        assert (codec.decompress(of_fine)[0] == ladder.decompress(of_fine)[0]).all()
    assert taken == [coarse, fine]


def compresses(name: str) -> bool:
    """Whether a model that ships has what compression needs."""
    return isinstance(load(name).prior, RasterPrior)


def test_what_ships_compresses_by_default_and_reads_all_that_ships() -> None:
    frames = load_frames("bundled:valid")[:1]
    codec = load_codec()
    assert list(LADDER) == sorted(LADDER, key=LADDER.__getitem__)
    assert set(LADDER) <= set(shipped_models())
    for name in filter(compresses, shipped_models()):
        file = load_codec(name).compress(frames, RateConfig(effort=0))
        assert codec.decompress(file)[0].shape == frames[0].shape
    assert codec.decompress(codec.compress(frames, RateConfig(effort=0)))[0].shape == frames[0].shape


def test_targets_are_looked_for_on_the_whole_ladder(ladder: Codec, make_noise) -> None:
    frames = make_noise(6)[:]
    sizes = [[len(f) for f in ladder.compress(frames, RateConfig(quality=q))] for q in (0, 100)]
    target = (max(sizes[0]) + min(sizes[1])) // 2
    small = ladder.compress(frames, RateConfig(target_bytes=target))
    assert max(map(len, small)) <= target
    large = ladder.compress(frames, RateConfig(target_bytes=1000))
    assert {model_of(ladder, file) for file in large} == {1}
    assert {model_of(ladder, file) for file in ladder.compress(frames, RateConfig(target_bytes=1))} == {0}


def test_a_picture_of_a_model_that_is_not_here_is_refused(ladder: Codec, make_noise) -> None:
    file = ladder.compress(make_noise(1)[:])[0]
    with pytest.raises(CodecError, match="name its model"):
        Codec([Rung(ladder.models[1])]).decompress([file])


def test_models_whose_names_begin_alike_are_told_apart_by_the_checksum(ladder: Codec, make_noise) -> None:
    frames = make_noise(2)[:]
    first, second = ladder.models[0], ladder.models[1]
    first.fingerprint, second.fingerprint = b"alike--1", b"alike--2"
    codec = Codec([Rung(first), Rung(second, 50)])
    files = [file for quality in (0, 100) for file in codec.compress(frames, RateConfig(quality=quality))]
    apart = [
        Codec([Rung(model)]).decompress([file])[0]
        for model, file in zip((first, first, second, second), files, strict=True)
    ]
    assert (np.stack(codec.decompress(files)) == np.stack(apart)).all()
    with pytest.raises(CodecError, match="checksum differs"):
        codec.decompress([files[0][:-1] + bytes([files[0][-1] ^ 1])])


@pytest.mark.parametrize("qualities", [(), (1,), (0, 0), (0, 50, 40), (0, 101)])
def test_rungs_that_are_no_ladder_are_refused(ladder: Codec, qualities: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match="rungs"):
        Codec([Rung(ladder.models[0], quality) for quality in qualities])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_a_gpu_gives_the_same_bytes_and_pixels(make_codec, make_tokenizer, make_prior, make_noise) -> None:
    frames = make_noise(5)[:]
    prior = make_prior(bits=3, grid=(2, 3), neighbours=3, seed=1).cuda()
    on_gpu = Codec([Rung(CodecModel(make_tokenizer(seed=1).cuda(), prior, None, "torch"))])
    on_cpu = Codec([Rung(CodecModel(make_tokenizer(seed=1).cpu(), prior.cpu(), None, "torch"))])
    assert digest(on_gpu, frames) == digest(on_cpu, frames)


GOLDEN = {
    "learned": "bf168859ded21ab2",
    "rotary": "91ed272f6399b950",
    "lfq": "42e672551cee46ad",
    "fsq": "b68383ee74e1a1dc",
    "vq": "79416e21f8cd44a8",
}
