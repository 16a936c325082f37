"""`bisquit edit`: parts of a picture painted anew, so that they fit what stays."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
import numpy as np

from bisquit.cli.options import (
    MODEL,
    OUTPUT,
    backend_options,
    condition_options,
    device_option,
    numbered,
    progress_bar,
    seed_option,
)
from bisquit.cli.settings import override, settings_options
from bisquit.editing import EditConfig, Editor, mask_of
from bisquit.engine import Backend, Precision
from bisquit.errors import ConfigError, ShapeError
from bisquit.frames import read_frame, write_frame
from bisquit.generate import EDITS, load
from bisquit.sampling import SamplingConfig

Function = TypeVar("Function", bound=Callable[..., Any])
PICTURE = click.Path(path_type=Path)


def _edit_options(function: Function) -> Function:
    """Add the flags that all edits share."""
    options = (
        click.option(
            "--model", type=MODEL, default=EDITS, show_default=True, help="A shipped model's name, or a folder."
        ),
        click.option("-n", "--number", type=click.IntRange(min=1), default=1, show_default=True, help="How many."),
        click.option("-o", "--output", required=True, type=OUTPUT, help="The picture to write; numbered, if several."),
        seed_option,
        backend_options("auto"),
        device_option,
        condition_options,
        settings_options(EditConfig),
        settings_options(SamplingConfig),
    )
    for option in reversed(options):
        function = option(function)
    return function


@click.group()
def command() -> None:
    """Paint parts of a picture anew, so that they fit what stays.

    IN is a picture of the size of the model's frames, or larger. What is not painted stays as it is, to the bit.
    """


@command.command()
@click.argument("source", metavar="IN", type=PICTURE)
@click.option("--mask", required=True, type=PICTURE, help="A picture of the same size, white where to paint.")
@_edit_options
def inpaint(source: Path, mask: Path, **flags: Any) -> None:
    """Paint what a mask covers."""
    picture, covered = read_frame(source), mask_of(read_frame(mask))
    if picture.shape[:2] != covered.shape:
        raise ShapeError(f"{mask} is {_size(covered)}, {source} {_size(picture)}: a mask is of its picture's size")
    if not covered.any():
        click.echo(f"{mask} is black: there is nothing to paint", err=True)
    _work(lambda editor, **how: editor.inpaint(picture, covered, **how), flags)


@command.command()
@click.argument("source", metavar="IN", type=PICTURE)
@click.option("--left", type=click.IntRange(0, 4096), default=0, help="Pixels to add on the left.")
@click.option("--right", type=click.IntRange(0, 4096), default=0, help="Pixels to add on the right.")
@click.option("--top", type=click.IntRange(0, 4096), default=0, help="Pixels to add above.")
@click.option("--bottom", type=click.IntRange(0, 4096), default=0, help="Pixels to add below.")
@_edit_options
def extend(source: Path, left: int, right: int, top: int, bottom: int, **flags: Any) -> None:
    """Paint what lies beyond a picture's sides."""
    if not left + right + top + bottom:
        raise ConfigError("nothing is to be added: pass --left, --right, --top or --bottom, in pixels")
    picture = read_frame(source)
    _work(lambda editor, **how: editor.extend(picture, left, right, top, bottom, **how), flags)


@command.command()
@click.argument("source", metavar="IN", type=PICTURE)
@click.option(
    "--keep",
    type=click.FloatRange(0, 1),
    help="Share of the picture's tokens that stay, scattered; the picture goes through the tokenizer.  [default: 0.5, "
    "or 0 with --strength]",
)
@click.option(
    "--strength",
    type=click.FloatRange(0, 1, min_open=True),
    help="flow: Start from the picture, so far back from it towards noise: 1 leaves nothing of it.",
)
@click.option("--region", type=PICTURE, help="Keep instead what is white in this picture, to the bit.")
@_edit_options
def vary(source: Path, keep: float | None, strength: float | None, region: Path | None, **flags: Any) -> None:
    """Paint a picture anew, but for a part that stays."""
    picture = read_frame(source)
    if region is None:
        kept_share = (0.5 if strength is None else 0.0) if keep is None else keep
        _work(lambda editor, **how: editor.vary(picture, kept_share, strength=strength or 1, **how), flags)
        return
    if keep is not None or strength is not None:
        raise click.UsageError("--region keeps what is white to the bit: leave out --keep and --strength")
    kept = mask_of(read_frame(region))
    if picture.shape[:2] != kept.shape:
        raise ShapeError(f"{region} is {_size(kept)}, {source} {_size(picture)}: a region is of its picture's size")
    _work(lambda editor, **how: editor.inpaint(picture, ~kept, **how), flags)


@command.command()
@click.argument("left", type=PICTURE)
@click.argument("right", type=PICTURE)
@click.option(
    "--band", type=click.IntRange(0, 2048), default=20, show_default=True, help="Pixels to each side of the middle."
)
@_edit_options
def blend(left: Path, right: Path, band: int, **flags: Any) -> None:
    """Join the left half of one picture to the right half of another, with a band between them painted."""
    pictures = read_frame(left), read_frame(right)
    _work(lambda editor, **how: editor.join(*pictures, band, **how), flags)


@command.command()
@click.argument("source", metavar="IN", type=PICTURE)
@click.option(
    "--band", type=click.IntRange(1, 2048), default=15, show_default=True, help="Pixels painted at each edge."
)
@click.option(
    "--along",
    type=click.Choice(["both", "horizontal", "vertical"]),
    default="both",
    show_default=True,
    help="In which directions the picture is to be repeated.",
)
@_edit_options
def tile(source: Path, band: int, along: str, **flags: Any) -> None:
    """Make a picture that can be laid beside itself without a seam."""
    picture = read_frame(source)
    sides = {"horizontal": along != "vertical", "vertical": along != "horizontal"}
    _work(lambda editor, **how: editor.close_seams(picture, band, **sides, **how), flags)


def _work(edit: Callable[..., np.ndarray], flags: dict[str, Any]) -> None:
    """Load the model, edit, and write what comes out."""
    editor = _editor(**flags)
    number, output = flags["number"], flags["output"]
    with progress_bar("painting") as progress:
        edited = edit(editor, n=number, seed=flags["seed"], progress=progress)
    for i, picture in enumerate(edited):
        write_frame(picture, output if number == 1 else numbered(output, i, number))
    click.echo(f"{number} edited, in {output}")


def _editor(
    model: str,
    device: str,
    class_name: str | None,
    prompt: str | None,
    backend: Backend,
    precision: Precision,
    **given: Any,
) -> Editor:
    return Editor(
        load(model).to(device),
        edit=override(EditConfig(), given),
        settings=override(SamplingConfig(), given),
        class_name=class_name,
        prompt=prompt,
        backend=backend,
        precision=precision,
    )


def _size(array: np.ndarray) -> str:
    return f"{array.shape[0]} x {array.shape[1]}"
