"""`bisquit frames import`: frames to train on, from videos and folders of screenshots."""

from __future__ import annotations

from pathlib import Path

import click

from bisquit.cli.options import OUTPUT, FrameSize, progress_bar
from bisquit.frames.recording import ImportConfig, import_recordings, left_out

_TEXTS = ImportConfig.descriptions()


@click.group()
def command() -> None:
    """Make sets of frames to train on."""


@command.command("import")
@click.argument("sources", metavar="SOURCE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=OUTPUT, help="A new folder, or one of an earlier import to add to.")
@click.option("--class", "class_name", help="The class of all frames; by default each SOURCE's own name.")
@click.option(
    "--every",
    "every_s",
    metavar="SECONDS",
    type=float,
    default=ImportConfig.every_s,
    show_default=True,
    help=_TEXTS["every_s"],
)
@click.option(
    "--size",
    type=FrameSize(),
    default="x".join(map(str, ImportConfig.size)),
    show_default=True,
    help=_TEXTS["size"],
)
@click.option(
    "--least-change", type=float, default=ImportConfig.least_change, show_default=True, help=_TEXTS["least_change"]
)
@click.option(
    "--sequence",
    "sequence_s",
    metavar="SECONDS",
    type=float,
    default=ImportConfig.sequence_s,
    show_default=True,
    help=_TEXTS["sequence_s"],
)
@click.option(
    "--skip-bad",
    is_flag=True,
    help="Take what can be read of damaged videos, and leave out broken pictures; else the first one stops the run.",
)
def import_(
    sources: tuple[Path, ...],
    output: Path,
    class_name: str | None,
    every_s: float,
    size: tuple[int, int],
    least_change: float,
    sequence_s: float,
    skip_bad: bool,
) -> None:
    """Take frames from videos and folders of pictures, class by class, for `bisquit train tokenizer --frames`.

    Left out are frames of one colour, frames in the midst of a change of scene, and those that are nearly like the one
    before. Each recording is cut into sequences, of which a training holds some back as a whole to validate on. Videos
    need `pip install 'bisquit[video]'`.
    """
    config = ImportConfig(every_s, size, least_change, sequence_s)
    with progress_bar("importing frames") as progress:
        found = import_recordings(sources, output, config, class_name=class_name, skip_bad=skip_bad, progress=progress)
    if found.skipped:
        click.echo(f"not read, or not to the end: {', '.join(found.skipped)}", err=True)
    sequences = "1 sequence" if found.sequences == 1 else f"{found.sequences:,} sequences"
    click.echo(f"{found.taken:,} frames of {sequences} in {output}; left out: {left_out(found) or 'none'}")
