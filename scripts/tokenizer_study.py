"""Make docs/tokenizers.md: what shape, bits, patches and losses do to what comes back from tokens.

    python scripts/tokenizer_study.py --frames 'FRAMES/train-0*.parquet' --valid-frames FRAMES/valid-00.parquet \\
        --finished runs/best/tokenizer

Some hours on two cores; `--plan` lists the runs. The decoder of a finished tokenizer is sharpened, its encoder, and so
its tokens, left alone; then the `best` preset's tokenizer is varied one thing at a time, on a short budget. Every
training is a `bisquit` command, printed before it runs; what is done already is not done again, a training that was
interrupted goes on, and the page is written anew after each run, from what there is. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import trainings
from trainings import FIGURES_FILE, Figures, filled, gather, hold_to, machine, made_on, save_json, work_through

from bisquit.atomic import atomic_file
from bisquit.errors import BisquitError
from bisquit.evaluation.count_baseline import MAX_CODEBOOK_SIZE
from bisquit.frames import contact_sheet, load_frames, spread, write_frame
from bisquit.generate import load
from bisquit.tokenizer import Tokenizer

ROOT = Path(__file__).resolve().parent.parent
PRESET = "best"
SHOWN = 5  # valid frames on a sheet
ENLARGED = 2


@dataclass(frozen=True)
class Run:
    """The preset's tokenizer but for some flags."""

    name: str
    """The name of its folder."""
    label: str
    flags: tuple[str, ...] = ()
    is_sharpened: bool = False
    """Whether it is the finished tokenizer with its decoder trained further."""
    is_begun: bool = False
    """Whether it begins with what fits of the finished tokenizer."""
    times: int = 1
    """How many times as long it is trained."""


RECIPE = Run("recipe", "as the preset has it")
VARIED = (
    RECIPE,
    Run("decoder-1", "1 block in the decoder, not 3", ("--decoder-depth", "1")),
    Run("encoder-3", "3 blocks in the encoder, not 1", ("--depth", "3")),
    Run("no-average", "last weights, not averaged ones", ("--ema-decay", "0")),
    Run("codebook-entropy", "codes spread: entropy weight 0.001", ("--codebook-entropy-weight", "0.001")),
    Run("sample-entropy", "codes kept few: entropy weight 0.001", ("--sample-entropy-weight", "0.001")),
    Run("12-bits", "12 bits", ("--bits", "12")),
    Run("14-bits", "14 bits", ("--bits", "14")),
    Run("16-bits", "16 bits", ("--bits", "16")),
    Run("18-bits", "18 bits", ("--bits", "18")),
    Run("8-px", "8 x 8 pixels, 24 bits", ("--patch-size", "8", "--bits", "24")),
    Run("10-px", "10 x 10 pixels, 32 bits", ("--patch-size", "10", "--bits", "32")),
)
_GENTLY = ("--decoder-only", "--learning-rate", "5e-4", "--muon-learning-rate", "1e-3")
SHARPENED = (
    Run("squared", "squared error alone, as long again", _GENTLY, is_sharpened=True),
    Run("perceptual", "and a perceptual distance, 0.01", (*_GENTLY, "--perceptual-weight", "0.01"), is_sharpened=True),
    Run(
        "adversarial",
        "and a discriminator of patches, 0.0005",
        (*_GENTLY, "--perceptual-weight", "0.01", "--adversarial-weight", "0.0005"),
        is_sharpened=True,
    ),
)
BEGUN = (Run("18-bits-begun", "18 bits, five times as long", ("--bits", "18"), is_begun=True, times=5),)


@dataclass(frozen=True)
class Work:
    """What all runs share."""

    options: argparse.Namespace

    def folder(self, run: Run, seed: int = 0) -> Path:
        """Return where a run's files are: `run` is bisquit's own, its figures lie beside that."""
        runs: Path = self.options.runs
        return runs / run.name / f"seed-{seed}"

    @property
    def plan(self) -> tuple[Run, ...]:
        """All that is to be trained, decoders first; what takes a finished tokenizer, only if there is one."""
        return (*SHARPENED, *VARIED, *BEGUN) if self.options.finished else VARIED

    @property
    def finished(self) -> Path:
        """Where the figures of the finished tokenizer are."""
        runs: Path = self.options.runs
        return runs / "finished" / f"{load(self.options.finished).tokenizer.fingerprint()}.json"


def main() -> None:
    """Do run after run, and write the page after each."""
    options = parse()
    work = Work(options)
    if options.plan:
        print("\n".join(f"{run.name}: {run.label}" for run in work.plan))
        return
    hold_to({"epochs": options.epochs, "frames": len(load_frames(options.frames))}, options.runs)
    if options.finished and not work.finished.exists():
        save_json(measure(options.finished, options), work.finished)
    failed = work_through(
        work.plan,
        1,
        options.hours,
        is_done=lambda run, seed: (work.folder(run, seed) / FIGURES_FILE).exists(),
        finish=lambda run, seed: finish(run, seed, work),
        write=lambda run: write(work),
    )
    write(work)
    print(json.dumps({"runs": {name: of for (name, _), of in gather(options.runs).items()}, "machine": machine()}))
    sys.exit(1 if failed else 0)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", required=True, help="frames to train on")
    parser.add_argument("--valid-frames", required=True, help="frames of other races to measure on")
    parser.add_argument("--finished", type=Path, help="a tokenizer of the preset, whose decoder is to be sharpened")
    parser.add_argument("--judge-frames", help="frames to train the network on that compares; else --frames")
    parser.add_argument("--epochs", type=int, default=2, help="epochs of every training")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "tokenizers", help="where the runs are kept")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs", help="where the page and its images go")
    parser.add_argument("--hours", type=float, default=float("inf"), help="start no run after so many hours")
    parser.add_argument("--plan", action="store_true", help="list the runs, and stop")
    options = parser.parse_args()
    if options.epochs < 1:
        parser.error(f"--epochs is {options.epochs}: it must be at least 1")
    return options


def finish(run: Run, seed: int, work: Work) -> None:
    """Train a run, or go on with it, measure it, and keep its figures; its training's state is then removed."""
    options, folder = work.options, work.folder(run, seed)
    shared = ("--preset", PRESET, "--frames", options.frames, "--valid-frames", options.valid_frames)
    start: tuple[str | Path, ...] = ()
    if run.is_sharpened:
        judge = options.runs / "features"  # of a seed and length of its own: the one that ships is to judge
        judge_frames = ("--frames", options.judge_frames or options.frames, "--valid-frames", options.valid_frames)
        trainings.train("features", judge, "--preset", PRESET, *judge_frames, "--seed", "1", "--epochs", "2")
        start = ("--start", options.finished, "--features", judge / "run")
    elif run.is_begun:
        start = ("--start", options.finished)
    epochs = ("--epochs", str(run.times * options.epochs), "--seed", str(seed))
    seconds = trainings.train("tokenizer", folder, *shared, *start, *run.flags, *epochs)
    save_json({**measure(folder / "run", options), "seconds": seconds}, folder / FIGURES_FILE)
    (folder / "run" / "last.ckpt").unlink(missing_ok=True)


def measure(model: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Return what `bisquit evaluate` finds of a tokenizer, and what its tokens take by counts where they can count."""
    counted: tuple[str | Path, ...] = ()
    tokenizer = load(model).tokenizer
    if tokenizer.codebook_size <= MAX_CODEBOOK_SIZE:
        tokens = options.runs / "tokens" / f"{tokenizer.fingerprint()}.safetensors"
        if not tokens.exists():
            tokens.parent.mkdir(parents=True, exist_ok=True)
            trainings.bisquit("tokenize", "--tokenizer", model, "--frames", options.frames, "-o", tokens)
        counted = ("--count-tokens", tokens)
    output = options.runs / "evaluation.json"
    trainings.bisquit("evaluate", "--model", model, "--frames", options.valid_frames, *counted, "--json", output)
    figures: dict[str, Any] = json.loads(output.read_text())
    return {**figures, "bits": tokenizer.bits, "parameters": sum(p.numel() for p in tokenizer.parameters())}


def write(work: Work) -> None:
    """Draw the sheets and write the page, from what there is."""
    options, figures = work.options, gather(work.options.runs)
    valid = load_frames(options.valid_frames)
    shown = valid[spread(SHOWN + 2, len(valid))[1:-1]]
    sheets = {"patches": [RECIPE, *VARIED[-6:]], "sharpened": list(SHARPENED)}
    drawn: dict[str, list[str]] = {}
    for name, runs in sheets.items():
        models = {run.label: work.folder(run) / "run" for run in runs if (run.name, 0) in figures}
        if name == "sharpened" and options.finished:
            models = {"the finished one": options.finished, **models}
        if models:
            sheet = reconstructions(shown, [load(model).tokenizer for model in models.values()], ENLARGED)
            write_frame(sheet, options.docs / "images" / f"tokenizers-{name}.jpg")
            drawn[name] = list(models)
    with atomic_file(options.docs / "tokenizers.md") as partial:
        partial.write_text(page(work, figures, drawn))


def reconstructions(frames: np.ndarray, tokenizers: Sequence[Tokenizer], enlarged: int = 1) -> np.ndarray:
    """Lay out frames (N, H, W, 3), and under them, row after row, what comes back from each tokenizer's tokens."""
    size = (frames.shape[1], frames.shape[2])
    x = torch.from_numpy(frames)
    remade = [tokenizer.decode(tokenizer.encode(x), size).numpy() for tokenizer in tokenizers]
    rows = np.concatenate([frames, *remade]).repeat(enlarged, axis=1).repeat(enlarged, axis=2)
    return contact_sheet(rows, columns=len(frames))


COLUMNS = (
    ("tokens x bits", "{tokens_per_image} x {bits}"),
    ("PSNR, dB", "{psnr_db:.2f}"),
    ("SSIM", "{ssim:.3f}"),
    ("MS-SSIM", "{ms_ssim:.3f}"),
    ("sharpness", "{sharpness:.1%}"),
    ("codes in use", "{codes_used:,}"),
    ("bits an image, by counts", "{count_baseline_bits_per_image:,.0f}"),
    ("parameters", "{parameters:,}"),
    ("seconds", "{seconds:,.0f}"),
)


def table(runs: Sequence[Run], figures: Figures) -> str:
    """Return runs as a table, in Markdown; one without figures is said to be missing."""
    lines = ["| | " + " | ".join(title for title, _ in COLUMNS) + " |", "| --- |" + " --- |" * len(COLUMNS)]
    for run in runs:
        of_run = figures.get((run.name, 0))
        cells = ["missing", *[""] * (len(COLUMNS) - 1)] if of_run is None else [_cell(f, of_run) for _, f in COLUMNS]
        lines.append(f"| {run.label} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(form: str, figures: Any) -> str:
    try:
        return form.format(**figures)
    except (KeyError, TypeError, ValueError):  # not measured of this one: null or not there
        return ""


def page(work: Work, figures: Figures, drawn: dict[str, list[str]]) -> str:
    """Return the page as Markdown. drawn: for each sheet there is, what its rows are."""
    options = work.options
    count = json.loads((options.runs / "budget.json").read_text())["frames"]
    epochs = f"{options.epochs} epoch{'s' * (options.epochs != 1)} of {count:,} frames"
    given = f" --finished {options.finished}" if options.finished else ""
    if options.judge_frames:
        given += f" --judge-frames 'FRAMES/{Path(options.judge_frames).name}'"
    introduction = (
        f"The `{PRESET}` preset's tokenizer, varied one thing at a time. All are trained for {epochs}, from the same "
        f"seed; the one that ships takes longer. Measured in float32 with averaged weights, on frames of races that "
        "none has seen. Sharpness is the mean strength of edges (Sobel) over that of the frames themselves. Bits by "
        "counts are what a left-and-up count model, fitted on training tokens, needs for those of unseen frames "
        f"([how](seed.md#the-prior)); it counts no more than {MAX_CODEBOOK_SIZE:,} codes. Seconds are those of the "
        "training command, on a machine that may have done other work."
    )
    sharpened = (
        "A picture that minimises squared error is the average of all that could be, and so is blurred. Here the "
        "decoder of the finished tokenizer learns on with other losses beside it; the encoder is left as it is, and so "
        f"are the tokens and every prior over them. Each for {epochs}, at a quarter of the rates. The perceptual "
        "distance is in the features of a network of another seed than the one that judges new frames."
    )
    begun = (
        "A tokenizer of more bits may begin with the finished one's blocks (`--start`), so that only the maps to bits "
        "and back are new."
    )
    rows: Figures = figures
    lines: tuple[Run, ...] = SHARPENED
    if options.finished:
        whole = Run("finished", "the finished one")
        rows, lines = {**figures, (whole.name, 0): json.loads(work.finished.read_text())}, (whole, *SHARPENED)
    frames, valid_frames = Path(options.frames).name, Path(options.valid_frames).name
    return f"""# Tokenizers

Frames in all pictures: SuperTuxKart and its contributors, [supertuxkart.net](https://supertuxkart.net), CC BY-SA 4.0.

{filled(introduction)}

{made_on()}

    python scripts/tokenizer_study.py --frames 'FRAMES/{frames}' --valid-frames FRAMES/{valid_frames} \\
       {given} --epochs {options.epochs}

## One thing at a time

{table(VARIED, figures)}
{_sheet("patches", drawn)}
## Sharper decoders

{filled(sharpened)}

{table(lines, rows)}
{_sheet("sharpened", drawn)}
## More bits, from the finished one

{filled(begun)}

{table(BEGUN, figures)}
"""


def _sheet(name: str, drawn: dict[str, list[str]]) -> str:
    if name not in drawn:
        return ""
    said = filled(f"Valid frames, and under them, row after row: {'; '.join(drawn[name])}.")
    return f"\n{said}\n\n![Reconstructions](images/tokenizers-{name}.jpg)\n"


if __name__ == "__main__":
    try:
        main()
    except BisquitError as error:
        sys.exit(str(error))
