"""One model measured on one set of frames: what it loses, how many bits it needs, and how it stands against counting.

    frames ──encode──> tokens ──decode──> reconstructions      mse, psnr_db, ssim, ms_ssim, sharpness
                         ├── codebook_health                   codes_used, perplexity, advice
                         ├── likelihood(prior)                 bits_per_image, or bits_per_image_at_most
                         └── CountModel.bits                   count_baseline_bits_per_image
    samples ──judge──> frechet_track, precision, nearest_share ...

Bits mean nothing without the distortion beside them, so that one table holds both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

from bisquit.config import require
from bisquit.errors import FrameError, TokenError
from bisquit.evaluation.codebook import CodebookHealth, codebook_health
from bisquit.evaluation.count_baseline import CountModel
from bisquit.evaluation.generation import Generation, figures_of
from bisquit.evaluation.inference import measured
from bisquit.evaluation.likelihood import Likelihood, LikelihoodBound, likelihood, likelihood_bound
from bisquit.evaluation.reconstruction import Reconstruction, ReconstructionMeter
from bisquit.frames import FrameSet
from bisquit.priors import MaskedPrior, SequentialPrior
from bisquit.progress import Progress, part_of
from bisquit.tokenizer import Tokenizer


@dataclass(frozen=True)
class CountBaseline:
    """What counting alone needs for the same tokens."""

    bits_per_image: float
    """Mean over the images."""
    fitted_on_frames: int


@dataclass(frozen=True, eq=False)
class Evaluation:
    """All that was measured of one model on one set of frames."""

    height_px: int
    width_px: int
    tokens_per_image: int
    reconstruction: Reconstruction
    codebook: CodebookHealth
    likelihood: Likelihood | LikelihoodBound | None
    """None for a tokenizer without a prior."""
    count_baseline: CountBaseline | None
    """None where no count model was fitted."""
    generation: Generation | None = None
    """None where no new frames were judged."""

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as one flat dictionary of plain data, with None for what was not measured."""
        return {
            "frames": self.reconstruction.frames,
            "height_px": self.height_px,
            "width_px": self.width_px,
            "tokens_per_image": self.tokens_per_image,
            "mse": self.reconstruction.mse,
            "psnr_db": self.reconstruction.psnr_db,
            "ssim": self.reconstruction.ssim,
            "ms_ssim": self.reconstruction.ms_ssim,
            "sharpness": self.reconstruction.sharpness,
            **self._bits(),
            **_codebook_figures(self.codebook),
            **figures_of(self.generation),
        }

    def _bits(self) -> dict[str, float | None]:
        exact = self.likelihood if isinstance(self.likelihood, Likelihood) else None
        bound = self.likelihood if isinstance(self.likelihood, LikelihoodBound) else None
        bits_per_image = None if exact is None else exact.bits_per_image
        baseline_bits = None if self.count_baseline is None else self.count_baseline.bits_per_image
        gain = None
        if bits_per_image is not None and baseline_bits:  # a baseline of 0 bits leaves nothing to gain
            gain = 1 - bits_per_image / baseline_bits
        return {
            "raw_bits_per_image": self.tokens_per_image * self.codebook.bits,
            "bits_per_image": bits_per_image,
            "bits_per_image_stderr": None if exact is None else exact.bits_per_image_stderr,
            "bits_per_image_at_most": None if bound is None else bound.bits_per_image,
            "bits_per_image_at_most_stderr": None if bound is None else bound.bits_per_image_stderr,
            "bits_per_token": None if exact is None else exact.bits_per_token,
            "bits_per_pixel": None if bits_per_image is None else bits_per_image / (self.height_px * self.width_px),
            "count_baseline_bits_per_image": baseline_bits,
            "count_baseline_fitted_on": None if self.count_baseline is None else self.count_baseline.fitted_on_frames,
            "gain_over_count_baseline": gain,
        }


def _codebook_figures(health: CodebookHealth) -> dict[str, Any]:
    return {
        "codes": health.codes,
        "codes_used": health.codes_used,
        "dead_codes": health.dead_codes,
        "perplexity": health.perplexity,
        "joint_entropy_bits": health.joint_entropy_bits,
        "shared_bits": health.shared_bits,
        "bit_entropies_bits": health.bit_entropies_bits.tolist(),
        "constant_bits": list(health.constant_bits),
        "constant_positions": len(health.constant_positions),
        "strongest_pairs": [list(pair) for pair in health.strongest_pairs],
        "advice": list(health.advice),
    }


class SummaryRow(NamedTuple):
    """One line of a table for people."""

    measure: str
    value: str


def summary(data: Mapping[str, Any]) -> tuple[SummaryRow, ...]:
    """Return the lines of a table of what `Evaluation.to_dict` gave; what was not measured has none."""
    return tuple(SummaryRow(measure, form.format(**data)) for key, measure, form in _SUMMARY if data[key] is not None)


_SUMMARY = (  # the key that must have been measured, what it is called, how it is written
    ("frames", "frames", "{frames:,} of {height_px} x {width_px} pixels"),
    ("mse", "mean squared error, of [-0.5, 0.5]", "{mse:.5f}"),
    ("psnr_db", "PSNR, mean of the frames'", "{psnr_db:.2f} dB"),
    ("ssim", "SSIM", "{ssim:.4f}"),
    ("ms_ssim", "MS-SSIM", "{ms_ssim:.4f}"),
    ("sharpness", "strength of edges, of the frames'", "{sharpness:.1%}"),
    ("raw_bits_per_image", "bits an image, as stored", "{raw_bits_per_image:,} in {tokens_per_image:,} tokens"),
    ("bits_per_image", "bits an image, by the prior", "{bits_per_image:,.0f}"),
    ("bits_per_image_stderr", "standard error of it", "{bits_per_image_stderr:,.1f}"),
    ("bits_per_image_at_most", "bits an image, by the prior, at most", "{bits_per_image_at_most:,.0f}"),
    ("bits_per_image_at_most_stderr", "standard error of that", "{bits_per_image_at_most_stderr:,.1f}"),
    ("bits_per_token", "bits a token", "{bits_per_token:.3f}"),
    ("bits_per_pixel", "bits a pixel", "{bits_per_pixel:.4f}"),
    (
        "count_baseline_bits_per_image",
        "bits an image, by counts",
        "{count_baseline_bits_per_image:,.0f}, counted on {count_baseline_fitted_on:,} frames",
    ),
    ("gain_over_count_baseline", "the prior needs less by", "{gain_over_count_baseline:.1%}"),
    ("codes_used", "codes in use", "{codes_used:,} of {codes:,}"),
    ("joint_entropy_bits", "entropy of a token", "{joint_entropy_bits:.2f} bits"),
    ("perplexity", "perplexity of the codebook", "{perplexity:,.0f}"),
    ("shared_bits", "what its bits tell of one another", "{shared_bits:.2f} bits"),
    ("samples", "new frames judged", "{samples:,}"),
    ("frechet_track", "Fréchet distance to the frames", "{frechet_track:.3f} ± {frechet_track_interval:.3f}"),
    (
        "frechet_track_floor",
        "that of as many real frames of other races",
        "{frechet_track_floor:.3f} ± {frechet_track_floor_interval:.3f}",
    ),
    ("precision", "precision, recall", "{precision:.3f}, {recall:.3f}"),
    ("density", "density, coverage", "{density:.3f}, {coverage:.3f}"),
    ("diversity", "spread of features, relative to the frames'", "{diversity:.3f}"),
    ("class_entropy_bits", "entropy of the classes seen", "{class_entropy_bits:.2f} bits"),
    ("real_class_entropy_bits", "that of those in the frames", "{real_class_entropy_bits:.2f} bits"),
    ("class_accuracy", "of the class that was asked for", "{class_accuracy:.1%}"),
    (
        "nearest_share",
        "nearer to training than 95% of frames",
        "{nearest_share:.1%} ± {nearest_share_interval:.1%}, 5% by chance",
    ),
    (
        "nearest_smallest_rms",
        "nearest to a training frame, RMS",
        "{nearest_smallest_rms:.4f}, of the frames {valid_nearest_smallest_rms:.4f}",
    ),
)


def evaluate(
    tokenizer: Tokenizer,
    prior: SequentialPrior | MaskedPrior | None,
    frames: FrameSet,
    count_model: CountModel | None,
    batch_size: int,
    progress: Progress | None = None,
) -> Evaluation:
    """Measure a tokenizer, and a prior and a count model if there are any, on all of `frames`.

    Of a masked prior, what its bits are at most is measured. progress: told of frames, each once for the tokenizer and
    once more for the prior. Raises FrameError if there are no frames, and TokenError if the prior or the count model is
    of another codebook.
    """
    require(batch_size >= 1, "batch_size", batch_size, "at least 1")
    if not len(frames):
        raise FrameError("there are no frames to evaluate")
    for name, model in (("prior", prior), ("count model", count_model)):
        if model is not None and model.codebook_size != tokenizer.codebook_size:
            raise TokenError(
                f"the {name} has a codebook of {model.codebook_size}, the tokenizer one of {tokenizer.codebook_size}: "
                "they do not belong together"
            )
    total = len(frames) * (1 if prior is None else 2)
    tokens, reconstruction = _through_tokens(tokenizer, frames, batch_size, part_of(progress, 0, total))
    part = part_of(progress, len(frames), total)
    bits: Likelihood | LikelihoodBound | None = None
    if isinstance(prior, MaskedPrior):
        bits = likelihood_bound(prior, tokens, batch_size, groups=frames.groups, progress=part)
    elif prior is not None:
        bits = likelihood(prior, tokens, batch_size, part, groups=frames.groups)
    return Evaluation(
        height_px=frames.height,
        width_px=frames.width,
        tokens_per_image=tokens[0].size,
        reconstruction=reconstruction,
        codebook=codebook_health(tokens, tokenizer.bits),
        likelihood=bits,
        count_baseline=None if count_model is None else _counted(count_model, tokens),
    )


def _through_tokens(
    tokenizer: Tokenizer, frames: FrameSet, batch_size: int, progress: Progress | None
) -> tuple[np.ndarray, Reconstruction]:
    """Return the tokens of all frames, int64 (N, h, w), and how well the frames come back from them."""
    meter = ReconstructionMeter()
    parts = []
    with measured(tokenizer) as device:
        for start in range(0, len(frames), batch_size):
            batch = torch.from_numpy(frames[start : start + batch_size]).to(device)
            tokens = tokenizer.encode(batch)
            meter.update(batch, tokenizer.decode(tokens, size=(frames.height, frames.width)))
            parts.append(tokens.cpu().numpy())
            if progress is not None:
                progress(start + len(batch), len(frames))
    return np.concatenate(parts), meter.compute()


def _counted(model: CountModel, tokens: np.ndarray) -> CountBaseline:
    return CountBaseline(bits_per_image=float(model.bits(tokens).mean()), fitted_on_frames=model.frames)
