"""What `scaling.py` has found so far: its runs' figures, the law fitted to them, forecasts, and a run to check against.

runs/scaling/<run>/seed-<k>/figures.json ──gather──> Study.of ──> page, plots, JSON
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scaling_fit import Family, Fit, Optimum, Runs, fit, interval, optimum
from scaling_plan import Run, Scale, Size
from trainings import Figures

MORE = (1, 10, 100)
"""How many times the largest compute of the runs is forecast for."""


@dataclass(frozen=True)
class Check:
    """A larger run, to which the law is not fitted."""

    name: str
    shape: str
    parameters: int
    products: int
    tokens: int
    valid_bits_token: float
    differs: tuple[str, ...]
    command: str
    """What trained it."""

    @property
    def flops(self) -> float:
        """C, the FLOPs of its training."""
        return 6.0 * self.products * self.tokens


class Forecast(NamedTuple):
    """The optimum for a budget, and the 95% intervals of its loss, its parameters and its tokens."""

    flops: float
    best: Optimum
    loss: tuple[float, float]
    parameters: tuple[float, float]
    tokens: tuple[float, float]


@dataclass(frozen=True)
class Study:
    """All that there is so far."""

    scale: Scale
    plan: Sequence[Run]
    figures: Figures
    """Those of the plan's runs."""
    fit: Fit | None
    check: Check | None

    @classmethod
    def of(cls, scale: Scale, plan: Sequence[Run], figures: Figures, check: Check | None) -> Study:
        """Fit the law to what there is of the planned runs."""
        names = {run.name: run for run in plan}
        kept = {key: found for key, found in figures.items() if key[0] in names}
        runs = [names[name] for name, _ in kept]
        points = Runs(
            np.array([scale.parameters(run.size) for run in runs], dtype=float),
            np.array([scale.tokens(run) for run in runs], dtype=float),
            np.array([found["valid_bits_token"] for found in kept.values()], dtype=float),
        )
        return cls(scale, plan, kept, fit(points) if kept else None, check)

    @property
    def sizes(self) -> list[Size]:
        """The sizes of the plan, smallest first."""
        return sorted({run.size for run in self.plan}, key=self.scale.parameters)

    @property
    def family(self) -> Family:
        """How products grow with parameters along the plan's sizes."""
        return Family.through(
            [self.scale.parameters(size) for size in self.sizes], [self.scale.products(size) for size in self.sizes]
        )

    @property
    def largest_flops(self) -> float:
        """The FLOPs of the dearest run that is done."""
        done = {name for name, _ in self.figures}
        return max(self.scale.flops(run) for run in self.plan if run.name in done)

    def of_run(self, run: Run, measure: str) -> list[float]:
        """Return a measure of a run, one value for each seed that there is."""
        return [found[measure] for (name, _), found in self.figures.items() if name == run.name]

    def forecasts(self) -> list[Forecast]:
        """Return the optimum for the largest compute of the runs and for multiples of it; none without a fit."""
        if self.fit is None:
            return []
        found = []
        for flops in (times * self.largest_flops for times in MORE):
            best, draws = (optimum(law, self.family, flops) for law in (self.fit.law, self.fit.draws))
            found.append(
                Forecast(flops, best, interval(draws.loss), interval(draws.parameters), interval(draws.tokens))
            )
        return found


def rounded(number: np.ndarray | float) -> str:
    """Return a large number to two digits, as 2.4M."""
    value = float(f"{float(number):.2g}")
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.2g}{letter}" if value < 100 * size else f"{value / size:.0f}{letter}"
    return f"{value:g}"
