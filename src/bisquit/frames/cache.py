"""Decoded frames on the disk: written once, memory-mapped ever after.

    <cache>/frames/<key>/pixels.npy      uint8 (N, H, W, 3)
    <cache>/frames/<key>/frames.json     what is known of each frame, and the number and size that pixels.npy must have

The key is a hash of the sources' paths, sizes and times of change and of what was asked for, so a changed source
makes a new entry and a lookup reads no frame. An entry appears whole or not at all; one that is found damaged is made
anew.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable
from contextlib import closing, suppress
from pathlib import Path
from typing import BinaryIO

import numpy as np

from bisquit.atomic import atomic_folder
from bisquit.errors import FrameError
from bisquit.frames.decode import decode_records
from bisquit.frames.frameset import FrameSet
from bisquit.frames.imagefolder import PictureRecords
from bisquit.frames.listing import Listing
from bisquit.frames.record import BadFrames, Known, Records
from bisquit.frames.tables import TableRecords
from bisquit.progress import Progress

_FORMAT = 2
_PIXELS_NAME = "pixels.npy"
_FRAMES_NAME = "frames.json"


def cache_folder() -> Path:
    """Return where caches go: $BISQUIT_CACHE, else `bisquit` in $XDG_CACHE_HOME, else ~/.cache/bisquit."""
    if chosen := os.environ.get("BISQUIT_CACHE"):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "bisquit"


def cached_frames(
    listing: Listing, size: tuple[int, int] | None, skip_bad: bool, cache: Path, progress: Progress | None = None
) -> FrameSet:
    """Return the frames of `listing` from the cache folder `cache`, where they are put first if they are not there yet.

    Raises FrameError if frames are broken (unless `skip_bad`) or of mixed sizes, or if the cache cannot be written.
    """
    entry = cache / "frames" / _key(listing, size)
    frames = _open(entry)
    if frames is not None and (skip_bad or not frames.skipped):
        return frames
    try:
        if frames is None:
            _discard(entry)
        with atomic_folder(entry) as folder:
            _fill(folder, listing, size, BadFrames(skip=skip_bad), progress)
            frames = _open(folder)  # before it is moved: once open it stays readable whatever another process does
    except OSError as error:
        reason = error.strerror or error
        raise FrameError(
            f"cannot write the frame cache in {cache} ({reason}): set BISQUIT_CACHE to a folder with room"
        ) from error
    if frames is None:
        raise FrameError(f"the frame cache in {cache} does not read back as written: set BISQUIT_CACHE to another disk")
    return frames


def _key(listing: Listing, size: tuple[int, int] | None) -> str:
    parts: list[object] = [_FORMAT, str(listing.root.resolve()), size]
    for path in listing.files:
        status = path.stat()
        parts.append((str(path.resolve()), status.st_size, status.st_mtime_ns))
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def _open(entry: Path) -> FrameSet | None:
    """Return the frames of an entry, or None if it is not there, or not whole."""
    try:
        known = json.loads((entry / _FRAMES_NAME).read_text(encoding="utf-8"))
        pixels = np.load(entry / _PIXELS_NAME, mmap_mode="r").view(np.ndarray)  # a plain array: cheaper to index
        names, labels = tuple(known["names"]), np.array(known["labels"], dtype=np.int64)
        groups = None if known["groups"] is None else np.array(known["groups"], dtype=np.int64)
        classes, skipped = tuple(known["classes"]), tuple(known["skipped"])
    except Exception:  # a damaged file fails in as many ways as there are bytes
        return None
    is_sound = (
        (pixels.dtype, pixels.ndim, pixels.shape[3:]) == (np.uint8, 4, (3,))
        and list(pixels.shape) == known.get("shape")
        and labels.shape == (len(names),) == pixels.shape[:1]
        and bool(((labels >= -1) & (labels < len(classes))).all())
        and (groups is None or groups.shape == labels.shape)
        and all(isinstance(name, str) for name in (*names, *classes, *skipped))
    )
    return FrameSet(pixels, np.arange(len(names)), names, classes, labels, groups, skipped) if is_sound else None


def _discard(entry: Path) -> None:
    """Remove a damaged entry, by a rename first so that nobody sees it half removed."""
    if entry.exists():
        doomed = Path(tempfile.mkdtemp(prefix=f".{entry.name}-", dir=entry.parent))
        with suppress(FileNotFoundError):  # another process was quicker
            entry.rename(doomed / entry.name)
        shutil.rmtree(doomed, ignore_errors=True)


def _fill(
    folder: Path, listing: Listing, size: tuple[int, int] | None, bad: BadFrames, progress: Progress | None
) -> None:
    """Decode the frames of `listing` into an entry's two files."""
    records: Records = TableRecords(listing, bad) if listing.tables else PictureRecords(listing, bad)
    with (
        (folder / _PIXELS_NAME).open("wb") as file,
        closing(decode_records(records, size, bad, progress)) as decoded,  # its threads end with it
    ):
        kept, shape = _write_pixels(file, decoded)
    if not kept:
        reason = f"broken are {', '.join(bad.names[:3])}" if bad.names else "the files hold none"
        raise FrameError(f"no frame in {listing.root} could be read: {reason}")
    classes = sorted({known.class_name for known in kept if known.class_name is not None})
    index = {name: number for number, name in enumerate(classes)}
    content = {
        "shape": shape,
        "names": [known.name for known in kept],
        "classes": classes,
        "labels": [-1 if known.class_name is None else index[known.class_name] for known in kept],
        "groups": _group_numbers(kept),
        "skipped": bad.names,
    }
    (folder / _FRAMES_NAME).write_text(json.dumps(content), encoding="utf-8")


def _write_pixels(file: BinaryIO, decoded: Iterable[tuple[Known, np.ndarray]]) -> tuple[list[Known], tuple[int, ...]]:
    """Write frames as one .npy array, one after another; return what is known of each, and the array's shape.

    Plain writes, not a writable memory map: on a full disk the first fails with an error, the second kills the process.
    """
    kept: list[Known] = []
    frame_shape: tuple[int, ...] = (0, 0, 3)
    _write_header(file, (0, *frame_shape))
    start = file.tell()
    for known, pixels in decoded:
        if kept and pixels.shape != frame_shape:
            raise FrameError(
                f"frames are of mixed sizes: {kept[0].name} is {frame_shape[0]} x {frame_shape[1]}, {known.name} is "
                f"{pixels.shape[0]} x {pixels.shape[1]} (height x width); pass --size HxW to resize all to one"
            )
        frame_shape = pixels.shape
        file.write(pixels.data)
        kept.append(known)
    shape = (len(kept), *frame_shape)
    file.seek(0)
    _write_header(file, shape)
    if file.tell() != start:
        raise AssertionError("numpy pads its headers so that the number of frames fits in afterwards")
    return kept, shape


def _write_header(file: BinaryIO, shape: tuple[int, ...]) -> None:
    header = {"descr": np.lib.format.dtype_to_descr(np.dtype(np.uint8)), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)


def _group_numbers(kept: list[Known]) -> list[int] | None:
    """Number the races by first appearance; among known races, a frame whose own is unknown stands alone."""
    if all(known.race is None for known in kept):
        return None
    numbers: dict[object, int] = {}
    keys = ((known.class_name, known.race) if known.race is not None else known.name for known in kept)
    return [numbers.setdefault(key, len(numbers)) for key in keys]
