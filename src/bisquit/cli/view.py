"""`bisquit view`: what a model finds odd in a picture, and what a token looks at, as pictures."""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np

from bisquit.cli.options import MODEL, OUTPUT, device_option
from bisquit.errors import ModelError
from bisquit.evaluation import bits_sheet
from bisquit.evaluation.views import attention, attention_picture, surprise
from bisquit.frames import contact_sheet, read_frame, write_frame
from bisquit.generate import Pipeline, load
from bisquit.priors import Prior

PICTURE = click.Path(path_type=Path)
model_option = click.option(
    "--model", required=True, type=MODEL, help="A shipped model's name, or a folder with a prior."
)
output_option = click.option("-o", "--output", required=True, type=OUTPUT, help="The picture to write.")


@click.group()
def command() -> None:
    """See what a model makes of a picture."""


@command.command("surprise")
@click.argument("source", metavar="IN", type=PICTURE)
@model_option
@output_option
@device_option
def show_surprise(source: Path, model: str, output: Path, device: str) -> None:
    """Show what a model finds odd: a picture, and under it the bits of each of its tokens as colours.

    A raster prior judges each token by what is above and left of it, an any-order prior by nearly all others.
    """
    pipeline = load(model).to(device)
    frame, tokens, prior = _read(source, pipeline)
    bits = surprise(prior, tokens[None])
    write_frame(bits_sheet(frame[None], bits, prior.bits, pipeline.tokenizer.patch_size, columns=1), output)
    row, column = np.unravel_index(bits[0].argmax(), bits[0].shape)
    click.echo(f"{bits.sum():,.0f} bits, most in row {row}, column {column}: {bits.max():.1f}; in {output}")


@command.command("attention")
@click.argument("source", metavar="IN", type=PICTURE)
@click.option("--row", type=int, required=True, help="The token's row in the grid, from 0.")
@click.option("--column", type=int, required=True, help="The token's column in the grid, from 0.")
@model_option
@output_option
@device_option
def show_attention(source: Path, row: int, column: int, model: str, output: Path, device: str) -> None:
    """Show where a token looks: a picture for each layer, the mean of its heads, and one for the mean of all."""
    pipeline = load(model).to(device)
    frame, tokens, prior = _read(source, pipeline)
    weights = attention(prior, tokens, row, column).mean(axis=1)  # (n_layers, h, w)
    maps = [*weights, weights.mean(axis=0)]
    pictures = [attention_picture(frame, one, (row, column), pipeline.tokenizer.patch_size) for one in maps]
    write_frame(contact_sheet(np.stack(pictures), columns=min(4, len(pictures))), output)
    click.echo(f"{len(weights)} layers and their mean, in {output}")


def _read(source: Path, pipeline: Pipeline) -> tuple[np.ndarray, np.ndarray, Prior]:
    """Return a picture, its tokens, and the prior over them."""
    if pipeline.prior is None:
        raise ModelError("this model has no prior to look into: train one with `bisquit train prior`")
    frame = read_frame(source, pipeline.frame_size)
    return frame, pipeline.encode(frame[None])[0], pipeline.prior
