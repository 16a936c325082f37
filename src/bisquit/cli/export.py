"""`bisquit export`: a tokenizer as ONNX graphs."""

from __future__ import annotations

from pathlib import Path

import click

from bisquit.cli.options import FRAMES, MODEL, OUTPUT, frames_options, read_frames
from bisquit.exporting import export
from bisquit.frames import BUNDLED, spread
from bisquit.generate import load


@click.command()
@click.argument("model", metavar="TOKENIZER", type=MODEL)
@click.option("-o", "--output", required=True, type=OUTPUT, help="A new folder for encoder.onnx and decoder.onnx.")
@click.option(
    "--frames",
    type=FRAMES,
    default=f"{BUNDLED}:valid",
    show_default=True,
    help="Frames on which what was written is compared with PyTorch.",
)
@click.option(
    "--number", type=click.IntRange(min=1), default=16, show_default=True, help="How many of them, evenly out of all."
)
@frames_options
def command(model: str, output: Path, frames: str, number: int, size: tuple[int, int] | None, skip_bad: bool) -> None:
    """Write a tokenizer as ONNX, frames to tokens and tokens to frames, for programs that have no PyTorch.

    TOKENIZER is a shipped model's name, or a folder that `bisquit train` made. Frames are uint8 (B, H, W, 3), tokens
    int64 (B, h, w), of any B, H and W.
    """
    pipeline = load(model)
    compared = read_frames(frames, size, skip_bad)
    rows = spread(number, len(compared))
    checked = export(pipeline.tokenizer, output, compared[rows], pipeline.frame_size)
    click.echo(
        f"encoder.onnx and decoder.onnx in {output}: on {len(rows):,} frames {checked.tokens_in_doubt:,} of "
        f"{checked.tokens:,} tokens are not PyTorch's, by rounding, and {checked.values_off:,} of {checked.values:,} "
        "values of decoded frames are one level off"
    )
