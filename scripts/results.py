"""Make docs/results.md: three of the models that ship, measured and judged, from its weights.

    python scripts/results.py --frames 'FRAMES/train-0*.parquet' --valid-frames FRAMES/valid-00.parquet

About half an hour on two cores. Every figure is from a `bisquit` command, printed before it runs, but for the bits of
frames trained on, which are of a random pick of them; what was measured on the same weights is not measured again. The
last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from datetime import date
from pathlib import Path
from typing import Any

import torch
from seed_results import bisquit, parameters
from tokenizer_study import reconstructions

from bisquit.atomic import atomic_file
from bisquit.evaluation import likelihood
from bisquit.frames import load_frames, spread, write_frame
from bisquit.generate import Pipeline, load
from bisquit.priors import SequentialPrior
from bisquit.tokens import TokenSet

ROOT = Path(__file__).resolve().parent.parent
IMAGES = ROOT / "docs" / "images"
MODELS = ("seed", "small", "best")
PICKED = 2048  # training pictures whose bits are measured
SHOWN = 8  # valid frames on the sheet of reconstructions
SAMPLING = ("--top-p", "0.95")  # of all new frames
Figures = dict[str, Any]


def main() -> None:
    """Measure each model, draw, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", required=True, help="the frames that the models were trained on")
    parser.add_argument("--valid-frames", required=True, help="frames of other races")
    parser.add_argument("--samples", type=int, default=2000, help="how many new frames of each model are judged")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "results", help="where the figures are kept")
    options = parser.parse_args()
    figures = {name: measure(name, options) for name in MODELS}
    valid = load_frames(options.valid_frames)
    shown = valid[spread(SHOWN, len(valid))]
    write_frame(reconstructions(shown, [load(name).tokenizer for name in MODELS]), IMAGES / "reconstructions.jpg")
    for name in MODELS:
        bisquit("sample", "--model", name, *SAMPLING, "-n", "16", "--seed", "0", "-o", IMAGES / f"{name}-samples.jpg")
    with atomic_file(ROOT / "docs" / "results.md") as partial:
        partial.write_text(page(figures, options))
    print(json.dumps(figures))


def measure(name: str, options: argparse.Namespace) -> Figures:
    """Return the figures of a model that ships, measured once for its weights and so many samples."""
    model = load(name)
    assert model.prior is not None
    folder = options.runs / f"{name}-{model.tokenizer.fingerprint()}"
    folder.mkdir(parents=True, exist_ok=True)
    tokens, output = folder / "train.safetensors", folder / f"{model.prior.fingerprint()}-{options.samples}.json"
    if not tokens.exists():
        bisquit("tokenize", "--tokenizer", name, "--frames", options.frames, "-o", tokens)
    if not output.exists():
        bisquit(
            *("evaluate", "--model", name, "--frames", options.valid_frames, "--count-tokens", tokens),
            *("--samples", str(options.samples), "--real", options.frames, *SAMPLING),
            *("--neighbours", IMAGES / f"{name}-nearest.jpg", "--json", output),
        )
    figures: Figures = json.loads(output.read_text())
    if "train_bits_per_image" not in figures:
        print(f"measuring the bits of {PICKED:,} frames that {name} was trained on", flush=True)
        figures["train_bits_per_image"] = train_bits(model, TokenSet.load(tokens))
        figures |= {f"{part}_parameters": parameters(Path(name), part) for part in ("tokenizer", "prior")}
        with atomic_file(output) as partial:
            partial.write_text(json.dumps(figures, indent=2) + "\n")
    return figures


def train_bits(model: Pipeline, tokens: TokenSet) -> float:
    """Return the mean bits of a random pick of the frames that a prior was trained on."""
    assert isinstance(model.prior, SequentialPrior)
    generator = torch.Generator().manual_seed(0)
    rows = torch.randperm(len(tokens), generator=generator)[:PICKED].numpy()
    return likelihood(model.prior, tokens.tokens[rows], batch_size=32).bits_per_image


def page(figures: dict[str, Figures], options: argparse.Namespace) -> str:
    """Return the page as Markdown."""
    frames, valid_frames = Path(options.frames).name, Path(options.valid_frames).name
    any_figures = next(iter(figures.values()))
    sheets = [
        f"### `{name}`\n\n![16 samples](images/{name}-samples.jpg)\n\n"
        f"Of {options.samples:,} samples the 16 nearest to a frame that `{name}` was trained on, each above that "
        f"frame:\n\n![Nearest](images/{name}-nearest.jpg)\n"
        for name in figures
    ]
    return f"""# Results

Frames in all pictures: SuperTuxKart and its contributors, [supertuxkart.net](https://supertuxkart.net), CC BY-SA 4.0.

Three of the models that ship, measured from their weights (in float32) on {any_figures["frames"]:,} frames of
races that none has seen. Made on {date.today():%d %B %Y}, on {os.cpu_count()} cores ({platform.machine()}), by

    make results FRAMES='FRAMES/{frames}' VALID_FRAMES=FRAMES/{valid_frames}

How `seed`, the design that the project started from, does after 1 epoch and after 5, with positions and without, is on
[a page of its own](seed.md); what other shapes, bits, patches and losses do to a tokenizer, on
[another](tokenizers.md). What each part of the design is worth is under [ablations](ablations.md); how the prior's loss
falls with size, pictures and compute, under [scaling](scaling.md).

## Tokenizers

{table(figures, TOKENIZER_ROWS)}

PSNR is the mean of the frames'; sharpness is the mean strength of edges (Sobel) over that of the frames themselves.
Frames, and under them what comes back from the tokens of {", ".join(f"`{name}`" for name in figures)}:

![Reconstructions](images/reconstructions.jpg)

## Priors

{table(figures, PRIOR_ROWS)}

± is the standard error (races independent, frames within one not). "By counts" is what a left-and-up count model needs
that was fitted on the same training tokens: interpolated Kneser-Ney. The bits of frames trained on are of a random
{PICKED:,} of them.

## New frames

{table(figures, SAMPLE_ROWS)}

± is half of a 95% interval. The Fréchet distance is that of FID, but in the features of a network of our own that tells
the 20 tracks apart, and so are precision, recall, density and coverage: figures to compare models of these frames by,
and no others. The floor is what as many real frames of other races reach against the same frames. The last row is the
share of samples that are nearer (in pixels) to a frame trained on than 95% of unseen frames are; a model that repeats
nothing has 5% or less.

All are painted with `{" ".join(SAMPLING)}`. Pictures 0 to 15 of seed 0, none picked:

{chr(10).join(sheets)}"""


def table(figures: dict[str, Figures], rows: tuple[tuple[str, str], ...]) -> str:
    """Return a table of Markdown with a column for each model; what was not measured is a dash."""
    lines = ["| | " + " | ".join(f"`{name}`" for name in figures) + " |", "| --- |" + " --- |" * len(figures)]
    for name, form in rows:
        lines.append(f"| {name} | " + " | ".join(cell(form, of_model) for of_model in figures.values()) + " |")
    return "\n".join(lines)


def cell(form: str, figures: Figures) -> str:
    """Return a figure as it is written."""
    values = {**figures, "gap": 1 - figures["train_bits_per_image"] / figures["bits_per_image"]}
    values["over_floor"] = figures["frechet_track"] / figures["frechet_track_floor"]
    values["above_floor"] = figures["frechet_track"] - figures["frechet_track_floor"]
    return form.format(**values)


TOKENIZER_ROWS = (
    ("parameters", "{tokenizer_parameters:,}"),
    ("tokens of an image", "{tokens_per_image:,} of {codes:,} codes"),
    ("mean squared error, of [-0.5, 0.5]", "{mse:.5f}"),
    ("PSNR, dB", "{psnr_db:.2f}"),
    ("SSIM", "{ssim:.3f}"),
    ("MS-SSIM", "{ms_ssim:.3f}"),
    ("sharpness", "{sharpness:.1%}"),
    ("codes in use", "{codes_used:,}"),
    ("entropy of a token, bits", "{joint_entropy_bits:.2f}"),
)
PRIOR_ROWS = (
    ("parameters", "{prior_parameters:,}"),
    ("bits an image", "{bits_per_image:,.0f} ± {bits_per_image_stderr:.0f}"),
    ("bits a token", "{bits_per_token:.3f}"),
    ("bits an image, by counts", "{count_baseline_bits_per_image:,.0f}"),
    ("less by", "{gain_over_count_baseline:.1%}"),
    ("bits of frames trained on", "{train_bits_per_image:,.0f}"),
    ("less than those of valid frames by", "{gap:.1%}"),
)
SAMPLE_ROWS = (
    ("Fréchet distance in track features", "{frechet_track:.2f} ± {frechet_track_interval:.2f}"),
    ("that of real frames, the floor", "{frechet_track_floor:.2f} ± {frechet_track_floor_interval:.2f}"),
    ("times the floor", "{over_floor:.2f}"),
    ("above the floor", "{above_floor:.2f}"),
    ("precision", "{precision:.3f}"),
    ("recall", "{recall:.3f}"),
    ("density", "{density:.3f}"),
    ("coverage", "{coverage:.3f}"),
    ("diversity, of the frames'", "{diversity:.2f}"),
    ("entropy of the tracks seen in them, bits", "{class_entropy_bits:.2f} (frames: {real_class_entropy_bits:.2f})"),
    ("near to a frame trained on", "{nearest_share:.1%} ± {nearest_share_interval:.1%}"),
)


if __name__ == "__main__":
    main()
