"""What `compare_priors.py` measures: tokenizers, bits, new frames, and seconds to paint.

tokenizer, valid frames ──evaluate──> dB, codes, bits by counts
real frames ──tokenizer──> their Frechet distance to valid frames: no prior over these tokens can do much better
prior, valid tokens ──> bits of a frame, or a bound
prior ──each way to paint──> new frames ──> Frechet distance, precision, recall
priors of one size ──in alternation──> seconds for one picture and for 64
"""

from __future__ import annotations

import functools
import itertools
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from priors_plan import BITS, FAMILIES, MANY_BITS, Budget, Painting, PriorRun, Way

from bisquit.engine import Backend, engine_missing
from bisquit.errors import ModelError
from bisquit.evaluation import (
    CountModel,
    evaluate,
    frechet_distance,
    frechet_interval,
    likelihood,
    likelihood_bound,
    manifold,
)
from bisquit.evaluation.bootstrap import units
from bisquit.evaluation.count_baseline import MAX_CODEBOOK_SIZE
from bisquit.evaluation.generation import described
from bisquit.features import FeatureNetwork
from bisquit.frames import FrameSet
from bisquit.generate import Pipeline
from bisquit.painting import Painter
from bisquit.priors import MaskedPrior, Prior, SequentialPrior
from bisquit.seeds import derive_seed
from bisquit.tokenizer import Tokenizer
from bisquit.tokens import TokenSet

sys.path.append(str(Path(__file__).resolve().parent.parent / "benchmarks"))
from measure import alternate  # benchmarks are scripts too, in a folder of their own

BATCH = 32
COUNTS = (1, 64)
"""How many pictures are painted at once to be timed."""


class Judge:
    """Judges frames, in the features of a network, by valid ones."""

    def __init__(self, network: FeatureNetwork, valid: FrameSet) -> None:
        self._network = network
        self._wanted, _ = described(network, valid, BATCH)
        self._units = units(len(valid), valid.groups, valid.labels)

    def __call__(self, frames: np.ndarray) -> dict[str, float]:
        """Return what frames, uint8 (N, H, W, 3), are like; intervals are half of 95% intervals."""
        found, _ = described(self._network, frames, BATCH)
        generator = torch.Generator().manual_seed(derive_seed(0, "judge"))
        return {
            "frechet": frechet_distance(found, self._wanted),
            "frechet_interval": frechet_interval(found, self._wanted, generator, b_units=self._units),
            **manifold(found, self._wanted)._asdict(),
        }


def measure_tokenizer(
    tokenizer: Tokenizer, tokens: TokenSet, valid: FrameSet, real: np.ndarray, judge: Judge
) -> dict[str, Any]:
    """Return the figures of a tokenizer. tokens: of the training frames; real: some of those frames."""
    can_count = tokenizer.codebook_size <= MAX_CODEBOOK_SIZE
    counts = CountModel.fit(tokens.tokens, tokenizer.codebook_size) if can_count else None
    found = evaluate(tokenizer, None, valid, counts, BATCH).to_dict()
    kept = ("psnr_db", "ssim", "tokens_per_image", "codes", "codes_used", "count_baseline_bits_per_image")
    parts = torch.from_numpy(real).split(BATCH)
    remade = torch.cat([tokenizer.decode(tokenizer.encode(part), real.shape[1:3]).cpu() for part in parts])
    return {
        **{name: found[name] for name in kept},
        "more_bits": gain_of_more_bits(real, remade.numpy(), tokenizer.patch_size, MANY_BITS - BITS),
        "parameters": _parameters(tokenizer),
        "real": judge(real),
        "real_remade": judge(remade.numpy()),
    }


def gain_of_more_bits(real: np.ndarray, remade: np.ndarray, patch_size: int, bits: int) -> dict[str, float]:
    """Return how much nearer frames, uint8 (N, H, W, 3), could come back with so many more bits a patch, in dB.

    By signs: each bit is that of what is lost along one of its principal directions. At most: by the rate-distortion
    function of a Gaussian of its covariance, which codes of many patches at once come near to; Cover and Thomas,
    Elements of Information Theory, section 10.3.3. Neither knows of the patches around.
    """
    count, p = len(real), patch_size
    h, w = real.shape[1] // p, real.shape[2] // p
    lost = (real.astype(np.float32) - remade)[:, : h * p, : w * p].reshape(count, h, p, w, p, 3)
    patches = lost.transpose(0, 1, 3, 2, 4, 5).reshape(-1, 3 * p * p)
    energies, directions = np.linalg.eigh((patches.T @ patches).astype(np.float64) / len(patches))
    energies, directions = energies[::-1].clip(min=0), directions[:, ::-1]
    kept_by_signs = np.square(np.abs(patches @ directions[:, :bits]).mean(axis=0))
    left = np.minimum(energies, water_level(energies, bits))
    total = energies.sum()
    return {
        "signs_db": float(-10 * np.log10(1 - kept_by_signs.sum() / total)),
        "bound_db": float(-10 * np.log10(left.sum() / total)),
    }


def water_level(energies: np.ndarray, bits: float) -> float:
    """Return below which energy, of some that fall, bits are not spent on a direction: reverse water-filling."""
    level = energies[0]
    for count in range(1, len(energies) + 1):
        level = 2 ** ((np.log2(energies[:count]).sum() - 2 * bits) / count)
        if count == len(energies) or level >= energies[count]:
            break
    return float(level)


def measure_bits(prior: Prior, valid: TokenSet, masks: int) -> dict[str, Any]:
    """Return the bits of a frame of valid tokens, exactly or at most, by what is known of them in this family."""
    shared: dict[str, Any] = {"parameters": _parameters(prior), "bits": None, "bits_stderr": None}
    if isinstance(prior, SequentialPrior):
        exact = likelihood(prior, valid.tokens, BATCH, groups=valid.groups)
        return {**shared, "bits": exact.bits_per_image, "bits_stderr": exact.bits_per_image_stderr}
    if isinstance(prior, MaskedPrior):
        bound = likelihood_bound(prior, valid.tokens, BATCH, masks=masks, groups=valid.groups)
        return {**shared, "bits": bound.bits_per_image, "bits_stderr": bound.bits_per_image_stderr}
    return shared


def _parameters(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def check_taken(model: Pipeline, run: PriorRun, fingerprint: str) -> None:
    """Raise ModelError unless a finished model may stand for a run over the tokens of the tokenizer of that name."""
    if model.prior is None or model.tokenizer.fingerprint() != fingerprint:
        raise ModelError(
            f"{run.name}: the model that is taken for it has no prior over these tokens: take its tokenizer for "
            f"{run.tokenizer.name} too"
        )
    config = model.prior.config
    shape, kind, parts = (getattr(config, name, None) for name in ("transformer", "kind", "parts"))
    has_parts = parts is None or (parts, getattr(config, "independent", None)) == (run.parts, run.independent)
    if kind != run.kind or not has_parts or shape is None or shape.replace(dropout=0.0) != run.size.transformer:
        raise ModelError(f"{run.name}: the model that is taken for it is another, {config}")


def paint_and_judge(model: Pipeline, run: Painting, budget: Budget, judge: Judge) -> dict[str, Any]:
    """Return what new frames of a prior are like, by each way."""
    ways = {}
    for way in budget.ways(run.prior.family, run.is_usual_alone):
        print(f"painting {budget.samples:,} pictures by {run.prior.name} {way.label}", flush=True)
        settings = budget.sampling(run.prior.family, way)
        ways[way.key] = judge(model.sample(budget.samples, seed=0, settings=settings))
    return {"ways": ways}


class Side(NamedTuple):
    """What is timed: a prior that paints in one way, on PyTorch's path or by the engine."""

    prior: PriorRun
    way: Way
    backend: Backend

    @property
    def name(self) -> str:
        """Its name among the times."""
        return f"{self.prior.name}, {self.way.key}, {self.backend}"


def sides_of(priors: Sequence[PriorRun], budget: Budget, is_usual_alone: bool = False) -> list[Side]:
    """Return all that is timed of some priors: the engine where it is built and runs them, PyTorch's path for all."""
    backends: dict[bool, tuple[Backend, ...]] = {True: ("torch", "engine"), False: ("torch",)}
    return [
        Side(prior, way, backend)
        for prior in priors
        for way in budget.distinct_ways(prior.family, is_usual_alone)
        for backend in backends[FAMILIES[prior.family].has_engine and engine_missing() is None]
    ]


def measure_times(
    sides: Sequence[Side], models: dict[PriorRun, Prior], budget: Budget, rounds: int
) -> dict[str, dict[str, Any]]:
    """Return the seconds that each side takes for one picture and for 64, all in alternation, by the side's name.

    rounds: for 64; three times as many for one.
    """
    times: dict[str, dict[str, Any]] = {side.name: {} for side in sides}
    for count in COUNTS:
        print(f"timing {len(sides)} ways to paint, {count} at once", flush=True)
        runs = {side.name: _painting(side, models[side.prior], budget, count) for side in sides}
        for name, timing in alternate(runs, rounds * (3 if count == 1 else 1)).items():
            times[name][str(count)] = timing.summary()
    return times


def _painting(side: Side, prior: Prior, budget: Budget, count: int) -> Callable[[], object]:
    painter = Painter(prior.eval(), side.backend)
    settings = budget.sampling(side.prior.family, side.way)
    firsts = itertools.count(step=count)

    def paint(firsts: Iterator[int]) -> torch.Tensor:
        first = next(firsts)  # other pictures each time: some have races in doubt, which cost a pass in float64
        return painter.paint(range(first, first + count), seed=0, settings=settings)

    return functools.partial(paint, firsts)
