"""One compressed picture as bytes: nine to twelve of header, and what the range coder made.

    0   2  magic, "bq"
    2   1  version in the upper four bits, flags in the lower: 1 if a size follows, all others 0
    3   2  the model: the first bytes of its fingerprint
    5   4  CRC-32 of the model's whole fingerprint, of bytes 0 to 4, of the size and of the content
    9   3  where the picture is not of the model's own size: its height less 1 and its width less 1, 12 bits each
    ... n  content

All numbers are big-endian. The whole format is in docs/format.md.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

from bisquit.config import require
from bisquit.errors import CodecError

MAGIC = b"bq"
VERSION = 1
HAS_SIZE = 1
MOST_CONTENT = 2**16 - 1 - 12
LARGEST_SIDE = 4096
_FIXED = 9


@dataclass(frozen=True)
class PictureFile:
    """What a file says before it is decoded."""

    model: bytes
    """The first two bytes of its model's fingerprint."""
    size: tuple[int, int] | None
    """(H, W) of the picture; None for that of the model's own frames."""
    checksum: int
    content: bytes


def pack(content: bytes, fingerprint: bytes, size: tuple[int, int] | None = None) -> bytes:
    """Return a file of a picture's content.

    fingerprint: the model's, 8 bytes. size: (H, W) where it is not that of the model's frames. Raises ConfigError if a
    side is not in 1 to 4096 or the content too long.
    """
    require(len(content) <= MOST_CONTENT, "content", f"{len(content)} bytes long", f"at most {MOST_CONTENT}")
    if size is not None:
        for name, side in zip(("height", "width"), size, strict=True):
            require(1 <= side <= LARGEST_SIDE, name, side, f"between 1 and {LARGEST_SIDE}")
    start, packed_size = _around_checksum(fingerprint[:2], size)
    check = checksum(fingerprint, start, packed_size, content)
    return start + check.to_bytes(4, "big") + packed_size + content


def unpack(data: bytes) -> PictureFile:
    """Take a file apart. Raises CodecError if it is none, of another version, or of an impossible length.

    Whether its content is sound shows `verify`, which needs the model.
    """
    if data[:2] != MAGIC:
        raise CodecError('this is no compressed picture: it does not begin with "bq"')
    if len(data) < _FIXED:
        raise CodecError(f"the file is cut: it has {len(data)} bytes of a header of {_FIXED}")
    version, flags = data[2] >> 4, data[2] & 15
    if version != VERSION:
        raise CodecError(f"the file is of format version {version}: this bisquit reads {VERSION}")
    if flags & ~HAS_SIZE:
        raise CodecError(f"the file's header is damaged: there are no flags {flags & ~HAS_SIZE}")
    size, begin = None, _FIXED
    if flags & HAS_SIZE:
        packed, begin = int.from_bytes(data[_FIXED : _FIXED + 3], "big"), _FIXED + 3
        if len(data) < begin:
            raise CodecError(f"the file is cut: it has {len(data)} bytes of a header of {begin}")
        size = (packed >> 12) + 1, (packed & 0xFFF) + 1
    if len(data) - begin > MOST_CONTENT:
        raise CodecError(f"the file has {len(data) - begin:,} bytes of content: {MOST_CONTENT:,} is the most")
    return PictureFile(data[3:5], size, int.from_bytes(data[5:9], "big"), data[begin:])


def verify(file: PictureFile, fingerprint: bytes) -> None:
    """Raise CodecError if a file is another model's or damaged. fingerprint: the model's, 8 bytes."""
    if file.model != fingerprint[:2]:
        raise CodecError(f"the picture is of model {file.model.hex()}..., this model is {fingerprint.hex()}")
    if checksum(fingerprint, *_around_checksum(file.model, file.size), file.content) != file.checksum:
        raise CodecError("the picture is damaged, or of a model whose fingerprint begins alike: its checksum differs")


def _around_checksum(model: bytes, size: tuple[int, int] | None) -> tuple[bytes, bytes]:
    """Return what a header has before its checksum, and behind it."""
    flags = HAS_SIZE if size else 0
    packed = b"" if size is None else ((size[0] - 1) << 12 | (size[1] - 1)).to_bytes(3, "big")
    return MAGIC + bytes([VERSION << 4 | flags]) + model, packed


def checksum(*parts: bytes) -> int:
    """Return the CRC-32 of parts one after another."""
    check = 0
    for part in parts:
        check = zlib.crc32(part, check)
    return check
