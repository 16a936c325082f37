"""From the figures of `ablations.py`'s runs to tables, plots and a page, of whatever there is of them so far.

runs/ablations/<run>/seed-<k>/figures.json ──gather──> Figures ──values──> table, plot, page, JSON
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from ablation_plan import AXES, TRAIN_PICK, Axis, Budget, Point, PriorRun, Run
from trainings import Figures, machine, made_on, spread

COLOURS = {"valid_bits": "#4c72b0", "train_bits": "#dd8452", "count_bits": "#55a868", "psnr_db": "#8172b3"}


class Column(NamedTuple):
    """A measure as it stands in a table."""

    measure: str
    title: str
    form: str
    has_spread: bool


BITS_COLUMNS = (
    Column("valid_bits", "bits an image, valid", "{:,.0f}", True),
    Column("train_bits", "train", "{:,.0f}", True),
    Column("gap_bits", "gap", "{:,.0f}", True),
    Column("count_bits", "by counts", "{:,.0f}", False),
    Column("gain", "less by", "{:.1%}", True),
    Column("seconds", "seconds", "{:,.0f}", False),
)
TOKENIZER_COLUMNS = (
    Column("mse", "mean squared error", "{:.5f}", True),
    Column("psnr_db", "PSNR, dB", "{:.2f}", True),
    Column("codes_used", "codes in use", "{:,.0f}", False),
    Column("tokenizer_seconds", "tokenizer's seconds", "{:,.0f}", False),
)


def values(point: Point, figures: Figures) -> dict[int, dict[str, float]]:
    """Return what there is of a point: for each seed its measures, without those that it has not."""
    seeds = sorted(seed for name, seed in figures if name == point.run.name)
    return {seed: _measures(point, seed, figures) for seed in seeds}


def compared(axis: Axis, figures: Figures) -> dict[Point, dict[int, dict[str, float]]]:
    """Return what there is of an axis's points, of the seeds alone that all of those have: others do not compare.

    Each seed has a tokenizer of its own, and bits over the tokens of one are not those over another's.
    """
    found = {point: values(point, figures) for point in axis.points}
    seeds = [set(by_seed) for by_seed in found.values() if by_seed]
    common = set.intersection(*seeds) if seeds else set()
    return {point: {seed: of for seed, of in by_seed.items() if seed in common} for point, by_seed in found.items()}


def _measures(point: Point, seed: int, figures: Figures) -> dict[str, float]:
    tokenizer, own = figures[point.tokenizer.name, seed], figures[point.run.name, seed]
    measures = {name: tokenizer[name] for name in ("mse", "psnr_db", "codes_used", "count_bits")}
    measures["tokenizer_seconds"] = tokenizer["seconds"]
    if isinstance(point.run, PriorRun):
        epochs = {int(epoch): bits for epoch, bits in own["epochs"].items()}
        bits = epochs[point.epoch or max(epochs)]
        measures["count_bits"] = own["count_bits"]
        measures["valid_bits"], measures["train_bits"] = bits["valid_bits"], bits["train_bits"]
        measures["gap_bits"] = bits["valid_bits"] - bits["train_bits"]
        measures["gain"] = 1 - bits["valid_bits"] / own["count_bits"]
        measures["seconds"] = own["seconds"] * (point.epoch or max(epochs)) / max(epochs)
    return measures


def table(axis: Axis, figures: Figures) -> str:
    """Return an axis as a table, in Markdown; a point without figures is said to be missing."""
    columns = (*BITS_COLUMNS, *(TOKENIZER_COLUMNS if axis.of_tokenizers else ()))
    lines = [
        " | ".join(["", axis.unit, *(column.title for column in columns), "seeds", ""]).strip(),
        "| " + " | ".join("---" for _ in range(len(columns) + 2)) + " |",
    ]
    for point, by_seed in compared(axis, figures).items():
        cells = [_cell(column, list(by_seed.values())) for column in columns]
        if not by_seed:
            cells[0] = "missing"
        lines.append("| " + " | ".join([point.label, *cells, ", ".join(map(str, by_seed))]) + " |")
    return "\n".join(lines)


def _cell(column: Column, measures: Sequence[Mapping[str, float]]) -> str:
    numbers = [measure[column.measure] for measure in measures if column.measure in measure]
    if not numbers:
        return ""
    return spread(numbers, column.form) if column.has_spread else column.form.format(fmean(numbers))


def plot(axis: Axis, figures: Figures, path: Path) -> bool:
    """Draw an axis: a dot for each seed, a line through their means. Return whether there is anything to draw."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    found = compared(axis, figures)
    if not any(found.values()):
        return False
    panels = 2 if axis.of_tokenizers else 1
    figure, axes = plt.subplots(1, panels, figsize=(5.4 * panels, 3.6), squeeze=False)
    bits = {"valid_bits": "valid", "train_bits": "train", "count_bits": "by counts, valid"}
    for measure, label in bits.items():
        _draw(axes[0, 0], axis, found, measure, label)
    axes[0, 0].set_ylabel("bits an image")
    axes[0, 0].legend(frameon=False, fontsize=9)
    if axis.of_tokenizers:
        _draw(axes[0, 1], axis, found, "psnr_db", "PSNR")
        axes[0, 1].set_ylabel("PSNR of valid frames, dB")
    figure.suptitle(axis.title)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    plt.close(figure)
    return True


def _draw(
    panel: Any, axis: Axis, found: Mapping[Point, Mapping[int, Mapping[str, float]]], measure: str, label: str
) -> None:
    """Draw one measure; the values of an axis of names are not joined, for nothing lies between them."""
    at = positions(axis)
    dots = [
        (x, m[measure]) for x, by_seed in zip(at, found.values(), strict=True) for m in by_seed.values() if measure in m
    ]
    if not dots:
        return
    means = [(x, fmean([y for other, y in dots if other == x])) for x in sorted({x for x, _ in dots})]
    style = {"color": COLOURS[measure], "linestyle": "--" if measure == "count_bits" else "-"}
    panel.plot(*zip(*dots, strict=True), "o", color=COLOURS[measure], markersize=4.5, alpha=0.75)
    if axis.scale == "names":
        for x, mean in means:
            panel.plot((x - 0.22, x + 0.22), (mean, mean), label=label if x == means[0][0] else None, **style)
        panel.set_xlim(-0.5, len(at) - 0.5)
    else:
        panel.plot(*zip(*means, strict=True), label=label, **style)
        panel.set_xscale(axis.scale)
    panel.set_xticks(at, [point.label for point in axis.points])
    panel.minorticks_off()
    panel.set_xlabel(axis.unit)
    panel.grid(axis="y", alpha=0.3)
    panel.spines[["top", "right"]].set_visible(False)


def positions(axis: Axis) -> list[float]:
    """Return where along an axis its points lie: at their values, or side by side where they are names."""
    if axis.scale == "names":
        return [float(place) for place in range(len(axis.points))]
    return [float(point.label.rstrip("%")) for point in axis.points]


def page(figures: Figures, budget: Budget, runs: Sequence[Run], command: str, from_parquet: bool = True) -> str:
    """Return the page as Markdown. runs: all that a seed has; command: what makes the page."""
    seeds = sorted({seed for _, seed in figures})
    done = [f"{sum((run.name, seed) in figures for run in runs)} of {len(runs)} runs of seed {seed}" for seed in seeds]
    introduction = (
        "One thing at a time is varied from the `seed` preset: 3 layers, width 128, learned positions, 10 bits, 5 x 5 "
        f"patches, AdamW. Each prior sees {budget.pictures:,} pictures (of {budget.frames:,} frames), "
        f"each tokenizer is trained for {budget.tokenizer_epochs} epoch{'s' * (budget.tokenizer_epochs != 1)}, the "
        "base's too, and anew for each seed. All else is the preset's."
    )
    measures = (
        f"Bits an image are those of the {budget.valid_frames:,} valid frames, of races that none has seen, and of "
        f"{TRAIN_PICK:,} training frames (or a tenth of all), the same for all runs and seen by all; the gap is the "
        "difference. They are measured in float32 with averaged weights, after the last epoch, whichever was best. "
        '"By counts" is what a left-and-up count model that was fitted on the same training tokens needs for the valid '
        "frames ([how](seed.md#the-prior)). Mean squared error is that of valid frames in [-0.5, 0.5] through their "
        "tokens. Seconds are those of the whole training command, validation on a tenth of the valid frames included "
        "(a tokenizer's on all), on a machine that may have done other work: they show an order, no more."
    )
    seeds_said = (
        "A figure is the mean of the seeds; in parentheses are their lowest and highest. Both trainings take the "
        "seed, so that this is the spread of the whole. In plots a dot is a seed, and lines go through means. Where "
        "some points of a table have more seeds than others, those that all have are shown."
    )
    parts = [_part(name, axis, figures, from_parquet) for name, axis in AXES.items()]
    return f"""# Ablations

What each part of the design is worth, on a small budget.

{textwrap.fill(introduction, width=120)}

{textwrap.fill(measures, width=120)}

{textwrap.fill(seeds_said, width=120)}

Done: {", ".join(done) or "nothing yet"}. What is not, is missing below.

{made_on()}

    {command}

{chr(10).join(parts)}"""


def _part(name: str, axis: Axis, figures: Figures, from_parquet: bool) -> str:
    about = axis.about
    if name == "augmentation" and not from_parquet:
        about += " Not run: these frames do not lie in Parquet files, of which a share could be written."
    has_figures = any(values(point, figures) for point in axis.points)
    image = f"\n![{axis.title}: bits an image](images/ablations-{name}.png)\n" if has_figures else ""
    return f"## {axis.title}\n\n{textwrap.fill(about, width=120)}\n\n{table(axis, figures)}\n{image}"


def summary(figures: Figures, budget: Budget) -> dict[str, Any]:
    """Return all figures as plain data: of each axis, each point's measures by seed."""
    axes = {
        name: {point.label: {str(seed): m for seed, m in values(point, figures).items()} for point in axis.points}
        for name, axis in AXES.items()
    }
    return {"axes": axes, "budget": vars(budget), "machine": machine()}
