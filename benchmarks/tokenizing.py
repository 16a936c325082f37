"""How many frames a second become tokens: `tokenize`, as `bisquit tokenize` runs it, against one image at a time.

    python benchmarks/tokenizing.py [--model seed] [--frames bundled:train] [--rounds 5]

Both read from the same set of decoded frames, in alternation. The last line is one JSON object: frames a second of
each, their ratio, how many of the tokens differ, and peak memory, each in a fresh process.
"""

from __future__ import annotations

import argparse
import functools

import numpy as np
import torch
from measure import alternate, do_nothing, finish, machine, peak_memory_mb

import bisquit
from bisquit.frames import FrameSet, load_frames
from bisquit.tokenizer import Tokenizer
from bisquit.tokens import tokenize

FRAMES = 512


@functools.cache
def loaded(model: str, source: str) -> tuple[Tokenizer, FrameSet]:
    """Return what both sides work on, read once."""
    return bisquit.load(model).tokenizer, load_frames(source).subset(np.arange(FRAMES))


def batched(model: str, source: str) -> np.ndarray:
    """Return the frames' tokens, by `tokenize`."""
    return tokenize(*loaded(model, source)).tokens


def one_by_one(model: str, source: str) -> np.ndarray:
    """Return the same tokens, by a loop over frames."""
    tokenizer, frames = loaded(model, source)
    return np.concatenate([tokenizer.encode(torch.from_numpy(frames[i : i + 1])).numpy() for i in range(FRAMES)])


SIDES = {"batched": batched, "one_by_one": one_by_one}


def main() -> None:
    """Time both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="seed")
    parser.add_argument("--frames", default="bundled:train")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    runs = {name: functools.partial(side, options.model, options.frames) for name, side in SIDES.items()}
    differing = float((runs["batched"]() != runs["one_by_one"]()).mean())
    times = alternate(runs, options.rounds)
    speeds = {name: FRAMES / timing.median_s for name, timing in times.items()}
    print(f"{speeds['batched']:,.0f} frames a second, one by one {speeds['one_by_one']:,.0f}")
    finish(
        {
            "frames_per_s": speeds,
            "ratio": speeds["batched"] / speeds["one_by_one"],
            "share_of_tokens_that_differ": differing,
            "seconds": {name: timing.summary() for name, timing in times.items()},
            "peak_memory_mb": {
                "imports_only": peak_memory_mb(do_nothing),
                **{name: peak_memory_mb(run) for name, run in runs.items()},
            },
            "frames": FRAMES,
            "machine": machine(),
        }
    )


if __name__ == "__main__":
    main()
