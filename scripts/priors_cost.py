"""What the runs of `compare_priors.py` cost: products, FLOPs of training, and about how many seconds.

Products of a picture are those of the transformer's matrices and of its attention, for each token or pair of tokens
that it needs, and those of the head. Tables are looked up, and what else there is to the inputs is below one in a
hundred. A causal step sees itself and those before it; a pyramid's sees its scale and those before; masked priors and
flows see all. A masked prior's head is asked for the masked places alone, half of all on average.

FLOPs of training are six for each product, as in `scaling_plan`: a product is two, and a backward pass is two forward
ones. A flow with self-conditioning has half of its pictures pass through once more, forward: seven.
"""

from __future__ import annotations

from itertools import accumulate

from priors_plan import FAMILIES, Budget, Painting, PriorRun, Run, Timing, TokenizerRun, Way
from scaling_plan import FLOPS_PER_S

from bisquit.priors import FlowConfig, PartsConfig

TOKENIZER_PER_S = 18.0
"""Frames a second that the `best` preset's tokenizer trains on, on two cores; once more is to tokenize and measure."""
JUDGED_PER_S = 60.0
"""New frames a second that are decoded and judged."""
ENGINE_FLOPS_PER_S, TORCH_FLOPS_PER_S = 40e9, 75e9
"""Of painting, on two cores."""
PASS_S, RACE_S = 0.0025, 0.00017
"""What a pass and the race for a token cost beside the products, on PyTorch's path."""
MASKED_RACES = 1.7
"""Races for each token that a masked prior paints, in all of its rounds."""


def products(run: PriorRun, budget: Budget) -> float:
    """Return the products that a picture takes forward in training."""
    shape, scales = run.size.transformer, budget.scales(run.family)
    width, tokens = shape.width, sum(scales)
    blocks = tokens * shape.n_layers * (4 * width**2 + 2 * width * shape.feed_forward)
    return blocks + 2 * shape.n_layers * width * seen(run.kind, scales) + head_products(run, tokens)


def seen(kind: str, scales: tuple[int, ...]) -> float:
    """Return how many pairs of tokens attention is asked for in a layer, of so many tokens at each scale."""
    tokens = sum(scales)
    if kind == "pyramid":
        return sum(own * so_far for own, so_far in zip(scales, accumulate(scales), strict=True))
    return tokens**2 if kind in ("masked", "flow") else tokens * (tokens + 1) / 2


def head_products(run: PriorRun, tokens: int) -> float:
    """Return the products of a picture's heads in training."""
    width = run.size.width
    if run.kind == "flow":
        return tokens * width * run.tokenizer.numbers
    if run.kind == "parts":
        part = 2 * width * PartsConfig().part_width + width * 2 ** (run.bits // run.parts)
        return tokens * run.parts * part
    predicted = (tokens + 1) / 2 if run.kind == "masked" else tokens
    return predicted * width * 2**run.bits


def flops_a_picture(run: PriorRun, budget: Budget) -> float:
    """Return the FLOPs of a picture in training."""
    again = 1 if run.kind == "flow" and FlowConfig().self_conditioning else 0
    return (6 + again) * products(run, budget)


def flops(run: PriorRun, budget: Budget) -> float:
    """Return the FLOPs of all of a run's training."""
    return flops_a_picture(run, budget) * budget.pictures * budget.epochs


def seconds(run: Run, budget: Budget, rounds: int) -> float:
    """Return about how long a run takes on two cores, its measuring included. rounds: of timing."""
    if isinstance(run, TokenizerRun):
        trained = 0 if run.name in budget.taken else budget.tokenizer_epochs_of(run) * budget.frames
        return (trained + budget.frames / 2 + budget.valid_frames + budget.samples) / TOKENIZER_PER_S
    if isinstance(run, PriorRun):
        masks = {"masked": budget.masks, "flow": 0}.get(run.kind, 1)
        measured = 2 * products(run, budget) * budget.valid_frames * masks
        return (measured + (0 if run.name in budget.taken else flops(run, budget))) / FLOPS_PER_S
    if isinstance(run, Painting):
        ways = budget.ways(run.prior.family, run.is_usual_alone)
        painted = sum(painting_seconds(run.prior, way, budget, 64) for way in ways)
        return budget.samples * (painted / 64 + len(ways) / JUDGED_PER_S)
    assert isinstance(run, Timing)
    return sum(
        painting_seconds(prior, way, budget, count, on_torch=True) * (count_rounds + 1)
        for prior in run.priors
        for way in budget.distinct_ways(prior.family, run.is_usual_alone)
        for count, count_rounds in ((1, 3 * rounds), (64, rounds))
    )


def painting_seconds(run: PriorRun, way: Way, budget: Budget, pictures: int, on_torch: bool = False) -> float:
    """Return about how long pictures take to paint on two cores, in one batch."""
    passes, tokens = budget.passes(run.family, way), sum(budget.scales(run.family))
    again = passes if run.kind in ("masked", "flow") else 1  # others compute a token once
    work = 2 * products(run, budget) * again * pictures
    if FAMILIES[run.family].has_engine and not on_torch:
        return work / ENGINE_FLOPS_PER_S
    calls = passes * (pictures if run.kind == "flow" else 1)  # whose pictures go one by one
    races = {"flow": 0.0, "masked": MASKED_RACES}.get(run.kind, run.parts if run.kind == "parts" else 1)
    return work / TORCH_FLOPS_PER_S + calls * PASS_S + races * tokens * pictures * RACE_S
