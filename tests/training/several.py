"""Tiny trainings that several processes carry out together, and one alone.

python -m tests.training.several measure FOLDER         as `launch` starts it
python -m tests.training.several die-once FOLDER
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.conftest import letters_read, roughen
from tests.training.conftest import CAPTIONS, NETWORK, TOKENIZER, USUAL, VARIED
from torch import Tensor

from bisquit.errors import ProcessLost, RunStopped
from bisquit.frames import FrameSet
from bisquit.priors import PRIORS, PriorConfig, PyramidConfig
from bisquit.processes import own_part, total
from bisquit.quantizers import QUANTIZERS, BSQConfig, LFQConfig, PyramidBSQConfig, QuantizerConfig, VQConfig
from bisquit.tokenizer import Tokenizer, TokenizerConfig
from bisquit.tokens import FreshTokens, tokenize
from bisquit.training import (
    FeaturesRecipe,
    PriorRecipe,
    TokenizerRecipe,
    train_features,
    train_prior,
    train_tokenizer,
)
from bisquit.training.launch import LOST, joined
from bisquit.training.modules import FeaturesModule, PriorModule, StageModule, TokenizerModule
from bisquit.training.sharding import whole
from bisquit.training.sharpening import Sharpening
from bisquit.transformer import TransformerConfig

STEPS = 5
STOPPED_AT = 1
KILLED_AT = 3
STILL = TransformerConfig(width=8, n_layers=1, n_heads=2, feed_forward=12)
DROPPING = STILL.replace(dropout=0.3)
SETTINGS = USUAL.replace(epochs=1, gradient_clip=0)
QUANTIZER_SETTINGS: dict[type, QuantizerConfig] = {
    BSQConfig: BSQConfig(bits=4, sample_entropy_weight=0.3, codebook_entropy_weight=0.5, entropy_group_bits=3),
    LFQConfig: LFQConfig(bits=4, codebook_entropy_weight=0.5),
    VQConfig: VQConfig(bits=6, code_width=3, restart_steps=3),
    PyramidBSQConfig: PyramidBSQConfig(bits=4, scales=(0.0, 1.0), truncated=0.5),
}
CASES = {
    **{config().kind: config for config in PRIORS},
    **{f"{config.kind} tokenizer": config for config in QUANTIZERS},
    "features": None,
}
SHARDED = ("raster", "pyramid")
RESUMED = (*(config().kind for config in PRIORS), "bsq tokenizer", "vq tokenizer")


@dataclass
class Measured:
    """What a training did: of every step, the loss of the whole batch and the gradient."""

    losses: list[float] = field(default_factory=list)
    gradients: list[Tensor] = field(default_factory=list)
    valid_loss: float = 0.0
    weights: dict[str, Tensor] = field(default_factory=dict)


def noise(count: int, seed: int) -> FrameSet:
    """Return frames of noise, 8 x 12, each of one of two classes."""
    rng = np.random.default_rng(seed)
    return FrameSet(
        pixels=rng.integers(0, 256, (count, 8, 12, 3), dtype=np.uint8),
        rows=np.arange(count),
        names=tuple(f"{seed}-{i}.png" for i in range(count)),
        classes=("ice", "sand"),
        labels=np.arange(count) % 2,
        groups=np.arange(count) // 2,
    )


def train(case: str, out: Path, transformer: TransformerConfig, resume: bool = False, **changes: Any) -> None:
    """Carry out one of the trainings in a folder."""
    frames, valid, settings = noise(21, 0), noise(6, 1), SETTINGS.replace(**changes)
    kind = CASES[case]
    if kind is None:
        train_features(FeaturesRecipe(NETWORK, VARIED, settings), frames, valid, out, resume=resume)
    elif kind in QUANTIZERS:
        shape = TOKENIZER.replace(quantizer=QUANTIZER_SETTINGS.get(kind, kind()))
        sharpening = Sharpening(adversarial_weight=0.1 if kind is BSQConfig else 0.0)
        train_tokenizer(
            TokenizerRecipe(shape, VARIED, sharpening, training=settings), frames, valid, out, resume=resume
        )
    else:
        config: PriorConfig = kind(transformer=transformer)
        is_pyramid = isinstance(config, PyramidConfig)
        quantizer = QUANTIZER_SETTINGS[PyramidBSQConfig if is_pyramid else BSQConfig]
        tokenizer = Tokenizer(TokenizerConfig(TOKENIZER.autoencoder, quantizer)).eval()
        roughen(tokenizer, 0)
        recipe = PriorRecipe(config, VARIED, settings, classes=True, unsaid=0.3, flipped=0.3 if is_pyramid else 0.0)
        fresh, valid_tokens = FreshTokens(frames, tokenizer), tokenize(tokenizer, valid)
        train_prior(recipe, fresh, valid_tokens, out, resume=resume, captions=CAPTIONS)


@contextmanager
def watched(before_step: Callable[[StageModule], None] = lambda module: None) -> Iterator[Measured]:
    """Yield what trainings in this block do."""
    measured = Measured()

    def wrapped(step: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def training_step(module: StageModule, batch: Any, batch_idx: int) -> Tensor:
            before_step(module)
            loss = step(module, batch, batch_idx)
            measured.losses.append((total(loss.detach()) / own_part().count).item())
            return loss

        return training_step

    before = StageModule.on_before_optimizer_step

    def on_before_optimizer_step(module: StageModule, optimizer: torch.optim.Optimizer) -> None:
        gradients = [whole(p.grad).flatten() for p in module.parameters() if p.grad is not None]
        measured.gradients.append(torch.cat(gradients).clone())
        before(module, optimizer)

    with pytest.MonkeyPatch.context() as patch, letters_read():
        for module in (TokenizerModule, PriorModule, FeaturesModule):
            patch.setattr(module, "training_step", wrapped(module.training_step))
        patch.setattr(StageModule, "on_before_optimizer_step", on_before_optimizer_step)
        yield measured


def state(out: Path) -> tuple[float, dict[str, Tensor]]:
    """Return the lowest valid loss of a training, and its last weights."""
    saved = torch.load(out / "last.ckpt", weights_only=True)
    assert saved["global_step"] == STEPS
    valid_loss = next(of["best_loss"] for of in saved["callbacks"].values() if "best_loss" in of)
    return valid_loss, saved["state_dict"] | saved["current_model_state"]


def never_stopped(case: str, out: Path, transformer: TransformerConfig) -> Measured:
    """Train without a stop."""
    with watched() as measured:
        train(case, out, transformer)
    measured.valid_loss, measured.weights = state(out)
    return measured


def stopped(case: str, out: Path, transformer: TransformerConfig, **changes: Any) -> Measured:
    """Train with a stop that the last process alone is asked for, and go on."""

    def stop(module: StageModule) -> None:
        if module.global_step == STOPPED_AT and own_part().index == own_part().count - 1:
            os.kill(os.getpid(), signal.SIGINT)

    with watched(stop) as first, pytest.raises(RunStopped, match=f"after step {STOPPED_AT + 1} of {STEPS}"):
        train(case, out, transformer, **changes)
    with watched() as measured:
        train(case, out, transformer, resume=True, **changes)
    measured.losses[:0] = first.losses
    measured.gradients[:0] = first.gradients
    measured.valid_loss, measured.weights = state(out)
    return measured


def measure(folder: Path, resumed: Sequence[str]) -> dict[str, Measured]:
    """Carry out every training with nothing dropped out, and some with dropout, with a stop and without."""
    measured = {f"{case}, still": never_stopped(case, folder / case / "still", STILL) for case in CASES}
    if own_part().count > 1:
        for case in SHARDED:
            measured[f"{case}, sharded"] = stopped(case, folder / case / "sharded", STILL, sharded=True)
    for case in resumed:
        measured[f"{case}, dropping"] = never_stopped(case, folder / case / "dropping", DROPPING)
        measured[f"{case}, stopped"] = stopped(case, folder / case / "stopped", DROPPING)
    return measured


def die_once(folder: Path, resume: bool) -> None:
    """Train a raster prior; the last process is killed before a step, once."""
    killed = folder / "killed"

    def die(module: StageModule) -> None:
        if module.global_step == KILLED_AT and own_part().index == 1 and not killed.exists():
            killed.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    with watched(die):
        train("raster", folder / "run", DROPPING, resume=resume, checkpoint_minutes=1e-9)


def load(path: Path) -> dict[str, Measured]:
    """Return what a process measured."""
    return {name: Measured(**of) for name, of in torch.load(path, weights_only=True).items()}


def main() -> None:
    """Do something as one of several processes, and leave what each measured in the folder."""
    what, folder = sys.argv[1], Path(sys.argv[2])
    try:
        with joined():
            if what == "measure":
                measured = measure(folder, RESUMED)
                torch.save({name: vars(of) for name, of in measured.items()}, folder / f"{own_part().index}.pt")
            else:
                die_once(folder, "--resume" in sys.argv)
    except ProcessLost:
        sys.exit(LOST)


if __name__ == "__main__":
    main()
