"""How many bits a prior needs for tokens: exactly, an ideal coder's length, or at most, where only a bound is known."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from bisquit.config import require
from bisquit.errors import ModelError, ShapeError
from bisquit.evaluation.inference import measured
from bisquit.priors.masked import draw_masks
from bisquit.progress import Progress
from bisquit.seeds import derive_seed

if TYPE_CHECKING:
    from bisquit.priors import MaskedPrior, SequentialPrior


@dataclass(frozen=True, eq=False)
class Likelihood:
    """The bits of N images of h x w tokens each."""

    bits_per_token: float
    bits_per_image: float
    """Mean over the images."""
    bits_per_image_stderr: float | None
    """Standard error of that mean; None for a single image, or a single group."""
    per_image_bits: np.ndarray
    """float64 (N,)."""
    bits_by_position: np.ndarray
    """float64 (h, w): the mean bits of the token in each grid cell."""


@dataclass(frozen=True, eq=False)
class LikelihoodBound:
    """What the bits of N images are at most, as some masks of each tell."""

    bits_per_image: float
    """Mean over the images."""
    bits_per_image_stderr: float | None
    """Standard error of that mean, that of the masks in it; None for a single image, or a single group."""
    per_image_bits: np.ndarray
    """float64 (N,), each of its own masks and so far less sure than the mean."""


def likelihood(
    prior: SequentialPrior,
    tokens: np.ndarray | Tensor,
    batch_size: int,
    progress: Progress | None = None,
    groups: np.ndarray | None = None,
) -> Likelihood:
    """Measure the bits of tokens (N, h, w) of any integer type under `prior`, with its dropout off.

    groups: (N,) integers, which images belong together, such as the frames of a race: the standard error then takes the
    groups to be independent, and not the images.

    Each token's bits come from the prior in float32, and are summed in float64. Raises ShapeError if there are no
    tokens or their grid is not the prior's, TokenError if one is outside of its codebook, and ModelError if bits are
    not finite.
    """
    images, height, width = _checked(tokens, batch_size)
    per_image_bits = np.empty(images)
    position_bits = np.zeros((height, width))
    with measured(prior) as device:
        for start in range(0, images, batch_size):
            batch = _int64(tokens[start : start + batch_size]).to(device)
            prior.check(batch)
            bits = prior.token_bits(batch).cpu().double().numpy()
            per_image_bits[start : start + len(batch)] = bits.sum(axis=(1, 2))
            position_bits += bits.sum(axis=0)
            if progress is not None:
                progress(start + len(batch), images)
    _require_finite(per_image_bits)
    mean = float(per_image_bits.mean())
    return Likelihood(
        bits_per_token=mean / (height * width),
        bits_per_image=mean,
        bits_per_image_stderr=_standard_error(per_image_bits, np.arange(images) if groups is None else groups),
        per_image_bits=per_image_bits,
        bits_by_position=position_bits / images,
    )


def likelihood_bound(
    prior: MaskedPrior,
    tokens: np.ndarray | Tensor,
    batch_size: int,
    *,
    masks: int = 4,
    seed: int = 0,
    groups: np.ndarray | None = None,
    progress: Progress | None = None,
) -> LikelihoodBound:
    """Estimate what the bits of tokens (N, h, w) are at most under a masked prior that paints one token at a time.

    The places are then painted in an order drawn at random, which has a likelihood; its bits are at most the mean of
    those of all orders, which the nats of masked places estimate without bias: see `MaskedPrior.loss`. It says nothing
    of pictures painted in rounds of many tokens, which take tokens to be independent that are not. masks: how many of
    each image; seed: of what is drawn. groups and errors are those of `likelihood`.
    """
    images, height, width = _checked(tokens, batch_size)
    require(masks >= 1, "masks", masks, "at least 1")
    generator = torch.Generator().manual_seed(derive_seed(seed, "masks"))
    per_image_bits = np.zeros(images)
    with measured(prior) as device:
        for start in range(0, images, batch_size):
            batch = _int64(tokens[start : start + batch_size]).to(device)
            for _ in range(masks):
                masked = draw_masks(len(batch), height * width, generator=generator).view(batch.shape)
                nats_a_token = prior.bound(batch, masked.to(device)).cpu().double().numpy()
                per_image_bits[start : start + len(batch)] += nats_a_token * height * width / math.log(2) / masks
            if progress is not None:
                progress(start + len(batch), images)
    _require_finite(per_image_bits)
    error = _standard_error(per_image_bits, np.arange(images) if groups is None else groups)
    return LikelihoodBound(float(per_image_bits.mean()), error, per_image_bits)


def _checked(tokens: np.ndarray | Tensor, batch_size: int) -> tuple[int, int, int]:
    """Return the shape (N, h, w) of tokens. Raises ShapeError unless it is so, and none of them 0."""
    require(batch_size >= 1, "batch_size", batch_size, "at least 1")
    if tokens.ndim != 3 or 0 in tokens.shape:
        raise ShapeError(f"tokens are {tuple(tokens.shape)}: they must be (N, h, w), none of them 0")
    images, height, width = tokens.shape
    return images, height, width


def _require_finite(per_image_bits: np.ndarray) -> None:
    if not np.isfinite(per_image_bits).all():
        raise ModelError("the prior's bits are not finite: its weights are damaged, or its training diverged")


def _standard_error(values: np.ndarray, groups: np.ndarray) -> float | None:
    """Return the standard error of the mean of values (N,), independent between groups (N,) but not within them."""
    members = np.unique(groups, return_inverse=True)[1]
    sums = np.bincount(members, weights=values - values.mean())  # of each group's deviations
    if len(sums) < 2:
        return None
    return math.sqrt(len(sums) / (len(sums) - 1) * float(sums @ sums)) / len(values)


def _int64(tokens: np.ndarray | Tensor) -> Tensor:
    return torch.from_numpy(tokens.astype(np.int64)) if isinstance(tokens, np.ndarray) else tokens.long()
