"""What the tests of the command line pass around."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

TINY = ("--width", "8", "--batch-size", "4", "--epochs", "2", "--learning-rate", "0.003")


@dataclass(frozen=True)
class Outcome:
    """How a command ended, and what it wrote."""

    status: int
    out: str
    err: str


Run = Callable[..., Outcome]


@dataclass(frozen=True)
class Trained:
    """What a first session with the program leaves behind."""

    tokenizer: Path
    tokens: Path
    model: Path
