"""How long one picture takes to paint: 600 full passes, as the original design has it, Hugging Face's `generate`, ONNX
Runtime, bisquit's PyTorch path and its engine, all with the same weights, and the floor of the arithmetic beside them.

    python benchmarks/sampling.py [--model seed] [--rounds 5] [--no-memory] [--no-plot]

Figures are seconds for one picture, alone and in a batch of 64: medians over rounds in alternation. A few full passes
are timed and multiplied, for every one costs the same, and by at most 8 pictures at once, for more are no faster.
Before that, each side's logits are compared with the prior's. The floor's speeds are the best of those measured before,
between and after the batches. Peak memory is that of a fresh process that loads the model and paints one batch. The
last line is one JSON object, and the plot goes to docs/images/sampling.png.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch
from floor import BYTES, Peaks, floor, measure_peaks
from measure import Timing, alternate, do_nothing, finish, machine, peak_memory_mb, plot_bars

import bisquit
from bisquit.priors import RasterPrior, SequentialPrior
from bisquit.sampling import sample

BATCHES = (1, 64)
FULL_PASSES_BATCH = 8
FULL_PASSES_TIMED = 60
LOGITS_MAY_DIFFER_BY = 1e-4
PLOT = Path(__file__).parents[1] / "docs" / "images" / "sampling.png"

ASKED: dict[str, dict[str, dict[str, float]]] = {  # how many times faster, and the floor: at most
    "batch_1": {
        "engine_float32": {"full_passes": 100, "huggingface": 25, "torch": 10},
        "engine_int8": {"full_passes": 200, "huggingface": 45, "torch": 18},
    },
    "batch_64": {
        "engine_float32": {"full_passes": 150, "huggingface": 10, "torch": 3, "engine_over_floor": 2},
        "engine_int8": {"full_passes": 300, "huggingface": 20, "torch": 6, "engine_over_floor": 2},
    },
}


class Work(NamedTuple):
    """What is timed of a side."""

    run: Callable[[], object]
    images: float
    """How many pictures' work it is."""


def full_passes(prior: RasterPrior, batch: int) -> Work:
    """Return some of the passes, with no more pictures at once than are good for it."""
    from sides.full_passes import painter

    batch = min(batch, FULL_PASSES_BATCH)
    steps = min(FULL_PASSES_TIMED, prior.length)
    return Work(painter(prior, batch, steps), batch * steps / prior.length)


def huggingface(prior: RasterPrior, batch: int) -> Work:
    """Return GPT-2's `generate`."""
    from sides.huggingface import painter

    return Work(painter(prior, batch), batch)


def onnxruntime(prior: RasterPrior, batch: int) -> Work:
    """Return ONNX Runtime's step in a loop."""
    from sides.onnxruntime import painter

    return Work(painter(prior, batch), batch)


def pytorch(prior: RasterPrior, batch: int) -> Work:
    """Return bisquit's PyTorch path."""
    return Work(functools.partial(paint_more, sample, prior, batch, itertools.count(step=batch)), batch)


def engine(prior: RasterPrior, batch: int, precision: str) -> Work:
    """Return bisquit's engine."""
    from bisquit.engine import paint, prepare

    prepared = prepare(prior, "engine", precision)
    return Work(functools.partial(paint_more, paint, prepared, batch, itertools.count(step=batch)), batch)


def paint_more(
    paint: Callable[..., torch.Tensor], prior: SequentialPrior, batch: int, firsts: Iterator[int]
) -> torch.Tensor:
    """Paint other pictures than before: about one in ten has a close race, which costs a pass in float64."""
    first = next(firsts)
    return paint(prior, range(first, first + batch), seed=0)


SIDES: dict[str, Callable[[RasterPrior, int], Work]] = {
    "full_passes": full_passes,
    "huggingface": huggingface,
    "onnxruntime": onnxruntime,
    "torch": pytorch,
    "engine_float32": functools.partial(engine, precision="float32"),
    "engine_int8": functools.partial(engine, precision="int8"),
}


def load_prior(model: str) -> RasterPrior:
    """Load the prior of a model. Exits where the other sides could not have its weights."""
    prior = bisquit.load(model).prior
    if not isinstance(prior, RasterPrior) or prior.config.positions == "rotary":
        sys.exit(f"{model} has no raster prior whose positions are vectors: GPT-2 takes no other weights")
    return prior


def why_no_engine() -> str | None:
    """Return why the engine cannot be measured, or None."""
    try:
        from bisquit.engine import engine_missing
    except ImportError as error:
        return str(error)
    return engine_missing()


@torch.inference_mode()
def stepwise_logits(prior: SequentialPrior, tokens: torch.Tensor) -> torch.Tensor:
    """Return the logits (B, h w, codebook) of tokens (B, h, w) as a prior's steps with its cache give them."""
    state, flat = prior.start(len(tokens)), tokens.flatten(1)
    return torch.stack([prior.next_logits(state, flat[:, i - 1] if i else None) for i in range(prior.length)], dim=1)


def logits_differences(prior: RasterPrior, with_engine: bool) -> dict[str, float]:
    """Return by how much each float32 side's logits differ from the prior's, at most. Exits where that is too much."""
    from sides import full_passes, huggingface, onnxruntime

    tokens = sample(prior, range(2), seed=0)
    with torch.inference_mode():
        true = prior.logits(tokens)
    others = {
        "full_passes": full_passes.logits(prior, tokens),
        "huggingface": huggingface.logits(prior, tokens),
        "onnxruntime": onnxruntime.logits(prior, tokens),
        "torch": stepwise_logits(prior, tokens),
    }
    if with_engine:
        from bisquit.engine import prepare

        others["engine_float32"] = stepwise_logits(prepare(prior, "engine", "float32"), tokens)
    differences = {name: (logits - true).abs().max().item() for name, logits in others.items()}
    if not max(differences.values()) <= LOGITS_MAY_DIFFER_BY:
        sys.exit(f"these are not the same models: logits differ by {differences}, allowed are {LOGITS_MAY_DIFFER_BY}")
    return differences


def measure_times(prior: RasterPrior, names: list[str], batch: int, rounds: int) -> dict[str, Timing]:
    """Return the seconds an image of each side."""
    works = {name: SIDES[name](prior, batch) for name in names}
    times = alternate({name: work.run for name, work in works.items()}, rounds)
    return {name: timing.scaled(1 / works[name].images) for name, timing in times.items()}


def compare(prior: RasterPrior, batch: int, times: Mapping[str, Timing], peaks: Peaks) -> dict[str, dict[str, Any]]:
    """Return the seconds an image of all sides and of the floor, their spread, their ratios, and the floor's parts."""
    floors = {precision: floor(prior, batch, peaks, precision) for precision in BYTES}
    least = {precision: found.seconds for precision, found in floors.items()}
    seconds = {name: times[name].median_s if name in times else None for name in SIDES}
    return {
        "seconds": seconds | {"floor": least["float32"], "floor_int8": least["int8"]},
        "spread": {name: [timing.lowest_s, timing.highest_s] for name, timing in times.items()},
        "ratios": ratios(seconds, least),
        "floors": {
            precision: asdict(found) | {"seconds_as_one_group": floor(prior, batch, peaks, precision, batch).seconds}
            for precision, found in floors.items()
        },
    }


def paint_once(name: str, model: str, batch: int) -> None:
    """Load the model and run a side once: for a process of its own, whose memory is measured."""
    SIDES[name](load_prior(model), batch).run()


def ratios(seconds: Mapping[str, float | None], floors: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """Return how many times as long as the engine each side takes, and how many times as long as the floor it does."""
    return {
        f"engine_{precision}": {
            **{side: taken / own for side, taken in seconds.items() if taken and not side.startswith("engine")},
            "engine_over_floor": own / floors[precision],
        }
        for precision in floors
        if (own := seconds[f"engine_{precision}"]) is not None
    }


def report(group: str, times: Mapping[str, Timing], by_engine: Mapping[str, Mapping[str, float]]) -> None:
    """Print a table of the sides, and the engine's ratios beside those asked for."""
    print(f"\n{group}, seconds an image: median (lowest to highest)")
    for name, timing in times.items():
        print(f"  {name:16}{timing.median_s:10.5f}  ({timing.lowest_s:.5f} to {timing.highest_s:.5f})")
    for name, by_side in by_engine.items():
        asked = {side: f" (asked: {value})" for side, value in ASKED[group][name].items()}
        parts = [f"{side} {ratio:.2f}{asked.get(side, '')}" for side, ratio in by_side.items()]
        print(f"  times the seconds of {name}: {', '.join(parts)}")


def measure_memory(model: str, names: list[str]) -> dict[str, Any]:
    """Return the peak memory of each side and batch, and of a process that has imported PyTorch and bisquit only."""
    memory: dict[str, Any] = {"imports_only": peak_memory_mb(do_nothing)}
    for batch in BATCHES:
        memory[f"batch_{batch}"] = {
            name: peak_memory_mb(functools.partial(paint_once, name, model, batch)) for name in names
        }
    print("\npeak memory, MB:", memory)
    return memory


def main() -> None:
    """Compare the logits, then the times, then the memory."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="seed", help="one that ships with bisquit, or a folder")
    parser.add_argument("--rounds", type=int, default=5, help="in a batch of 64; three times as many for one alone")
    parser.add_argument("--no-memory", action="store_true", help="leave the memory out, which takes 14 processes")
    parser.add_argument("--no-plot", action="store_true", help=f"do not write {PLOT.name}")
    options = parser.parse_args()
    described = machine("transformers", "onnxruntime")  # now, while no side has put a load on it
    prior = load_prior(options.model)
    no_engine = why_no_engine()
    if no_engine:
        print(f"the engine is not measured: {no_engine}")
    names = [name for name in SIDES if not (no_engine and name.startswith("engine"))]
    differences = logits_differences(prior, with_engine=not no_engine)
    peaks = measure_peaks()
    rounds = {batch: options.rounds * (3 if batch == 1 else 1) for batch in BATCHES}
    times = {}
    for batch in BATCHES:
        times[batch] = measure_times(prior, names, batch, rounds[batch])
        peaks = peaks.or_better(measure_peaks())
    measured = {f"batch_{batch}": compare(prior, batch, times[batch], peaks) for batch in BATCHES}
    for batch, (group, compared) in zip(BATCHES, measured.items(), strict=True):
        report(group, times[batch], compared["ratios"])
    seconds = {group: compared.pop("seconds") for group, compared in measured.items()}
    if not options.no_plot:
        bars = {group.replace("_", " "): {k: v for k, v in sides.items() if v} for group, sides in seconds.items()}
        plot_bars(PLOT, "Painting one picture of 600 tokens", "seconds an image, less is better", bars)
    finish(
        {
            **seconds,
            **{part: {group: compared[part] for group, compared in measured.items()} for part in measured["batch_1"]},
            "peak_memory_mb": None if options.no_memory else measure_memory(options.model, names),
            "logits_differ_by": differences,
            "full_passes": {"timed": FULL_PASSES_TIMED, "of": prior.length, "pictures_at_most": FULL_PASSES_BATCH},
            "peaks": peaks.summary(),
            "rounds": {f"batch_{batch}": count for batch, count in rounds.items()},
            "model": options.model,
            "machine": described,
        }
    )


if __name__ == "__main__":
    main()
