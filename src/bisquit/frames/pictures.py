"""Single pictures in and out, and many on one sheet."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from bisquit.atomic import atomic_file
from bisquit.errors import ConfigError, FrameError, ShapeError
from bisquit.frames.decode import decode_picture

_SAVE_OPTIONS: dict[str, dict[str, Any]] = {
    ".png": {"optimize": True},
    ".jpg": {"quality": 95, "subsampling": 0},
    ".jpeg": {"quality": 95, "subsampling": 0},
    ".webp": {"lossless": True},
}
_PAPER = 255


def read_frame(path: str | os.PathLike[str], size: tuple[int, int] | None = None) -> np.ndarray:
    """Read a JPEG, PNG or WebP as uint8 (H, W, 3) RGB; `size` (height, width) resizes it. Raises FrameError."""
    path = Path(path)
    if not path.is_file():
        raise FrameError(f"{path} does not exist, or is no file: give a JPEG, PNG or WebP picture")
    return decode_picture(path, str(path), size)


def write_frame(frame: np.ndarray, path: str | os.PathLike[str]) -> None:
    """Write a frame, uint8 (H, W, 3) RGB, whole or not at all: .png and .webp without loss, .jpg at quality 95.

    Raises ShapeError for another array, FrameError for another suffix or if it cannot be written.
    """
    path = Path(path)
    check_frames(frame, "frame", "(H, W, 3)")
    options = _SAVE_OPTIONS.get(path.suffix.lower())
    if options is None:
        raise FrameError(f"{path} has no suffix of a picture format: end its name in {', '.join(_SAVE_OPTIONS)}")
    try:
        with atomic_file(path) as partial:
            Image.fromarray(frame).save(partial, **options)
    except OSError as error:
        raise FrameError(f"cannot write {path}: {error.strerror or error}") from error


def fit_frame(frame: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return the middle of a frame, uint8 (H, W, 3), cropped to the aspect of `size` (height, width) and resized to it.

    As much as can be is kept; resized with a Lanczos filter, as elsewhere. Raises ShapeError for another array.
    """
    check_frames(frame, "frame", "(H, W, 3)")
    height, width = size
    scale = min(frame.shape[0] / height, frame.shape[1] / width)
    top, left = (frame.shape[0] - scale * height) / 2, (frame.shape[1] - scale * width) / 2
    right, bottom = min(left + scale * width, frame.shape[1]), min(top + scale * height, frame.shape[0])
    middle = (left, top, right, bottom)
    return np.array(Image.fromarray(frame).resize((width, height), Image.Resampling.LANCZOS, box=middle))


def encode_png(frame: np.ndarray) -> bytes:
    """Return a frame, uint8 (H, W, 3) RGB, as the bytes of a PNG file. Raises ShapeError for another array."""
    check_frames(frame, "frame", "(H, W, 3)")
    file = io.BytesIO()
    Image.fromarray(frame).save(file, "PNG", optimize=True)
    return file.getvalue()


def contact_sheet(frames: np.ndarray, columns: int, gap_px: int = 2) -> np.ndarray:
    """Lay frames, uint8 (B, H, W, 3), row by row on one white picture, with `gap_px` between and around them.

    Returns uint8 (gap + rows * (H + gap), gap + columns * (W + gap), 3). Raises ShapeError for another array or none
    at all.
    """
    check_frames(frames, "frames", "(B, H, W, 3)")
    if columns < 1 or gap_px < 0:
        raise ConfigError(f"columns is {columns}, gap_px {gap_px}: they must be at least 1 and at least 0")
    count, height, width, _ = frames.shape
    rows = -(-count // columns)
    tiles = np.full((rows * columns, height + gap_px, width + gap_px, 3), _PAPER, dtype=np.uint8)
    tiles[:count, :height, :width] = frames
    grid = tiles.reshape(rows, columns, height + gap_px, width + gap_px, 3).swapaxes(1, 2)
    sheet = grid.reshape(rows * (height + gap_px), columns * (width + gap_px), 3)
    return np.pad(sheet, ((gap_px, 0), (gap_px, 0), (0, 0)), constant_values=_PAPER)


def paired_sheet(frames: np.ndarray, partners: np.ndarray, most_columns: int = 4) -> np.ndarray:
    """Lay frames, uint8 (B, H, W, 3), in rows and, under each row, that of their partners, of the same shape."""
    columns = min(most_columns, len(frames))
    blank = np.full((-len(frames) % columns, *frames.shape[1:]), _PAPER, dtype=np.uint8)
    rows = [np.concatenate((part, blank)).reshape(-1, columns, *frames.shape[1:]) for part in (frames, partners)]
    return contact_sheet(np.stack(rows, axis=1).reshape(-1, *frames.shape[1:]), columns)


def check_frames(array: np.ndarray, what: str, wanted: str) -> None:
    """Raise ShapeError unless an array is uint8 of the wanted shape, such as "(H, W, 3)", and not empty."""
    n_dims = wanted.count(",") + 1
    if array.dtype != np.uint8 or array.ndim != n_dims or array.shape[-1] != 3 or array.size == 0:
        raise ShapeError(f"{what}: got {array.dtype} {array.shape}, need uint8 {wanted}, not empty")
