"""`bisquit augment`: labelled frames that a model paints, to train others with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from bisquit.augmenting import AugmentConfig, Painted, chosen_classes, paint_class, write_pictures
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
)
from bisquit.cli.settings import override, settings_options
from bisquit.engine import Backend, Precision
from bisquit.frames import FrameSet
from bisquit.generate import Pipeline, load
from bisquit.progress import Progress, share_of
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
    size: tuple[int, int] | None,
    skip_bad: bool,
    **given: Any,
) -> None:
    """Paint labelled frames: so many of each class, the likely ones, none a copy.

    A folder gets a sub-folder for each class and a metadata.csv, a Parquet file a column `track`; in both stand, for
    each frame, the model, seed and number that paint it again, its bits and the --real frame that is nearest to it.
    """
    config, settings = override(AugmentConfig(), given), override(SamplingConfig(), given)
    pipeline = load(model).to(device)
    names = chosen_classes(pipeline, classes.split(",") if classes else None)
    frames = read_frames(real, size or pipeline.frame_size, skip_bad) if real else None
    sampling = {f"sampling_{name}": value for name, value in settings.to_dict().items()}
    source = {"model": model, "precision": precision, **sampling}
    with progress_bar("painting tokens") as progress:
        painted = _painted(pipeline, names, config, settings, frames, seed, backend, precision, progress)
        count = write_pictures(painted, output, source)
    click.echo(f"{count} frames of {len(names)} classes in {output}")


def _painted(
    pipeline: Pipeline,
    names: tuple[str, ...],
    config: AugmentConfig,
    settings: SamplingConfig,
    real: FrameSet | None,
    seed: int,
    backend: Backend,
    precision: Precision,
    progress: Progress,
) -> Iterator[Painted]:
    """Yield the frames of each class in turn."""
    for i, name in enumerate(names):
        yield from paint_class(
            pipeline,
            name,
            config,
            seed=seed,
            settings=settings,
            real=real,
            backend=backend,
            precision=precision,
            progress=share_of(progress, i, 1, len(names)),
        )
