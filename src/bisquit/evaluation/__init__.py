"""How good a model is: what its tokenizer loses and wastes, what its prior needs, and how far counting comes."""

from __future__ import annotations

from bisquit.evaluation.codebook import BitPair, CodebookHealth, codebook_health
from bisquit.evaluation.count_baseline import CountModel
from bisquit.evaluation.likelihood import Likelihood, likelihood
from bisquit.evaluation.reconstruction import Reconstruction, ReconstructionMeter
from bisquit.evaluation.report import CountBaseline, Evaluation, SummaryRow, evaluate, summary

__all__ = [
    "BitPair",
    "CodebookHealth",
    "CountBaseline",
    "CountModel",
    "Evaluation",
    "Likelihood",
    "Reconstruction",
    "ReconstructionMeter",
    "SummaryRow",
    "codebook_health",
    "evaluate",
    "likelihood",
    "summary",
]
