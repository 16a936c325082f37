"""The two ways in: the frames of one source, and the two parts that a training needs."""

from __future__ import annotations

import os
from pathlib import Path

from bisquit.errors import FrameError
from bisquit.frames.cache import cache_folder, cached_frames
from bisquit.frames.frameset import FrameSet
from bisquit.frames.listing import BUNDLED, list_files
from bisquit.frames.split import split_by_group
from bisquit.progress import Progress


def load_frames(
    source: str | os.PathLike[str],
    *,
    size: tuple[int, int] | None = None,
    skip_bad: bool = False,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> FrameSet:
    """Return the frames of a source, decoded once into the cache and memory-mapped from there.

    source: a Parquet file, a folder of such, a folder of JPEG, PNG or WebP pictures, a single picture, a glob,
    `bundled`, `bundled:train` or `bundled:valid`. size: (height, width) to resize every frame to. skip_bad: leave
    broken frames out and list them in `skipped`. cache: the folder of caches, `cache_folder()` by default.
    progress: called for each frame, and only if the frames are not in the cache yet.

    Raises FrameError if there is no such source, a frame is broken (and not to be skipped), the frames are of mixed
    sizes, none remains, or the cache cannot be written.
    """
    return cached_frames(list_files(source), size, skip_bad, cache or cache_folder(), progress)


def load_splits(
    frames: str | os.PathLike[str],
    valid_frames: str | os.PathLike[str] | None = None,
    *,
    valid_fraction: float = 0.05,
    size: tuple[int, int] | None = None,
    skip_bad: bool = False,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> tuple[FrameSet, FrameSet]:
    """Return the frames to train on and those to validate on; their labels index the same classes.

    `valid_frames` is the second part if given; `bundled` has two parts of its own; else `split_by_group` holds
    `valid_fraction` of `frames` out. Raises FrameError as `load_frames` and `split_by_group` do, and if the parts
    differ in size.
    """
    if os.fspath(frames) == BUNDLED:
        frames, valid_frames = f"{BUNDLED}:train", valid_frames or f"{BUNDLED}:valid"
    train = load_frames(frames, size=size, skip_bad=skip_bad, cache=cache, progress=progress)
    if valid_frames is None:
        return split_by_group(train, valid_fraction)
    valid = load_frames(valid_frames, size=size, skip_bad=skip_bad, cache=cache, progress=progress)
    if (train.height, train.width) != (valid.height, valid.width):
        raise FrameError(
            f"frames to train on are {train.height} x {train.width}, to validate on {valid.height} x {valid.width} "
            "(height x width): pass --size HxW to resize all to one"
        )
    classes = tuple(sorted({*train.classes, *valid.classes}))
    return train.with_classes(classes), valid.with_classes(classes)
