"""What is sent as a picture: judged by its bytes, bounded before it is decoded."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from contextlib import suppress

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient
from tests.studio.driver import API, MODEL, encoded, frame, upload

from bisquit.errors import FrameError
from bisquit.studio.refusals import Refusal
from bisquit.studio.uploads import decode_upload

MOST = 4_000_000


def png_head(height: int, width: int) -> bytes:
    """Return a small PNG that says of itself that it is large."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


def zipped() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("page.html", "<script>alert(1)</script>")
    return file.getvalue()


SMALL = frame(size=(40, 60))
SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
REFUSED = {
    "nothing": (b"", 415),
    "an SVG": (SVG, 415),
    "an SVG with a declaration": (b'<?xml version="1.0"?>' + SVG, 415),
    "a page": (b"<html><script>alert(1)</script></html>", 415),
    "a GIF": (encoded(SMALL, "GIF"), 415),
    "a BMP": (encoded(SMALL, "BMP"), 415),
    "a TIFF": (encoded(SMALL, "TIFF"), 415),
    "a PNG behind a page": (b"<html></html>" + encoded(SMALL), 415),
    "a PNG that is a ZIP": (encoded(SMALL) + zipped(), 415),
    "a JPEG that is a ZIP": (encoded(SMALL, "JPEG") + zipped(), 415),
    "a JPEG that is a page": (encoded(SMALL, "JPEG") + b"<html>" + b"\xff\xd9", 415),
    "a WebP that is a ZIP": (encoded(SMALL, "WEBP") + zipped(), 415),
    "a bomb": (png_head(50_000, 50_000), 413),
    "a bomb below Pillow's own limit": (png_head(10_000, 12_000), 413),
    "a picture just too large": (png_head(2000, 2001), 413),
    "a cut PNG": (encoded(SMALL)[:-30], 422),
    "a cut JPEG": (encoded(SMALL, "JPEG")[:-200], 422),
    "a JPEG's first bytes": (b"\xff\xd8\xff\xe0", 422),
    "a cut WebP": (encoded(SMALL, "WEBP")[:-30], 422),
    "a PNG with too little in it": (png_head(100, 100), 422),
    "a PNG of no size": (png_head(0, 100), 422),
}


@pytest.mark.parametrize(("data", "status"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_sound_picture_of_fit_size_is_refused(data: bytes, status: int):
    with pytest.raises((Refusal, FrameError)) as error:
        decode_upload(data, "picture", MOST)
    found = error.value.status_code if isinstance(error.value, Refusal) else 422
    assert found == status


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("seed", range(5))
def test_sound_pictures_are_taken(kind: str, seed: int):
    data = encoded(frame(seed, (33 + seed, 47)), kind)
    np.testing.assert_array_equal(
        decode_upload(data, "picture", MOST), np.array(Image.open(io.BytesIO(data)).convert("RGB"))
    )


def test_a_progressive_jpeg_with_a_note_and_a_thumbnail_is_taken():
    small, large = io.BytesIO(), io.BytesIO()
    Image.fromarray(SMALL).save(small, "JPEG")
    exif = Image.Exif()
    exif[0x010E] = small.getvalue().decode("latin-1")  # a JPEG within the JPEG
    Image.fromarray(frame(size=(90, 120))).save(large, "JPEG", progressive=True, comment=b"\xff\xd9 no end", exif=exif)
    assert decode_upload(large.getvalue(), "picture", MOST).shape == (90, 120, 3)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_no_damage_to_a_file_is_more_than_a_refusal(kind: str):
    data, generator = encoded(SMALL, kind), np.random.default_rng(0)
    for _ in range(300):
        damaged = bytearray(data)
        for place in generator.integers(0, len(data), 3):
            damaged[place] = generator.integers(0, 256)
        with suppress(Refusal, FrameError):
            assert decode_upload(bytes(damaged), "picture", MOST).dtype == np.uint8


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("encode", ("picture",)),
        ("likelihood", ("picture",)),
        ("compress", ("picture",)),
        ("edit/vary", ("picture",)),
        ("edit/extend", ("picture",)),
        ("edit/inpaint", ("picture", "mask")),
        ("edit/blend", ("first", "second")),
    ],
)
def test_every_route_that_takes_pictures_refuses_by_kind(client: TestClient, path: str, names: tuple[str, ...]):
    for bad in names:
        for what in ("an SVG", "a bomb", "a cut JPEG", "a PNG that is a ZIP"):
            data, status = REFUSED[what]
            files = {name: encoded(frame()) for name in names} | {bad: data}
            answer = client.post(f"{API}/{path}", files=upload(**files), data={"model": MODEL})
            assert answer.status_code == status
            assert list(answer.json()) == ["error"]


def test_a_text_in_place_of_a_file_is_refused(client: TestClient):
    answer = client.post(f"{API}/encode", data={"model": MODEL, "picture": "../../etc/passwd"})
    assert answer.status_code == 422
