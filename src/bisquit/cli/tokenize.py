"""`bisquit tokenize`: a set of frames into a file of tokens."""

from __future__ import annotations

from pathlib import Path

import click

from bisquit.cli.options import (
    FRAMES,
    OUTPUT,
    device_option,
    frames_options,
    part_option,
    progress_bar,
    read_frames,
    tokenizer_option,
)
from bisquit.generate import load
from bisquit.tokens import tokenize


@click.command()
@tokenizer_option
@click.option("--frames", required=True, type=FRAMES, help="Frames: a Parquet file, a folder, a glob, or bundled.")
@click.option(
    "-o", "--output", required=True, type=OUTPUT, help="The file of tokens to write, such as train.safetensors."
)
@click.option("--mirrored", is_flag=True, help="Append the tokens of every frame flipped left to right.")
@click.option("--batch-size", type=click.IntRange(min=1), default=64, show_default=True, help="Frames at a time.")
@device_option
@frames_options
@part_option
def command(
    model: str,
    frames: str,
    output: Path,
    mirrored: bool,
    batch_size: int,
    device: str,
    size: tuple[int, int] | None,
    skip_bad: bool,
    part: str,
) -> None:
    """Turn a set of frames into a file of tokens, in the set's order.

    The file also holds the frames' classes, and the tokenizer itself.
    """
    tokenizer = load(model).to(device).tokenizer
    frame_set = read_frames(frames, size, skip_bad, part)
    with progress_bar("tokenizing") as progress:
        tokens = tokenize(tokenizer, frame_set, batch_size, mirrored, progress)
    tokens.save(output)
    h, w = tokens.grid
    click.echo(f"{len(tokens):,} pictures of {h} x {w} tokens of {tokens.bits} bits in {output}")
