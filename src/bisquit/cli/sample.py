"""`bisquit sample`: new frames from a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from bisquit.cli.options import (
    MODEL,
    OUTPUT,
    backend_options,
    condition_options,
    device_option,
    numbered,
    progress_bar,
    seed_option,
    with_workers,
    workers_options,
)
from bisquit.cli.settings import override, settings_options
from bisquit.engine import Backend, Precision
from bisquit.frames import contact_sheet, write_frame
from bisquit.generate import load
from bisquit.sampling import SamplingConfig


@click.command()
@click.option(
    "--model",
    required=True,
    type=MODEL,
    help="A shipped model's name, a folder that `bisquit train prior` made, or hf://owner/name.",
)
@click.option("-n", "--number", type=click.IntRange(min=1), default=16, show_default=True, help="How many frames.")
@seed_option
@click.option("-o", "--output", required=True, type=OUTPUT, help="The sheet to write, such as sheet.png.")
@click.option(
    "--separate", is_flag=True, help="One file each: -o is then a folder, or a file name that numbers are put into."
)
@click.option("--columns", type=click.IntRange(min=1), default=4, show_default=True, help="Columns of the sheet.")
@click.option(
    "--batch-size", type=click.IntRange(min=1), default=64, show_default=True, help="Frames painted at a time."
)
@backend_options("auto")
@device_option
@workers_options
@condition_options
@settings_options(SamplingConfig)
def command(
    model: str,
    number: int,
    seed: int,
    output: Path,
    separate: bool,
    columns: int,
    batch_size: int,
    backend: Backend,
    precision: Precision,
    device: str,
    workers: int | None,
    ray_address: str | None,
    class_name: str | None,
    prompt: str | None,
    **given: Any,
) -> None:
    """Paint new frames, on one sheet or in a file each."""
    settings = override(SamplingConfig(), given)
    pipeline = with_workers(load(model).to(device), workers, ray_address)
    with progress_bar("painting tokens") as progress:
        frames = pipeline.sample(
            number,
            seed=seed,
            settings=settings,
            class_name=class_name,
            prompt=prompt,
            batch_size=batch_size,
            backend=backend,
            precision=precision,
            progress=progress,
        )
    if separate:
        for i, frame in enumerate(frames):
            write_frame(frame, numbered(output, i, number))
    else:
        write_frame(contact_sheet(frames, min(columns, number)), output)
    click.echo(f"{number} new frames in {output}")
