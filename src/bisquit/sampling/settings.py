"""Which of the likely tokens are taken, and how far a condition is followed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch

from bisquit.config import Settings, require

MOST_GUIDANCE = 1000
MOST_STEPS = 1000


@dataclass(frozen=True)
class SamplingConfig(Settings):
    """Which of the likely tokens are taken."""

    temperature: float = 1.0
    """Logits are divided by it: below 1 likelier tokens are taken more often; 0 always takes the likeliest. A flow's
    noise is multiplied by it."""
    top_k: int = 0
    """Take one of the k likeliest tokens; 0 leaves all."""
    top_p: float = 1.0
    """Take one of the likeliest tokens that together have this chance; 1 leaves all."""
    min_p: float = 0.0
    """Take none whose chance is below this share of the likeliest one's; 0 leaves all."""
    guidance: float = 1.0
    """How far logits go from those without a condition, 0, to those with it, 1, and beyond."""
    guidance_schedule: Literal["constant", "linear", "cosine"] = "constant"
    """Whether guidance is the same for all tokens, or grows from 1 at the first to its full value at the last."""
    steps: int = 0
    """Steps in which a masked prior or a flow paints, all tokens at once; 0 for its own number of them."""
    confidence_noise: float = 15.0
    """How much chance there is in which tokens a masked prior's rounds keep, less in each; 0 keeps the surest."""
    solver: Literal["euler", "heun"] = "euler"
    """How a flow takes a step: by the velocity at its start, or, for twice the work, by the mean of both ends'."""

    def __post_init__(self) -> None:
        require(0 <= self.temperature < float("inf"), "temperature", self.temperature, "at least 0")
        require(self.top_k >= 0, "top_k", self.top_k, "at least 0")
        require(0 < self.top_p <= 1, "top_p", self.top_p, "in (0, 1]")
        require(0 <= self.min_p <= 1, "min_p", self.min_p, "in [0, 1]")
        require(0 <= self.guidance <= MOST_GUIDANCE, "guidance", self.guidance, f"between 0 and {MOST_GUIDANCE}")
        require(0 <= self.steps <= MOST_STEPS, "steps", self.steps, f"between 0 and {MOST_STEPS}")
        is_fit = 0 <= self.confidence_noise < float("inf")
        require(is_fit, "confidence_noise", self.confidence_noise, "at least 0")

    @property
    def drops_tokens(self) -> bool:
        """Whether any token is left out of the race."""
        return self.top_k > 0 or self.top_p < 1 or self.min_p > 0

    def guidance_scales(self, steps: int) -> list[float]:
        """Return the guidance of each of so many steps, as float32 has it."""
        done = torch.linspace(0, 1, steps, dtype=torch.float64)
        grown = {"constant": torch.ones_like(done), "linear": done, "cosine": (1 - (math.pi * done).cos()) / 2}
        scales: list[float] = (1 + (self.guidance - 1) * grown[self.guidance_schedule]).float().tolist()
        return scales
