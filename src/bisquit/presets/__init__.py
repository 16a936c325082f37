"""Presets: recipes for all stages, by name.

`seed` is the design that the project started from, to the figure: 5 x 5 patches, a latent of 128 channels, 10 bits,
AdamW at a constant 1e-3 in batches of 64; a causal transformer of 3 layers, width 128, 4 heads, feed-forward 512,
learned positions; 5 epochs each. The design leaves the transformer's rate and batch open: 2e-3 after 100 steps of
warm-up, in batches of 16, learnt most of what was tried. Both keep averaged weights.

`small` is hardly larger and learns better: Muon, a falling rate, frames flipped and shifted, the tokens above a place
in its prior's input, which begins with tokens as alike as their bits. `best` is what some hours on two cores can train
well: a deeper decoder, six layers of width 256. `edit` is as large, over the same tokens, and paints in any order.

`demo` is as small as shows the whole in minutes on two cores, from the bundled frames alone.

The feature network judges what the others make, so that it is the same for all.
"""

from __future__ import annotations

from dataclasses import dataclass

from bisquit.autoencoder import AutoEncoderConfig
from bisquit.errors import ConfigError
from bisquit.frames.augment import Augmentation
from bisquit.priors import AnyOrderConfig, RasterConfig
from bisquit.quantizers import BSQConfig
from bisquit.tokenizer import TokenizerConfig
from bisquit.training.recipes import FeaturesRecipe, PriorRecipe, TokenizerRecipe
from bisquit.training.settings import TrainingConfig
from bisquit.transformer import TransformerConfig


@dataclass(frozen=True)
class Preset:
    """A recipe for each stage."""

    tokenizer: TokenizerRecipe
    prior: PriorRecipe
    features: FeaturesRecipe


_FEATURES = FeaturesRecipe(
    augmentation=Augmentation(flip=True, shift_px=4, colour=0.2),
    training=TrainingConfig(
        epochs=12, batch_size=64, learning_rate=2e-3, warmup_steps=50, schedule="cosine", ema_decay=0.99
    ),
)

_TOKENIZER_TRAINING = TrainingConfig(  # of `small`; `best` takes longer
    epochs=4,
    batch_size=16,
    learning_rate=2e-3,
    muon_learning_rate=4e-3,
    warmup_steps=100,
    schedule="cosine",
    ema_decay=0.998,
)
_PRIOR_TRAINING = TrainingConfig(
    epochs=5,
    batch_size=16,
    learning_rate=6e-3,
    muon_learning_rate=4e-3,
    weight_decay=0.05,
    warmup_steps=200,
    schedule="cosine",
    ema_decay=0.998,
)

_BEST_TOKENIZER = TokenizerRecipe(
    tokenizer=TokenizerConfig(
        autoencoder=AutoEncoderConfig(patch_size=5, width=128, depth=1, decoder_depth=3),
        quantizer=BSQConfig(bits=10),
    ),
    augmentation=Augmentation(flip=True, shift_px=4),
    training=_TOKENIZER_TRAINING.replace(epochs=10, ema_decay=0.999),
)

PRESETS = {
    "seed": Preset(
        tokenizer=TokenizerRecipe(
            tokenizer=TokenizerConfig(
                autoencoder=AutoEncoderConfig(patch_size=5, width=128, depth=1), quantizer=BSQConfig(bits=10)
            ),
            augmentation=Augmentation(),
            training=TrainingConfig(
                epochs=5,
                batch_size=64,
                learning_rate=1e-3,
                schedule="constant",
                ema_decay=0.995,
                snapshot_epochs=(1, 5),
            ),
        ),
        prior=PriorRecipe(
            prior=RasterConfig(
                transformer=TransformerConfig(width=128, n_layers=3, n_heads=4, feed_forward=512, dropout=0.0),
                positions="learned",
            ),
            training=TrainingConfig(
                epochs=5,
                batch_size=16,
                learning_rate=2e-3,
                warmup_steps=100,
                schedule="constant",
                ema_decay=0.997,
                snapshot_epochs=(1, 5),
            ),
        ),
        features=_FEATURES,
    ),
    "small": Preset(
        tokenizer=TokenizerRecipe(
            tokenizer=TokenizerConfig(
                autoencoder=AutoEncoderConfig(patch_size=5, width=128, depth=1), quantizer=BSQConfig(bits=10)
            ),
            augmentation=Augmentation(flip=True, shift_px=4),
            training=_TOKENIZER_TRAINING,
        ),
        prior=PriorRecipe(
            prior=RasterConfig(
                transformer=TransformerConfig(width=128, n_layers=4, n_heads=4, feed_forward=512, dropout=0.0),
                positions="learned",
                neighbours=4,
            ),
            from_bits=True,
            augmentation=Augmentation(flip=True, shift_px=2),
            training=_PRIOR_TRAINING,
        ),
        features=_FEATURES,
    ),
    "best": Preset(
        tokenizer=_BEST_TOKENIZER,
        prior=PriorRecipe(
            prior=RasterConfig(
                transformer=TransformerConfig(width=256, n_layers=6, n_heads=4, feed_forward=1024, dropout=0.0),
                positions="learned",
                neighbours=4,
            ),
            augmentation=Augmentation(flip=True, shift_px=2),
            training=_PRIOR_TRAINING.replace(ema_decay=0.999),
        ),
        features=_FEATURES,
    ),
    "edit": Preset(
        tokenizer=_BEST_TOKENIZER,
        prior=PriorRecipe(
            prior=AnyOrderConfig(
                transformer=TransformerConfig(width=256, n_layers=6, n_heads=4, feed_forward=1024, dropout=0.0),
                neighbours=12,
            ),
            augmentation=Augmentation(flip=True, shift_px=2),
            training=_PRIOR_TRAINING.replace(ema_decay=0.999),
        ),
        features=_FEATURES,
    ),
    "demo": Preset(
        tokenizer=TokenizerRecipe(
            tokenizer=TokenizerConfig(
                autoencoder=AutoEncoderConfig(patch_size=5, width=64, depth=1), quantizer=BSQConfig(bits=10)
            ),
            augmentation=Augmentation(flip=True, shift_px=4, colour=0.1),
            training=TrainingConfig(
                epochs=40, batch_size=16, learning_rate=3e-3, warmup_steps=50, schedule="cosine", ema_decay=0.99
            ),
        ),
        prior=PriorRecipe(
            prior=RasterConfig(
                transformer=TransformerConfig(width=128, n_layers=2, n_heads=4, feed_forward=512, dropout=0.1),
                positions="row-column",
            ),
            training=TrainingConfig(
                epochs=6, batch_size=16, learning_rate=2e-3, warmup_steps=50, schedule="cosine", ema_decay=0.99
            ),
        ),
        features=_FEATURES,
    ),
}


def get_preset(name: str) -> Preset:
    """Return a preset by its name. Raises ConfigError, with the names there are, if there is none."""
    if name not in PRESETS:
        raise ConfigError(f"there is no preset {name}: the presets are {', '.join(PRESETS)}")
    return PRESETS[name]
