"""`bisquit reconstruct`: pictures through their tokens and back."""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
import torch

from bisquit.cli.options import (
    FRAMES,
    MODEL,
    OUTPUT,
    device_option,
    frames_options,
    png_names,
    progress_bar,
    read_frames,
)
from bisquit.evaluation import ReconstructionMeter
from bisquit.frames import paired_sheet, read_frame, spread, write_frame
from bisquit.frames.listing import TABLE_SUFFIXES
from bisquit.generate import Pipeline, load


@click.command()
@click.option(
    "--model",
    required=True,
    type=MODEL,
    help="A shipped model's name, a folder that `bisquit train` made, or hf://owner/name.",
)
@click.argument("source", metavar="IN", type=FRAMES)
@click.option(
    "-o",
    "--output",
    required=True,
    type=OUTPUT,
    help="A picture for a picture; a folder, or a sheet, for a set of frames.",
)
@click.option(
    "--number",
    type=click.IntRange(min=1),
    default=16,
    show_default=True,
    help="Frames on a sheet, evenly out of the set.",
)
@device_option
@frames_options
def command(
    model: str, source: str, output: Path, number: int, device: str, size: tuple[int, int] | None, skip_bad: bool
) -> None:
    """Send a picture, or a set of frames, through its tokens and back.

    IN is a picture, or frames as elsewhere. A set becomes a folder of pictures or, if -o ends like a picture, a sheet
    on which the second, fourth ... row shows what became of the row above it.
    """
    pipeline = load(model).to(device)
    meter = ReconstructionMeter()
    if Path(source).is_file() and Path(source).suffix.lower() not in TABLE_SUFFIXES:
        frame = read_frame(source, size)
        write_frame(_through_tokens(pipeline, frame[None], meter)[0], output)
    else:
        frames = read_frames(source, size, skip_bad)
        if output.suffix:
            shown = frames[spread(number, len(frames))]
            write_frame(paired_sheet(shown, _through_tokens(pipeline, shown, meter)), output)
        else:
            with progress_bar("reconstructing") as progress:
                for i, name in enumerate(png_names(frames.names)):
                    write_frame(_through_tokens(pipeline, frames[[i]], meter)[0], output / name)
                    progress(i + 1, len(frames))
    measured = meter.compute()
    click.echo(f"{measured.frames:,} frames, PSNR {measured.psnr_db:.2f} dB, SSIM {measured.ssim:.4f}, in {output}")


def _through_tokens(pipeline: Pipeline, frames: np.ndarray, meter: ReconstructionMeter) -> np.ndarray:
    remade = pipeline.decode(pipeline.encode(frames), (frames.shape[1], frames.shape[2]))
    meter.update(torch.from_numpy(frames), torch.from_numpy(remade))
    return remade
