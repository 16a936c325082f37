"""Tiny trainings, and a watch over their steps."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from torch import Tensor

from bisquit.autoencoder import AutoEncoderConfig
from bisquit.errors import RunError
from bisquit.frames.augment import Augmentation
from bisquit.priors import RasterConfig
from bisquit.quantizers import BSQConfig
from bisquit.tokenizer import TokenizerConfig
from bisquit.training import PriorRecipe, TokenizerRecipe, TrainingConfig
from bisquit.training.modules import PriorModule, StageModule, TokenizerModule
from bisquit.transformer import TransformerConfig

STEPS_PER_EPOCH = 10  # of batches of 4 of the 41 training pictures: one sits out; Lightning wants ten steps to log at all

TOKENIZER = TokenizerConfig(AutoEncoderConfig(patch_size=4, width=8, depth=1), BSQConfig(bits=4))
PRIOR = RasterConfig(transformer=TransformerConfig(width=8, n_layers=1, n_heads=2, feed_forward=12, dropout=0.2))
AUGMENTATION = Augmentation(flip=True, shift_px=2, colour=0.2)


def training(**changes: Any) -> TrainingConfig:
    """Two short epochs in float32 with all that has a state: an average, a warm-up and a cosine."""
    usual = TrainingConfig(
        epochs=2,
        batch_size=4,
        learning_rate=0.01,
        warmup_steps=3,
        schedule="cosine",
        ema_decay=0.9,
        precision="float32",
    )
    return usual.replace(**changes)


class Watch:
    """What happens at each step of the trainings of a test, and what is to happen."""

    def __init__(self) -> None:
        self.losses: list[tuple[int, float]] = []
        """(step, loss) of every step in turn."""
        self.before_step: Callable[[StageModule], None] = lambda module: None
        """Called with the module before each step."""

    def stop_at(self, *steps: int, number: int = signal.SIGINT) -> None:
        """Have the process asked to stop in these steps."""
        self.before_step = lambda module: os.kill(os.getpid(), number) if module.global_step in steps else None

    def wrap(self, step: Callable[[Any, Tensor, int], Tensor]) -> Callable[[Any, Tensor, int], Tensor]:
        def training_step(module: StageModule, batch: Tensor, batch_idx: int) -> Tensor:
            at = module.global_step
            self.before_step(module)
            loss = step(module, batch, batch_idx)
            self.losses.append((at, loss.item()))
            return loss

        return training_step


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Watch:
    """A watch over every training of this test."""
    watch = Watch()
    for module in (TokenizerModule, PriorModule):
        monkeypatch.setattr(module, "training_step", watch.wrap(module.training_step))
    return watch


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """Give the next test the signal handlers that this one found."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)
