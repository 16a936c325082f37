"""Training: recipes, and the runs that carry them out. The only place that imports Lightning.

What trains is imported when it is first used: recipes alone, and a command's help, wait for no Lightning.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from bisquit.training.launch import Processes
from bisquit.training.recipes import FeaturesRecipe, PriorRecipe, TokenizerRecipe
from bisquit.training.settings import TrainingConfig

if TYPE_CHECKING:
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


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'bisquit.training' has no attribute {name!r}")
    return getattr(importlib.import_module("bisquit.training.stages"), name)
