"""How good new frames are: like real ones, as varied, and no copies.

    samples ──feature network──┐
    frames ───feature network──┴─> frechet_track, precision, recall, density, coverage, diversity, class_entropy_bits
    real ─────feature network──frames──> frechet_track_floor
    samples ──nearest of `real`──┐
    frames ──tokenizer──nearest──┴─> nearest_share

`frames` are held out, the reference of everything; `real` are frames of other races, those that the model was trained
on, or some of them. The floor is what real frames of other races reach, as many as there are samples and against the
same reference; it is not 0, for races differ and sets are finite.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bisquit.config import require
from bisquit.errors import FrameError
from bisquit.evaluation.bootstrap import Units, units
from bisquit.evaluation.frechet import frechet_distance, frechet_interval
from bisquit.evaluation.inference import measured
from bisquit.evaluation.neighbours import (
    NEIGHBOURS,
    Nearest,
    Pictures,
    manifold,
    mean_pairwise_distance,
    memorisation,
    nearest,
)
from bisquit.features import FeatureNetwork, FeatureOutput
from bisquit.frames import FrameSet
from bisquit.progress import Progress, part_of
from bisquit.seeds import derive_seed
from bisquit.tokenizer import Tokenizer

FLOOR_DRAWS = 5
_FRAMES_AT_ONCE = 1024


@dataclass(frozen=True, eq=False)
class Generation:
    """All that was measured of new frames. Intervals are half the width of 95% intervals."""

    samples: int
    frechet_track: float
    """Squared Frechet distance of the samples' features to the frames', by a network that tells tracks apart."""
    frechet_track_interval: float
    frechet_track_floor: float
    """That of as many real frames of other races, the mean of five draws."""
    frechet_track_floor_interval: float
    """That of the first draw, and so at least as wide as that of the mean."""
    precision: float
    recall: float
    density: float
    coverage: float
    diversity: float | None
    """Mean distance of two samples' features, relative to that of two frames; None where all frames are one."""
    class_entropy_bits: float
    """Entropy of the classes that the network sees in the samples."""
    real_class_entropy_bits: float
    """Entropy of those that it sees in the frames."""
    class_accuracy: float | None
    """Share of samples in which the network sees the class that was asked for; None where none was."""
    nearest_share: float
    """Share of samples nearer to a frame trained on than 95% of the frames are; see `Memorisation`."""
    nearest_share_interval: float
    nearest_smallest_rms: float
    valid_nearest_smallest_rms: float
    neighbours: Nearest
    """For each sample the nearest of the frames trained on."""

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as one flat dictionary of plain data."""
        return {name: getattr(self, name) for name in FIGURES}


FIGURES = tuple(field.name for field in fields(Generation) if field.name != "neighbours")


def check_judgeable(samples: int, frames: FrameSet, real: FrameSet, network: FeatureNetwork) -> None:
    """Raise ConfigError or FrameError, before any work, unless so many samples can be judged by these frames."""
    least = max(network.config.dimensions, NEIGHBOURS) + 1
    why = f"{least} at least, one more than the features' dimensions"
    require(samples >= least, "samples", samples, why)
    require(samples <= len(real), "samples", samples, f"at most {len(real):,}, the number of --real frames")
    if len(frames) < least:
        raise FrameError(f"there are {len(frames)} frames to judge samples by: they must be {why}")
    if (frames.height, frames.width) != (real.height, real.width):
        raise FrameError(
            f"frames are {frames.height} x {frames.width}, those of --real {real.height} x {real.width} (height x "
            "width): name frames of one size, or pass --size HxW"
        )


def judge(
    samples: np.ndarray,
    frames: FrameSet,
    real: FrameSet,
    network: FeatureNetwork,
    tokenizer: Tokenizer,
    *,
    labels: np.ndarray | None = None,
    seed: int = 0,
    batch_size: int = 32,
    progress: Progress | None = None,
) -> Generation:
    """Judge samples, uint8 (N, H, W, 3), by `frames` that are held out and `real` ones of other races.

    labels: (N,) the class that was asked for, an index into the network's, -1 for none. seed: of what is drawn for the
    floor and the intervals; the floor does not depend on the samples. progress: told of frames, samples and frames
    twice. Raises ConfigError, FrameError and ShapeError if there are too few of anything, or sizes differ.
    """
    check_judgeable(len(samples), frames, real, network)
    generator = torch.Generator().manual_seed(derive_seed(seed, "judge"))
    draws = [torch.randperm(len(real), generator=generator)[: len(samples)].numpy() for _ in range(FLOOR_DRAWS)]
    drawn = np.unique(draws)
    n, m = len(samples), len(frames)
    before = np.cumsum([0, n, m, len(drawn), n]).tolist()
    parts = [part_of(progress, done, before[-1] + m) for done in before]
    ours, classes = described(network, samples, batch_size, parts[0])
    theirs, real_classes = described(network, frames, batch_size, parts[1])
    others, _ = described(network, real.subset(drawn), batch_size, parts[2])
    floors = [others[np.searchsorted(drawn, draw)] for draw in draws]
    floor_units, frames_units = _units(real.subset(draws[0])), _units(frames)
    neighbours = nearest(samples, real, parts[3])
    frames_rms = _nearest_of_remade(tokenizer, frames, real, batch_size, parts[4])
    memory = memorisation(neighbours.rms, frames_rms, generator, frames_units)
    spread = mean_pairwise_distance(theirs)
    return Generation(
        samples=n,
        frechet_track=frechet_distance(ours, theirs),
        frechet_track_interval=frechet_interval(ours, theirs, generator, b_units=frames_units),
        frechet_track_floor=float(np.mean([frechet_distance(floor, theirs) for floor in floors])),
        frechet_track_floor_interval=frechet_interval(
            floors[0], theirs, generator, a_units=floor_units, b_units=frames_units
        ),
        **manifold(ours, theirs)._asdict(),
        diversity=mean_pairwise_distance(ours) / spread if spread else None,
        class_entropy_bits=entropy_bits(classes),
        real_class_entropy_bits=entropy_bits(real_classes),
        class_accuracy=None if labels is None else class_accuracy(classes, labels),
        nearest_share=memory.share,
        nearest_share_interval=memory.share_interval,
        nearest_smallest_rms=memory.smallest_rms,
        valid_nearest_smallest_rms=memory.valid_smallest_rms,
        neighbours=neighbours,
    )


def entropy_bits(classes: Tensor) -> float:
    """Return the entropy of how often each class occurs in classes (N,)."""
    shares = classes.unique(return_counts=True)[1].double() / len(classes)
    return float(-(shares * shares.log2()).sum()) + 0.0  # + 0.0: no negative zero


def class_accuracy(classes: Tensor, labels: np.ndarray) -> float | None:
    """Return the share of classes (N,) that are as the labels (N,) say, of those that say one; None if none does."""
    wanted = torch.from_numpy(np.asarray(labels, dtype=np.int64))
    is_asked = wanted >= 0
    return float((classes == wanted)[is_asked].double().mean()) if is_asked.any() else None


def _units(frames: FrameSet) -> Units:
    return units(len(frames), frames.groups, frames.labels)


def described(
    network: FeatureNetwork, frames: Pictures, batch_size: int = 32, progress: Progress | None = None
) -> tuple[Tensor, Tensor]:
    """Return the features of frames, float64 (N, d), and the classes seen in them, int64 (N,), on the CPU."""
    features, classes = [], []
    with measured(network):
        for start in range(0, len(frames), batch_size):
            output: FeatureOutput = network.describe(torch.from_numpy(frames[start : start + batch_size]))
            features.append(output.features.cpu().double())
            classes.append(output.logits.argmax(dim=1).cpu())
            if progress is not None:
                progress(min(start + batch_size, len(frames)), len(frames))
    return torch.cat(features), torch.cat(classes)


def _nearest_of_remade(
    tokenizer: Tokenizer, frames: FrameSet, real: FrameSet, batch_size: int, progress: Progress | None
) -> np.ndarray:
    """Return how far frames, after they have gone through the tokenizer, are from the nearest of `real`: (N,)."""
    size = frames.height, frames.width
    found = []
    for start in range(0, len(frames), _FRAMES_AT_ONCE):
        with measured(tokenizer) as device:
            batches = torch.from_numpy(frames[start : start + _FRAMES_AT_ONCE]).split(batch_size)
            remade = [tokenizer.decode(tokenizer.encode(batch.to(device)), size).cpu() for batch in batches]
        part = part_of(progress, start, len(frames))
        found.append(nearest(torch.cat(remade).numpy(), real, part).rms)
    return np.concatenate(found)


def figures_of(generation: Generation | None) -> Mapping[str, Any]:
    """Return the figures as a flat dictionary, each None where nothing was judged."""
    return dict.fromkeys(FIGURES) if generation is None else generation.to_dict()
