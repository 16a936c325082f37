"""`bisquit evaluate`: a model measured on frames, and its new frames judged by them, as a table and as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
import torch
from click.core import ParameterSource
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bisquit.atomic import atomic_file
from bisquit.augmenting import chosen_classes
from bisquit.cli.options import (
    FRAMES,
    MODEL,
    OUTPUT,
    backend_options,
    device_option,
    frames_options,
    part_option,
    progress_bar,
    read_frames,
    seed_option,
    with_workers,
    workers_options,
)
from bisquit.cli.settings import override, settings_options
from bisquit.engine import Backend, Precision, prepare
from bisquit.errors import FrameError, RunError, TokenError
from bisquit.evaluation import (
    CountModel,
    Evaluation,
    Generation,
    Likelihood,
    SummaryRow,
    bits_map_picture,
    bits_sheet,
    check_judgeable,
    check_page,
    evaluate,
    judge,
    reconstruction_sheet,
    summary,
    write_page,
)
from bisquit.evaluation.count_baseline import MAX_CODEBOOK_SIZE
from bisquit.evaluation.inference import measured
from bisquit.evaluation.page import ERROR_GAIN
from bisquit.features import FeatureNetwork
from bisquit.frames import FrameSet, contact_sheet, load_frames, paired_sheet, spread, write_frame
from bisquit.frames.listing import PICTURE_SUFFIXES
from bisquit.generate import Pipeline, load, load_feature_network
from bisquit.priors import MaskedPrior, Prior, SequentialPrior
from bisquit.record import RECORD_FILE, RunRecord
from bisquit.sampling import SamplingConfig
from bisquit.tokenizer import Tokenizer
from bisquit.tokens import TokenSet, tokenize

SHOWN = 16  # pairs on the sheet of --neighbours


@click.command()
@click.option(
    "--model",
    required=True,
    type=MODEL,
    help="A shipped model's name, a folder that `bisquit train` made, or hf://owner/name.",
)
@click.option("--frames", required=True, type=FRAMES, help="Frames: a Parquet file, a folder, a glob, or bundled.")
@click.option("--json", "output", type=OUTPUT, help="A file for all figures as JSON.")
@click.option("--report", type=OUTPUT, help="A page of figures and pictures: .html, or .md with a folder of them.")
@click.option(
    "--count-tokens",
    type=OUTPUT,
    help="Tokens to fit the count baseline on; else those that the prior was trained on, else those of bundled:train.",
)
@click.option("--batch-size", type=click.IntRange(min=1), default=32, show_default=True, help="Frames at a time.")
@click.option(
    "--samples",
    "number",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="How many new frames to paint and judge by --frames: at most as many as --real has, a thousand say. By the "
    "backend that `bisquit sample` takes, unless --backend names one.",
)
@click.option(
    "--real",
    type=FRAMES,
    default="bundled:train",
    show_default=True,
    help="Frames of other races than those of --frames, best all that the model was trained on: --samples are compared "
    "with what they reach, and copies are looked for among them.",
)
@click.option("--by-class", is_flag=True, help="Ask for the model's classes in turn, and count how often each is seen.")
@click.option("--features", type=OUTPUT, help="What `bisquit train features` made; else the network that ships.")
@click.option(
    "--neighbours", type=OUTPUT, help="A sheet of the --samples nearest to a frame of --real, each above that one."
)
@click.option("--keep-samples", type=OUTPUT, help="A file for the --samples as NumPy's .npz, under the name frames.")
@seed_option
@settings_options(SamplingConfig)
@backend_options("torch")
@device_option
@workers_options
@frames_options
@part_option
def command(
    model: str,
    frames: str,
    output: Path | None,
    report: Path | None,
    count_tokens: Path | None,
    batch_size: int,
    number: int,
    real: str,
    by_class: bool,
    features: Path | None,
    neighbours: Path | None,
    keep_samples: Path | None,
    seed: int,
    backend: Backend,
    precision: Precision,
    device: str,
    workers: int | None,
    ray_address: str | None,
    size: tuple[int, int] | None,
    skip_bad: bool,
    part: str,
    **given: Any,
) -> None:
    """Measure a model on frames: what its tokens lose, how many bits they take, how well its codebook is used.

    With --samples new frames are painted as well, by --workers where there are any, and judged by the frames, which the
    model must not have seen.
    """
    settings = override(SamplingConfig(), given)
    _check_outputs(number, by_class, neighbours, keep_samples, report, workers)
    pipeline = with_workers(load(model).to(device), workers, ray_address)
    frame_set = read_frames(frames, size, skip_bad, part)
    _check_size(pipeline, frame_set, exactly=number > 0)
    new, labels = None, None
    if number:
        judges = Judges(load_feature_network(features).to(device), read_frames(real, size, skip_bad))
        check_judgeable(number, frame_set, judges.real, judges.network)
        asked = _asked(pipeline, number) if by_class else None
        labels = None if asked is None else _labels(asked, judges.network)
        with progress_bar("painting tokens") as progress:
            new = pipeline.sample(
                number,
                seed=seed,
                settings=settings,
                class_name=asked,
                batch_size=batch_size,
                backend=_painting_backend(backend),
                precision=precision,
                progress=progress,
            )
        if keep_samples:
            _keep(new, keep_samples)
    counts, counted_on = _count_model(pipeline.tokenizer, Path(model), count_tokens)
    prior = _measurable(pipeline.prior, backend, precision)
    with progress_bar("measuring") as progress:
        result = evaluate(pipeline.tokenizer, prior, frame_set, counts, batch_size, progress)
    pictures = _pictures(pipeline.tokenizer, prior, frame_set, result) if report else []
    if new is not None:
        generation = _judge(new, frame_set, judges, pipeline.tokenizer, batch_size, labels)
        result = replace(result, generation=generation)
        pictures += (sheets := _sheets_of_new(new, generation, judges.real))
        if neighbours:
            write_frame(sheets[-1][1], neighbours)
    figures = {
        "model": model,
        "backend": backend,
        "arithmetic": precision,
        **({"seed": seed, **settings.to_dict(), "real": real} if number else {}),
        **result.to_dict(),
        "count_baseline_source": counted_on,
        "skipped": len(frame_set.skipped),
    }
    title, rows = f"{model} on {frames}", summary(figures)
    if output:
        _write_json(figures, output)
    if report:
        write_page(report, title, rows, figures, pictures)
    _print_table(title, rows)
    if prior is not None and counted_on == "bundled:train":
        click.echo("- counts are of the bundled frames: --count-tokens names those that the prior was trained on")
    for advice in figures["advice"]:
        click.echo(f"- {advice}")


def _measurable(prior: Prior | None, backend: Backend, precision: Precision) -> SequentialPrior | MaskedPrior | None:
    """Return a prior ready to say what tokens cost, or cost at most; None if it cannot say either."""
    if isinstance(prior, SequentialPrior):
        return prepare(prior, backend, precision)
    return prior if isinstance(prior, MaskedPrior) else None


Captioned = tuple[str, np.ndarray]
"""What a picture shows, and the picture."""


class Judges(NamedTuple):
    """What new frames are judged by, beside the frames that are held out."""

    network: FeatureNetwork
    real: FrameSet


def _check_outputs(
    number: int,
    by_class: bool,
    neighbours: Path | None,
    keep_samples: Path | None,
    report: Path | None,
    workers: int | None,
) -> None:
    """Refuse, before any work, flags that nothing would come of, or files that could not be written."""
    if report:
        check_page(report)
    if not number and (by_class or neighbours or keep_samples or workers):
        raise click.UsageError(
            "--by-class, --neighbours, --keep-samples and --workers are of new frames: say how many with --samples"
        )
    if neighbours and neighbours.suffix.lower() not in PICTURE_SUFFIXES:
        raise click.BadParameter(f"{neighbours} must end like a picture, such as .png", param_hint="--neighbours")


def _painting_backend(given: Backend) -> Backend:
    """Return what paints: what was asked for, else what `bisquit sample` takes; the default is for measuring bits."""
    source = click.get_current_context().get_parameter_source("backend")
    return "auto" if source is ParameterSource.DEFAULT else given


def _keep(painted: np.ndarray, output: Path) -> None:
    with atomic_file(output) as partial, partial.open("wb") as file:
        np.savez_compressed(file, frames=painted)


def _asked(pipeline: Pipeline, number: int) -> list[str]:
    """Return the class that each of so many new frames is to show: all that a model knows, in turn."""
    classes = chosen_classes(pipeline, None)
    return [classes[i % len(classes)] for i in range(number)]


def _labels(asked: Sequence[str], network: FeatureNetwork) -> np.ndarray:
    """Return what a network calls the classes that were asked for, -1 for one that it does not know."""
    return np.array([network.classes.index(name) if name in network.classes else -1 for name in asked])


def _judge(
    painted: np.ndarray,
    frames: FrameSet,
    judges: Judges,
    tokenizer: Tokenizer,
    batch_size: int,
    labels: np.ndarray | None,
) -> Generation:
    network, real = judges.network, judges.real
    with progress_bar("judging new frames") as progress:
        return judge(painted, frames, real, network, tokenizer, labels=labels, batch_size=batch_size, progress=progress)


def _pictures(
    tokenizer: Tokenizer, prior: SequentialPrior | MaskedPrior | None, frames: FrameSet, result: Evaluation
) -> list[Captioned]:
    """Return what a report shows of a few frames, spread over all: what comes back, and where their bits are."""
    shown = frames[spread(SHOWN // 2, len(frames))]
    with measured(tokenizer) as device:
        tokens = tokenizer.encode(torch.from_numpy(shown).to(device))
        remade = tokenizer.decode(tokens, (frames.height, frames.width)).cpu().numpy()
    caption = f"Frames, what comes back from their tokens, and the difference, {ERROR_GAIN} times enlarged."
    pictures = [(caption, reconstruction_sheet(shown, remade))]
    if isinstance(prior, SequentialPrior) and isinstance(result.likelihood, Likelihood):
        with measured(prior) as device:
            bits = prior.token_bits(tokens.to(device)).cpu().numpy()
        scale = f"on a scale from 0 to {tokenizer.bits} bits"
        pictures += [
            (f"What each token costs, {scale}.", bits_sheet(shown, bits, tokenizer.bits, tokenizer.patch_size)),
            (
                f"What the token of each place costs on average, {scale}.",
                bits_map_picture(result.likelihood.bits_by_position, tokenizer.bits),
            ),
        ]
    return pictures


def _sheets_of_new(new: np.ndarray, generation: Generation, real: FrameSet) -> list[Captioned]:
    """Return a sheet of the first new frames, and one of those nearest to a real one, each above that one."""
    order = np.argsort(generation.neighbours.rms, kind="stable")[:SHOWN]
    return [
        (f"The first {len(new[:SHOWN])} new frames, none picked.", contact_sheet(new[:SHOWN], columns=4)),
        (
            "The new frames nearest to one of --real, each above that one.",
            paired_sheet(new[order], real[generation.neighbours.index[order]]),
        ),
    ]


def _write_json(figures: dict[str, Any], output: Path) -> None:
    with atomic_file(output) as partial:
        partial.write_text(json.dumps(figures, indent=2, allow_nan=False) + "\n")


def _print_table(title: str, rows: Sequence[SummaryRow]) -> None:
    table = Table(title=Text(title), show_header=False)
    for row in rows:
        table.add_row(*map(Text, row))
    Console().print(table)


def _check_size(pipeline: Pipeline, frames: FrameSet, exactly: bool) -> None:
    """Raise FrameError, before any work, if the prior is over other grids than the frames'; if exactly, other sizes."""
    if pipeline.frame_size is None:
        return
    height, width = pipeline.frame_size
    is_other_size = (frames.height, frames.width) != (height, width)
    is_other_grid = pipeline.tokenizer.grid(frames.height, frames.width) != pipeline.tokenizer.grid(height, width)
    if is_other_grid or (exactly and is_other_size):
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
