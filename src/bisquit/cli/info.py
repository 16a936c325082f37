"""`bisquit info`: what a model, a file of tokens or a set of frames holds."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text
from torch import nn

from bisquit.checkpoint import TOKENIZER_FILE
from bisquit.cli.options import MODEL, progress_bar
from bisquit.evaluation import codebook_health
from bisquit.frames import FrameSet, load_frames
from bisquit.frames.listing import PICTURE_SUFFIXES, TABLE_SUFFIXES
from bisquit.generate import Pipeline, load, shipped_models
from bisquit.hub import HUB_SCHEME
from bisquit.tokens import TokenSet


@click.command()
@click.argument("what", metavar="WHAT", type=MODEL)
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def command(what: str, as_json: bool) -> None:
    """Say what a model, a file of tokens or a set of frames holds.

    WHAT is a shipped model's name, a folder that `bisquit train` made, a model of the Hugging Face Hub, hf://owner/name,
    a file that `bisquit tokenize` wrote, or frames as elsewhere.
    """
    if what in shipped_models() or what.startswith(HUB_SCHEME) or (Path(what) / TOKENIZER_FILE).exists():
        facts = _of_model(load(what))
    elif Path(what).is_file() and Path(what).suffix.lower() not in (*TABLE_SUFFIXES, *PICTURE_SUFFIXES):
        facts = _of_tokens(TokenSet.load(what))
    else:
        with progress_bar("reading frames") as progress:
            facts = _of_frames(load_frames(what, skip_bad=True, progress=progress))
    if as_json:
        click.echo(json.dumps(facts, indent=2))
        return
    table = Table(title=Text(what), show_header=False)
    for key, value in _flat(facts):
        table.add_row(Text(key.replace("_", " ")), Text(value))
    Console().print(table)


def _of_model(pipeline: Pipeline) -> dict[str, Any]:
    tokenizer, prior = pipeline.tokenizer, pipeline.prior
    facts: dict[str, Any] = {
        "tokenizer": tokenizer.fingerprint(),
        "tokenizer_parameters": _parameters(tokenizer),
        "tokenizer_settings": tokenizer.config.to_dict(),
    }
    if prior is not None:
        facts |= {
            "prior_parameters": _parameters(prior),
            "prior_settings": prior.config.to_dict(),
            "grid": list(prior.grid),
            "frame_size": list(pipeline.frame_size or ()),
            "classes": list(pipeline.conditions.classes),
            "reads_words_by": reader.encoder if (reader := pipeline.conditions.reader) else "nothing",
        }
    return facts


def _of_tokens(tokens: TokenSet) -> dict[str, Any]:
    health = codebook_health(tokens.tokens, tokens.bits)
    return {
        "pictures": len(tokens),
        "grid": list(tokens.grid),
        "frame_size": list(tokens.frame_size),
        "bits_a_token": tokens.bits,
        "tokenizer": tokens.tokenizer.fingerprint(),
        "codes_used": health.codes_used,
        "joint_entropy_bits": round(health.joint_entropy_bits, 3),
        "classes": _class_counts(tokens.classes, tokens.labels),
        "advice": list(health.advice),
    }


def _of_frames(frames: FrameSet) -> dict[str, Any]:
    return {
        "frames": len(frames),
        "size": [frames.height, frames.width],
        "races": None if frames.groups is None else len(np.unique(frames.groups)),
        "classes": _class_counts(frames.classes, frames.labels),
        "cannot_be_read": list(frames.skipped),
    }


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _class_counts(classes: Sequence[str], labels: np.ndarray) -> dict[str, int]:
    counts = Counter(labels.tolist())
    return {name: counts[index] for index, name in enumerate(classes)}


def _flat(facts: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Return the lines of a table, nested facts under their path."""
    lines: list[tuple[str, str]] = []
    for key, value in facts.items():
        if isinstance(value, dict):
            lines += _flat(value, f"{prefix}{key}: ")
        elif isinstance(value, list):
            lines.append((prefix + key, ", ".join(map(str, value)) or "none"))
        else:
            lines.append((prefix + key, f"{value:,}" if isinstance(value, int) else str(value)))
    return lines
