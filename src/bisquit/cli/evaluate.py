"""`bisquit evaluate`: a model measured on frames, as a table and as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bisquit.atomic import atomic_file
from bisquit.cli.options import (
    OUTPUT,
    backend_options,
    device_option,
    frames_options,
    part_option,
    progress_bar,
    read_frames,
)
from bisquit.engine import Backend, Precision, prepare
from bisquit.errors import FrameError, RunError, TokenError
from bisquit.evaluation import CountModel, evaluate, summary
from bisquit.evaluation.count_baseline import MAX_CODEBOOK_SIZE
from bisquit.frames import FrameSet, load_frames
from bisquit.generate import Pipeline, load
from bisquit.priors import SequentialPrior
from bisquit.record import RECORD_FILE, RunRecord
from bisquit.tokenizer import Tokenizer
from bisquit.tokens import TokenSet, tokenize


@click.command()
@click.option("--model", required=True, help="A shipped model's name, or a folder that `bisquit train` made.")
@click.option("--frames", required=True, help="Frames: a Parquet file, a folder, a glob, or bundled.")
@click.option("--json", "output", type=OUTPUT, help="A file for all figures as JSON.")
@click.option(
    "--count-tokens",
    type=OUTPUT,
    help="Tokens to fit the count baseline on; else those that the prior was trained on, else those of bundled:train.",
)
@click.option("--batch-size", type=click.IntRange(min=1), default=32, show_default=True, help="Frames at a time.")
@backend_options("torch")
@device_option
@frames_options
@part_option
def command(
    model: str,
    frames: str,
    output: Path | None,
    count_tokens: Path | None,
    batch_size: int,
    backend: Backend,
    precision: Precision,
    device: str,
    size: tuple[int, int] | None,
    skip_bad: bool,
    part: str,
) -> None:
    """Measure a model on frames: what its tokens lose, how many bits they take, how well its codebook is used."""
    pipeline = load(model).to(device)
    frame_set = read_frames(frames, size, skip_bad, part)
    _check_size(pipeline, frame_set)
    counts, counted_on = _count_model(pipeline.tokenizer, Path(model), count_tokens)
    prior = prepare(pipeline.prior, backend, precision) if isinstance(pipeline.prior, SequentialPrior) else None
    with progress_bar("measuring") as progress:
        result = evaluate(pipeline.tokenizer, prior, frame_set, counts, batch_size, progress)
    extra = {"count_baseline_source": counted_on, "skipped": len(frame_set.skipped)}
    computed = {"model": model, "backend": backend, "precision": precision}
    figures = {**computed, **result.to_dict(), **extra}
    if output:
        with atomic_file(output) as partial:
            partial.write_text(json.dumps(figures, indent=2, allow_nan=False) + "\n")
    table = Table(title=Text(f"{model} on {frames}"), show_header=False)
    for row in summary(figures):
        table.add_row(*map(Text, row))
    Console().print(table)
    if prior is not None and counted_on == "bundled:train":
        click.echo("- counts are of the bundled frames: --count-tokens names those that the prior was trained on")
    for advice in figures["advice"]:
        click.echo(f"- {advice}")


def _check_size(pipeline: Pipeline, frames: FrameSet) -> None:
    """Raise FrameError, before any work, if the prior is over other grids than those of the frames."""
    if pipeline.frame_size is None:
        return
    height, width = pipeline.frame_size
    if pipeline.tokenizer.grid(frames.height, frames.width) != pipeline.tokenizer.grid(height, width):
        raise FrameError(
            f"frames are {frames.height} x {frames.width}, the model's {height} x {width}: pass --size {height}x{width}"
        )


def _count_model(tokenizer: Tokenizer, model: Path, given: Path | None) -> tuple[CountModel | None, str | None]:
    """Return a count model, and where the tokens are from that it is fitted on; None if the codebook is too large.

    They are those that are given, else those that the prior was trained on, else the bundled frames'.
    """
    if tokenizer.codebook_size > MAX_CODEBOOK_SIZE:
        return None, None
    source = given or _training_tokens(model)
    try:
        counted = None if source is None else _load_tokens(source, tokenizer)
    except TokenError:
        if given is not None:
            raise
        counted = None  # what the prior was trained on has been made anew since
    if counted is None:
        counted, source = tokenize(tokenizer, load_frames("bundled:train")), None
    return CountModel.fit(counted.tokens, tokenizer.codebook_size), str(source or "bundled:train")


def _training_tokens(model: Path) -> Path | None:
    """Return the file of tokens that a run's prior was trained on, if its record names one that is still there."""
    folder = model if (model / RECORD_FILE).exists() else model.parent  # epoch-01 lies in its run's folder
    if not model.is_dir() or not (folder / RECORD_FILE).exists():
        return None
    try:
        tokens = Path(RunRecord.load(folder).sources.get("tokens", ""))
    except RunError:
        return None
    return tokens if tokens.is_file() else None


def _load_tokens(path: Path, tokenizer: Tokenizer) -> TokenSet:
    """Return a file's tokens. Raises TokenError if they are not a tokenizer's own."""
    loaded, wanted = TokenSet.load(path), tokenizer.fingerprint()
    if loaded.tokenizer.fingerprint() != wanted:
        raise TokenError(
            f"{path} is of tokenizer {loaded.tokenizer.fingerprint()}, not of the model's {wanted}: "
            "tokenize the frames with the model's"
        )
    return loaded
