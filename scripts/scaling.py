"""Make docs/scaling.md: how the prior's loss falls with parameters, tokens and compute, and what more would give.

    python scripts/scaling.py --tokenizer runs/best/tokenizer --frames 'FRAMES/train-0*.parquet' \\
        --valid-frames FRAMES/valid-00.parquet --check runs/best/prior

An hour a seed on two cores; `--plan` lists the runs and says how long they take. Priors of the `best` preset's recipe,
but smaller, are trained on fixed tokens, each picture seen once; a law is fitted to their losses, and its forecast is
held against a larger run. Cheap runs come first. Every training is a `bisquit` command, printed before it runs; what is
done already is not done again, a training that was interrupted goes on, and the page is written anew after each run,
from what there is. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import trainings
from scaling_page import page, summary
from scaling_plan import SIZES, Run, Scale, Size, parameters, products
from scaling_plot import plot_compute, plot_tokens
from scaling_study import Check, Study
from trainings import (
    FIGURES_FILE,
    gather,
    hold_to,
    nested_rows,
    require_counts,
    save_json,
    study_parser,
    taken,
    work_through,
)

from bisquit.atomic import atomic_file
from bisquit.checkpoint import PRIOR_FILE
from bisquit.config import Settings
from bisquit.errors import BisquitError
from bisquit.evaluation import likelihood
from bisquit.frames import load_frames
from bisquit.generate import load
from bisquit.presets import get_preset
from bisquit.priors import RasterConfig, SequentialPrior
from bisquit.record import RECORD_FILE, RunRecord
from bisquit.tokens import TokenSet
from bisquit.training import PriorRecipe

VALIDATED_EVERY = 10  # valid frame, in training: no choice hangs on it
BATCH = 32
PRESET = "best"
SUITED = ("width", "n_layers", "n_heads", "feed_forward", "epochs", "warmup_steps", "ema_decay")
OF_NO_CONSEQUENCE = ("flip", "shift_px", "colour", "seed", "checkpoint_minutes", "snapshot_epochs")


@dataclass(frozen=True)
class Work:
    """What all runs share."""

    options: argparse.Namespace
    scale: Scale
    plan: list[Run]
    fingerprint: str
    """The tokenizer's."""

    def folder(self, run: Run, seed: int) -> Path:
        """Return where a run's files are: `run` is bisquit's own, its figures lie beside that."""
        runs: Path = self.options.runs
        return runs / run.name / f"seed-{seed}"

    def tokens(self, part: str) -> Path:
        """Return where the tokens of a part of the frames are."""
        runs: Path = self.options.runs
        return runs / f"{part}.safetensors"


def main() -> None:
    """Do run after run, and write the page after each."""
    options = parse()
    work = prepare(options)
    for run in work.plan:
        print(f"{run.name}: {work.scale.flops(run):.2g} FLOPs, about {work.scale.seconds(run) / 60:.1f} min a seed")
    hours = sum(map(work.scale.seconds, work.plan)) / 3600
    print(f"{len(work.plan)} runs, about {hours:.1f} hours a seed", flush=True)
    if options.plan:
        return
    scale = work.scale
    shared = {"tokenizer": work.fingerprint, "frames": scale.frames, "valid_frames": scale.valid_frames}
    hold_to(shared, options.runs)
    for part, frames in (("train", options.frames), ("valid", options.valid_frames)):
        if not work.tokens(part).exists():
            trainings.bisquit("tokenize", "--tokenizer", options.tokenizer, "--frames", frames, "-o", work.tokens(part))
    study = write(work)

    def write_anew(run: Run) -> None:
        nonlocal study
        study = write(work)

    failed = work_through(
        work.plan,
        options.seeds,
        options.hours,
        is_done=lambda run, seed: (work.folder(run, seed) / FIGURES_FILE).exists(),
        finish=lambda run, seed: finish(run, seed, work),
        write=write_anew,
    )
    print(json.dumps(summary(study)), flush=True)
    sys.exit(1 if failed else 0)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = study_parser(__doc__, "scaling")
    parser.add_argument("--tokenizer", required=True, type=Path, help="the tokenizer whose tokens priors learn")
    parser.add_argument(
        "--sizes",
        type=lambda text: tuple(map(Size.of, text.split(","))),
        default=SIZES,
        help=f"priors, as width x layers x heads; {','.join(map(str, SIZES))} if not given",
    )
    parser.add_argument(
        "--largest", type=int, help="pictures of the longest runs, halved four times for others; all if not given"
    )
    parser.add_argument("--seeds", type=int, default=1, help="how many seeds, from 0 on")
    parser.add_argument("--check", type=Path, help="a larger run, of any length, to hold the forecast against")
    parser.add_argument("--hours", type=float, default=float("inf"), help="start no run after so many hours")
    parser.add_argument("--plan", action="store_true", help="list the runs and how long they take, and stop")
    options = parser.parse_args()
    require_counts(parser, options, "seeds", "largest")
    return options


def prepare(options: argparse.Namespace) -> Work:
    """Look at what was given, and plan. Exits with 1 if it does not fit together."""
    tokenizer = load(options.tokenizer).tokenizer
    frames, valid_frames = load_frames(options.frames), load_frames(options.valid_frames)
    largest = options.largest or len(frames)
    if largest > len(frames):
        sys.exit(f"--largest is {largest}: there are {len(frames)} frames, and each is seen but once")
    fingerprint = tokenizer.fingerprint()
    if options.check and (options.check / RECORD_FILE).exists():
        theirs = RunRecord.load(options.check).data.get("tokenizer")
        if theirs != fingerprint:
            sys.exit(f"{options.check} is over tokens of {theirs}, not {fingerprint}: their bits do not compare")
    training = get_preset(PRESET).prior.training
    scale = Scale(
        grid=tokenizer.grid(frames.height, frames.width),
        bits=tokenizer.bits,
        batch=training.batch_size,
        longest_warm_up=training.warmup_steps,
        slowest_decay=training.ema_decay,
        frames=len(frames),
        valid_frames=len(valid_frames),
    )
    return Work(options, scale, scale.plan(options.sizes, largest), fingerprint)


def finish(run: Run, seed: int, work: Work) -> None:
    """Train a run, or go on with it, measure it, and keep its figures; its training's state is then removed."""
    pictures, shown = work.tokens(f"train-{run.pictures}"), work.tokens("valid-shown")
    if not pictures.exists():
        tokens = TokenSet.load(work.tokens("train"))
        taken(tokens, nested_rows(len(tokens), run.pictures)).save(pictures)
    if not shown.exists():
        valid = TokenSet.load(work.tokens("valid"))
        taken(valid, np.arange(0, len(valid), VALIDATED_EVERY)).save(shown)
    folder = work.folder(run, seed)
    seconds = trainings.train(
        "prior",
        folder,
        *("--preset", PRESET, *work.scale.flags(run), "--seed", str(seed)),
        *("--tokens", pictures, "--valid-tokens", shown),
    )
    save_json({**measure(folder / "run", work), "seconds": seconds}, folder / FIGURES_FILE)
    (folder / "run" / "last.ckpt").unlink(missing_ok=True)


def measure(model: Path, work: Work) -> dict[str, float | None]:
    """Return the bits a token that a model's prior needs for all valid frames, and their standard error."""
    print(f"measuring {model}", flush=True)
    prior = load(model).prior
    assert isinstance(prior, SequentialPrior)
    valid = TokenSet.load(work.tokens("valid"))
    found = likelihood(prior, valid.tokens, BATCH, groups=valid.groups)
    error = found.bits_per_image_stderr
    return {
        "valid_bits_token": found.bits_per_token,
        "valid_bits_token_stderr": None if error is None else error / work.scale.picture_tokens,
    }


def check_of(work: Work) -> Check | None:
    """Return what there is to know of the run to check against, measured once; None until it is finished."""
    run: Path | None = work.options.check
    if run is None or not (run / RECORD_FILE).exists() or not (record := RunRecord.load(run)).finished:
        return None
    recipe = PriorRecipe.from_dict(record.recipe)
    if not isinstance(recipe.prior, RasterConfig):
        sys.exit(f"{run} is no raster prior: what it costs is another matter")
    kept, weights = work.options.runs / "check.json", {"run": str(run), "time": (run / PRIOR_FILE).stat().st_mtime}
    found: dict[str, Any] = json.loads(kept.read_text()) if kept.exists() else {}
    if {name: found.get(name) for name in weights} != weights:
        found = {**weights, **measure(run, work)}
        save_json(found, kept)
    pictures = record.data["tokens"]["pictures"]
    batch, epochs = min(recipe.training.batch_size, pictures), recipe.training.epochs
    shape, grid, bits = recipe.prior.transformer, work.scale.grid, work.scale.bits
    return Check(
        name=str(run),
        shape=f"{shape.width}x{shape.n_layers}x{shape.n_heads}",
        parameters=parameters(shape, bits),
        products=products(shape, bits, grid),
        tokens=epochs * (pictures // batch) * batch * work.scale.picture_tokens,
        valid_bits_token=found["valid_bits_token"],
        differs=differences(recipe, pictures),
        command=command_of(recipe, record.sources),
    )


def command_of(recipe: PriorRecipe, sources: Mapping[str, str]) -> str:
    """Return the command that trained a prior, in lines that fit a page."""
    flags = [
        f"--{name.replace('_', '-')} {getattr(part, name):g}"
        for part in (recipe.prior.transformer, recipe.training)
        for name in SUITED
        if hasattr(part, name)
    ]
    varied = f"--{'flip' if recipe.augmentation.flip else 'no-flip'} --shift-px {recipe.augmentation.shift_px}"
    data = [f"--{name.replace('_', '-')} {Path(source).name}" for name, source in sorted(sources.items())]
    words = " ".join((f"bisquit train prior --preset {PRESET}", varied, *flags, *data, "--out RUN"))
    return " \\\n        ".join(textwrap.wrap(words, width=100, break_on_hyphens=False))


def differences(recipe: PriorRecipe, pictures: int) -> tuple[str, ...]:
    """Say in what a run is unlike those that the law is fitted to, beside its size."""
    found = []
    if (epochs := recipe.training.epochs) > 1:
        found.append(f"it sees each of {pictures:,} pictures {epochs} times, which the law takes for new ones")
    augmentation = recipe.augmentation
    if augmentation != type(augmentation)():
        changes = (
            ("mirrored at random", augmentation.flip),
            (f"shifted by up to {augmentation.shift_px} pixels", augmentation.shift_px),
            ("changed in colour", augmentation.colour),
        )
        said = ", ".join(text for text, is_done in changes if is_done)
        found.append(f"its frames are {said}, and tokenized anew each time")
    ours, theirs = settings(get_preset(PRESET).prior), settings(recipe)
    found += [
        f"its {name} is {theirs.get(name)}, not {value}" for name, value in ours.items() if theirs.get(name) != value
    ]
    return tuple(found)


def settings(recipe: Settings) -> dict[str, Any]:
    """Return the settings of a recipe, side by side, without those that are suited to each run or change no loss."""
    flat: dict[str, Any] = {}

    def gather_from(data: dict[str, Any]) -> None:
        for name, value in data.items():
            if isinstance(value, dict):
                gather_from(value)
            elif name not in (*SUITED, *OF_NO_CONSEQUENCE):
                flat[name] = value

    gather_from(recipe.to_dict())
    return flat


def write(work: Work) -> Study:
    """Fit, draw and write the page, from what there is; return that."""
    options = work.options
    study = Study.of(work.scale, work.plan, gather(options.runs), check_of(work))
    images = options.docs / "images"
    plot_tokens(study, images / "scaling-tokens.png")
    plot_compute(study, images / "scaling-compute.png")
    awaited = "" if options.check is None else str(options.check)
    with atomic_file(options.docs / "scaling.md") as partial:
        partial.write_text(page(study, command(options), awaited))
    return study


def command(options: argparse.Namespace) -> str:
    """Return the command that makes the page, as the page says it."""
    frames, valid_frames = Path(options.frames).name, Path(options.valid_frames).name
    optional = {"--largest": options.largest, "--check": options.check}
    given = "".join(f" {name} {shlex.quote(str(value))}" for name, value in optional.items() if value)
    lines = (
        f"python scripts/scaling.py --tokenizer {shlex.quote(str(options.tokenizer))} \\",
        f"    --frames 'FRAMES/{frames}' --valid-frames 'FRAMES/{valid_frames}' \\",
        f"    --sizes {','.join(map(str, options.sizes))} --seeds {options.seeds}{given}",
    )
    return "\n".join(f"    {line}" for line in lines)


if __name__ == "__main__":
    try:
        main()
    except (BisquitError, trainings.CommandFailedError) as error:
        sys.exit(str(error))
