"""Pictures and tables of pictures: each input is frames, or one clear error.

    tables     first byte: a Parquet file, changes to one of the sound ones, an Arrow file, or changes to one
    pictures   first byte: a whole picture, or, with a second that says of which, changes to a sound one
    uploads    as pictures, at the studio's door
    cache      first byte: what a cache knows of its frames, changes to that, or changes to its pixels

A table's pictures are not decoded beside the others: `pictures` does that.
"""

from __future__ import annotations

import functools
import io
import json
import struct
import warnings
import zlib
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from target import Target, changed, file_of, one_line, scratch

from bisquit.errors import FrameError
from bisquit.frames import cache, decode, tables
from bisquit.frames.decode import decode_picture
from bisquit.frames.listing import list_files
from bisquit.frames.record import BadFrames
from bisquit.studio import uploads
from bisquit.studio.refusals import Refusal
from bisquit.studio.uploads import decode_upload

SIZE = 2, 3
MOST_PIXELS = 10_000
MOST_ROWS = 10_000
"""Rows that are looked at; a few bytes can say that there are very many, and each is quickly read."""


def picture(seed: int = 0) -> np.ndarray:
    """Return a picture of noise, uint8 (H, W, 3)."""
    return np.random.default_rng(seed).integers(0, 256, (*SIZE, 3), dtype=np.uint8)


def encoded(kind: str, mode: str = "RGB", **options: object) -> bytes:
    """Return a small picture as a file."""
    file = io.BytesIO()
    Image.fromarray(picture()).convert(mode).save(file, kind, **options)
    return file.getvalue()


@functools.cache
def sound_pictures() -> list[bytes]:
    """Return picture files of every kind that is read, without loss and with."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return [
        encoded("PNG"),
        encoded("JPEG", exif=exif, quality=30),
        encoded("WEBP", lossless=True),
        encoded("WEBP", quality=30),
        encoded("PNG", "P"),
        encoded("PNG", "RGBA"),
        encoded("JPEG", "CMYK", quality=30),
        encoded("JPEG", "L", progressive=True),
        encoded("PNG", "LA"),
        encoded("PNG", "1"),
    ]


def given_picture(data: bytes) -> bytes:
    """Return the picture that an input means."""
    if data[0] % 2 == 0:
        return with_sums(data[1:])
    return with_sums(changed(sound_pictures()[data[1] % len(sound_pictures())], data[2:]))


def with_sums(data: bytes) -> bytes:
    """Return a PNG whose chunks have the checksums that they should have, so that what is in them is read at all."""
    head, at, parts = data[:8], 8, []
    if head != b"\x89PNG\r\n\x1a\n":
        return data
    while at + 12 <= len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        if at + 12 + length > len(data):
            break
        body = data[at + 4 : at + 8 + length]
        parts.append(data[at : at + 4] + body + struct.pack(">I", zlib.crc32(body)))
        at += 12 + length
    return head + b"".join(parts) + data[at:]


def check_picture(data: bytes) -> None:
    """Decode one input: a picture is RGB and comes back the same from a file without loss."""
    if len(data) < 3:
        return
    given = given_picture(data)
    sides = said_size(given)
    if sides is not None and sides[0] * sides[1] > MOST_PIXELS:  # within Pillow's own limit, but a minute's work
        return
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pixels = decode_picture(given, "the picture")
    except FrameError as error:
        one_line(error)
        return
    check_pixels(pixels)


def said_size(data: bytes) -> tuple[int, int] | None:
    """Return the size that a picture says it has; None if it says none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=("JPEG", "PNG", "WEBP")) as image:
                return image.size
    except Exception:
        return None


def check_upload(data: bytes) -> None:
    """Decode one input as it is sent to the studio: small enough, and of three formats, or it is refused."""
    if len(data) < 3:
        return
    given = given_picture(data)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pixels = decode_upload(given, "the picture", MOST_PIXELS)
    except (FrameError, Refusal) as error:
        one_line(error)
        assert not isinstance(error, Refusal) or error.status_code in (413, 415, 422)
        return
    check_pixels(pixels)
    assert pixels.shape[0] * pixels.shape[1] <= MOST_PIXELS, "more pixels than are let in"


def check_pixels(pixels: np.ndarray) -> None:
    """Fail unless these are pixels, which a file without loss keeps."""
    assert pixels.dtype == np.uint8
    assert pixels.ndim == 3
    assert pixels.shape[2] == 3
    assert pixels.size
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=0)
    assert np.array_equal(decode_picture(file.getvalue(), "its copy"), pixels)


def picture_seeds() -> Iterator[bytes]:
    """Yield pictures to begin with."""
    for number, file in enumerate(sound_pictures()):
        yield b"\0" + file
        yield bytes([1, number, 0, 0x80, 1])


@functools.cache
def sound_tables() -> dict[str, list[bytes]]:
    """Return sound tables by their suffix."""
    cells = [b"first", None, b"third"]
    named = pa.table({"image": pa.array([{"bytes": cell, "path": "x"} for cell in cells]), "track": ["ice", "", None]})
    features = {"info": {"features": {"label": {"names": ["ice", "sand"]}}}}
    numbered = pa.table({"image": pa.array(cells), "label": [1, 7, -1], "race": ["a", "a", None]})
    numbered = numbered.replace_schema_metadata({"huggingface": json.dumps(features)})
    found: dict[str, list[bytes]] = {".parquet": [], ".arrow": []}
    for table in (named, numbered):
        file = io.BytesIO()
        pq.write_table(table, file, compression="none", use_dictionary=False, write_statistics=False)
        found[".parquet"].append(file.getvalue())
        sink = io.BytesIO()
        with pa.ipc.new_stream(sink, table.schema) as stream:
            stream.write_table(table)
        found[".arrow"].append(sink.getvalue())
    return found


def check_table(data: bytes) -> None:
    """Read one input as a table: each row has a name of its own and bytes, or the file is refused."""
    if len(data) < 2:
        return
    suffix = ".parquet" if data[0] % 4 < 2 else ".arrow"
    sound = sound_tables()[suffix]
    given = data[1:] if data[0] % 2 == 0 else changed(sound[data[1] % len(sound)], data[2:])
    names = []
    try:
        with file_of(given, f"table{suffix}") as path:
            bad = BadFrames(skip=True)
            records = tables.TableRecords(list_files(path), bad)
            for record, _ in zip(records, range(MOST_ROWS), strict=False):
                assert isinstance(record.encoded, bytes)
                assert record.known.class_name is None or isinstance(record.known.class_name, str)
                names.append(record.known.name)
    except FrameError as error:
        one_line(error)
        return
    assert len(set(names)) == len(names)
    assert bad.names or given not in sound or len(names) == 3


def table_seeds() -> Iterator[bytes]:
    """Yield tables to begin with."""
    for kind, files in enumerate(sound_tables().values()):
        for number, file in enumerate(files):
            yield bytes([2 * kind]) + file
            yield bytes([2 * kind + 1, number, 0, 0xF0, 1])


@functools.cache
def sound_entry() -> dict[str, bytes]:
    """Return the two files of an entry of the cache."""
    folder = scratch() / "pictures"
    folder.mkdir(exist_ok=True)
    for number in range(2):
        Image.fromarray(picture(number)).save(folder / f"{number}.png")
    frames = cache.cached_frames(list_files(folder), None, False, scratch() / "cache")
    assert len(frames) == 2
    (entry,) = (scratch() / "cache" / "frames").iterdir()
    return {path.name: path.read_bytes() for path in entry.iterdir()}


def check_cache(data: bytes) -> None:
    """Read one input as part of an entry: what is taken is as long throughout as it says, all else is no entry."""
    if not data:
        return
    files = dict(sound_entry())
    known, pixels = cache._FRAMES_NAME, cache._PIXELS_NAME
    if data[0] % 3 == 0:
        files[known] = data[1:]
    elif data[0] % 3 == 1:
        files[known] = changed(files[known], data[1:])
    else:
        files[pixels] = changed(files[pixels], data[1:])
    folder = scratch() / "entry"
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    frames = cache._open(folder)
    if frames is None:
        assert files != sound_entry(), "a sound entry is not taken"
        return
    assert len(frames) == len(frames.names) == len(frames.labels) == len(frames[:])
    assert frames[:].shape[3:] == (3,)
    assert ((frames.labels >= -1) & (frames.labels < len(frames.classes))).all()
    assert frames.groups is None or len(frames.groups) == len(frames)
    assert all(isinstance(name, str) for name in (*frames.names, *frames.classes, *frames.skipped))


def cache_seeds() -> Iterator[bytes]:
    """Yield entries to begin with."""
    yield b"\0" + sound_entry()[cache._FRAMES_NAME]
    for kind in (1, 2):
        yield bytes([kind])
        yield bytes([kind, 0, 0x80, 1])


PICTURES = Target(check_picture, picture_seeds, (decode,))
UPLOADS = Target(check_upload, picture_seeds, (uploads, decode))
TABLES = Target(check_table, table_seeds, (tables,))
CACHE = Target(check_cache, cache_seeds, (cache,))
