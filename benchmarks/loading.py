"""How much of a training's time is spent on its data: batches from the cache against steps of the `seed` tokenizer.

    python benchmarks/loading.py [--frames FRAMES]

A batch is fetched as training fetches it, but waited for; training fetches it during the step before. The last line is
one JSON object: frames a second that the loader gives, that a training step takes, and their ratio.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

import torch
from torch.nn import functional as F

from bisquit.autoencoder import to_float
from bisquit.frames import load_frames
from bisquit.presets import get_preset
from bisquit.tokenizer import Tokenizer
from bisquit.training.data import Batches


def main() -> None:
    """Time both, in alternation."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", default="bundled:train")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    frames = load_frames(options.frames)
    settings = get_preset("seed").tokenizer
    batches = Batches(
        train=(len(frames), lambda indices: torch.from_numpy(frames[indices])),
        valid=(0, lambda indices: torch.empty(0)),
        batch_size=settings.training.batch_size,
        seed=0,
    )
    tokenizer = Tokenizer(settings.tokenizer).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(tokenizer.parameters(), lr=settings.training.learning_rate)
    loading, training = [], []
    for step in range(options.rounds):
        begin = time.perf_counter()
        batch = batches.train_batch(step)
        loading.append(time.perf_counter() - begin)
        begin = time.perf_counter()
        x = to_float(batch)
        with torch.autocast("cpu", torch.bfloat16):
            output = tokenizer(x)
        F.mse_loss(output.frames.float(), x).backward()
        optimizer.step()
        optimizer.zero_grad()
        training.append(time.perf_counter() - begin)
    batch_size = batches.batch_size
    loaded, trained = batch_size / statistics.median(loading), batch_size / statistics.median(training)
    print(f"the loader gives {loaded:,.0f} frames a second, a training step takes {trained:,.0f}")
    print(json.dumps({"loaded_per_s": loaded, "trained_per_s": trained, "ratio": loaded / trained}))


if __name__ == "__main__":
    main()
