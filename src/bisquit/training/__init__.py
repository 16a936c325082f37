"""Training: recipes, and the runs that carry them out. The only place that imports Lightning."""

from __future__ import annotations

from bisquit.training.launch import Processes
from bisquit.training.recipes import FeaturesRecipe, PriorRecipe, TokenizerRecipe
from bisquit.training.settings import TrainingConfig
from bisquit.training.stages import train_features, train_prior, train_tokenizer

__all__ = [
    "FeaturesRecipe",
    "PriorRecipe",
    "Processes",
    "TokenizerRecipe",
    "TrainingConfig",
    "train_features",
    "train_prior",
    "train_tokenizer",
]
