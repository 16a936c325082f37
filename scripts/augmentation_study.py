"""Make docs/augmentation.md: what painted frames are worth to a classifier that has few real ones.

    bisquit augment --model edit --per-class 100 --guidance 1.5 --top-p 0.95 --real 'FRAMES/train-0*.parquet' \\
        -o runs/painted.parquet
    python scripts/augmentation_study.py --frames 'FRAMES/train-0*.parquet' --valid-frames FRAMES/valid-00.parquet \\
        --painted runs/painted.parquet

Two hours on two cores. Networks of the features' shape are trained to tell tracks apart, all for as many steps, on a
share of the real frames, with painted ones or without, changed at random or not. What is done already is not done
again: beside the page lies docs/augmentation.json with all figures, from which another checkout goes on. The last line
is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
from trainings import (
    FIGURES_FILE,
    Figures,
    filled,
    gather,
    hold_to,
    keep_record,
    machine,
    made_on,
    recall,
    save_json,
    work_through,
)

from bisquit.atomic import atomic_file
from bisquit.evaluation.generation import described
from bisquit.features import FeatureNetwork
from bisquit.frames import FrameSet, load_frames
from bisquit.frames.augment import Augmentation
from bisquit.presets import get_preset
from bisquit.training import FeaturesRecipe, train_features

ROOT = Path(__file__).resolve().parent.parent
RECORD = ROOT / "docs" / "augmentation.json"
PERCENTS = (1, 5, 20)
ORDINARY = Augmentation(flip=True, shift_px=8, colour=0.2)
BATCH = 64
T_95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
"""Half the width of a 95% interval by Student's t, in standard errors, for 1, 2, ... degrees of freedom."""


@dataclass(frozen=True)
class Run:
    """A share of the real frames, and what is done to have more."""

    percent: int
    painted: bool
    changed: bool

    @property
    def name(self) -> str:
        """The name of its folder."""
        return f"percent-{self.percent}{'-painted' * self.painted}{'-changed' * self.changed}"


RUNS = [
    Run(percent, painted, changed) for percent in PERCENTS for painted in (False, True) for changed in (False, True)
]


@dataclass(frozen=True)
class Work:
    """What all runs share."""

    frames: FrameSet
    valid: FrameSet
    painted: FrameSet
    steps: int
    runs: Path


def main() -> None:
    """Train and measure run after run, and write the page after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", required=True, help="real frames to train on a share of")
    parser.add_argument("--valid-frames", required=True, help="real frames of other races")
    parser.add_argument("--painted", required=True, help="what `bisquit augment` made")
    parser.add_argument("--steps", type=int, default=300, help="of each training, in batches of 64")
    parser.add_argument("--seeds", type=int, default=5, help="how many seeds, from 0 on")
    parser.add_argument("--hours", type=float, default=float("inf"), help="start no run after so many hours")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "augmentation", help="where the runs are kept")
    options = parser.parse_args()
    frames, valid, painted = map(load_frames, (options.frames, options.valid_frames, options.painted))
    work = Work(frames, valid, painted.with_classes(frames.classes), options.steps, options.runs)
    budget = {"frames": len(frames), "painted": len(painted), "steps": options.steps}
    hold_to(budget, work.runs)
    recall(RECORD, budget, work.runs)

    def write(run: Run | None = None) -> None:
        keep_record(RECORD, budget, work.runs)
        with atomic_file(ROOT / "docs" / "augmentation.md") as partial:
            partial.write_text(page(gather(work.runs), work, options))

    failed = work_through(
        RUNS,
        options.seeds,
        options.hours,
        is_done=lambda run, seed: (folder(run, seed, work) / FIGURES_FILE).exists(),
        finish=lambda run, seed: finish(run, seed, work),
        write=write,
    )
    write()
    print(json.dumps({"figures": summary(gather(work.runs)), "machine": machine()}))
    sys.exit(1 if failed else 0)


def folder(run: Run, seed: int, work: Work) -> Path:
    """Return where a run's figures are."""
    return work.runs / run.name / f"seed-{seed}"


def finish(run: Run, seed: int, work: Work) -> None:
    """Train a network, keep in how many of the valid frames it is right, and let it go."""
    here = folder(run, seed, work)
    frames = share_of(work.frames, run.percent, seed)
    if run.painted:
        frames = joined(frames, work.painted)
    features = get_preset("seed").features
    training = features.training.replace(
        epochs=max(1, math.ceil(work.steps * BATCH / len(frames))), batch_size=BATCH, seed=seed
    )
    augmentation = ORDINARY if run.changed else Augmentation()
    recipe = FeaturesRecipe(network=features.network, augmentation=augmentation, training=training)
    print(f"training {run.name}, seed {seed}: {len(frames):,} frames, {training.epochs} epochs", flush=True)
    shown = work.valid.subset(slice(0, None, 40))  # no choice hangs on them
    network = train_features(recipe, frames, shown, here / "run", resume=True)
    save_json({"accuracy": accuracy(network, work.valid)}, here / FIGURES_FILE)
    shutil.rmtree(here / "run")


def share_of(frames: FrameSet, percent: int, seed: int) -> FrameSet:
    """Return a share of the frames of each class, drawn at random, one at least."""
    rng = np.random.default_rng(seed)
    chosen = []
    for label in range(len(frames.classes)):
        rows = rng.permutation(np.flatnonzero(frames.labels == label))
        chosen.append(rows[: max(1, round(len(rows) * percent / 100))])
    return frames.subset(np.sort(np.concatenate(chosen)))


def joined(frames: FrameSet, others: FrameSet) -> FrameSet:
    """Return two sets of frames of one size as one, in memory."""
    pixels = np.concatenate((frames[:], others[:]))
    return FrameSet(
        pixels=pixels,
        rows=np.arange(len(pixels)),
        names=frames.names + others.names,
        classes=frames.classes,
        labels=np.concatenate((frames.labels, others.labels)),
        groups=None,
    )


def accuracy(network: FeatureNetwork, frames: FrameSet) -> float:
    """Return in which share of the frames of each class a network is right, the mean of the classes."""
    _, classes = described(network, frames)
    named = np.array(network.classes)[classes.numpy()]
    wanted = np.array(frames.classes)[frames.labels]
    return fmean(float((named[wanted == name] == name).mean()) for name in np.unique(wanted))


def summary(figures: Figures) -> dict[str, Any]:
    """Return the accuracies of each run by seed."""
    return {run.name: [of["accuracy"] for (name, _), of in figures.items() if name == run.name] for run in RUNS}


def gain(found: dict[str, list[float]], percent: int) -> str:
    """Return by how much painted frames raise what changed ones reach, with its 95% interval over the seeds."""
    with_them, without = (found[Run(percent, painted, changed=True).name] for painted in (True, False))
    gains = [one - other for one, other in zip(with_them, without, strict=False)]  # of the same seed
    if not 2 <= len(gains) <= len(T_95) + 1:
        return "missing"
    return f"{fmean(gains):+.1%} ± {T_95[len(gains) - 2] * stdev(gains) / math.sqrt(len(gains)):.1%}"


def page(figures: Figures, work: Work, options: argparse.Namespace) -> str:
    """Return the page as Markdown."""
    found = summary(figures)

    def cell(run: Run) -> str:
        accuracies = found[run.name]
        if not accuracies:
            return "missing"
        around = f" ± {stdev(accuracies):.1%}" if len(accuracies) > 1 else ""
        return f"{fmean(accuracies):.1%}{around}"

    rows = "\n".join(
        f"| {label} | " + " | ".join(cell(replace(run, percent=percent)) for percent in PERCENTS) + " |"
        for label, run in (
            ("real frames alone", Run(1, False, False)),
            ("... flipped, shifted and recoloured", Run(1, False, True)),
            ("real and painted frames", Run(1, True, False)),
            ("... flipped, shifted and recoloured", Run(1, True, True)),
        )
    )
    about = filled(
        f"A network of the features' shape learns to tell the 20 tracks apart from a share of {len(work.frames):,} "
        f"real frames, for {work.steps} steps in batches of {BATCH}; with {len(work.painted):,} painted frames beside "
        f"them, or without. Figures are the share of right answers on {len(work.valid):,} frames of other races, the "
        f"mean of the tracks'; means of {options.seeds} seeds, which draw other frames and other first weights, ± "
        "their standard deviation. The last row is what painted frames add to flipped, shifted and recoloured ones, "
        "seed by seed, with its 95% interval."
    )
    limits = filled(
        "The model that painted has learnt from all real frames and their tracks. So this is what it brings to someone "
        "who has few labelled frames of the same game, not what could be had from those few alone."
    )
    return f"""# Painted frames to train with

{about}

{limits}

{made_on()}

    bisquit augment --model edit --per-class 100 --guidance 1.5 --top-p 0.95 \\
        --real 'FRAMES/{Path(options.frames).name}' -o {Path(options.painted).name}
    python scripts/augmentation_study.py --frames 'FRAMES/{Path(options.frames).name}' \\
        --valid-frames FRAMES/{Path(options.valid_frames).name} --painted {Path(options.painted).name} \\
        --seeds {options.seeds}

| | {" | ".join(f"{percent}%" for percent in PERCENTS)} |
| --- |{" --- |" * len(PERCENTS)}
{rows}
| what painted frames add | {" | ".join(gain(found, percent) for percent in PERCENTS)} |
"""


if __name__ == "__main__":
    main()
