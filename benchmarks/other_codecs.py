"""The codecs that bisquit's is compared with: each at many qualities, on the picture and on smaller copies of it.

Every one is given its best: the slowest search, and for small files a picture of half or a third of the size, enlarged
again. Bytes are those of the whole file; `payload` says how many of them are not its container's.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pillow_jxl  # noqa: F401  (tells Pillow about JPEG XL)
from PIL import Image

SCALES = (1, 2, 3)
"""By what a picture's sides are divided before it is stored."""


@dataclass(frozen=True)
class OtherCodec:
    """A codec of Pillow's, and the settings that it is measured at."""

    name: str
    format: str
    qualities: tuple[int, ...]
    options: dict[str, Any]
    payload: Callable[[bytes], int]
    package: str = "pillow"
    """The Python package that has it."""

    def encode(self, frame: np.ndarray, quality: int, scale: int) -> bytes:
        """Store a frame, uint8 (H, W, 3)."""
        picture = Image.fromarray(frame)
        if scale > 1:
            size = -(-picture.width // scale), -(-picture.height // scale)
            picture = picture.resize(size, Image.Resampling.LANCZOS)
        file = io.BytesIO()
        picture.save(file, self.format, quality=quality, **self.options)
        return file.getvalue()

    def decode(self, data: bytes, size: tuple[int, int]) -> np.ndarray:
        """Return a frame of size (H, W), enlarged to it."""
        with Image.open(io.BytesIO(data)) as picture:
            whole = picture.convert("RGB")
        if whole.size != size[::-1]:
            whole = whole.resize(size[::-1], Image.Resampling.BICUBIC)
        return np.array(whole)


def jpeg_payload(data: bytes) -> int:
    """Return a JPEG's bytes without its JFIF segment: what is left are tables and the scan."""
    return len(data) - (20 if data[2:4] == b"\xff\xe0" else 0)


def webp_payload(data: bytes) -> int:
    """Return the bytes of a WebP's bitstream, in its chunk of RIFF."""
    return len(data) - 20


def avif_payload(data: bytes) -> int:
    """Return the bytes of an AVIF's media data, whose box is the last."""
    place = 0
    while place + 8 <= len(data):
        length = int.from_bytes(data[place : place + 4], "big")
        if data[place + 4 : place + 8] == b"mdat":
            return length - 8
        place += length
    raise ValueError("no media data")


OTHER_CODECS = (
    OtherCodec("JPEG", "JPEG", (2, 4, 7, 11, 16, 22, 30, 40, 55), {"optimize": True, "subsampling": 2}, jpeg_payload),
    OtherCodec("WebP", "WEBP", (0, 2, 5, 9, 14, 20, 28, 40, 55, 70), {"method": 6}, webp_payload),
    OtherCodec("AVIF", "AVIF", (8, 14, 20, 26, 32, 38, 45, 52, 60, 70), {"speed": 0}, avif_payload),
    OtherCodec("JPEG XL", "JXL", (5, 10, 16, 23, 31, 40, 50, 60, 72), {"effort": 9}, len, "pillow-jxl-plugin"),
)
