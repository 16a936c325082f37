"""How many pictures a second a training of the `seed` prior takes: bisquit's run, a plain loop, Hugging Face's Trainer.

    python benchmarks/training.py [--rounds 3] [--steps 30] [--precision bf16]

All sides train the same shape (3 layers, width 128, 4 heads, feed-forward 512, 1,024 tokens, 600 places, learned
positions) in batches of 16 at the same precision, in alternation. `plain` is the loop that the original design has:
`nn.TransformerEncoderLayer` with a causal mask, AdamW. `huggingface` is GPT-2 in `transformers.Trainer`. `bisquit` is
`train_prior`, with all that a run does: clipping, averaged weights, logs, states. Each side runs for a few steps and
for some more; the seconds of the difference are those of the steps alone. Peak memory is that of a fresh process. The
last line is one JSON object.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import alternate, do_nothing, finish, machine, peak_memory_mb
from torch import Tensor, nn
from torch.nn import functional as F

from bisquit.presets import get_preset
from bisquit.tokenizer import Tokenizer
from bisquit.tokens import TokenSet
from bisquit.training import train_prior

BATCH, LENGTH, CODEBOOK = 16, 600, 1024
FEW_STEPS = 5
AUTOCAST = {"bf16": torch.bfloat16, "float32": None}


def random_tokens(pictures: int) -> np.ndarray:
    """Return tokens (pictures, 20, 30) of no meaning: they cost as much as any."""
    return np.random.default_rng(0).integers(0, CODEBOOK, (pictures, 20, 30), dtype=np.uint16)


def bisquit(steps: int, precision: str) -> None:
    """Train with `train_prior` in a folder that is thrown away."""
    preset = get_preset("seed")
    tokenizer = Tokenizer(preset.tokenizer.tokenizer)

    def token_set(pictures: int) -> TokenSet:
        return TokenSet(
            random_tokens(pictures), tokenizer, (100, 150), (), np.full(pictures, -1, dtype=np.int64), groups=None
        )

    training = preset.prior.training.replace(epochs=1, batch_size=BATCH, precision=precision, snapshot_epochs=())
    with tempfile.TemporaryDirectory() as folder:
        train_prior(
            preset.prior.replace(training=training), token_set(steps * BATCH), token_set(1), Path(folder) / "run"
        )


class PlainTransformer(nn.Module):
    """The original design: embedding, places, a stack of PyTorch's own layers, a linear head."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(CODEBOOK, 128)
        self.places = nn.Parameter(0.02 * torch.randn(LENGTH, 128))
        layer = nn.TransformerEncoderLayer(128, 4, 512, dropout=0.0, activation="gelu", batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)
        self.head = nn.Linear(128, CODEBOOK)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the logits (B, 600, 1024) of tokens (B, 600), each given those before it; the first is given zeros."""
        x = F.pad(self.embedding(tokens[:, :-1]), (0, 0, 1, 0)) + self.places
        mask = nn.Transformer.generate_square_subsequent_mask(LENGTH)
        logits: Tensor = self.head(self.layers(x, mask=mask, is_causal=True))
        return logits


def plain(steps: int, precision: str) -> None:
    """Train with a loop as anyone would write it."""
    torch.manual_seed(0)
    model = PlainTransformer()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    tokens = torch.from_numpy(random_tokens(steps * BATCH).astype(np.int64)).flatten(1)
    for batch in tokens.split(BATCH):
        with autocast(precision):
            loss = F.cross_entropy(model(batch).flatten(0, 1), batch.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()  # as a loop that shows its loss does


def autocast(precision: str) -> contextlib.AbstractContextManager[Any]:
    """Return PyTorch's autocast, or nothing for float32."""
    dtype = AUTOCAST[precision]
    return contextlib.nullcontext() if dtype is None else torch.autocast("cpu", dtype)


def huggingface(steps: int, precision: str) -> None:
    """Train GPT-2 with `transformers.Trainer`: no logs, no evaluation, nothing saved."""
    from sides.huggingface import gpt2_config
    from transformers import GPT2LMHeadModel, Trainer, TrainingArguments
    from transformers.utils import logging

    logging.set_verbosity_error()
    config = gpt2_config(get_preset("seed").prior.prior.transformer, CODEBOOK, LENGTH, bos_token_id=None)
    tokens = torch.from_numpy(random_tokens(steps * BATCH).astype(np.int64)).flatten(1)
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder,
            per_device_train_batch_size=BATCH,
            num_train_epochs=1,
            learning_rate=1e-3,
            bf16=precision == "bf16",
            use_cpu=True,
            save_strategy="no",
            logging_strategy="no",
            report_to=[],
            disable_tqdm=True,
        )
        rows = [{"input_ids": row, "labels": row} for row in tokens]
        Trainer(GPT2LMHeadModel(config), arguments, train_dataset=rows).train()


SIDES: dict[str, Callable[[int, str], None]] = {"bisquit": bisquit, "plain": plain, "huggingface": huggingface}


def main() -> None:
    """Time all sides."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=30, help="steps timed a round, after the few that start a side")
    parser.add_argument("--precision", choices=list(AUTOCAST), default="bf16")
    options = parser.parse_args()

    runs = {
        (name, steps): functools.partial(side, steps, options.precision)
        for name, side in SIDES.items()
        for steps in (FEW_STEPS, FEW_STEPS + options.steps)
    }
    times = alternate({f"{name} {steps}": run for (name, steps), run in runs.items()}, options.rounds)

    def pictures_per_s(name: str) -> float:
        few, more = (times[f"{name} {steps}"] for steps in (FEW_STEPS, FEW_STEPS + options.steps))
        return options.steps * BATCH / (more.median_s - few.median_s)

    speeds = {name: pictures_per_s(name) for name in SIDES}
    memory = {name: peak_memory_mb(run) for (name, steps), run in runs.items() if steps == FEW_STEPS}
    for name, speed in speeds.items():
        print(f"{name:12} {speed:7.1f} pictures a second, {speeds['bisquit'] / speed:5.2f}, {memory[name]:,.0f} MB")
    finish(
        {
            "pictures_per_s": speeds,
            "bisquit_times_faster": {name: speeds["bisquit"] / speed for name, speed in speeds.items()},
            "seconds": {name: timing.summary() for name, timing in times.items()},
            "peak_memory_mb": {"imports_only": peak_memory_mb(do_nothing), **memory},
            "precision": options.precision,
            "batch": BATCH,
            "steps": options.steps,
            "rounds": options.rounds,
            "machine": machine("transformers", "lightning"),
        }
    )


if __name__ == "__main__":
    main()
