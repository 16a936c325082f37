"""Compressed pictures and archives: each input is the right picture, or one clear error.

An input's first byte says what it is: a picture file, the content of a sound one, changes to a sound one, an archive,
or changes to one.
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Iterator

import numpy as np
import torch
from target import MEMORY, Target, changed
from torch import nn

from bisquit.autoencoder import AutoEncoderConfig
from bisquit.codec import Archive, Codec, CodecModel, RateConfig, Rung, archive, codec, coding, model, picture_file
from bisquit.errors import CodecError
from bisquit.priors import RasterConfig, build_prior
from bisquit.quantizers import BSQConfig
from bisquit.tokenizer import Tokenizer, TokenizerConfig
from bisquit.transformer import TransformerConfig

GRID, BITS, PATCH_SIZE = (2, 3), 3, 4


@functools.cache
def tiny_codec() -> Codec:
    """Return the codec of a model of random weights, the same each time."""
    generator = torch.Generator().manual_seed(0)
    tokenizer = Tokenizer(TokenizerConfig(AutoEncoderConfig(PATCH_SIZE, 8, 1), BSQConfig(bits=BITS)))
    prior = build_prior(RasterConfig(transformer=TransformerConfig(8, 1, 2, 16), neighbours=2), BITS, GRID)
    modules: tuple[nn.Module, ...] = (tokenizer, prior)
    with torch.no_grad():
        for module in modules:
            for parameter in module.parameters():
                parameter.copy_(torch.randint(-48, 49, parameter.shape, generator=generator) / 64)
    return Codec([Rung(CodecModel(tokenizer.eval(), prior.eval(), None))])


@functools.cache
def sound() -> tuple[list[bytes], list[np.ndarray]]:
    """Return some picture files that are sound, and the pictures that they are of."""
    codec, rng = tiny_codec(), np.random.default_rng(0)
    sizes = ((8, 12), (8, 12), (7, 10), (5, 9))
    rate = RateConfig(effort=0)
    files = [codec.compress(rng.integers(0, 256, (1, *size, 3), dtype=np.uint8), rate)[0] for size in sizes]
    return files, codec.decompress(files)


@functools.cache
def sound_archive() -> bytes:
    """Return an archive of the sound files."""
    return archive.HEADER + b"".join(archive.record(f"folder/{i}.png", file) for i, file in enumerate(sound()[0]))


def check(data: bytes) -> None:
    """Give one input to the codec. Raises AssertionError, or whatever the codec raises, if it does wrong."""
    if not data:
        return
    kind, rest = data[0] % 5, data[1:]
    files, pictures = sound()
    if kind == 0:
        decoded(rest)
    elif kind == 1:
        content = rest[: picture_file.MOST_CONTENT]
        picture = decoded(picture_file.pack(content, tiny_codec().models[0].fingerprint))
        assert picture is None or picture.shape == (8, 12, 3)
    elif kind == 2 and rest:
        number = rest[0] % len(files)
        file = changed(files[number], rest[1:])
        picture = decoded(file)
        assert picture is None or (file == files[number] and np.array_equal(picture, pictures[number]))
    elif kind == 3:
        read_archive(rest)
    else:
        for _, file in read_archive(changed(sound_archive(), rest)):
            picture = decoded(file)
            assert picture is None or np.array_equal(picture, pictures[files.index(file)])


def decoded(file: bytes) -> np.ndarray | None:
    """Return the picture of a file, None if it is refused."""
    try:
        return tiny_codec().decompress([file])[0]
    except CodecError:
        return None


def read_archive(data: bytes) -> list[tuple[str, bytes]]:
    """Return the names and files of an archive; none if it is refused."""
    with tempfile.NamedTemporaryFile(dir=MEMORY) as file:
        file.write(data)
        file.flush()
        try:
            with Archive(file.name) as opened:
                covered = sum(entry.end - entry.start for entry in opened)
                covered += sum(lost.end - lost.start for lost in opened.lost)
                assert covered == len(data) - len(archive.HEADER)
                return [(entry.name, opened.read(entry)) for entry in opened]
        except CodecError:
            return []


def seeds() -> Iterator[bytes]:
    """Yield inputs to begin with."""
    files = sound()[0]
    yield from (b"\0" + file for file in files)
    yield from (b"\1" + file[9:] for file in files)
    yield from (bytes([2, number, kind, 100, 7]) for number in range(len(files)) for kind in range(4))
    yield b"\3" + sound_archive()
    yield from (bytes([4, kind, place, 9]) for kind in range(4) for place in (0, 20, 60, 120, 200, 255))


TARGET = Target(check, seeds, (archive, coding, codec, model, picture_file))
