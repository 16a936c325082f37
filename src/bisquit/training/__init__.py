"""Training: recipes, and the runs that carry them out. The only place that imports Lightning."""

from __future__ import annotations

from bisquit.training.recipes import FeaturesRecipe, PriorRecipe, TokenizerRecipe
from bisquit.training.run import train_features, train_prior, train_tokenizer
from bisquit.training.settings import TrainingConfig

__all__ = [
    "FeaturesRecipe",
    "PriorRecipe",
    "TokenizerRecipe",
    "TrainingConfig",
    "train_features",
    "train_prior",
    "train_tokenizer",
]
