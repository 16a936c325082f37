"""Pictures that are sent here: what they are is found out from their bytes, and their size before they are decoded.

A file must be one JPEG, PNG or WebP from its first byte to its last. What is hidden behind a picture's end, as in a
file that is also a ZIP or a page (a polyglot), is refused; and nothing that was sent is ever served again as it came,
only pixels are.
"""

from __future__ import annotations

import io

import numpy as np
from fastapi import UploadFile
from PIL import Image

from bisquit.frames.decode import decode_picture
from bisquit.studio.refusals import Refusal

_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
_NO_LENGTH = frozenset((0x00, 0x01, *range(0xD0, 0xD8)))
"""JPEG's stuffed byte and the markers that no segment follows."""
_FORMATS = ("JPEG", "PNG", "WEBP")


async def read_upload(upload: UploadFile) -> bytes:
    """Return the bytes of a file that was sent; the guard has bounded them."""
    return await upload.read()


def decode_upload(data: bytes, name: str, most_pixels: int) -> np.ndarray:
    """Decode a picture, uint8 (H, W, 3). name: which one of the request it is, for what is said of it.

    Raises Refusal: 415 for what is no JPEG, PNG or WebP or more than that, 413 for too many pixels; and FrameError for
    one that is cut or damaged.
    """
    end = _end(data)
    if end is None:
        raise Refusal(415, f"{name} is no JPEG, PNG or WebP picture")
    if 0 <= end < len(data):
        raise Refusal(415, f"{name} has {len(data) - end:,} bytes behind the end of its picture")
    height, width = _size(data, name)
    if height * width > most_pixels:
        raise Refusal(413, f"{name} is {height} x {width}: {most_pixels:,} pixels are the most")
    return decode_picture(data, name)


def _size(data: bytes, name: str) -> tuple[int, int]:
    """Return a picture's height and width, of which its head alone is read."""
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            return image.height, image.width
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise Refusal(413, f"{name} has far too many pixels") from error
    except Exception as error:  # Pillow's parsers raise whatever they stumble over
        raise Refusal(422, f"{name} is damaged: its head cannot be read") from error


def _end(data: bytes) -> int | None:
    """Return where the picture that a file begins with ends, -1 if it is cut; None if it begins with none."""
    if data.startswith(_PNG):
        return _png_end(data)
    if data.startswith(_JPEG):
        return _jpeg_end(data)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        end = 8 + int.from_bytes(data[4:8], "little")
        return end + end % 2 if end <= len(data) else -1
    return None


def _png_end(data: bytes) -> int:
    at = len(_PNG)
    while at + 12 <= len(data):  # a chunk: its length, its kind, what is in it, its checksum
        kind, at = data[at + 4 : at + 8], at + 12 + int.from_bytes(data[at : at + 4], "big")
        if kind == b"IEND":
            return at
    return -1


def _jpeg_end(data: bytes) -> int:
    at = 2
    while 0 <= (at := data.find(b"\xff", at)) < len(data) - 1:
        marker = data[at + 1]
        if marker == 0xD9:
            return at + 2
        if marker == 0xFF:  # a filling byte
            at += 1
        else:
            at += 2 + (0 if marker in _NO_LENGTH else int.from_bytes(data[at + 2 : at + 4], "big"))
    return -1
