"""How long one picture takes to paint on a GPU: the cached step as PyTorch launches it, kernel by kernel, against the
same step captured into a CUDA graph, in float32 and in bfloat16.

    python benchmarks/gpu.py [--rounds 5] [--batch 1 16 64 256]

All sides have the weights of one prior of the `seed` shape. `pictures` is all that a user waits for: the noise, which
the CPU makes, the model, the races. `steps` is the model alone, each token the likeliest after the one before it, and
nothing waits for the host. Figures are seconds for one picture, of rounds in alternation; memory is what a side's first
batch takes of the GPU's beside its weights. Where there is no GPU, the script says so. The last line is one JSON
object.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from measure import MB, Timing, alternate, finish, machine

from bisquit.engine.graphed import GraphedPrior
from bisquit.presets import get_preset
from bisquit.priors import RasterPrior, SequentialPrior
from bisquit.sampling import sample

Paint = Callable[[range], Any]


@torch.no_grad()
def take_steps(prior: SequentialPrior, numbers: range) -> None:
    """Take the steps of a batch, each with the likeliest token before it."""
    state, last = prior.start(len(numbers)), None
    for _ in range(prior.length):
        last = prior.next_logits(state, last).argmax(dim=1)


def ways(prior: RasterPrior) -> dict[str, dict[str, Paint]]:
    """Return for each figure the sides that it compares: functions of the numbers of the pictures."""
    float32, bfloat16 = GraphedPrior(prior, torch.float32), GraphedPrior(prior, torch.bfloat16)
    return {
        "pictures": {
            "eager_float32": partial(sample, prior, seed=0),
            "graphed_float32": partial(float32.paint, seed=0),
            "graphed_bfloat16": partial(bfloat16.paint, seed=0),
        },
        "steps": {
            "eager_float32": partial(take_steps, prior),
            "graphed_float32": partial(take_steps, float32),
            "graphed_bfloat16": partial(take_steps, bfloat16),
        },
    }


def run(paint: Paint, batch: int) -> None:
    """Paint a batch and wait until the GPU is done with it."""
    paint(range(batch))
    torch.cuda.synchronize()


def peak_mb(work: Callable[[], None]) -> float:
    """Return the most memory of the GPU that tensors held while `work` ran, beside what they held before."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    work()
    return (torch.cuda.max_memory_allocated() - before) / MB


def compare(prior: RasterPrior, batch: int, rounds: int) -> dict[str, Any]:
    """Return for each figure and side of a batch size the seconds for one picture, and its peak memory."""
    result: dict[str, Any] = {}
    for figure in ("pictures", "steps"):
        paints = ways(prior)[figure]  # made anew, so that no side has buffers from before
        sides = {name: partial(run, paint, batch) for name, paint in paints.items()}
        peaks = {name: peak_mb(side) for name, side in sides.items()}
        times: dict[str, Timing] = alternate(sides, rounds)
        result[figure] = {
            name: {**times[name].scaled(1 / batch).summary(), "peak_mb": peak} for name, peak in peaks.items()
        }
    return result


def main() -> None:
    """Time all ways at all batch sizes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 16, 64, 256])
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("PyTorch finds no CUDA device here: nothing to measure")
        finish({"skipped": "no CUDA device"})
        return
    torch.manual_seed(0)
    prior = RasterPrior(get_preset("seed").prior.prior, bits=10, grid=(20, 30)).eval().cuda()
    results: dict[str, Any] = {}
    for batch in options.batch:
        results[f"batch_{batch}"] = compare(prior, batch, options.rounds)
        for figure, sides in results[f"batch_{batch}"].items():
            eager = sides["eager_float32"]["median_s"]
            for name, side in sides.items():
                print(f"batch {batch}, {figure}: {name} {side['median_s']:.2g} s, {eager / side['median_s']:.1f} times")
    about = {**machine(), "gpu": torch.cuda.get_device_name(), "cuda": torch.version.cuda}
    finish({"machine": about, "tokens_per_image": prior.length, **results})


if __name__ == "__main__":
    main()
