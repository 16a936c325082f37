"""`bisquit decompress`: compressed pictures back to pixels."""

from __future__ import annotations

import io
import shutil
import sys
import tempfile
from pathlib import Path

import click
from PIL import Image

from bisquit.cli.codec import (
    STANDARD,
    batch_option,
    decompress_entries,
    model_option,
    warn_of_lost,
)
from bisquit.cli.options import OUTPUT, device_option
from bisquit.codec import Archive, Codec, archive
from bisquit.errors import CodecError
from bisquit.frames import write_frame
from bisquit.frames.listing import PICTURE_SUFFIXES
from bisquit.generate import load_codec


@click.command()
@click.argument("source", metavar="IN", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    required=True,
    type=OUTPUT,
    help="A folder; of a single picture also a file that ends like one, such as back.png, or - for standard output.",
)
@model_option
@batch_option
@device_option
def command(source: Path, output: Path, model: str | None, batch_size: int, device: str) -> None:
    """Decompress what `bisquit compress` made: a picture, or an archive, whose pictures get their names back.

    IN is a file, or - for standard input. What is damaged of an archive is left out, and named at the end.
    """
    codec = load_codec(model, device)
    with sys.stdin.buffer if str(source) == STANDARD else source.open("rb") as stream:
        start = stream.read(archive.LARGEST_FILE + 1)
        if not start.startswith(archive.MAGIC):
            _decompress_picture(codec, source, start, output)
        elif source.is_file():
            _decompress_archive(codec, source, output, batch_size)
        else:
            with tempfile.NamedTemporaryFile() as spooled:  # an archive is read here and there
                spooled.write(start)
                shutil.copyfileobj(stream, spooled)
                spooled.flush()
                _decompress_archive(codec, Path(spooled.name), output, batch_size)


def _decompress_archive(codec: Codec, source: Path, output: Path, batch_size: int) -> None:
    if str(output) == STANDARD or output.suffix.lower() in PICTURE_SUFFIXES:
        raise CodecError(f"this is an archive: -o must be a folder, not {output}")
    with Archive(source) as opened:
        warn_of_lost(opened)
        decompress_entries(codec, opened, list(opened), output, batch_size)
        if opened.lost:
            raise CodecError(f"{len(opened.lost)} parts of the archive are lost")


def _decompress_picture(codec: Codec, source: Path, data: bytes, output: Path) -> None:
    frame = codec.decompress([data])[0]
    if str(output) == STANDARD:
        encoded = io.BytesIO()
        Image.fromarray(frame).save(encoded, "PNG")
        sys.stdout.buffer.write(encoded.getvalue())
        return
    is_picture = output.suffix.lower() in PICTURE_SUFFIXES
    path = output if is_picture else output / f"{'picture' if str(source) == STANDARD else source.stem}.png"
    write_frame(frame, path)
    click.echo(f"{frame.shape[0]} x {frame.shape[1]} pixels from {len(data):,} bytes, in {path}")
