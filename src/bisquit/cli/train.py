"""`bisquit train tokenizer`, `bisquit train prior` and `bisquit train features`."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from bisquit import training
from bisquit.captions import SHIPPED, load_captions
from bisquit.card import write_card
from bisquit.cli.options import (
    FRAMES,
    MODEL,
    OUTPUT,
    Named,
    frames_options,
    part_option,
    progress_bar,
    read_frames,
    report_skipped,
)
from bisquit.cli.settings import override, settings_options
from bisquit.errors import ProcessLost
from bisquit.frames import BUNDLED, FrameSet, load_splits
from bisquit.generate import load, load_feature_network, shipped_models
from bisquit.presets import PRESETS, get_preset
from bisquit.priors import KINDS
from bisquit.processes import on_first
from bisquit.quantizers import default_quantizer, quantizer_kinds
from bisquit.streaming import BLOCK_PICTURES, StreamedTokens
from bisquit.tokens import FreshTokens, TokenSet
from bisquit.training import FeaturesRecipe, PriorRecipe, Processes, TokenizerRecipe
from bisquit.training.launch import LOST, is_of_torchrun, is_process_of_many, joined, launch

Function = TypeVar("Function", bound=Callable[..., Any])
PRESET = Named("preset", lambda: PRESETS)


def _run_on_frames_options(function: Function) -> Function:
    """Add the flags of a run that trains on frames."""
    options = (
        click.option("--preset", required=True, type=PRESET, help=f"The recipe to start from: {', '.join(PRESETS)}."),
        click.option(
            "--frames", required=True, type=FRAMES, help="Frames: a Parquet file, a folder, a glob, or bundled."
        ),
        click.option(
            "--valid-frames", type=FRAMES, help="Frames to validate on; else some races of --frames are held out."
        ),
        click.option("--out", required=True, type=OUTPUT, help="The folder of the run."),
        click.option("--resume", is_flag=True, help="Go on with the run in --out if there is one."),
        frames_options,
    )
    for option in reversed(options):
        function = option(function)
    return function


def _processes_options(function: Function) -> Function:
    """Add the flags that say how many processes train together; the command then is run by each of them."""

    @settings_options(Processes)
    @functools.wraps(function)
    def run(**given: Any) -> None:
        names = Processes().to_dict()
        processes = override(Processes(), {name: given.pop(name) for name in names})
        if processes.count > 1 and not is_process_of_many():
            if status := launch([sys.executable, "-m", "bisquit", *sys.argv[1:]], processes):
                sys.exit(status)
            return
        try:
            with joined():
                function(**given)
        except ProcessLost:
            if is_of_torchrun():
                raise
            sys.exit(LOST)

    return run  # type: ignore[return-value]


@click.group()
def command() -> None:
    """Train a tokenizer, a prior over its tokens, or a feature network, which judges what they paint.

    A run lives in one folder, saves its state every few minutes and when it is interrupted, and goes on with --resume.
    """


@command.command()
@_run_on_frames_options
@click.option(
    "--quantizer",
    type=click.Choice(list(quantizer_kinds())),
    help="Take this quantizer, as it is by default and with as many bits, in place of the preset's.",
)
@click.option("--start", type=MODEL, help="A tokenizer to start from: what fits of it; more bits grow from its own.")
@click.option("--features", type=OUTPUT, help="The network for --perceptual-weight; else the one that ships.")
@settings_options(TokenizerRecipe)
@_processes_options
def tokenizer(
    preset: str,
    frames: str,
    valid_frames: str | None,
    quantizer: str | None,
    start: str | None,
    features: Path | None,
    out: Path,
    resume: bool,
    size: tuple[int, int] | None,
    skip_bad: bool,
    **given: Any,
) -> None:
    """Train a tokenizer on frames."""
    recipe = _tokenizer_recipe(preset, quantizer, given)
    begun = load(start).tokenizer if start else None
    network = load_feature_network(features) if recipe.sharpening.perceptual_weight else None
    train, valid, sources = _read(frames, valid_frames, size, skip_bad)
    sources |= _named(start=start, features=features if network else None)
    training.train_tokenizer(
        recipe, train, valid, out, resume=resume, preset=preset, sources=sources, start=begun, network=network
    )
    on_first(lambda: _say_what_is_in(out, "tokenizer"))


@command.command()
@click.option("--preset", required=True, type=PRESET, help=f"The recipe to start from: {', '.join(PRESETS)}.")
@click.option(
    "--prior", "kind", type=click.Choice([*KINDS]), help="Another kind of prior than the preset's, of the same shape."
)
@click.option("--tokens", help="Tokens to train on: a file of `bisquit tokenize`, or `bisquit shards`' folder or URL.")
@click.option("--valid-tokens", required=True, help="Tokens of the same tokenizer to validate on, likewise.")
@click.option(
    "--block-pictures",
    type=click.IntRange(min=1),
    default=BLOCK_PICTURES,
    show_default=True,
    help="Of shards, how many pictures are shuffled together; twice as many are held.",
)
@click.option(
    "--frames", type=FRAMES, help="Frames to train on instead, changed at random and tokenized anew each time."
)
@click.option(
    "--start", type=MODEL, help="A model whose prior to start from: what fits of it; more bits grow from its own."
)
@click.option("--captions", help=f"Sentences about the classes to learn words from: a table, or {', '.join(SHIPPED)}.")
@click.option("--out", required=True, type=OUTPUT, help="The folder of the run.")
@click.option("--resume", is_flag=True, help="Go on with the run in --out if there is one.")
@frames_options
@part_option
@settings_options(PriorRecipe)
@_processes_options
def prior(
    preset: str,
    kind: str | None,
    tokens: str | None,
    valid_tokens: str,
    block_pictures: int,
    frames: str | None,
    start: str | None,
    captions: str | None,
    out: Path,
    resume: bool,
    size: tuple[int, int] | None,
    skip_bad: bool,
    part: str,
    **given: Any,
) -> None:
    """Train a prior on tokens; the folder then holds a whole model, its tokenizer too."""
    if (tokens is None) == (frames is None):
        raise click.UsageError("pass either --tokens or --frames to train on")
    recipe = get_preset(preset).prior
    if kind:
        recipe = recipe.of_kind(kind)
    recipe = override(recipe, given)
    begun = load(start) if start else None
    sentences = load_captions(captions) if captions else None
    valid = _read_tokens(valid_tokens, block_pictures)
    sources = {"valid_tokens": _source(valid_tokens), **_named(start=start, captions=captions)}
    train: TokenSet | FreshTokens | StreamedTokens
    if tokens is not None:
        train, sources["tokens"] = _read_tokens(tokens, block_pictures), _source(tokens)
    else:
        assert frames is not None
        frame_set = read_frames(frames, size, skip_bad, part)
        train, sources["frames"] = FreshTokens(frame_set, valid.tokenizer), _source(frames)
    training.train_prior(
        *(recipe, train, valid, out),
        resume=resume,
        preset=preset,
        sources=sources,
        start=begun.prior if begun else None,
        start_conditions=begun.conditions if begun else None,
        captions=sentences,
    )
    on_first(lambda: _say_what_is_in(out, "model"))


@command.command()
@_run_on_frames_options
@settings_options(FeaturesRecipe)
@_processes_options
def features(
    preset: str,
    frames: str,
    valid_frames: str | None,
    out: Path,
    resume: bool,
    size: tuple[int, int] | None,
    skip_bad: bool,
    **given: Any,
) -> None:
    """Train a feature network on frames and their classes, by which `bisquit evaluate` judges new frames."""
    recipe = override(get_preset(preset).features, given)
    train, valid, sources = _read(frames, valid_frames, size, skip_bad)
    training.train_features(recipe, train, valid, out, resume=resume, preset=preset, sources=sources)
    on_first(lambda: click.echo(f"feature network in {out}"))


def _say_what_is_in(out: Path, made: str) -> None:
    write_card(out)
    click.echo(f"{made} in {out}")


def _tokenizer_recipe(preset: str, quantizer: str | None, given: Mapping[str, Any]) -> TokenizerRecipe:
    """Return a preset's recipe, with another kind of quantizer if one is named, and with what was given.

    The bits that were given are then those of the kind's default settings, so that it takes them too where they follow
    from other fields. Raises click.UsageError if such a field was given beside them and they do not agree.
    """
    recipe = get_preset(preset).tokenizer
    if quantizer is None:
        return override(recipe, given)
    bits = recipe.tokenizer.quantizer.bits if given["bits"] is None else given["bits"]
    shape = recipe.tokenizer.replace(quantizer=default_quantizer(quantizer, bits))
    recipe = override(recipe.replace(tokenizer=shape), {**given, "bits": None})
    made = recipe.tokenizer.quantizer.bits
    if given["bits"] not in (None, made):
        raise click.UsageError(f"--bits is {bits}, but --levels give {made}: leave one of them out")
    return recipe


def _read(
    frames: str, valid_frames: str | None, size: tuple[int, int] | None, skip_bad: bool
) -> tuple[FrameSet, FrameSet, dict[str, str]]:
    """Return the frames to train on and those to validate on, and where they came from."""
    with progress_bar("reading frames") as progress:
        train, valid = load_splits(frames, valid_frames, size=size, skip_bad=skip_bad, progress=progress)
    report_skipped(tuple(dict.fromkeys(train.skipped + valid.skipped)))
    return train, valid, {"frames": _source(frames), "valid_frames": _source(valid_frames or frames)}


def _read_tokens(name: str, block_pictures: int) -> TokenSet | StreamedTokens:
    """Return the tokens of a file, or of shards, which are streamed."""
    is_streamed = "://" in name or "*" in name or Path(name).is_dir()
    return StreamedTokens(name, block_pictures) if is_streamed else TokenSet.load(name)


def _named(**models: str | Path | None) -> dict[str, str]:
    """Return where models came from that were named."""
    return {role: _source(model) for role, model in models.items() if model is not None}


def _source(name: str | Path) -> str:
    """Return where something came from, as an absolute path; what ships with bisquit, or has a URL, by its name."""
    has_name = str(name) in (BUNDLED, *shipped_models(), *SHIPPED) or str(name).startswith(f"{BUNDLED}:")
    has_name = has_name or "://" in str(name)
    return str(name) if has_name else str(Path(name).absolute())
