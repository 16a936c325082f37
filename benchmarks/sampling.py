"""How long one picture takes to paint: 600 full passes, as the original design has it, against 600 steps
with a cache.

    python benchmarks/sampling.py [--rounds 3]

Both paint with the same weights of the `seed` prior's shape, in alternation; the figures are medians, in seconds for
one picture. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

import torch

from bisquit.presets import get_preset
from bisquit.priors import RasterPrior
from bisquit.sampling import Noise, SamplingConfig, race, sample


@torch.inference_mode()
def sample_with_full_passes(prior: RasterPrior, batch: int, steps: int) -> None:
    """Paint the first `steps` tokens, each with a pass over the whole sequence."""
    settings = SamplingConfig()
    noise = Noise(0, range(batch), prior.grid[1], prior.codebook_size)
    tokens = torch.zeros(batch, *prior.grid, dtype=torch.int64)
    for step in range(steps):
        tokens.view(batch, -1)[:, step] = race(prior.logits(tokens)[:, step], noise.next(), settings).tokens


def main() -> None:
    """Time both ways."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=60, help="full passes timed a round; every one costs the same")
    options = parser.parse_args()
    torch.manual_seed(0)
    prior = RasterPrior(get_preset("seed").prior.prior, bits=10, grid=(20, 30)).eval()
    sample(prior, [0], seed=0)  # warm up
    results: dict[str, dict[str, float]] = {}
    for batch in (1, 16):
        full, cached = [], []
        for _ in range(options.rounds):
            begin = time.perf_counter()
            sample_with_full_passes(prior, batch, options.steps)
            full.append((time.perf_counter() - begin) * prior.length / options.steps / batch)
            begin = time.perf_counter()
            sample(prior, range(batch), seed=0)
            cached.append((time.perf_counter() - begin) / batch)
        results[f"batch_{batch}"] = {"full_passes": statistics.median(full), "cached": statistics.median(cached)}
        ratio = results[f"batch_{batch}"]["full_passes"] / results[f"batch_{batch}"]["cached"]
        print(f"batch {batch}: {results[f'batch_{batch}']}, {ratio:.1f} times faster with the cache")
    print(json.dumps({"tokens_per_image": prior.length, "threads": torch.get_num_threads(), **results}))


if __name__ == "__main__":
    main()
