"""How much of a training's time is spent on its data: batches from the cache against steps of the `seed` tokenizer.

    python benchmarks/loading.py [--frames FRAMES]

The last line is one JSON object: frames a second that the loader gives, that a training step takes, and their ratio.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

import numpy as np
import torch
from torch.nn import functional as F

from bisquit.autoencoder import to_float
from bisquit.frames import load_frames
from bisquit.presets import get_preset
from bisquit.tokenizer import Tokenizer


def main() -> None:
    """Time both, in alternation."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", default="bundled:train")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    frames = load_frames(options.frames)
    recipe = get_preset("seed").tokenizer
    batch_size = recipe.training.batch_size
    tokenizer = Tokenizer(recipe.tokenizer).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(tokenizer.parameters(), lr=recipe.training.learning_rate)
    generator = np.random.default_rng(0)
    loading, training = [], []
    for _ in range(options.rounds):
        indices = generator.integers(len(frames), size=batch_size)
        begin = time.perf_counter()
        batch = torch.from_numpy(frames[indices])
        loading.append(time.perf_counter() - begin)
        begin = time.perf_counter()
        x = to_float(batch)
        with torch.autocast("cpu", torch.bfloat16):
            reconstruction = tokenizer(x)
        F.mse_loss(reconstruction.frames.float(), x).backward()
        optimizer.step()
        optimizer.zero_grad()
        training.append(time.perf_counter() - begin)
    loaded, trained = batch_size / statistics.median(loading), batch_size / statistics.median(training)
    print(f"the loader gives {loaded:,.0f} frames a second, a training step takes {trained:,.0f}")
    print(json.dumps({"loaded_per_s": loaded, "trained_per_s": trained, "ratio": loaded / trained}))


if __name__ == "__main__":
    main()
