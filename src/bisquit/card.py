"""A model's card: Markdown that says what it is, what trained it, how good it is and what may be done with it.

    run.json ──history──> the commands ──┐
    model, figures of `bisquit evaluate` ├──card──> README.md, as the Hugging Face Hub shows it
    subject: what the frames are of ─────┘

The card of a run is made of its record, so that it can claim nothing that the record does not say.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from bisquit.atomic import atomic_file
from bisquit.checkpoint import CARD_FILE
from bisquit.config import Settings, parse_settings
from bisquit.errors import ModelError, RunError
from bisquit.frames import BUNDLED
from bisquit.generate import Pipeline, load
from bisquit.presets import get_preset
from bisquit.priors import of_kind
from bisquit.quantizers import QuantizerConfig, default_quantizer
from bisquit.record import RECORD_FILE, RunRecord
from bisquit.training import PriorRecipe

OF_THE_DATA = ("condition_size",)  # settings that no flag is for; nor is one for lists of lists, a pyramid's scales


@dataclass(frozen=True)
class Subject:
    """What a model's frames are of, and what follows from it."""

    frames: str
    """What it paints, such as "SuperTuxKart frames"."""
    measured_on: str
    """What its figures are of, such as "frames that it has not seen"."""
    limits: str
    flaws: str
    licence_id: str
    """The licence of the weights as the Hub names it, such as cc-by-4.0."""
    licence: str


SUPERTUXKART = Subject(
    frames="SuperTuxKart frames",
    measured_on="frames of races that it has not seen",
    limits="it has seen twenty tracks of one game, and paints nothing else",
    flaws=" Karts\n  and signs melt.",
    licence_id="cc-by-sa-4.0",
    licence="""CC BY-SA 4.0, as the frames that it was trained on: SuperTuxKart and its contributors,
  [supertuxkart.net](https://supertuxkart.net).""",
)


def subject_of(record: RunRecord, licence_id: str | None = None) -> Subject:
    """Return what is known of a run's frames; licence_id: that of the weights, where they are not the bundled ones."""
    if record.sources.get("frames", "").split(":")[0] == BUNDLED:
        return SUPERTUXKART
    return Subject(
        frames="frames",
        measured_on="frames",
        limits="it has seen the frames that it was trained on, and paints nothing else",
        flaws="",
        licence_id=licence_id or "other",
        licence=licence_id or "not said; that of the frames that it was trained on may bind it.",
    )


def write_card(folder: Path, *, name: str | None = None, **given: Any) -> str:
    """Write the card of a run into its folder, and return it. The other arguments are those of `card_of_run`."""
    text = card_of_run(folder, name=name, **given)
    with atomic_file(folder / CARD_FILE) as partial:
        partial.write_text(text, encoding="utf-8")
    return text


def card_of_run(
    folder: Path,
    *,
    name: str | None = None,
    figures: Mapping[str, Any] | None = None,
    licence_id: str | None = None,
) -> str:
    """Return the card of the model that a run made, in its folder.

    name: by default that of the folder. figures: what `bisquit evaluate --json` wrote. licence_id: as for `subject_of`.
    Raises RunError if the folder holds no run of a tokenizer or a prior, ModelError if it holds no model, or if the
    figures are none.
    """
    record = RunRecord.load(folder)
    if record.stage == "features":
        raise RunError(f"{folder} holds a feature network: cards are of tokenizers and priors")
    subject = subject_of(record, licence_id)
    return card(name or folder.absolute().name, record, history(folder), load(folder), subject, figures)


def card(
    name: str,
    record: RunRecord,
    commands: Sequence[str],
    model: Pipeline,
    subject: Subject,
    figures: Mapping[str, Any] | None = None,
    shipped: bool = False,
) -> str:
    """Return a model's card as Markdown.

    record: of the run that made it. commands: what trained it. figures: what `bisquit evaluate --json` wrote, or None.
    shipped: whether it ships with the package, its weights rounded. Raises ModelError if figures are missing.
    """
    has_prior, data = record.stage == "prior", record.data
    does = "Paints" if has_prior else "A tokenizer alone, no prior over its tokens yet: it makes tokens of"
    trained_on = data["tokens"]["pictures"] if has_prior else data["frames"]["frames"]
    height, width = data["tokens"]["frame_size"] if has_prior else data["frames"]["size"]
    tokens = math.prod(model.tokenizer.grid(height, width))
    listed = "\n".join(f"      {command}" for command in commands)
    by = f", by\n\n{listed}\n" if commands else ".\n"
    rounding = """
  Shipped with `scripts/ship_model.py`, which rounds matrices to int8, row by row, and all else to float16; the
  figures are of the rounded weights.
"""
    return f"""---
license: {subject.licence_id}
library_name: bisquit
tags: [image-generation, image-tokenizer, binary-spherical-quantization]
---

# bisquit: `{name}`

{does} {subject.frames} of {width} x {height} pixels, each from
{tokens:,} tokens out of a codebook of {model.tokenizer.codebook_size:,}. {"Shipped" if shipped else "Made"} on \
{date.today():%d %B %Y}.

{_table(figures, subject) if figures else ""}\
- **Trained** on {trained_on:,} frames, with PyTorch {record.versions["torch"]},
  {record.precision} forward passes and averaged weights{by}{rounding if shipped else ""}\
- **Limits**: {subject.limits}. Its pictures are blurry, for a token has
  {model.tokenizer.bits} bits for {3 * model.tokenizer.patch_size**2} values and the auto-encoder minimises squared \
error.{subject.flaws}
- **Licence**: {subject.licence}
"""


def _table(figures: Mapping[str, Any], subject: Subject) -> str:
    """Return the card's table of figures. Raises ModelError if some are missing."""
    try:
        bits, at_most = figures["bits_per_image"], figures.get("bits_per_image_at_most")  # None if it does not know
        bits_row = "" if bits is None else f"| bits an image | {bits:,.0f} |\n"
        bits_row += "" if at_most is None else f"| bits an image, at most | {at_most:,.0f} |\n"
        return f"""| | on {figures["frames"]:,} {subject.measured_on} |
| --- | --- |
| mean squared error of [-0.5, 0.5] | {figures["mse"]:.5f} |
| PSNR | {figures["psnr_db"]:.2f} dB |
| SSIM | {figures["ssim"]:.3f} |
| codes in use | {figures["codes_used"]:,} of {figures["codes"]:,} |
{bits_row}| bits an image by a left-and-up count model | {figures["count_baseline_bits_per_image"]:,.0f} |

"""
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"figures for a card are those of `bisquit evaluate --json`: {error} is not there") from error


def commands_on_card(card: str) -> list[str]:
    """Return the commands on a model's card that trained its tokenizer."""
    return [line.strip() for line in card.splitlines() if line.strip().startswith("bisquit train tokenizer ")]


def history(folder: Path) -> list[str]:
    """Return the commands that trained a model, one after another: those of the run that it started from come first.

    None, if it was trained from Python, by no preset. Raises RunError if the folder holds no record.
    """
    record = RunRecord.load(folder)
    if record.preset is None:
        return []
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
