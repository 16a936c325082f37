"""How the cost of painting grows with the tokens of a picture, the pictures of a batch, the width and the layers:
seconds and memory of the PyTorch path and of the engine, with the floor beside them.

    python benchmarks/growth.py [--limit-s 60] [--no-plot]

Each axis is varied from the `seed` prior's shape, 600 tokens, 1 picture, width 128 and 3 layers, with random weights;
heads keep 32 channels, the feed-forward part is 4 times as wide as the rest, and a row has 30 tokens. Each point is run
in a process of its own: until 3 seconds or 6 runs are over, of which the first, if it is not the only one, does not
count. A point is left out if it would take a run over the limit, judged by the point before it on its axis. The last
line is one JSON object, and the plot goes to docs/images/growth.png.
"""

from __future__ import annotations

import argparse
import functools
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from floor import BYTES, Peaks, floor, keys_and_values, measure_peaks, weights
from measure import MB, Timing, do_nothing, finish, machine, peak_memory_mb, run_in_fresh_process

from bisquit.priors import RasterConfig, RasterPrior
from bisquit.transformer import TransformerConfig
from sampling import SIDES, why_no_engine

ROW = 30
HEAD_WIDTH = 32
BITS = 10
ENOUGH_S = 3.0
ENOUGH_RUNS = 6
NEEDED = "weights_keys_values_mb"
PLOT = Path(__file__).parents[1] / "docs" / "images" / "growth.png"


@dataclass(frozen=True)
class Point:
    """What is painted, and by how large a model."""

    tokens: int = 600
    batch: int = 1
    width: int = 128
    layers: int = 3

    def prior(self) -> RasterPrior:
        """Return a prior of this shape with random weights, the same ones in every process."""
        torch.manual_seed(0)
        shape = TransformerConfig(
            width=self.width, n_layers=self.layers, n_heads=self.width // HEAD_WIDTH, feed_forward=4 * self.width
        )
        return RasterPrior(RasterConfig(shape), BITS, (self.tokens // ROW, ROW)).eval()


AXES = {
    "tokens": (150, 300, 600, 1200, 2400, 4800, 9600),
    "batch": (1, 4, 16, 64, 256),
    "width": (64, 128, 256, 512),
    "layers": (1, 3, 6, 12),
}
LABELS = {"tokens": "tokens a picture", "batch": "pictures a batch", "width": "width", "layers": "layers"}


@dataclass(frozen=True)
class Cost:
    """What a point costs a side."""

    seconds: float
    """An image."""
    peak_mb: float
    """Of the process, all that it imports included."""


def paint(side: str, point: Point) -> Timing:
    """Time a side at a point, in a process of its own."""
    run = SIDES[side](point.prior(), point.batch).run
    seconds: list[float] = []
    while len(seconds) < ENOUGH_RUNS and sum(seconds) < ENOUGH_S:
        begin = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - begin)
    return Timing.of(seconds[1:] or seconds)


@functools.cache  # the seed's shape lies on every axis
def cost(side: str, point: Point) -> Cost:
    """Measure a side at a point."""
    ran = run_in_fresh_process(functools.partial(paint, side, point))
    return Cost(ran.returned.median_s / point.batch, ran.peak_mb)


def work(point: Point) -> float:
    """Return how many products a batch takes."""
    prior = point.prior()
    return point.batch * prior.length * (weights(prior) + keys_and_values(prior, prior.length / 2))


def points_of(axis: str) -> dict[int, Point]:
    """Return the points of an axis by its values."""
    return {value: replace(Point(), **{axis: value}) for value in AXES[axis]}


def measure_axis(axis: str, sides: list[str], limit_s: float) -> dict[int, dict[str, Any]]:
    """Return the cost of each side at each value of an axis."""
    costs: dict[int, dict[str, Any]] = {value: {} for value in AXES[axis]}
    for side in sides:
        before: Point | None = None
        for value, point in points_of(axis).items():
            estimate_s = cost(side, before).seconds * before.batch * work(point) / work(before) if before else 0.0
            if estimate_s > limit_s:
                print(f"{axis} {value}, {side}: left out, for a run would take about {estimate_s:.0f} s")
                break
            found, before = cost(side, point), point
            costs[value][side] = asdict(found)
            print(f"{axis} {value}, {side}: {found.seconds:.4f} s an image, {found.peak_mb:.0f} MB", flush=True)
    return costs


def needs(point: Point, peaks: Peaks) -> dict[str, Any]:
    """Return the floor at a point, and what must be in memory."""
    prior = point.prior()
    numbers = weights(prior) + point.batch * keys_and_values(prior, prior.length)
    return {
        "floor": {name: floor(prior, point.batch, peaks, name).seconds for name in BYTES},
        NEEDED: {name: size * numbers / MB for name, size in BYTES.items()},
    }


def plot(axes: dict[str, dict[int, dict[str, Any]]], sides: list[str], imports_mb: float) -> None:
    """Draw the seconds in the upper row and the memory in the lower, a column for each axis."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    colours = {"torch": "#4c72b0", "engine_float32": "#dd8452", "engine_int8": "#55a868"}
    figure, panels = plt.subplots(2, len(axes), figsize=(4.2 * len(axes), 8), sharex="col", sharey="row")
    for (upper, lower), (axis, costs) in zip(panels.T, axes.items(), strict=True):
        for side in sides:
            values = [value for value, found in costs.items() if side in found]
            seconds, peaks_mb = ([costs[value][side][key] for value in values] for key in ("seconds", "peak_mb"))
            memory = [max(peak - imports_mb, 1.0) for peak in peaks_mb]
            upper.plot(values, seconds, marker="o", color=colours[side], label=side)
            lower.plot(values, memory, marker="o", color=colours[side], label=side)
        for precision in BYTES:
            style = {"linestyle": "--", "color": colours[f"engine_{precision}"]}
            floors, needed = ([found[key][precision] for found in costs.values()] for key in ("floor", NEEDED))
            upper.plot(list(costs), floors, label=f"floor, {precision}", **style)
            lower.plot(list(costs), needed, label=f"weights, keys and values, {precision}", **style)
        for panel in (upper, lower):
            panel.set(xscale="log", yscale="log")
            panel.set_xticks(list(costs), [f"{value:,}" for value in costs])
            panel.minorticks_off()
            panel.grid(alpha=0.3)
        lower.set_xlabel(LABELS[axis])
    panels[0, 0].set_ylabel("seconds an image")
    panels[1, 0].set_ylabel("peak memory beyond the imports, MB (at least 1)")
    for panel in panels[:, 0]:
        panel.legend(fontsize=8)
    figure.suptitle("What painting costs, from the seed prior's shape: 600 tokens, 1 picture, width 128, 3 layers")
    figure.tight_layout()
    PLOT.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(PLOT, dpi=110)


def main() -> None:
    """Measure axis after axis."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit-s", type=float, default=60.0, help="seconds that a run may take")
    parser.add_argument("--no-plot", action="store_true", help=f"do not write {PLOT.name}")
    options = parser.parse_args()
    described = machine()  # now, while nothing has put a load on it
    sides = ["torch", "engine_float32", "engine_int8"]
    if no_engine := why_no_engine():
        print(f"the engine is not measured: {no_engine}")
        sides = ["torch"]
    peaks, imports_mb = measure_peaks(), peak_memory_mb(do_nothing)
    costs = {axis: measure_axis(axis, sides, options.limit_s) for axis in AXES}
    peaks = peaks.or_better(measure_peaks())
    axes = {
        axis: {value: needs(point, peaks) | costs[axis][value] for value, point in points_of(axis).items()}
        for axis in AXES
    }
    if not options.no_plot:
        plot(axes, sides, imports_mb)
    finish({**axes, "imports_only_mb": imports_mb, "peaks": peaks.summary(), "machine": described})


if __name__ == "__main__":
    main()
