"""Recipes: all that says what a run trains and how. A preset names one for each stage."""

from __future__ import annotations

from dataclasses import dataclass, field

from bisquit.config import Settings, require
from bisquit.features import FeatureNetworkConfig
from bisquit.frames.augment import Augmentation
from bisquit.priors import PriorConfig, PyramidConfig, RasterConfig, of_kind, starts_from_bits
from bisquit.tokenizer import TokenizerConfig
from bisquit.training.settings import TrainingConfig
from bisquit.training.sharpening import Sharpening


@dataclass(frozen=True)
class TokenizerRecipe(Settings):
    """How to make a tokenizer."""

    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    augmentation: Augmentation = field(default_factory=Augmentation)
    sharpening: Sharpening = field(default_factory=Sharpening)
    decoder_only: bool = False
    """Leave the encoder as it is, and so the tokens."""
    training: TrainingConfig = field(default_factory=TrainingConfig)

    def __post_init__(self) -> None:
        _require_whole(self.training)


@dataclass(frozen=True)
class PriorRecipe(Settings):
    """How to make a prior."""

    prior: PriorConfig = field(default_factory=RasterConfig)
    augmentation: Augmentation = field(default_factory=Augmentation)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    from_bits: bool = False
    """Begin with tokens as alike as their bits, instead of each by itself."""
    classes: bool = False
    """Tell the prior the class of each picture, so that it can be asked for one."""
    unsaid: float = 0.1
    """Chance that nothing is said of a picture, so that the prior paints without a condition too."""
    flipped: float = 0.0
    """For a pyramid prior, on frames: the largest share of a picture's bits that are flipped, so that it learns to mend
    what it got wrong; each picture has a share of its own, up to there."""

    def __post_init__(self) -> None:
        require(0 <= self.unsaid <= 1, "unsaid", self.unsaid, "in [0, 1]")
        require(0 <= self.flipped <= 0.5, "flipped", self.flipped, "in [0, 0.5]")
        is_pyramid = isinstance(self.prior, PyramidConfig)
        require(is_pyramid or not self.flipped, "flipped", self.flipped, "0 but for a pyramid prior")

    def of_kind(self, kind: str) -> PriorRecipe:
        """Return the recipe for another kind of prior, which has what the kinds share: `bisquit.priors.of_kind`."""
        from_bits = self.from_bits and starts_from_bits(kind)
        return self.replace(prior=of_kind(self.prior, kind), from_bits=from_bits)


@dataclass(frozen=True)
class FeaturesRecipe(Settings):
    """How to make a feature network."""

    network: FeatureNetworkConfig = field(default_factory=FeatureNetworkConfig)
    augmentation: Augmentation = field(default_factory=Augmentation)
    training: TrainingConfig = field(default_factory=TrainingConfig)

    def __post_init__(self) -> None:
        _require_whole(self.training)


def _require_whole(training: TrainingConfig) -> None:
    """Raise ConfigError if what is small, and changes in a pass as vectors of a codebook do, is to be divided."""
    require(not training.sharded, "sharded", training.sharded, "left out: it is for priors, and any process holds this")
