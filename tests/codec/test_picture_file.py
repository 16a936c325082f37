"""The file of one picture: nine to twelve bytes of header, and no damage goes unnoticed."""

from __future__ import annotations

import random

import pytest

from bisquit.codec.picture_file import MOST_CONTENT, pack, unpack, verify
from bisquit.errors import CodecError, ConfigError

MODEL = bytes.fromhex("0123456789abcdef")
CONTENT = bytes(range(100, 160))


@pytest.mark.parametrize(("size", "header"), [(None, 9), ((100, 150), 12), ((1, 4096), 12)])
def test_what_is_packed_is_unpacked(size: tuple[int, int] | None, header: int) -> None:
    data = pack(CONTENT, MODEL, size)
    file = unpack(data)
    assert len(data) == header + len(CONTENT)
    assert (file.model, file.size, file.content) == (MODEL[:2], size, CONTENT)
    verify(file, MODEL)


def test_an_empty_content_is_a_content() -> None:
    verify(unpack(pack(b"", MODEL)), MODEL)


@pytest.mark.parametrize("size", [(0, 5), (5, 4097)])
def test_sizes_are_bounded(size: tuple[int, int]) -> None:
    with pytest.raises(ConfigError, match="between 1 and 4096"):
        pack(CONTENT, MODEL, size)


def test_content_is_bounded() -> None:
    with pytest.raises(ConfigError, match="content"):
        pack(bytes(MOST_CONTENT + 1), MODEL)
    with pytest.raises(CodecError, match="is the most"):
        unpack(pack(bytes(MOST_CONTENT), MODEL) + b"1")


def test_another_model_is_named() -> None:
    with pytest.raises(CodecError, match="of model 0123"):
        verify(unpack(pack(CONTENT, MODEL)), bytes(8))
    with pytest.raises(CodecError, match="checksum"):
        verify(unpack(pack(CONTENT, MODEL)), MODEL[:2] + bytes(6))


@pytest.mark.parametrize("size", [None, (100, 150)])
def test_every_flipped_bit_and_every_cut_is_noticed(size: tuple[int, int] | None) -> None:
    whole = pack(CONTENT, MODEL, size)
    damaged = [whole[:length] for length in range(len(whole))]
    damaged += [
        whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :]
        for place in range(len(whole))
        for bit in range(8)
    ]
    damaged += [whole + bytes([byte]) for byte in range(256)]
    for data in damaged:
        with pytest.raises(CodecError):
            verify(unpack(data), MODEL)


def test_noise_is_no_picture() -> None:
    generator = random.Random(0)
    for _ in range(2000):
        noise = b"bq\x10" + MODEL[:2] + generator.randbytes(generator.randrange(80))
        with pytest.raises(CodecError):
            verify(unpack(noise), MODEL)
