"""Recordings of a game as frames to train on: videos and folders of screenshots, sifted, into a folder of pictures.

    video ──moments──┐
                     ├──fit──> sift: blank? between two scenes? like the last one? ──> FOLDER/CLASS/SOURCE/000012.png
    screenshots ─────┘                                                                             .../metadata.csv

What is left out, in this order:

- blank: nearly all pixels are of nearly one colour, as in black frames and empty screens;
- blended: what is seen shortly before and after differs, no motion of the camera explains how, and the frame is about a
  mean of the two, as in a cross-fade, a fade to black, or a cut in the middle of a frame;
- alike: it differs by little from the last one that was taken;
- between: it lies in the gap that parts two sequences.

A recording is cut into sequences of a set length with a gap between them, whatever its scenes, for a game comes back to
a scene. They are the column `race` of the metadata, so that a split keeps each whole and no frame to validate on was
seen a second before in training. `imagefolder.py` reads the folder.
"""

from __future__ import annotations

import csv
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from bisquit.atomic import atomic_folder
from bisquit.config import Settings, require
from bisquit.errors import ConfigError, FrameError
from bisquit.frames.decode import decode_picture
from bisquit.frames.listing import METADATA_NAME, PICTURE_SUFFIXES, can_name_folder, list_files, visible_files
from bisquit.frames.pictures import encode_png, fit_frame, read_frame
from bisquit.frames.record import BadFrames
from bisquit.frames.video import Moment, read_moments
from bisquit.progress import Progress, share_of

COLUMNS = ("file_name", "class", "race", "source", "time_s")
"""What is written of each frame; a metadata.csv of these columns is what tells a folder that was made here."""

BLANK_SHARE, BLANK_RANGE = 0.95, 15
"""A frame is blank if so many of its pixels are within so many levels of their median, in each channel."""
BLEND_SPAN, BLEND_ENDS, BLEND_REST = 0.08, 0.1, 0.3
"""A frame is blended if what is before and after differ by this root mean square at least, and if their nearest
mixture, of which either is this share at least, misses it by less than this share of how they differ."""
MOTION_REST = 0.7
"""It is not blended but moved if the best motion of the camera leaves less than this share of how they differ."""
GAP_S = 5.0
"""Seconds that are left out between two sequences."""

_THUMBNAIL = (20, 30)  # rows, columns: blends are judged on so few that motion is small against a pixel
_PICTURE_S = 1.0  # pictures of a folder count as taken so far apart


@dataclass(frozen=True)
class ImportConfig(Settings):
    """Which frames are taken from recordings, and how large they become."""

    every_s: float = 1.0
    """Take a frame of a video each so many seconds."""
    size: tuple[int, int] = (100, 150)
    """Height and width of the frames: cropped around the centre to this aspect, then resized."""
    least_change: float = 0.03
    """Leave out a frame that differs by less than this root mean square, of values in [0, 1], from the last one."""
    sequence_s: float = 60.0
    """Longest sequence, in seconds of a video or pictures of a folder: a split keeps each whole."""

    def __post_init__(self) -> None:
        require(0.001 <= self.every_s < float("inf"), "every_s", self.every_s, "at least 0.001 seconds")
        require(min(self.size) >= 1, "size", self.size, "at least 1x1")
        require(0 <= self.least_change <= 1, "least_change", self.least_change, "in [0, 1]")
        require(self.sequence_s > 0, "sequence_s", self.sequence_s, "above 0 seconds")


@dataclass
class Tally:
    """How many frames were looked at, what became of them, and what could not be read."""

    taken: int = 0
    sequences: int = 0
    blank: int = 0
    blended: int = 0
    alike: int = 0
    between: int = 0
    skipped: tuple[str, ...] = ()

    def __add__(self, other: Tally) -> Tally:
        return Tally(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(self)))


class Plan(NamedTuple):
    """A recording, and where its frames go."""

    source: Path
    class_name: str
    folder: Path


def import_recordings(
    sources: Sequence[str | Path],
    output: str | Path,
    config: ImportConfig | None = None,
    *,
    class_name: str | None = None,
    skip_bad: bool = False,
    progress: Progress | None = None,
) -> Tally:
    """Write frames of recordings to a folder, which is new, or was made by this function of other recordings.

    sources: videos, folders of pictures, and pictures. class_name: of all their frames; by default each one's own name.
    skip_bad: take what can be read of damaged videos and folders with broken pictures. Nothing is written unless every
    source gives a frame; each then appears whole.

    Raises FrameError if a source cannot be read or gives no frame, or if the folder is no such one; ConfigError for a
    class that cannot name a folder.
    """
    config, output = config or ImportConfig(), Path(output)
    plans = _plans([Path(source).expanduser() for source in sources], output, class_name, config)
    total = Tally()
    with _new_folders_removed(plan.folder for plan in plans), ExitStack() as stack:
        for i, plan in enumerate(plans):
            folder = stack.enter_context(atomic_folder(plan.folder))
            total += _import(plan, folder, config, skip_bad, share_of(progress, i, 1, len(plans)))
    return total


def _plans(sources: Sequence[Path], output: Path, class_name: str | None, config: ImportConfig) -> list[Plan]:
    known = _sources_in(output, config)
    plans: list[Plan] = []
    for source in sources:
        if not source.exists():
            raise FrameError(f"{source} does not exist: give a video, or a folder of pictures")
        if source.resolve() in known:
            raise FrameError(f"{source} is in {output} already, or given twice: its frames would be there twice")
        if output.resolve().is_relative_to(source.resolve()):
            raise FrameError(f"{output} lies in {source}, of whose pictures its own would be: name a folder elsewhere")
        known.add(source.resolve())
        own_name = source.resolve().name if source.is_dir() else source.stem
        name = own_name if class_name is None else class_name
        if not can_name_folder(name):
            raise ConfigError(f"the class {name!r} cannot name a folder: pass another as --class")
        taken = {plan.folder for plan in plans}
        plans.append(Plan(source, name, _free_folder(output / name, own_name.lstrip("._") or "recording", taken)))
    return plans


def _free_folder(parent: Path, name: str, taken: set[Path]) -> Path:
    """Return a folder of this name, or of one with a number, that is neither there nor taken."""
    folder, number = parent / name, 2
    while folder.exists() or folder in taken:
        folder, number = parent / f"{name}-{number}", number + 1
    return folder


def _sources_in(output: Path, config: ImportConfig) -> set[Path]:
    """Return what the frames of a folder were made of. Raises FrameError if they were not made here, of this size."""
    if output.exists() and not output.is_dir():
        raise FrameError(f"{output} is no folder: name one, or a new one")
    sources: set[Path] = set()
    own: dict[Path, bool] = {}
    for path in visible_files(output):
        folder = path.parent
        if folder not in own:
            row = _first_row(folder / METADATA_NAME)
            own[folder] = row is not None and len(folder.relative_to(output).parts) == 2
            if row is not None and own[folder]:
                sources.add(Path(row["source"]))
                _check_size(folder / row["file_name"], config)
        if not own[folder]:
            raise FrameError(
                f"{output} holds {path.relative_to(output)}, which no import has written: name a new folder"
            )
    return sources


def _first_row(metadata: Path) -> dict[str, str] | None:
    """Return the first row of a metadata.csv, None if there is none of the columns that are written here."""
    try:
        with metadata.open(encoding="utf-8", newline="") as file:
            rows = csv.DictReader(file)
            return next(rows, None) if tuple(rows.fieldnames or ()) == COLUMNS else None
    except (OSError, ValueError, csv.Error):
        return None


def _check_size(path: Path, config: ImportConfig) -> None:
    height, width, _ = read_frame(path).shape
    if (height, width) != config.size:
        raise FrameError(
            f"{path.parent} holds frames of {height}x{width}: pass --size {height}x{width}, or name a new folder"
        )


@contextmanager
def _new_folders_removed(targets: Iterator[Path]) -> Iterator[None]:
    """Remove the folders above some targets that are new and still empty, should the block fail."""
    new = {parent for target in targets for parent in target.parents if not parent.exists()}
    try:
        yield
    except BaseException:
        for folder in sorted(new, key=lambda folder: len(folder.parts), reverse=True):
            with suppress(OSError):
                folder.rmdir()
        raise


def _import(plan: Plan, folder: Path, config: ImportConfig, skip_bad: bool, progress: Progress | None) -> Tally:
    """Fill a folder with the frames of one recording, and return what became of them."""
    bad, sieve = BadFrames(skip=skip_bad), Sieve(config)
    name = plan.folder.name
    with (
        (folder / METADATA_NAME).open("w", encoding="utf-8", newline="") as file,
        closing(_read(plan.source, config, bad, progress)) as moments,
    ):
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for number, moment in enumerate(moments):
            frame = fit_frame(moment.frame, config.size)
            if sieve.takes(frame, moment):
                picture, race = f"{number:06d}.png", f"{name}-{sieve.tally.sequences}"
                (folder / picture).write_bytes(encode_png(frame))
                writer.writerow((picture, plan.class_name, race, plan.source.resolve(), f"{moment.time_s:.3f}"))
    if not sieve.tally.taken:
        raise FrameError(f"{plan.source} gives no frame: {left_out(sieve.tally) or 'it holds none'}")
    return sieve.tally + Tally(skipped=tuple(bad.names))


def _read(source: Path, config: ImportConfig, bad: BadFrames, progress: Progress | None) -> Generator[Moment]:
    if source.is_dir() or source.suffix.lower() in PICTURE_SUFFIXES:
        return _read_pictures(source, bad, progress)
    return read_moments(source, config.every_s, bad, progress)


def _read_pictures(source: Path, bad: BadFrames, progress: Progress | None) -> Generator[Moment]:
    """Yield the pictures of a folder, or a single one, by path, as moments of which no more is known."""
    listing = list_files(source)
    if listing.tables:
        raise FrameError(f"{source} holds Parquet or Arrow files, which are frames already: train on them as they are")
    for number, path in enumerate(listing.pictures):
        try:
            frame = decode_picture(path, str(path))
        except FrameError as error:
            bad.report(str(path), error)
        else:
            yield Moment(number * _PICTURE_S, frame, None, None)
        if progress is not None:
            progress(number + 1, len(listing.pictures))


def left_out(tally: Tally) -> str:
    """Return how many frames were left out and why, in words; nothing if none was."""
    reasons = (
        (tally.blank, "blank"),
        (tally.blended, "between two scenes"),
        (tally.alike, "like the one before"),
        (tally.between, "between two sequences"),
    )
    return ", ".join(f"{count:,} {reason}" for count, reason in reasons if count)


class Sieve:
    """Which frames of one recording are taken; it counts them, and the sequences that they are in."""

    def __init__(self, config: ImportConfig) -> None:
        self.config, self.tally = config, Tally()
        self._last: np.ndarray | None = None
        self._start_s = float("-inf")

    def takes(self, frame: np.ndarray, moment: Moment) -> bool:
        """Say whether a moment's frame is taken. frame: what would be written of it, uint8 (H, W, 3)."""
        if is_blank(frame):
            self.tally.blank += 1
        elif is_blended(moment):
            self.tally.blended += 1
        elif self._last is not None and difference(frame, self._last) < self.config.least_change:
            self.tally.alike += 1
        elif not self._is_in_sequence(moment.time_s):
            self.tally.between += 1
        else:
            self.tally.taken += 1
            self._last = frame
            return True
        return False

    def _is_in_sequence(self, time_s: float) -> bool:
        """Whether a moment is in the sequence that is going on, or begins another."""
        since_s = time_s - self._start_s
        if since_s >= self.config.sequence_s + GAP_S:
            self._start_s, since_s = time_s, 0.0
            self.tally.sequences += 1
        return since_s < self.config.sequence_s


def difference(frame: np.ndarray, other: np.ndarray) -> float:
    """Return the root mean square difference of two frames, uint8 (H, W, 3), as values in [0, 1]."""
    return float(np.sqrt(np.mean(np.square(frame.astype(np.float32) - other)))) / 255


def is_blank(frame: np.ndarray) -> bool:
    """Whether a frame, uint8 (H, W, 3), is nearly of one colour."""
    pixels = frame.reshape(-1, 3).astype(np.int16)
    off = np.abs(pixels - np.median(pixels, axis=0)).max(axis=1)
    return bool(np.mean(off <= BLANK_RANGE) >= BLANK_SHARE)


def is_blended(moment: Moment) -> bool:
    """Whether a moment's frame is a mixture of what is before and after it, which differ."""
    if moment.before is None or moment.after is None:
        return False
    before, frame, after = (_thumbnail(one) for one in (moment.before, moment.frame, moment.after))
    way = after - before
    squares = float(np.sum(way * way))
    if squares < BLEND_SPAN**2 * way.size:
        return False
    share = float(np.sum((frame - before) * way)) / squares
    rest = frame - before - share * way
    if not BLEND_ENDS < share < 1 - BLEND_ENDS or float(np.sum(rest * rest)) >= BLEND_REST**2 * squares:
        return False
    return _motion_rest(frame, way) >= MOTION_REST


def _motion_rest(frame: np.ndarray, change: np.ndarray) -> float:
    """Return the share of a change, float (h, w, 3), that no affine motion of a frame explains.

    A motion changes pixels by the slopes of the picture times its velocities (Lucas and Kanade 1981), which here are
    affine in rows and columns, by least squares.
    """
    height, width, _ = frame.shape
    rows, columns = np.linspace(-1, 1, height)[:, None, None], np.linspace(-1, 1, width)[None, :, None]
    slopes = np.gradient(frame, axis=(0, 1))
    motions = [(slope * velocity).ravel() for slope in slopes for velocity in (1.0, rows, columns)]
    basis = np.stack(motions, axis=1)
    fitted = basis @ np.linalg.lstsq(basis, change.ravel(), rcond=None)[0]
    return float(np.linalg.norm(change.ravel() - fitted) / np.linalg.norm(change))


def _thumbnail(frame: np.ndarray) -> np.ndarray:
    """Return the means of a frame's areas as float32 in [0, 1]."""
    small = Image.fromarray(frame).resize(_THUMBNAIL[::-1], Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float32) / 255
