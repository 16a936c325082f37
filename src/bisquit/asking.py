"""How a pipeline is asked for pictures, in the shape that Diffusers' pipelines have, and what it answers.

    prompts, how many of each ──repeated──> one for each picture
    a seed, a generator or several ──seeds_of──> seeds and numbers

A seed and a number say which picture is painted, and paint it again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from PIL import Image

from bisquit.errors import ConditionError, ConfigError

Asked = str | Sequence[str] | None
"""The name of a class, or a prompt: one for all pictures, or one for each; None for neither."""

OutputType = Literal["pil", "np", "tokens"]
"""Pillow's images, frames as arrays, or tokens that are not decoded."""


@dataclass(frozen=True, eq=False)
class PipelineOutput:
    """What a call of a pipeline gives."""

    images: list[Image.Image] | np.ndarray
    """A list of Pillow's, or an array: frames, uint8 (n, H, W, 3), or tokens, int64 (n, h, w)."""
    seeds: list[int]
    """What paints each again: picture i is that of number `numbers[i]` of this seed."""
    numbers: list[int]


def repeated(asked: Asked, times: int) -> Asked:
    """Return several classes or prompts, each so many times; one for all, or none, as it is.

    Raises ConditionError for what is no text, such as the number of a class.
    """
    if isinstance(asked, str | None):
        return asked
    if not isinstance(asked, Sequence) or not all(isinstance(one, str) for one in asked):
        raise ConditionError(f"{asked!r} is asked for: classes and prompts are text, one or a list of them")
    return [one for one in asked for _ in range(times)]


def seeds_of(
    seed: int | None, generator: torch.Generator | Sequence[torch.Generator] | None, count: int
) -> list[tuple[int, range]]:
    """Return which pictures of which seeds are meant by a seed, a generator, or one for each of `count` pictures."""
    if generator is None:
        return [(seed or 0, range(count))]
    if seed is not None:
        raise ConfigError("pass either a seed or a generator: both say which pictures are painted")
    if isinstance(generator, torch.Generator):
        return [(_drawn_seed(generator), range(count))]
    if len(generator) != count:
        raise ConfigError(
            f"{len(generator)} generators are given: pass one for all of {count} pictures, or one for each"
        )
    return [(_drawn_seed(each), range(1)) for each in generator]


def _drawn_seed(generator: torch.Generator) -> int:
    return int(torch.randint(2**63 - 1, (), generator=generator, device=generator.device))
