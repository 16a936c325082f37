"""`bisquit augment`: labelled frames that a model paints, to train others with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from bisquit.augmenting import AugmentConfig, Chunk, Count, chosen_classes, paint_chunks
from bisquit.cli.options import (
    FRAMES,
    MODEL,
    OUTPUT,
    backend_options,
    device_option,
    frames_options,
    progress_bar,
    read_frames,
    seed_option,
    with_workers,
    workers_options,
)
from bisquit.cli.settings import override, settings_options
from bisquit.engine import Backend, Precision
from bisquit.generate import load
from bisquit.painted_set import write_set
from bisquit.progress import share_of
from bisquit.sampling import SamplingConfig


@click.command()
@click.option(
    "--model",
    required=True,
    type=MODEL,
    help="A shipped model's name, a folder that `bisquit train prior` made, or hf://owner/name.",
)
@click.option(
    "-o", "--output", required=True, type=OUTPUT, help="A new folder, class by class, or a file that ends in .parquet."
)
@click.option("--classes", help="Which classes, with commas between them; all that the model knows if not given.")
@click.option(
    "--real", type=FRAMES, help="Frames that the model was trained on, of which no copy is to be among the new ones."
)
@seed_option
@backend_options("auto")
@device_option
@workers_options
@frames_options
@settings_options(AugmentConfig)
@settings_options(SamplingConfig)
def command(
    model: str,
    output: Path,
    classes: str | None,
    real: str | None,
    seed: int,
    backend: Backend,
    precision: Precision,
    device: str,
    workers: int | None,
    ray_address: str | None,
    size: tuple[int, int] | None,
    skip_bad: bool,
    **given: Any,
) -> None:
    """Paint labelled frames: so many of each class, the likely ones, none a copy.

    A folder gets a sub-folder for each class and a metadata.csv, a Parquet file a column `track`; in both stand, for
    each frame, the model, seed and number that paint it again, its bits and the --real frame that is nearest to it. A
    folder that was begun and not finished is gone on with by the same command.
    """
    config, settings = override(AugmentConfig(), given), override(SamplingConfig(), given)
    pipeline = with_workers(load(model).to(device), workers, ray_address)
    names = chosen_classes(pipeline, classes.split(",") if classes else None)
    frames = read_frames(real, size or pipeline.frame_size, skip_bad) if real else None
    sampling = {f"sampling_{name}": value for name, value in settings.to_dict().items()}
    source = {"model": model, "precision": precision, **sampling}
    prior = pipeline.painting_prior().fingerprint()
    asked = {**source, **config.to_dict(), "seed": seed, "classes": [*names], "real": real, "prior": prior}
    with progress_bar("painting tokens") as progress:

        def paint(name: str, begun: Count) -> Iterator[Chunk]:
            return paint_chunks(
                pipeline,
                name,
                config,
                begun=begun,
                seed=seed,
                settings=settings,
                real=frames,
                backend=backend,
                precision=precision,
                progress=share_of(progress, names.index(name), 1, len(names)),
            )

        count = write_set(paint, names, output, source, asked)
    click.echo(f"{count} frames of {len(names)} classes in {output}")
