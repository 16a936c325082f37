"""Put a trained model into the package: its weights rounded, and a card.

    python scripts/ship_model.py --run runs/seed/prior-learned --name seed \\
        --frames 'FRAMES/train-0*.parquet' --valid-frames FRAMES/valid-00.parquet

Matrices are rounded to int8, row by row as the integer engine rounds them, all else to float16. The tokenizer that
ships is the rounded one, and the prior is bound to its fingerprint; the card's figures are measured on what ships, and
its commands are those of the runs.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import torch

from bisquit.checkpoint import PRIOR_FILE, TOKENIZER_FILE, SavedPrior, load_tokenizer, save_prior, save_tokenizer
from bisquit.config import Settings, parse_settings
from bisquit.errors import ModelError
from bisquit.generate import SHARED_TOKENIZERS, load
from bisquit.presets import get_preset
from bisquit.priors import of_kind
from bisquit.quantizers import QuantizerConfig, default_quantizer
from bisquit.record import RECORD_FILE, RunRecord
from bisquit.tokenizer import Tokenizer
from bisquit.training import PriorRecipe

OF_THE_DATA = ("condition_size",)  # settings that no flag is for; nor is one for lists of lists, a pyramid's scales
WEIGHTS = Path(__file__).resolve().parent.parent / "src" / "bisquit" / "weights"


def main() -> None:
    """Round, save, measure, and write the card."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="the folder of a prior's run; a tokenizer ships alone without one")
    parser.add_argument(
        "--tokenizer-run",
        type=Path,
        help="the run of the tokenizer that ships, which may have a decoder of its own; else `tokenizer` beside --run",
    )
    parser.add_argument("--over", help="a model that ships, whose tokenizer made the tokens; it then ships but once")
    parser.add_argument("--name", required=True, help="the model's name in the package")
    parser.add_argument("--frames", required=True, help="the frames that it was trained on")
    parser.add_argument("--valid-frames", required=True, help="frames that it has not seen")
    options = parser.parse_args()
    if options.run is None:
        if options.tokenizer_run is None:
            parser.error("there is nothing to ship: name --run or --tokenizer-run")
        ship_tokenizer(options)
        return
    model = load(options.run)
    if model.prior is None or model.frame_size is None:
        raise ModelError(f"{options.run} holds no prior")
    folder, made_by = WEIGHTS / options.name, []
    if options.over:
        tokenizer = load(options.over).tokenizer
        if tokenizer.fingerprint() != model.tokenizer.fingerprint():
            raise ModelError(f"the prior of {options.run} is not over the tokens of {options.over}")
        if SHARED_TOKENIZERS.get(options.name, options.name) != options.over:
            raise ModelError(f"SHARED_TOKENIZERS does not say that {options.name} is over {options.over}: add it first")
        made_by = commands_on_card((WEIGHTS / options.over / "README.md").read_text())
    else:
        tokenizer_run = options.tokenizer_run or options.run.parent / "tokenizer"
        tokenizer, made_by = load(tokenizer_run).tokenizer, history(tokenizer_run)
        if not encode_alike(tokenizer, model.tokenizer):
            raise ModelError(f"{tokenizer_run} makes other tokens than those that the prior of {options.run} is over")
        save_tokenizer(tokenizer, folder / TOKENIZER_FILE, torch.int8)
        tokenizer = load_tokenizer(folder / TOKENIZER_FILE)
    saved = SavedPrior(model.prior, model.frame_size, tokenizer.fingerprint(), model.conditions)
    save_prior(saved, folder / PRIOR_FILE, torch.int8)
    figures = measure(options.name, options.frames, options.valid_frames)
    commands = [*made_by, *history(options.run)]
    (folder / "README.md").write_text(card(options.name, RunRecord.load(options.run), commands, tokenizer, figures))


def ship_tokenizer(options: argparse.Namespace) -> None:
    """Put a tokenizer into the package, for a prior over its tokens to follow."""
    folder, tokenizer = WEIGHTS / options.name, load(options.tokenizer_run).tokenizer
    save_tokenizer(tokenizer, folder / TOKENIZER_FILE, torch.int8)
    figures = measure(options.name, options.frames, options.valid_frames)
    record, commands = RunRecord.load(options.tokenizer_run), history(options.tokenizer_run)
    (folder / "README.md").write_text(card(options.name, record, commands, tokenizer, figures))


def commands_on_card(card: str) -> list[str]:
    """Return the commands on a model's card that trained its tokenizer."""
    return [line.strip() for line in card.splitlines() if line.strip().startswith("bisquit train tokenizer ")]


def encode_alike(one: Tokenizer, other: Tokenizer) -> bool:
    """Whether two tokenizers make the same tokens: all that leads to them is equal; their decoders may differ."""
    first, second = ({name: x for name, x in t.state_dict().items() if is_of_encoding(name)} for t in (one, other))
    return first.keys() == second.keys() and all(torch.equal(x, second[name]) for name, x in first.items())


def is_of_encoding(name: str) -> bool:
    """Whether a weight of a tokenizer has a say in its tokens."""
    return name.startswith(("autoencoder.encoder.", "quantizer.down.", "quantizer.codebook"))


def measure(name: str, frames: str, valid_frames: str) -> dict[str, Any]:
    """Return the figures of a model in the package on `valid_frames`; the count baseline is fitted on `frames`."""
    with tempfile.TemporaryDirectory() as scratch:
        tokens, output = Path(scratch) / "tokens.safetensors", Path(scratch) / "figures.json"
        bisquit("tokenize", "--tokenizer", name, "--frames", frames, "-o", tokens)
        bisquit("evaluate", "--model", name, "--frames", valid_frames, "--count-tokens", tokens, "--json", output)
        figures: dict[str, Any] = json.loads(output.read_text())
    return figures


def bisquit(*arguments: str | Path) -> None:
    """Run one command."""
    subprocess.run([sys.executable, "-m", "bisquit", *map(str, arguments)], check=True)


def history(folder: Path) -> list[str]:
    """Return the commands that trained a model, one after another: those of the run that it started from come first."""
    record = RunRecord.load(folder)
    assert record.preset is not None
    named = record.sources.get("start")
    start = run_of(named)
    preset: Settings = getattr(get_preset(record.preset), record.stage)
    flags = [f"--preset {record.preset}"]
    if isinstance(preset, PriorRecipe) and record.recipe["prior"]["kind"] != preset.prior.kind:
        preset = preset.replace(prior=of_kind(preset.prior, record.recipe["prior"]["kind"]))
        flags.append(f"--prior {preset.prior.kind}")
    flags += changed_flags(record.recipe, preset.to_dict())
    flags.append("--tokens TOKENS" if "tokens" in record.sources else "--frames FRAMES")
    flags += [f"--captions {Path(record.sources['captions']).name}"] if "captions" in record.sources else []
    flags += [f"--start {start.name if start else Path(named).name}"] if named else []
    command = f"bisquit train {record.stage} {' '.join(flags)} --out {folder.name}"
    stopped = "" if record.finished else "  # stopped before its end"
    return [*(history(start) if start else []), command + stopped]


def run_of(start: str | None) -> Path | None:
    """Return the folder of the run that a model to start from is of; None without one."""
    if start is None:
        return None
    model = Path(start)
    return next((folder for folder in (model, model.parent) if (folder / RECORD_FILE).is_file()), None)


def changed_flags(recipe: Mapping[str, Any], preset: Mapping[str, Any]) -> list[str]:
    """Return the flags that turn a preset's recipe into a run's, both as plain data."""
    flags = []
    for name, value in recipe.items():
        if name == "quantizer" and value["kind"] != preset[name]["kind"]:
            bits = parse_settings(QuantizerConfig, preset[name]).bits
            flags.append(f"--quantizer {value['kind']}")
            flags += changed_flags(value, default_quantizer(value["kind"], bits).to_dict())
        elif isinstance(value, dict):
            flags += changed_flags(value, preset[name])
        elif name in OF_THE_DATA or (isinstance(value, list) and any(isinstance(part, list) for part in value)):
            continue
        elif value != preset[name] and not (isinstance(value, list) and tuple(value) == tuple(preset[name])):
            flag = name.replace("_", "-")
            written = ",".join(map(str, value)) if isinstance(value, list) else value
            flags.append(f"--{flag} {written}" if not isinstance(value, bool) else f"--{'' if value else 'no-'}{flag}")
    return flags


def card(
    name: str, record: RunRecord, commands: Sequence[str], tokenizer: Tokenizer, figures: Mapping[str, Any]
) -> str:
    """Return the model's card as Markdown. record: of the run of what ships; commands: what trained it."""
    has_prior = figures.get("bits_per_image") is not None
    does = "Paints" if has_prior else "A tokenizer alone, no prior over its tokens yet: it makes tokens of"
    bits = f"| bits an image | {figures['bits_per_image']:,.0f} |\n" if has_prior else ""
    trained_on = record.data["tokens"]["pictures"] if has_prior else record.data["frames"]["frames"]
    listed = "\n".join(f"      {command}" for command in commands)
    return f"""---
license: cc-by-sa-4.0
tags: [image-generation, image-tokenizer, binary-spherical-quantization]
---

# bisquit: `{name}`

{does} SuperTuxKart frames of {figures["width_px"]} x {figures["height_px"]} pixels, each from
{figures["tokens_per_image"]} tokens out of a codebook of {figures["codes"]:,}. Shipped on {date.today():%d %B %Y}.

| | on {figures["frames"]:,} frames of races that it has not seen |
| --- | --- |
| mean squared error of [-0.5, 0.5] | {figures["mse"]:.5f} |
| PSNR | {figures["psnr_db"]:.2f} dB |
| SSIM | {figures["ssim"]:.3f} |
| codes in use | {figures["codes_used"]:,} of {figures["codes"]:,} |
{bits}| bits an image by a left-and-up count model | {figures["count_baseline_bits_per_image"]:,.0f} |

- **Trained** on {trained_on:,} frames, with PyTorch {record.versions["torch"]},
  {record.precision} forward passes and averaged weights, by

{listed}

  Shipped with `scripts/ship_model.py`, which rounds matrices to int8, row by row, and all else to float16; the
  figures are of the rounded weights.
- **Limits**: it has seen twenty tracks of one game, and paints nothing else. Its pictures are blurry, for a token has
  {tokenizer.bits} bits for {3 * tokenizer.patch_size**2} values and the auto-encoder minimises squared error. Karts
  and signs melt.
- **Licence**: CC BY-SA 4.0, as the frames that it was trained on: SuperTuxKart and its contributors,
  [supertuxkart.net](https://supertuxkart.net).
"""


if __name__ == "__main__":
    main()
