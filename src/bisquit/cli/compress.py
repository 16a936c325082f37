"""`bisquit compress`: pictures in a few hundred bytes each."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import Any

import click

from bisquit.atomic import atomic_file
from bisquit.cli.codec import (
    STANDARD,
    batch_option,
    compressed,
    counted_pictures,
    model_option,
    read_sources,
)
from bisquit.cli.options import OUTPUT, device_option, frames_options
from bisquit.cli.settings import override, settings_options
from bisquit.codec import RateConfig, archive
from bisquit.generate import load_codec


@click.command()
@click.argument("sources", metavar="IN...", nargs=-1, required=True)
@click.option(
    "-o",
    "--output",
    required=True,
    type=OUTPUT,
    help="The file to write, such as pictures.bisq; - for standard output.",
)
@click.option("--archive", "is_archive", is_flag=True, help="Write an archive even of a single picture.")
@model_option
@batch_option
@device_option
@frames_options
@settings_options(RateConfig)
def command(
    sources: tuple[str, ...],
    output: Path,
    is_archive: bool,
    model: str | None,
    batch_size: int,
    device: str,
    size: tuple[int, int] | None,
    skip_bad: bool,
    **given: Any,
) -> None:
    """Compress pictures: one to a file of its own, several to an archive.

    IN is a picture, a folder, a Parquet file, a glob, bundled, or - for a picture on standard input.
    """
    if output.is_dir():
        raise click.BadParameter(f"{output} is a folder: name a file", param_hint="--output")
    rate = override(RateConfig(), given)
    codec = load_codec(model, device)
    found = read_sources(sources, size, skip_bad)
    count = sum(len(source.names) for source in found)
    pictures = compressed(codec, found, rate, batch_size)
    if count == 1 and not is_archive:
        _write(output, (data for _, data in pictures))
    elif str(output) == STANDARD:
        _write(output, chain((archive.HEADER,), (archive.record(*picture) for picture in pictures)))
    else:
        archive.write(output, pictures)
    if str(output) != STANDARD:
        stored = output.stat().st_size
        click.echo(f"{counted_pictures(count)} in {stored:,} bytes, {stored / count:,.1f} each, in {output}")


def _write(output: Path, parts: Iterable[bytes]) -> None:
    if str(output) == STANDARD:
        for part in parts:
            sys.stdout.buffer.write(part)
        return
    with atomic_file(output) as partial:
        partial.write_bytes(b"".join(parts))
