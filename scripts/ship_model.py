"""Put a trained model into the package: its weights rounded, and a card.

    python scripts/ship_model.py --run runs/seed/prior-learned --name seed \\
        --frames 'FRAMES/train-0*.parquet' --valid-frames FRAMES/valid-00.parquet

Matrices are rounded to int8, row by row as the integer engine rounds them, all else to float16. The tokenizer that
ships is the rounded one, and the prior is bound to its fingerprint; the digests of all that ships are written anew; the
card's figures are measured on what ships, and its commands are those of the runs.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from bisquit.card import SUPERTUXKART, card, commands_on_card, history
from bisquit.checkpoint import (
    CARD_FILE,
    PRIOR_FILE,
    TOKENIZER_FILE,
    SavedPrior,
    load_tokenizer,
    save_prior,
    save_tokenizer,
)
from bisquit.errors import ModelError
from bisquit.generate import SHARED_TOKENIZERS, load
from bisquit.record import RunRecord
from bisquit.shipped import write_sums
from bisquit.tokenizer import Tokenizer

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
        made_by = commands_on_card((WEIGHTS / options.over / CARD_FILE).read_text())
    else:
        tokenizer_run = options.tokenizer_run or options.run.parent / "tokenizer"
        tokenizer, made_by = load(tokenizer_run).tokenizer, history(tokenizer_run)
        if not encode_alike(tokenizer, model.tokenizer):
            raise ModelError(f"{tokenizer_run} makes other tokens than those that the prior of {options.run} is over")
        save_tokenizer(tokenizer, folder / TOKENIZER_FILE, torch.int8)
        tokenizer = load_tokenizer(folder / TOKENIZER_FILE)
    saved = SavedPrior(model.prior, model.frame_size, tokenizer.fingerprint(), model.conditions)
    save_prior(saved, folder / PRIOR_FILE, torch.int8)
    write_card(options, RunRecord.load(options.run), [*made_by, *history(options.run)])


def ship_tokenizer(options: argparse.Namespace) -> None:
    """Put a tokenizer into the package, for a prior over its tokens to follow."""
    folder, tokenizer = WEIGHTS / options.name, load(options.tokenizer_run).tokenizer
    save_tokenizer(tokenizer, folder / TOKENIZER_FILE, torch.int8)
    write_card(options, RunRecord.load(options.tokenizer_run), history(options.tokenizer_run))


def write_card(options: argparse.Namespace, record: RunRecord, commands: Sequence[str]) -> None:
    """Measure what lies in the package now, which is what ships from here on, and write its card beside it."""
    write_sums(WEIGHTS)
    figures = measure(options.name, options.frames, options.valid_frames)
    text = card(options.name, record, commands, load(options.name), SUPERTUXKART, figures, shipped=True)
    (WEIGHTS / options.name / CARD_FILE).write_text(text)


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


if __name__ == "__main__":
    main()
