"""`bisquit archive`: what is in an archive, and what becomes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from bisquit.cli.codec import (
    batch_option,
    compressed,
    counted_pictures,
    decompress_entries,
    model_option,
    read_sources,
    warn_of_lost,
)
from bisquit.cli.options import OUTPUT, device_option, frames_options
from bisquit.cli.settings import override, settings_options
from bisquit.codec import Archive, Codec, RateConfig, archive, picture_file
from bisquit.codec.archive import Entry
from bisquit.errors import CodecError
from bisquit.generate import load_codec

FILE = click.argument("path", metavar="FILE", type=click.Path(path_type=Path))


@click.group()
def command() -> None:
    """Look into an archive of compressed pictures, and change it."""


@command.command("list")
@FILE
def list_(path: Path) -> None:
    """List the pictures: bytes, the model that each is of, and its name."""
    with Archive(path) as opened:
        for entry in opened:
            data = opened.read(entry)
            click.echo(f"{len(data):6,}  {data[3:5].hex()}  {entry.name}")
        warn_of_lost(opened)


@command.command()
@FILE
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@click.option("-o", "--output", required=True, type=OUTPUT, help="A folder.")
@model_option
@batch_option
@device_option
def get(path: Path, names: tuple[str, ...], output: Path, model: str | None, batch_size: int, device: str) -> None:
    """Decompress single pictures, by their names; no other is decoded."""
    with Archive(path) as opened:
        entries = [opened.find(name) for name in dict.fromkeys(names)]
        decompress_entries(load_codec(model, device), opened, entries, output, batch_size)


@command.command()
@FILE
@click.argument("sources", metavar="IN...", nargs=-1, required=True)
@model_option
@batch_option
@device_option
@frames_options
@settings_options(RateConfig)
def append(
    path: Path,
    sources: tuple[str, ...],
    model: str | None,
    batch_size: int,
    device: str,
    size: tuple[int, int] | None,
    skip_bad: bool,
    **given: Any,
) -> None:
    """Compress more pictures into an archive; nothing that is there is written again."""
    rate = override(RateConfig(), given)
    with Archive(path) as opened:
        known = {entry.name for entry in opened}
    found = read_sources(sources, size, skip_bad)
    if twice := [name for source in found for name in source.names if name in known]:
        raise CodecError(f"{path} holds a picture {twice[0]} already")
    count = archive.append(path, compressed(load_codec(model, device), found, rate, batch_size))
    click.echo(f"{counted_pictures(count)} more in {path}")


@command.command()
@FILE
@model_option
@device_option
def verify(path: Path, model: str | None, device: str) -> None:
    """Check every picture, without decoding it; exit with 2 if one is damaged."""
    codec = load_codec(model, device)
    with Archive(path) as opened:
        bad = len(opened) - sum([_is_sound(codec, opened, entry) for entry in opened])
        warn_of_lost(opened)
        if bad or opened.lost:
            raise CodecError(
                f"{path}: {bad} of {len(opened)} pictures are not sound, and {len(opened.lost)} parts are lost: "
                "`bisquit archive repair` keeps the others"
            )
        click.echo(f"{len(opened):,} pictures, all sound")


@command.command()
@FILE
@click.option("-o", "--output", required=True, type=OUTPUT, help="The archive to write.")
@model_option
@device_option
def repair(path: Path, output: Path, model: str | None, device: str) -> None:
    """Copy the sound pictures of a damaged archive to a new one, and say which are not."""
    if output.exists() and output.samefile(path):
        raise CodecError(f"{output} is the archive itself: name another file")
    codec = load_codec(model, device)
    with Archive(path) as opened:
        kept, others = {}, 0
        for entry in opened:
            if entry.name in kept:
                continue
            is_of_another = _is_of_another(codec, opened, entry)
            if is_of_another or _is_sound(codec, opened, entry):
                kept[entry.name] = entry
                others += is_of_another
        warn_of_lost(opened)
        if not kept:
            raise CodecError(f"{path}: no picture can be read, so that {output} is not written")
        archive.write(output, ((name, opened.read(entry)) for name, entry in kept.items()))
    said = f", of which {others:,} of other models could not be checked" if others else ""
    click.echo(f"{counted_pictures(len(kept))} in {output}{said}; {len(opened) - len(kept):,} left out")


def _is_of_another(codec: Codec, opened: Archive, entry: Entry) -> bool:
    """Whether a picture is one of another model, as far as it says so itself."""
    try:
        return not codec.knows(picture_file.unpack(opened.read(entry)))
    except CodecError:
        return False


def _is_sound(codec: Codec, opened: Archive, entry: Entry) -> bool:
    """Whether a picture is as it was written; what is wrong is said."""
    try:
        codec.open(opened.read(entry))
    except CodecError as error:
        click.echo(f"{entry.name}: {error}", err=True)
        return False
    return True
