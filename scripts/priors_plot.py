"""The figure of `compare_priors.py`: how good new frames are, by passes of the network and by seconds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from priors_plan import FAMILIES, Budget, TokenizerRun
from priors_rows import Row, prior_rows, tokenizer_row
from scaling_plan import Size
from trainings import Figures

PALETTE = ("#4c72b0", "#dd8452", "#55a868", "#c44e52", "#e377c2", "#8172b3", "#937860", "#64b5cd")
COLOURS = dict(zip(FAMILIES, PALETTE, strict=True))
GREY = "#555555"
PANELS = {"passes": "passes of the network", "seconds_1": "seconds for one picture, PyTorch's path"}


def plot(figures: Figures, budget: Budget, sizes: Sequence[Size], path: Path) -> bool:
    """Draw each family and size, a line through its ways to paint. Return whether there is anything to draw."""
    rows = [row for row in prior_rows(figures, budget, sizes) if row["frechet"] is not None]
    if not rows:
        return False
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(1, len(PANELS), figsize=(10.8, 4.2), sharey=True)
    floor = tokenizer_row(figures, TokenizerRun())["real"]
    for panel, (measure, label) in zip(panels, PANELS.items(), strict=True):
        _draw(panel, [row for row in rows if row[measure] is not None], measure, sizes)
        if floor is not None:
            panel.axhline(floor, color=GREY, linestyle=":", linewidth=1.2)
        panel.set_xscale("log")
        panel.set_xlabel(label)
        panel.grid(alpha=0.3)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("Fréchet distance in track features, less is better")
    keys = [plt.Line2D([], [], color=colour, label=family) for family, colour in COLOURS.items()]
    keys += [plt.Line2D([], [], color=GREY, linestyle="", marker=_mark(i), label=str(s)) for i, s in enumerate(sizes)]
    keys.append(plt.Line2D([], [], color=GREY, linestyle=":", label="real frames of other races"))
    panels[-1].legend(handles=keys, frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    plt.close(figure)
    return True


def _draw(panel: Any, rows: Sequence[Row], measure: str, sizes: Sequence[Size]) -> None:
    """Draw a line for each family, size and way to take steps; Heun's are dashed."""
    for number, size in enumerate(sizes):
        for family, colour in COLOURS.items():
            for line in _lines([row for row in rows if (row["prior"], row["size"]) == (family, str(size))]):
                panel.errorbar(
                    *([row[name] for row in line] for name in (measure, "frechet", "frechet_interval")),
                    color=colour,
                    marker=_mark(number),
                    linestyle="--" if "Heun" in line[0]["way"] else "-",
                    linewidth=1.2,
                    elinewidth=0.6,
                    markersize=5,
                )


def _mark(number: int) -> str:
    return "os^Dv"[number % 5]


def _lines(rows: Sequence[Row]) -> list[list[Row]]:
    """Return rows of one family and size by what joins them: the steps of one way to take them."""
    by_kind: dict[str, list[Row]] = {}
    for row in rows:
        by_kind.setdefault(row["way"].partition(", ")[2], []).append(row)  # as "Heun", or "noise 4.5"
    return list(by_kind.values())
