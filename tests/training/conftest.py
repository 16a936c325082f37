"""Tiny trainings, and a watch over their steps."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.conftest import letters_read
from torch import Tensor, nn

from bisquit.autoencoder import AutoEncoderConfig
from bisquit.captions import Captions
from bisquit.features import FeatureNetworkConfig
from bisquit.frames import FrameSet, encode_png
from bisquit.frames.augment import Augmentation
from bisquit.priors import AnyOrderConfig, RasterConfig
from bisquit.quantizers import BSQConfig, VQConfig
from bisquit.shards import begin, tokenize_shards
from bisquit.streaming import StreamedTokens
from bisquit.tokenizer import Tokenizer, TokenizerConfig
from bisquit.tokens import FreshTokens, TokenSet, tokenize
from bisquit.training import (
    FeaturesRecipe,
    PriorRecipe,
    TokenizerRecipe,
    TrainingConfig,
    train_features,
    train_prior,
    train_tokenizer,
)
from bisquit.training.modules import FeaturesModule, PriorModule, StageModule, TokenizerModule
from bisquit.transformer import TransformerConfig

TOKENIZER = TokenizerConfig(AutoEncoderConfig(patch_size=4, width=8, depth=1), BSQConfig(bits=4))
VECTORS = VQConfig(bits=6, code_width=3, restart_steps=3)
PRIOR = RasterConfig(transformer=TransformerConfig(width=8, n_layers=1, n_heads=2, feed_forward=12, dropout=0.2))
ANY_ORDER = AnyOrderConfig(transformer=PRIOR.transformer, neighbours=4)
CAPTIONS = Captions({"ice": ("a cold day", "snow"), "sand": ("a hot day",)}, {})
NETWORK = FeatureNetworkConfig(widths=(8, 8), dimensions=4)
USUAL = TrainingConfig(
    epochs=2,
    batch_size=4,  # ten steps an epoch, and one of the 41 pictures sits out: Lightning warns of fewer than ten
    learning_rate=0.01,
    muon_learning_rate=0.02,
    warmup_steps=3,
    schedule="cosine",
    ema_decay=0.9,
    precision="float32",
)

VARIED = Augmentation(flip=True, shift_px=2, colour=0.2)

Stage = Literal[
    "tokenizer",
    "tokenizer of vectors",
    "prior",
    "prior on frames",
    "prior on shards",
    "prior that is told",
    "features",
]
Train = Callable[..., nn.Module]


class Data(NamedTuple):
    """What the stages train on and are validated on."""

    frames: FrameSet
    valid_frames: FrameSet
    tokens: TokenSet
    valid_tokens: TokenSet
    labelled: FrameSet
    valid_labelled: FrameSet
    shards: str
    """A folder with the frames' tokens, in shards of five."""


@pytest.fixture(scope="session")
def data(make_noise, make_tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Data:
    """41 pictures of a grid of 2 x 3 tokens, and 6 to validate on; and 41 and 6 that have a class, among others."""
    frames, valid, tokenizer = make_noise(41), make_noise(6, seed=1), make_tokenizer(bits=4)
    labelled, valid_labelled = tinted(make_noise(62)), tinted(make_noise(9, seed=1))
    shards = sharded(tmp_path_factory.mktemp("shards"), tokenizer, frames)
    tokens, valid_tokens = tokenize(tokenizer, frames), tokenize(tokenizer, valid)
    return Data(frames, valid, tokens, valid_tokens, labelled, valid_labelled, shards)


def sharded(folder: Path, tokenizer: Tokenizer, frames: FrameSet) -> str:
    """Make shards of five frames each in a folder, and return theirs."""
    pictures = [encode_png(frame) for frame in frames]
    names = [frames.classes[label] if label >= 0 else None for label in frames.labels]
    pq.write_table(pa.table({"image": pictures, "label": names}), folder / "frames.parquet")
    out = str(folder / "tokens")
    tokenize_shards(tokenizer, begin(tokenizer, str(folder / "frames.parquet"), out, (frames.height, frames.width), 5))
    return out


def tinted(frames: FrameSet) -> FrameSet:
    """Return frames darkened, those of the second class but a little, so that the classes can be told apart."""
    shares = np.where(frames.labels == 1, 0.9, 0.4)[:, None, None, None]
    return replace(frames, pixels=(frames.pixels * shares).astype(np.uint8))


@pytest.fixture(scope="session")
def train(data: Data) -> Train:
    """A function that trains a stage in a folder, with augmentation, dropout, Muon, average, warm-up and cosine."""

    def train(stage: Stage, out: Path, resume: bool = False, start: Any = None, **changes: Any) -> nn.Module:
        settings = USUAL.replace(**changes)
        if stage in ("tokenizer", "tokenizer of vectors"):
            shape = TOKENIZER if stage == "tokenizer" else TOKENIZER.replace(quantizer=VECTORS)
            recipe = TokenizerRecipe(shape, VARIED, training=settings)
            return train_tokenizer(recipe, data.frames, data.valid_frames, out, resume=resume)
        if stage == "features":
            features_recipe = FeaturesRecipe(NETWORK, VARIED, settings)
            return train_features(features_recipe, data.labelled, data.valid_labelled, out, resume=resume)
        if stage == "prior on frames":
            varied = PriorRecipe(PRIOR, VARIED, settings)
            fresh = FreshTokens(data.frames, data.tokens.tokenizer)
            return train_prior(varied, fresh, data.valid_tokens, out, resume=resume)
        if stage == "prior on shards":
            streamed = StreamedTokens(data.shards, block_pictures=15)
            told = PriorRecipe(PRIOR, training=settings, classes=True, unsaid=0.3)
            return train_prior(told, streamed, StreamedTokens(data.shards), out, resume=resume)
        if stage == "prior that is told":
            recipe_to_tell = PriorRecipe(ANY_ORDER, training=settings, classes=True, unsaid=0.3)
            with letters_read():
                return train_prior(
                    recipe_to_tell, data.tokens, data.valid_tokens, out, resume=resume, start=start, captions=CAPTIONS
                )
        prior_recipe = PriorRecipe(PRIOR, training=settings)
        return train_prior(prior_recipe, data.tokens, data.valid_tokens, out, resume=resume, start=start)

    return train


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

    @property
    def steps(self) -> list[int]:
        """The steps that were taken, in turn."""
        return [step for step, _ in self.losses]

    def wrap(self, step: Callable[[Any, Any, int], Tensor]) -> Callable[[Any, Any, int], Tensor]:
        """Return a module's `training_step` with the watch around it."""

        def training_step(module: StageModule, batch: Any, batch_idx: int) -> Tensor:
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
    for module in (TokenizerModule, PriorModule, FeaturesModule):
        monkeypatch.setattr(module, "training_step", watch.wrap(module.training_step))
    return watch


@pytest.fixture
def set_valid_losses(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[float]], None]:
    """A function that says what the valid loss is after each epoch."""

    def set_losses(losses: list[float]) -> None:
        def validation_step(module: StageModule, batch: Tensor, batch_idx: int) -> None:
            module.log("valid/loss", losses[module.current_epoch], batch_size=len(batch))

        monkeypatch.setattr(PriorModule, "validation_step", validation_step)

    return set_losses


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """Give the next test the signal handlers that this one found."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)
