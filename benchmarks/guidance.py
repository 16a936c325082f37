"""What asking and guidance cost: pictures plain, told of a class, and guided, in the engine, and holes filled.

    python benchmarks/guidance.py [--batch 16] [--rounds 5]

Priors of the `best` preset's shape, of random weights: what they paint takes as long whatever it is. All sides in
alternation; the last line is one JSON object, with what told and guided pictures cost over plain ones.
"""

from __future__ import annotations

import argparse
import functools

import torch
from measure import alternate, finish, machine

from bisquit.engine import paint, prepare
from bisquit.presets import get_preset
from bisquit.priors import AnyOrderPrior, RasterConfig, RasterPrior, build_prior
from bisquit.sampling import SamplingConfig

GRID, BITS, CLASSES = (20, 30), 10, 20
GUIDED = SamplingConfig(guidance=3.0)


@torch.no_grad()
def main() -> None:
    """Time all sides in float32 and int8."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    config = get_preset("best").prior.prior
    assert isinstance(config, RasterConfig)
    torch.manual_seed(0)
    raster = build_prior(config.replace(condition_size=CLASSES), BITS, GRID).eval()
    any_order = build_prior(get_preset("edit").prior.prior, BITS, GRID).eval()
    assert isinstance(raster, RasterPrior)
    assert isinstance(any_order, AnyOrderPrior)
    numbers = range(options.batch)
    told = raster.conditioned(torch.eye(CLASSES)[: options.batch], options.batch)
    untold = raster.conditioned(torch.zeros(options.batch, CLASSES), options.batch)
    known = torch.ones(options.batch, *GRID, dtype=torch.bool)
    known[:, 6:14, 9:21] = False
    path, given = any_order.after(known), torch.where(known, 0, -1)
    seconds, ratios = {}, {}
    for precision in ("float32", "int8"):
        painter, filler = prepare(raster, "engine", precision), prepare(any_order, "engine", precision)
        sides = {
            "plain": functools.partial(paint, painter, numbers, seed=0),
            "told": functools.partial(paint, painter, numbers, seed=0, path=told),
            "guided": functools.partial(paint, painter, numbers, seed=0, settings=GUIDED, path=told, guide=untold),
            "hole filled": functools.partial(paint, filler, numbers, seed=0, path=path, given=given),
        }
        times = alternate(sides, options.rounds)
        seconds[precision] = {name: timing.scaled(1 / options.batch).summary() for name, timing in times.items()}
        ratios[precision] = {name: timing.median_s / times["plain"].median_s for name, timing in times.items()}
        print(precision, {name: f"{ratio:.2f}" for name, ratio in ratios[precision].items()}, flush=True)
    finish({"batch": options.batch, "seconds_a_picture": seconds, "over_plain": ratios, "machine": machine()})


if __name__ == "__main__":
    main()
