"""Encoded pictures to pixels: one picture carefully, many in parallel and in order.

Pillow lets go of the interpreter's lock while it decodes, so threads are enough. At most a few pictures for each thread
are held at a time.
"""

from __future__ import annotations

import io
import os
from collections import deque
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from bisquit.errors import FrameError
from bisquit.frames.record import BadFrames, Known, Record, Records
from bisquit.progress import Progress

_FORMATS = ("JPEG", "PNG", "WEBP")
_PENDING_PER_THREAD = 8


def decode_picture(encoded: bytes | Path, name: str, size: tuple[int, int] | None = None) -> np.ndarray:
    """Decode a JPEG, PNG or WebP to uint8 (H, W, 3) RGB, upright as its EXIF orientation says.

    Grey, palette and 16-bit pictures become RGB; transparent ones are laid on black. `size` (height, width) resizes
    with a Lanczos filter. Raises FrameError, which names the picture, if it is broken, empty, or has more pixels than
    Pillow's limit.
    """
    if not encoded:
        raise FrameError(f"{name} is empty: there is no picture in it")
    try:
        with Image.open(io.BytesIO(encoded) if isinstance(encoded, bytes) else encoded, formats=_FORMATS) as image:
            _refuse_bomb(image, name)
            upright = _to_rgb(ImageOps.exif_transpose(image))
        if size is not None and upright.size != size[::-1]:
            upright = upright.resize(size[::-1], Image.Resampling.LANCZOS)
        return np.array(upright)
    except (FrameError, MemoryError):
        raise
    except UnidentifiedImageError as error:
        raise FrameError(f"{name} is no JPEG, PNG or WebP picture") from error
    except Exception as error:  # Pillow's parsers raise whatever they stumble over: SyntaxError, struct.error ...
        raise FrameError(f"{name} cannot be decoded: {error}") from error


def decode_records(
    records: Records, size: tuple[int, int] | None, bad: BadFrames, progress: Progress | None = None
) -> Generator[tuple[Known, np.ndarray]]:
    """Yield what is known of each record and its pixels, uint8 (H, W, 3), in order; broken ones go to `bad`."""
    waiting = iter(records)
    n_threads = _n_cores()
    with ThreadPoolExecutor(n_threads, thread_name_prefix="decode") as pool:

        def start(record: Record) -> tuple[Known, Future[np.ndarray]]:
            return record.known, pool.submit(decode_picture, record.encoded, record.known.name, size)

        started = deque(map(start, islice(waiting, _PENDING_PER_THREAD * n_threads)))
        n_done = 0
        try:
            while started:
                known, future = started.popleft()
                started.extend(map(start, islice(waiting, 1)))
                try:
                    pixels = future.result()
                except FrameError as error:
                    bad.report(known.name, error)
                else:
                    yield known, pixels
                n_done += 1
                if progress is not None:
                    progress(n_done, len(records))
        finally:
            pool.shutdown(cancel_futures=True)


def _n_cores() -> int:
    """Return the cores that this process may use, which in a container are fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _refuse_bomb(image: Image.Image, name: str) -> None:
    """Raise FrameError above Pillow's limit, where Pillow itself only warns until twice as much."""
    n_pixels = image.width * image.height
    if Image.MAX_IMAGE_PIXELS is not None and n_pixels > Image.MAX_IMAGE_PIXELS:
        raise FrameError(
            f"{name} is {image.height} x {image.width}: more than Pillow's limit of {Image.MAX_IMAGE_PIXELS} pixels"
        )


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16-bit grey, which Pillow's own conversion would clip to 255
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image)
    return image.convert("RGB")
