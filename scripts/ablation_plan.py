"""What `ablations.py` trains: the axes, their points, and the runs behind them, of which none is trained twice.

    AXES ──points──> runs, each once ──plan──> cheapest first, a tokenizer before the priors over its tokens

A run says only in what it differs from the base, the `seed` preset.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Literal

import numpy as np
from trainings import nested_rows

PRIOR_PER_S = 45.0
"""Pictures a second that the base's prior trains on, on two cores; measured pictures go three times as fast."""
TOKENIZER_PER_S = 120.0
"""Frames a second that the base's tokenizer trains on, on two cores."""
TRAIN_PICK = 1000
"""Training pictures whose bits are measured."""


@dataclass(frozen=True)
class TokenizerRun:
    """A tokenizer of the `seed` preset's recipe."""

    bits: int = 10
    patch_px: int = 5

    @property
    def name(self) -> str:
        """The name of its folder."""
        return f"tokenizer-{self.bits}-bits-{self.patch_px}-px"

    @property
    def flags(self) -> tuple[str, ...]:
        """What is said of it to `bisquit train tokenizer`."""
        return "--bits", str(self.bits), "--patch-size", str(self.patch_px)


@dataclass(frozen=True)
class PriorRun:
    """A prior of the `seed` preset's recipe but for what is said here."""

    tokenizer: TokenizerRun = TokenizerRun()
    positions: str = "learned"
    neighbours: int = 0
    layers: int = 3
    muon: float = 0.0
    """Muon's learning rate; 0 is AdamW alone."""
    percent: int = 100
    """Share of the training frames."""
    augmented: bool = False
    epochs: tuple[int, ...] = ()
    """Passes over those frames after which it is measured; () for as many as the budget of pictures has."""

    @property
    def name(self) -> str:
        """The name of its folder."""
        words = ["prior"]
        for field, value in self._changes():
            if isinstance(value, TokenizerRun):
                words.append(value.name)
            elif isinstance(value, bool):
                words.append(field)
            else:
                words += [field, *map(str, value if isinstance(value, tuple) else (value,))]
        return "-".join(words)

    @property
    def flags(self) -> tuple[str, ...]:
        """What is said of its recipe to `bisquit train prior`."""
        names = {
            "positions": "--positions",
            "neighbours": "--neighbours",
            "layers": "--n-layers",
            "muon": "--muon-learning-rate",
        }
        flags = [word for field, value in self._changes() if field in names for word in (names[field], str(value))]
        return (*flags, *(("--flip", "--shift-px", "2") if self.augmented else ()))

    def _changes(self) -> list[tuple[str, object]]:
        """Return the fields in which it is not the base."""
        named = [(field.name, getattr(self, field.name), field.default) for field in fields(self)]
        return [(name, value) for name, value, default in named if value != default]


Run = TokenizerRun | PriorRun
BASE = PriorRun()


@dataclass(frozen=True)
class Point:
    """A value of an axis, and the run that shows it."""

    label: str
    run: Run
    epoch: int | None = None
    """After which of the run's epochs; None for the last."""

    @property
    def tokenizer(self) -> TokenizerRun:
        """The tokenizer that the run is, or is over."""
        return self.run.tokenizer if isinstance(self.run, PriorRun) else self.run


@dataclass(frozen=True)
class Axis:
    """One thing that is varied."""

    title: str
    unit: str
    """What the labels are values of."""
    points: tuple[Point, ...]
    scale: Literal["names", "linear", "log"]
    about: str
    of_tokenizers: bool = False
    """Whether the tokenizers differ too, and are measured."""


def _bits(bits: int, patch_px: int = 5) -> TokenizerRun:
    return TokenizerRun(bits, patch_px)


AXES = {
    "positions": Axis(
        title="Positions",
        unit="positions",
        points=tuple(Point(kind, PriorRun(positions=kind)) for kind in ("none", "learned", "row-column", "rotary")),
        scale="names",
        about="How a step knows its place: not at all, by a learned vector for each place, by one for the row plus "
        "one for the column, or by rotations by row and column.",
    ),
    "neighbours": Axis(
        title="Neighbours",
        unit="tokens above a place in its input",
        points=tuple(Point(str(n), PriorRun(neighbours=n)) for n in (0, 1, 4)),
        scale="linear",
        about="How many of the tokens above a place its input takes beside the last token: none, the one above, or "
        "also those to the left and to the right of that one and the next above.",
    ),
    "layers": Axis(
        title="Layers",
        unit="layers",
        points=tuple(Point(str(n), PriorRun(layers=n)) for n in (1, 3, 6, 12)),
        scale="log",
        about="All at the preset's rate, which was chosen for 3 layers.",
    ),
    "bits": Axis(
        title="Bits a token",
        unit="bits a token",
        points=(
            *(Point(str(bits), PriorRun(tokenizer=_bits(bits))) for bits in (8, 10, 12)),
            *(Point(str(bits), _bits(bits)) for bits in (14, 16, 18)),
        ),
        scale="linear",
        about="From 14 bits on there is the tokenizer alone. This prior ends in one softmax over all codes, and over "
        "16,384 to 262,144 of them that does not fit two cores: the logits of one batch of 16 are 0.6 to 10 GB, of "
        "which a training holds several, and the head has 4 to 57 times the products of all three layers. What such "
        "tokens take by counts is there. Bits of different tokenizers mean nothing without the error beside them.",
        of_tokenizers=True,
    ),
    "patch": Axis(
        title="Patch",
        unit="side of a patch and bits a token",
        points=(
            Point("5 px, 10 bits", BASE),
            Point("10 px, 10 bits", PriorRun(tokenizer=_bits(10, 10))),
            Point("10 px, 18 bits", _bits(18, 10)),
        ),
        scale="names",
        about="Patches of twice the side are a quarter of the tokens. With 18 bits a token there is the tokenizer "
        "alone, for the reason above.",
        of_tokenizers=True,
    ),
    "data": Axis(
        title="Data",
        unit="training frames, %",
        points=tuple(Point(f"{percent}%", PriorRun(percent=percent)) for percent in (10, 30, 100)),
        scale="log",
        about="As many pictures are seen of each share of the frames, so that of fewer frames each is seen more often. "
        "A share is spread over all races, drawn by frame and the same for all seeds, the smaller ones within the "
        "larger: whole races are not kept together, so that what lacks is frames and not places. (Every tenth frame "
        "would be the same cameras' each time.) The gap between train and valid is what was learnt by heart. Counts "
        "are of the same share; the tokenizer is that of all frames.",
    ),
    "augmentation": Axis(
        title="Augmentation",
        unit="augmentation",
        points=(Point("off", PriorRun(percent=10)), Point("on", PriorRun(percent=10, augmented=True))),
        scale="names",
        about="On 10% of the frames: their tokens as they are, or the frames mirrored at random, shifted by up to 2 "
        "pixels each way, and tokenized anew each time. Train bits are those of the frames unchanged.",
    ),
    "epochs": Axis(
        title="Epochs",
        unit="epochs",
        points=tuple(Point(str(n), PriorRun(percent=10, epochs=(1, 2, 5, 20)), epoch=n) for n in (1, 2, 5, 20)),
        scale="log",
        about="One run over 10% of the frames at a constant rate, measured as it goes: the one axis on which the "
        "pictures seen are not the same. Its seconds are shared out by epochs.",
    ),
    "optimiser": Axis(
        title="Optimiser",
        unit="optimiser",
        points=(Point("AdamW", BASE), Point("Muon", PriorRun(muon=0.003))),
        scale="names",
        about="Muon, at a rate of 3e-3, trains the matrices inside of the blocks; the rest stays with AdamW.",
    ),
}


@dataclass(frozen=True)
class Budget:
    """How much every run trains."""

    frames: int
    valid_frames: int
    pictures: int
    """Pictures that a prior sees."""
    tokenizer_epochs: int

    def epochs(self, run: Run) -> tuple[int, ...]:
        """Return the epochs of its training file after which a run is measured, the last of all last."""
        if isinstance(run, TokenizerRun):
            return (self.tokenizer_epochs,)
        if run.augmented:  # its frames are not laid out to the budget, for they are never twice the same
            return (max(1, round(self.pictures / len(chosen_rows(self.frames, run.percent)))),)
        return run.epochs or (1,)

    def seconds(self, run: Run) -> float:
        """Return about how long a run takes on two cores, its measuring included."""
        tokens = (5 / run.patch_px) ** 2 if isinstance(run, TokenizerRun) else (5 / run.tokenizer.patch_px) ** 2
        if isinstance(run, TokenizerRun):
            once_more = 0.5 * (self.frames + self.valid_frames)  # to tokenize all, and to measure
            return tokens * (self.tokenizer_epochs * self.frames + once_more) / TOKENIZER_PER_S
        work = tokens * _products(run) / _products(BASE)
        epochs = self.epochs(run)
        own = len(chosen_rows(self.frames, run.percent))
        seen = max(epochs) * own if run.epochs or run.augmented else self.pictures
        measured = len(epochs) * (self.valid_frames + min(TRAIN_PICK, own))
        return work * (seen + measured / 3) / PRIOR_PER_S


def _products(run: PriorRun) -> float:
    """Return the products that a token takes in the blocks and in the head."""
    width = 128
    return float(run.layers * 12 * width**2 + width * 2**run.tokenizer.bits)


def plan(axes: Iterable[str], budget: Budget, from_parquet: bool = True) -> list[Run]:
    """Return the runs of some axes, each once, cheapest first, but a tokenizer before the first prior over its tokens.

    from_parquet: whether the frames lie in Parquet files, without which there is no file of a share of them to augment.
    """
    runs = {point.run for axis in axes for point in AXES[axis].points}
    wanted = [run for run in runs if from_parquet or isinstance(run, TokenizerRun) or not run.augmented]
    ordered: list[Run] = []
    for run in sorted(wanted, key=lambda run: (budget.seconds(run), run.name)):
        needed: tuple[Run, ...] = (run.tokenizer, run) if isinstance(run, PriorRun) else (run,)
        ordered += [part for part in needed if part not in ordered]
    return ordered


def chosen_rows(frames: int, percent: int) -> np.ndarray:
    """Return which of all frames a share of them is: spread at random, the smaller share first in the larger."""
    return nested_rows(frames, max(1, frames * percent // 100))
