"""How good a model is: what its tokenizer loses and wastes, what its prior needs and paints, how far counting comes."""

from __future__ import annotations

from bisquit.evaluation.codebook import BitPair, CodebookHealth, codebook_health
from bisquit.evaluation.count_baseline import CountModel
from bisquit.evaluation.frechet import frechet_distance, frechet_interval
from bisquit.evaluation.generation import Generation, check_judgeable, judge
from bisquit.evaluation.likelihood import Likelihood, LikelihoodBound, likelihood, likelihood_bound
from bisquit.evaluation.neighbours import Memorisation, Nearest, manifold, memorisation, nearest
from bisquit.evaluation.page import bits_map_picture, bits_sheet, check_page, reconstruction_sheet, write_page
from bisquit.evaluation.reconstruction import Reconstruction, ReconstructionMeter
from bisquit.evaluation.report import CountBaseline, Evaluation, SummaryRow, evaluate, summary

__all__ = [
    "BitPair",
    "CodebookHealth",
    "CountBaseline",
    "CountModel",
    "Evaluation",
    "Generation",
    "Likelihood",
    "LikelihoodBound",
    "Memorisation",
    "Nearest",
    "Reconstruction",
    "ReconstructionMeter",
    "SummaryRow",
    "bits_map_picture",
    "bits_sheet",
    "check_judgeable",
    "check_page",
    "codebook_health",
    "evaluate",
    "frechet_distance",
    "frechet_interval",
    "judge",
    "likelihood",
    "likelihood_bound",
    "manifold",
    "memorisation",
    "nearest",
    "reconstruction_sheet",
    "summary",
    "write_page",
]
