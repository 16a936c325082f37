"""The two plots of `scaling.py`: loss against tokens and against compute, of whatever there is so far."""

from __future__ import annotations

from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np
from scaling_fit import Fit, Law, optimum
from scaling_plan import Size
from scaling_study import MORE, Study, rounded

COLOURS = ("#4c72b0", "#dd8452", "#55a868", "#c44e52", "#8172b3", "#937860")
GREY = "#555555"


def plot_tokens(study: Study, path: Path) -> bool:
    """Draw loss against tokens: dots of each size, the fit's lines. Return whether there is anything to draw."""
    if not study.figures:
        return False
    with _Panel(path, "tokens trained on") as panel:
        for size, colour in _coloured(study):
            parameters = study.scale.parameters(size)
            tokens, _, loss = _dots(study, size)
            panel.plot(tokens, loss, "o", color=colour, markersize=4.5, label=f"{size}, N = {rounded(parameters)}")
            if study.fit:
                grid = _grid(study)
                panel.plot(grid, study.fit.law.loss(parameters, grid), color=colour, linewidth=1.2)
        panel.legend(frameon=False, fontsize=9)
    return True


def plot_compute(study: Study, path: Path) -> bool:
    """Draw loss against compute: each size, the least that the fit allows, its forecast dashed, and the check."""
    if not study.figures:
        return False
    with _Panel(path, "FLOPs of training") as panel:
        for size, colour in _coloured(study):
            _, flops, loss = _dots(study, size)
            panel.plot(flops, loss, "o", color=colour, markersize=4.5, label=str(size))
            if study.fit:
                grid = _grid(study)
                line = study.fit.law.loss(study.scale.parameters(size), grid)
                panel.plot(6 * study.scale.products(size) * grid, line, color=colour, linewidth=1, alpha=0.7)
        if study.fit:
            _draw_least(panel, study, study.fit)
        if study.check:
            label = f"{study.check.name}, not fitted to"
            panel.plot(
                [study.check.flops], [study.check.valid_bits_token], "*", color="black", markersize=11, label=label
            )
        panel.legend(frameon=False, fontsize=9)
    return True


def _draw_least(panel: Any, study: Study, found: Fit) -> None:
    """Draw the least loss for each compute, solid as far as there are runs, and its 95% interval."""
    done = {name for name, _ in study.figures}
    least, most = min(study.scale.flops(run) for run in study.plan if run.name in done), study.largest_flops
    flops = np.geomspace(least, MORE[-1] * most, 81)
    loss = optimum(found.law, study.family, flops).loss
    draws = optimum(_rows(found), study.family, flops).loss
    low, high = np.quantile(draws, (0.025, 0.975), axis=0)
    is_known = flops <= most
    panel.fill_between(flops, low, high, color=GREY, alpha=0.15, linewidth=0)
    panel.plot(flops[is_known], loss[is_known], color=GREY, linewidth=1.6, label="the least, by the fit")
    panel.plot(flops[~is_known], loss[~is_known], "--", color=GREY, linewidth=1.6, label="forecast, 95% shaded")


def _rows(found: Fit) -> Law:
    """Return the drawn laws as a column, to be broadcast against a row of budgets."""
    draws = found.draws
    return Law(*(value[:, None] for value in astuple(draws)))


def _coloured(study: Study) -> list[tuple[Size, str]]:
    return [(size, COLOURS[i % len(COLOURS)]) for i, size in enumerate(study.sizes)]


def _grid(study: Study) -> np.ndarray:
    """Return tokens, from the shortest run's to the longest one's."""
    tokens = [study.scale.tokens(run) for run in study.plan]
    return np.geomspace(min(tokens), max(tokens), 100)


def _dots(study: Study, size: Size) -> tuple[list[int], list[float], list[float]]:
    """Return tokens, FLOPs and bits a token of all runs of a size, of every seed."""
    tokens, flops, loss = [], [], []
    for run in (run for run in study.plan if run.size == size):
        for bits in study.of_run(run, "valid_bits_token"):
            tokens.append(study.scale.tokens(run))
            flops.append(study.scale.flops(run))
            loss.append(bits)
    return tokens, flops, loss


class _Panel:
    """A plot of bits a token against something, in logarithms, which is saved when its block ends."""

    def __init__(self, path: Path, label: str) -> None:
        self.path, self.label = path, label

    def __enter__(self) -> Any:
        import matplotlib as mpl

        mpl.use("Agg")
        from matplotlib import pyplot as plt

        self.figure, panel = plt.subplots(figsize=(7.2, 4.4))
        panel.set_xscale("log")
        panel.set_xlabel(self.label)
        panel.set_ylabel("bits a token, valid")
        panel.grid(alpha=0.3)
        panel.spines[["top", "right"]].set_visible(False)
        return panel

    def __exit__(self, kind: object, *_: object) -> None:
        from matplotlib import pyplot as plt

        if kind is None:
            self.figure.tight_layout()
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.figure.savefig(self.path, dpi=130)
        plt.close(self.figure)
