"""Augmenting: labelled pictures that a model paints to train others with, so many of each class.

    class ──prior──> tokens ──likeliest share──> frames ──no copies of real ones──> chunks of pictures

Of every picture it is kept where it comes from: model, seed, number and guidance paint it again, and beside them stand
its bits and the real frame that is nearest to it. `painted_set` writes them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bisquit.config import Settings, require
from bisquit.engine import Backend, Precision
from bisquit.errors import ConditionError, ModelError
from bisquit.evaluation.neighbours import nearest
from bisquit.frames import FrameSet
from bisquit.generate import Pipeline
from bisquit.progress import Progress, share_of
from bisquit.sampling import SamplingConfig
from bisquit.seeds import derive_seed

MOST_AT_ONCE = 1000
"""How many pictures are taken at a time, the likely ones of those that are painted for it."""
MOST_TRIES = 20
"""Times as many pictures are painted as it takes where none is a copy, before it is given up."""


@dataclass(frozen=True)
class AugmentConfig(Settings):
    """How many pictures are painted, and which of them are taken."""

    per_class: int = 100
    """Pictures of each class."""
    likely_share: float = 0.8
    """Share of the painted pictures of a class that are taken, the likeliest by the model's own measure."""
    least_distance: float = 0.03
    """Least root mean square difference, of values in [0, 1], to any --real frame: what is nearer is a copy."""

    def __post_init__(self) -> None:
        require(1 <= self.per_class <= 1_000_000, "per_class", self.per_class, "between 1 and 1000000")
        require(0 < self.likely_share <= 1, "likely_share", self.likely_share, "in (0, 1]")
        require(0 <= self.least_distance <= 1, "least_distance", self.least_distance, "in [0, 1]")


@dataclass(frozen=True, eq=False)
class Painted:
    """A picture, and where it comes from."""

    frame: np.ndarray
    """uint8 (H, W, 3)."""
    class_name: str
    seed: int
    number: int
    """Which picture of the seed it is."""
    bits: float
    """What its tokens cost under the model, told of the class."""
    nearest: str
    """The name of the real frame that is nearest; empty where none were given."""
    nearest_rms: float | None

    def provenance(self) -> dict[str, Any]:
        """Return what is known of it, but for its pixels."""
        return {
            "track": self.class_name,
            "seed": self.seed,
            "number": self.number,
            "bits": round(self.bits, 2),
            "nearest": self.nearest,
            "nearest_rms": "" if self.nearest_rms is None else round(self.nearest_rms, 5),
        }


@dataclass(frozen=True)
class Count:
    """How far a class is."""

    painted: int = 0
    taken: int = 0
    copies: int = 0


@dataclass(frozen=True, eq=False)
class Chunk:
    """Pictures of a class that were painted and judged together, and how far the class then is."""

    class_name: str
    count: Count
    pictures: tuple[Painted, ...]


def paint_chunks(
    model: Pipeline,
    class_name: str,
    config: AugmentConfig,
    *,
    begun: Count = Count(),
    seed: int = 0,
    settings: SamplingConfig | None = None,
    real: FrameSet | None = None,
    backend: Backend = "auto",
    precision: Precision = "float32",
    progress: Progress | None = None,
) -> Iterator[Chunk]:
    """Paint pictures of a class, and yield those that are likely and no copies, until there are enough.

    begun: the last chunk's count, to go on from there. real: frames that the model was trained on. Each class has a
    seed of its own, made from `seed`. They are painted and judged some at a time, so that memory does not grow with how
    many are wanted. Raises ModelError if the model cannot paint, or paints little but copies; ConditionError if it does
    not know the class.
    """
    own_seed = derive_seed(seed, "augment", class_name) % 2**31
    painted, taken, copies = begun.painted, begun.taken, begun.copies
    while taken < config.per_class:
        if painted >= MOST_TRIES * math.ceil(config.per_class / config.likely_share):
            raise ModelError(
                f"of {painted:,} pictures of {class_name}, only {taken:,} could be taken: {copies:,} are within "
                f"{config.least_distance} of a real frame; lower --least-distance, or train a model that does not "
                "repeat what it has seen"
            )
        wanted = min(config.per_class - taken, MOST_AT_ONCE)
        numbers = range(painted, painted + math.ceil(wanted / config.likely_share))
        found = model.paint(
            numbers,
            seed=own_seed,
            settings=settings,
            class_name=class_name,
            backend=backend,
            precision=precision,
            progress=share_of(progress, taken, wanted, config.per_class),
        )
        likely = np.sort(np.argsort(found.bits, kind="stable")[:wanted])
        frames = model.decode(found.tokens[likely], model.frame_size)
        near = nearest(frames, real) if real is not None else None
        pictures = []
        for frame, i, row in zip(frames, range(wanted), likely.tolist(), strict=True):
            name, distance = "", None
            if real is not None and near is not None:
                name, distance = real.names[near.index[i]], float(near.rms[i])
                if distance < config.least_distance:
                    continue
            pictures.append(Painted(frame, class_name, own_seed, numbers[row], float(found.bits[row]), name, distance))
        painted, taken, copies = painted + len(numbers), taken + len(pictures), copies + wanted - len(pictures)
        yield Chunk(class_name, Count(painted, taken, copies), tuple(pictures))


def chosen_classes(model: Pipeline, names: Sequence[str] | None) -> tuple[str, ...]:
    """Return the classes to paint, by default all that a model knows. Raises ConditionError if it knows not one."""
    chosen = tuple(dict.fromkeys(names)) if names else model.conditions.classes
    if not chosen:
        raise ConditionError("this model knows no classes: train a prior with --classes")
    for name in chosen:
        model.conditions.of_class(name)
    return chosen
