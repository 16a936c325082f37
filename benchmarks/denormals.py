"""What numbers below float32's normal range cost a training: a tokenizer's step with them, and with zeros for them.

    python benchmarks/denormals.py [--model best] [--rounds 5]

A step is a forward and a backward pass in float32 over 16 of the bundled frames, of a finished tokenizer and of one
that begins, in one process and in alternation. The last line is one JSON object: seconds, and how many times as long
steps take that keep them.
"""

from __future__ import annotations

import argparse
import functools

import torch
from measure import alternate, finish, machine
from torch.nn import functional as F

from bisquit.autoencoder import pad_to_patches, to_float
from bisquit.frames import load_frames
from bisquit.generate import load
from bisquit.tokenizer import Tokenizer
from bisquit.training.denormals import denormals_dropped

BATCH = 16


def step(tokenizer: Tokenizer, x: torch.Tensor, drops: bool) -> None:
    """Work out the gradients of a batch."""
    if drops:
        with denormals_dropped():
            step(tokenizer, x, drops=False)
        return
    output = tokenizer(x)
    (F.mse_loss(output.frames, x) + output.quantizer_loss).backward()
    tokenizer.zero_grad()


def main() -> None:
    """Time steps of both tokenizers, both ways."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="best", help="whose tokenizer is the finished one")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    described = machine()
    finished = load(options.model).tokenizer
    x = pad_to_patches(to_float(torch.from_numpy(load_frames("bundled:train")[:BATCH])), finished.patch_size)
    torch.manual_seed(0)
    tokenizers = {"finished": finished, "new": Tokenizer(finished.config)}
    for tokenizer in tokenizers.values():
        tokenizer.train().to(memory_format=torch.channels_last)
    sides = {
        f"{name}, {way}": functools.partial(step, tokenizer, x, way == "dropped")
        for name, tokenizer in tokenizers.items()
        for way in ("kept", "dropped")
    }
    times = alternate(sides, options.rounds)
    for name, timing in times.items():
        print(f"{name}: {timing.median_s:.2f} s a step of {BATCH} frames")
    times_as_long = {name: times[f"{name}, kept"].median_s / times[f"{name}, dropped"].median_s for name in tokenizers}
    finish(
        {
            "steps": {name: timing.summary() for name, timing in times.items()},
            "times_as_long": times_as_long,
            "machine": described,
        }
    )


if __name__ == "__main__":
    main()
