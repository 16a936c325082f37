"""How a model is trained: the settings that both stages share."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from bisquit.config import Settings, require


@dataclass(frozen=True)
class TrainingConfig(Settings):
    """How long, how fast and with what care a model is trained."""

    epochs: int = 5
    """Passes over the training set."""
    batch_size: int = 64
    """Pictures a step; those that fill no whole batch sit an epoch out."""
    balance_classes: bool = False
    """Draw pictures at random so that each class comes as often, instead of each picture once an epoch."""
    learning_rate: float = 1e-3
    """AdamW's learning rate, at its highest."""
    muon_learning_rate: float = 0.0
    """Muon's learning rate, at its highest, for the matrices inside of the network; 0 leaves them to AdamW."""
    weight_decay: float = 0.01
    """Weight decay, of matrices only."""
    warmup_steps: int = 0
    """Steps over which the rate grows from zero."""
    schedule: Literal["constant", "cosine"] = "constant"
    """How the rate goes on after the warm-up: as it is, or down to a hundredth along a cosine."""
    gradient_clip: float = 1.0
    """Largest norm of the gradient; 0 leaves it as it is."""
    ema_decay: float = 0.0
    """Decay a step of the weights' moving average, which is what is validated and saved; 0 keeps none."""
    early_stopping_epochs: int = 0
    """Stop after so many epochs without a lower valid loss; 0 never stops early."""
    precision: Literal["auto", "float32", "bf16"] = "auto"
    """Arithmetic of the forward pass; auto takes bf16 where the processor has it."""
    checkpoint_minutes: float = 3.0
    """Minutes between two saved states from which `--resume` goes on."""
    snapshot_epochs: tuple[int, ...] = ()
    """Epochs after which the model is also kept in a folder of its own, such as 1,2."""
    seed: int = 0
    """Seed of the first weights, the order, the augmentation and the dropout."""
    bad_steps: Literal["stop", "skip"] = "stop"
    """What to do at a step whose loss or gradient is not finite: stop the run, or leave the step out and go on."""
    sharded: bool = False
    """Of several processes, have each keep a part of the weights and of what goes with them, for models that one cannot
    hold."""
    deterministic: bool = False
    """Have the same training give the same weights to the bit: by algorithms that always add in one order, and on a CPU
    by two threads, however many cores it has."""

    def __post_init__(self) -> None:
        require(self.epochs >= 1, "epochs", self.epochs, "at least 1")
        require(self.batch_size >= 1, "batch_size", self.batch_size, "at least 1")
        require(0 < self.learning_rate < math.inf, "learning_rate", self.learning_rate, "above 0")
        muon = self.muon_learning_rate
        require(0 <= muon < math.inf, "muon_learning_rate", muon, "at least 0")
        require(self.weight_decay >= 0, "weight_decay", self.weight_decay, "at least 0")
        require(self.warmup_steps >= 0, "warmup_steps", self.warmup_steps, "at least 0")
        require(self.gradient_clip >= 0, "gradient_clip", self.gradient_clip, "at least 0")
        require(0 <= self.ema_decay < 1, "ema_decay", self.ema_decay, "in [0, 1)")
        require(self.early_stopping_epochs >= 0, "early_stopping_epochs", self.early_stopping_epochs, "at least 0")
        require(self.checkpoint_minutes > 0, "checkpoint_minutes", self.checkpoint_minutes, "above 0")

    def rate_factor(self, step: int, total_steps: int) -> float:
        """Return what the learning rate is multiplied by at a step, in (0, 1]."""
        if step < self.warmup_steps:
            return (step + 1) / (self.warmup_steps + 1)
        if self.schedule == "constant":
            return 1.0
        done = min(1.0, (step - self.warmup_steps) / max(1, total_steps - self.warmup_steps))
        return 0.01 + 0.99 * (1 + math.cos(math.pi * done)) / 2
