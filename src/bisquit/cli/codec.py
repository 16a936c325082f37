"""What `compress`, `decompress` and `archive` share: a model, pictures in and pictures out."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np

from bisquit.cli.options import MODEL, png_names, progress_bar, read_frames
from bisquit.codec import Archive, Codec, RateConfig
from bisquit.codec.archive import Entry
from bisquit.errors import CodecError
from bisquit.frames import FrameSet, write_frame
from bisquit.frames.decode import decode_picture
from bisquit.progress import Progress

STANDARD = "-"
"""Standard input or output, in place of a file."""
NAME_OF_STANDARD = "stdin.png"

Pixels = FrameSet | np.ndarray


model_option = click.option(
    "--model",
    type=MODEL,
    help="A shipped model's name, a folder that `bisquit train` made, or hf://owner/name; by default those that ship.",
)
batch_option = click.option(
    "--batch-size", type=click.IntRange(min=1), default=64, show_default=True, help="Pictures at a time."
)


class Source(NamedTuple):
    """Pictures of one size: their names, and uint8 (N, H, W, 3), or what gives that when it is indexed."""

    names: Sequence[str]
    pixels: Pixels


def read_sources(sources: Iterable[str], size: tuple[int, int] | None, skip_bad: bool) -> list[Source]:
    """Read what the command line names. Raises CodecError if two pictures are of one name."""
    found = []
    for source in sources:
        if source == STANDARD:
            encoded = sys.stdin.buffer.read()
            found.append(Source([NAME_OF_STANDARD], decode_picture(encoded, "standard input", size)[None]))
        else:
            frames = read_frames(source, size, skip_bad)
            found.append(Source(frames.names, frames))
    counts = Counter(name for source in found for name in source.names)
    if twice := next((name for name, count in counts.items() if count > 1), None):
        raise CodecError(f"two pictures are named {twice}: compress their folders one by one")
    return found


def compressed(
    codec: Codec, sources: Sequence[Source], rate: RateConfig, batch_size: int
) -> Iterator[tuple[str, bytes]]:
    """Yield the name and the picture file of each picture, a batch at a time."""
    done, total = 0, sum(len(source.names) for source in sources)
    with progress_bar("compressing") as progress:
        for source in sources:
            for start in range(0, len(source.names), batch_size):
                names = source.names[start : start + batch_size]
                of_batch = _counted(progress, done, len(names), total)
                files = codec.compress(source.pixels[start : start + batch_size], rate, of_batch)
                yield from zip(names, files, strict=True)
                done += len(names)


def decompress_entries(codec: Codec, archive: Archive, entries: Sequence[Entry], folder: Path, batch_size: int) -> None:
    """Write pictures of an archive into a folder, as PNG under their names, and say how many.

    Raises CodecError at the end if any is damaged; the others are written.
    """
    paths = [folder / path for path in png_names([entry.name for entry in entries])]
    damaged: list[str] = []
    with progress_bar("decompressing") as progress:
        for start in range(0, len(entries), batch_size):
            batch = entries[start : start + batch_size]
            frames = _frames_of(codec, archive, batch, _counted(progress, start, len(batch), len(entries)))
            for entry, path, frame in zip(batch, paths[start:], frames, strict=False):
                if isinstance(frame, CodecError):
                    damaged.append(f"{entry.name} ({frame})")
                else:
                    write_frame(frame, path)
    click.echo(f"{counted_pictures(len(entries) - len(damaged))} in {folder}")
    if damaged:
        more = f" and {len(damaged) - 3} more" if len(damaged) > 3 else ""
        raise CodecError(f"{len(damaged)} of {len(entries)} are not readable: {', '.join(damaged[:3])}{more}")


def _frames_of(
    codec: Codec, archive: Archive, entries: Sequence[Entry], progress: Progress | None
) -> list[np.ndarray | CodecError]:
    """Return the frame of each picture, or what is wrong with it."""
    files = [archive.read(entry) for entry in entries]
    try:
        return [*codec.decompress(files, progress)]
    except CodecError as error:
        if len(entries) == 1:
            return [error]
        return [frame for entry in entries for frame in _frames_of(codec, archive, [entry], None)]


def counted_pictures(count: int) -> str:
    """Return how many pictures there are, in words."""
    return f"{count:,} picture{'s' * (count != 1)}"


def _counted(progress: Progress, before: int, pictures: int, total: int) -> Progress:
    """Return a progress of a batch's tokens that counts pictures."""
    return lambda done, of: progress(before + pictures * done // of, total)


def warn_of_lost(opened: Archive) -> None:
    """Say on standard error which parts of an archive belong to no picture."""
    for part in opened.lost:
        what = "a picture that was not finished" if part.is_cut else "damaged"
        click.echo(f"bytes {part.start:,} to {part.end:,} are lost: {what}", err=True)
