"""`bisquit train tokenizer` and `bisquit train prior`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from bisquit.cli.options import OUTPUT, frames_options, progress_bar, report_skipped
from bisquit.cli.settings import override, settings_options
from bisquit.frames import BUNDLED, load_splits
from bisquit.presets import PRESETS, get_preset
from bisquit.tokens import TokenSet
from bisquit.training import PriorRecipe, TokenizerRecipe, train_prior, train_tokenizer


@click.group()
def command() -> None:
    """Train a tokenizer, or a prior over its tokens.

    A run lives in one folder, saves its state every few minutes and when it is interrupted, and goes on with --resume.
    """


@command.command()
@click.option("--preset", required=True, help=f"The recipe to start from: {', '.join(PRESETS)}.")
@click.option("--frames", required=True, help="Frames: a Parquet file, a folder, a glob, or bundled.")
@click.option("--valid-frames", help="Frames to validate on; else some races of --frames are held out.")
@click.option("--out", required=True, type=OUTPUT, help="The folder of the run.")
@click.option("--resume", is_flag=True, help="Go on with the run in --out if there is one.")
@frames_options
@settings_options(TokenizerRecipe)
def tokenizer(
    preset: str,
    frames: str,
    valid_frames: str | None,
    out: Path,
    resume: bool,
    size: tuple[int, int] | None,
    skip_bad: bool,
    **given: Any,
) -> None:
    """Train a tokenizer on frames."""
    recipe = override(get_preset(preset).tokenizer, given)
    with progress_bar("reading frames") as progress:
        train, valid = load_splits(frames, valid_frames, size=size, skip_bad=skip_bad, progress=progress)
    report_skipped(tuple(dict.fromkeys(train.skipped + valid.skipped)))
    sources = {"frames": _source(frames), "valid_frames": _source(valid_frames or frames)}
    train_tokenizer(recipe, train, valid, out, resume=resume, preset=preset, sources=sources)
    click.echo(f"tokenizer in {out}")


@command.command()
@click.option("--preset", required=True, help=f"The recipe to start from: {', '.join(PRESETS)}.")
@click.option("--tokens", required=True, type=OUTPUT, help="Tokens to train on, as `bisquit tokenize` writes them.")
@click.option("--valid-tokens", required=True, type=OUTPUT, help="Tokens of the same tokenizer to validate on.")
@click.option("--out", required=True, type=OUTPUT, help="The folder of the run.")
@click.option("--resume", is_flag=True, help="Go on with the run in --out if there is one.")
@settings_options(PriorRecipe)
def prior(preset: str, tokens: Path, valid_tokens: Path, out: Path, resume: bool, **given: Any) -> None:
    """Train a prior on tokens; the folder then holds a whole model, its tokenizer too."""
    recipe = override(get_preset(preset).prior, given)
    sources = {"tokens": _source(tokens), "valid_tokens": _source(valid_tokens)}
    token_sets = TokenSet.load(tokens), TokenSet.load(valid_tokens)
    train_prior(recipe, *token_sets, out, resume=resume, preset=preset, sources=sources)
    click.echo(f"model in {out}")


def _source(name: str | Path) -> str:
    """Return where data came from, as an absolute path; the bundled frames' name as it is."""
    is_bundled = str(name) == BUNDLED or str(name).startswith(f"{BUNDLED}:")
    return str(name) if is_bundled else str(Path(name).absolute())
