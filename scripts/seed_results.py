"""Make docs/seed.md: the `seed` preset trained in full, with positions and without, after one epoch and after all.

    python scripts/seed_results.py --frames 'FRAMES/train-0*.parquet' --valid-frames FRAMES/valid-00.parquet

About two hours on two cores. Every step is a `bisquit` command, printed before it runs; what is done already is not
done again, and a training that was interrupted goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import subprocess
import sys
import textwrap
from datetime import date
from pathlib import Path
from typing import Any

from bisquit.record import RunRecord

ROOT = Path(__file__).resolve().parent.parent
IMAGES = ROOT / "docs" / "images"
POSITIONS = ("learned", "none")
EPOCHS = (1, 5)


def main() -> None:
    """Train, tokenize, measure, draw, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", required=True, help="frames to train on")
    parser.add_argument("--valid-frames", required=True, help="frames of other races to measure on")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "seed", help="where the runs are kept")
    options = parser.parse_args()
    runs: Path = options.runs

    tokenizer = runs / "tokenizer"
    bisquit(
        *("train", "tokenizer", "--preset", "seed", "--frames", options.frames),
        *("--valid-frames", options.valid_frames, "--out", tokenizer, "--resume"),
    )
    train_tokens, valid_tokens = runs / "train.safetensors", runs / "valid.safetensors"
    for frames, tokens in ((options.frames, train_tokens), (options.valid_frames, valid_tokens)):
        if not tokens.exists():
            bisquit("tokenize", "--tokenizer", tokenizer, "--frames", frames, "-o", tokens)
    for positions in POSITIONS:
        bisquit(
            *("train", "prior", "--preset", "seed", "--positions", positions, "--tokens", train_tokens),
            *("--valid-tokens", valid_tokens, "--out", runs / f"prior-{positions}", "--resume"),
        )

    tokenizers = {epoch: measure(epoch_folder(tokenizer, epoch), options.valid_frames) for epoch in EPOCHS}
    priors = {
        (positions, epoch): measure(
            epoch_folder(runs / f"prior-{positions}", epoch), options.valid_frames, train_tokens
        )
        for positions in POSITIONS
        for epoch in EPOCHS
    }
    draw(runs, options.valid_frames)
    (ROOT / "docs" / "seed.md").write_text(page(tokenizers, priors, options))


def bisquit(*arguments: str | Path) -> None:
    """Run one command, printed as a person would type it; stop with it if it fails."""
    words = [str(argument) for argument in arguments]
    print("$ bisquit", shlex.join(words), flush=True)
    status = subprocess.run([sys.executable, "-m", "bisquit", *words], check=False).returncode
    if status:
        sys.exit(status)


def epoch_folder(run: Path, epoch: int) -> Path:
    """Return the folder of a run's model as it was after an epoch.

    A run's own folder holds the model of the epoch with the lowest valid loss, which need not be the last.
    """
    return run / f"epoch-{epoch:02d}"


def measure(model: Path, frames: str, count_tokens: Path | None = None) -> dict[str, Any]:
    """Return the figures of a model, measured once and kept beside it."""
    output = model / "evaluation.json"
    weights = max(path.stat().st_mtime for path in model.glob("*.safetensors"))
    if not output.exists() or output.stat().st_mtime < weights:
        counted = ("--count-tokens", count_tokens) if count_tokens else ()
        bisquit("evaluate", "--model", model, "--frames", frames, "--json", output, *counted)
    figures: dict[str, Any] = json.loads(output.read_text())
    return figures


def draw(runs: Path, valid_frames: str) -> None:
    """Draw the sheets that the page shows."""
    for epoch in EPOCHS:
        tokenizer = epoch_folder(runs / "tokenizer", epoch)
        sheet = IMAGES / f"seed-reconstructions-epoch-{epoch}.jpg"
        bisquit("reconstruct", "--model", tokenizer, valid_frames, "-o", sheet, "--number", "8")
        for positions in POSITIONS:
            model = epoch_folder(runs / f"prior-{positions}", epoch)
            bisquit("sample", "--model", model, "-n", "16", "-o", IMAGES / f"seed-{positions}-epoch-{epoch}.jpg")


def spread(figures: dict[str, Any]) -> str:
    """Return the standard error of the bits as it follows their mean; nothing where there is none."""
    error = figures["bits_per_image_stderr"]
    return "" if error is None else f" ± {error:.0f}"


def parameters(model: Path, part: str) -> int:
    """Return how many parameters a model's tokenizer or prior has."""
    ask = [sys.executable, "-m", "bisquit", "info", str(model), "--json"]
    count: int = json.loads(subprocess.run(ask, check=True, capture_output=True).stdout)[f"{part}_parameters"]
    return count


def page(tokenizers: dict[int, dict[str, Any]], priors: dict[tuple[str, int], dict[str, Any]], options: Any) -> str:
    """Return the page as Markdown."""
    figures = tokenizers[EPOCHS[-1]]
    models = {positions: epoch_folder(options.runs / f"prior-{positions}", EPOCHS[-1]) for positions in POSITIONS}
    record = RunRecord.load(options.runs / "tokenizer")
    tokenizer_rows = [
        f"| {epoch} | {t['mse']:.5f} | {t['psnr_db']:.2f} | {t['ssim']:.3f} | {t['codes_used']:,} of {t['codes']:,} "
        f"| {t['joint_entropy_bits']:.2f} |"
        for epoch, t in tokenizers.items()
    ]
    prior_rows = [
        f"| {positions} | {epoch} | {p['bits_per_image']:,.0f}{spread(p)} "
        f"| {p['bits_per_token']:.3f} | {p['count_baseline_bits_per_image']:,.0f} "
        f"| {p['gain_over_count_baseline']:.1%} | {p['bits_per_image'] / 8:,.0f} |"
        for (positions, epoch), p in priors.items()
    ]
    versions, n_frames = record.versions, record.data["frames"]["frames"]
    introduction = textwrap.fill(
        "The design that the project started from, to the figure: a patch auto-encoder with binary spherical "
        f"quantisation (5 x 5 patches, 10 bits, {parameters(models['none'], 'tokenizer'):,} parameters) and a causal "
        f"transformer (3 layers, width 128, {parameters(models['learned'], 'prior'):,} parameters with learned "
        f"positions, {parameters(models['none'], 'prior'):,} without), each trained for {EPOCHS[-1]} epochs of "
        f"{n_frames:,} frames "
        f"with PyTorch {versions['torch']}, {record.precision} forward passes and a constant rate (the transformer's "
        "after a short warm-up), and measured, with averaged weights and in float32, on "
        f"{figures['frames']:,} frames of races that neither has seen.",
        width=120,
    )
    sheets = [
        f"### {'With' if positions == 'learned' else 'Without'} positions, after {epoch} epoch{'s' * (epoch > 1)}\n\n"
        f"![16 samples](images/seed-{positions}-epoch-{epoch}.jpg)\n"
        for epoch in EPOCHS
        for positions in POSITIONS
    ]
    return f"""# The `seed` preset

Frames in all pictures: SuperTuxKart and its contributors, [supertuxkart.net](https://supertuxkart.net), CC BY-SA 4.0.

{introduction}

The transformer's rate (2e-3) and batch (16) are no figures of the design: they were chosen from five tries, by the bits
of 192 of these valid frames, so its bits are that much flattered. One seed each.

Made on {date.today():%d %B %Y}, on {os.cpu_count()} cores ({platform.machine()}), by

    python scripts/seed_results.py --frames 'FRAMES/{Path(options.frames).name}' \\
        --valid-frames FRAMES/{Path(options.valid_frames).name}

## The tokenizer

Mean squared error is that of frames in [-0.5, 0.5] through their tokens; PSNR is the mean of the frames'.

| epochs | mean squared error | PSNR, dB | SSIM | codes in use | entropy of a token, bits |
| --- | --- | --- | --- | --- | --- |
{chr(10).join(tokenizer_rows)}

Frames, and under them what comes back from their {figures["tokens_per_image"]} tokens, after 1 epoch and after 5:

![After 1 epoch](images/seed-reconstructions-epoch-1.jpg)

![After 5 epochs](images/seed-reconstructions-epoch-5.jpg)

## The prior

Bits an image are the prior's, mean ± standard error (races independent, frames within one not). "By counts" is what a
left-and-up count model needs that was fitted on the same training tokens: interpolated Kneser-Ney, backed off from left
and up to left to single tokens, its discounts tuned on a tenth of them.

| positions | epochs | bits an image | bits a token | by counts | less by | bytes an image |
| --- | --- | --- | --- | --- | --- | --- |
{chr(10).join(prior_rows)}

Pictures 0 to 15 of seed 0 at temperature 1, none picked:

{chr(10).join(sheets)}"""


if __name__ == "__main__":
    main()
