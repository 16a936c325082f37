"""What nearest neighbours tell of new frames: whether they are like real ones, cover them, or repeat those trained on.

The first is asked in features, the last in pixels: a copy is one whatever a network thinks of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from bisquit.errors import ShapeError
from bisquit.evaluation.bootstrap import Z_95, Units, half_width, resamples, units
from bisquit.progress import Progress

NEIGHBOURS = 5
CHANCE = 0.05
"""The share of unseen frames that count as near to a frame trained on."""

_DISTANCES_AT_ONCE = 2**22  # 32 MiB of float64
_QUERIES_AT_ONCE = 1024
_FRAMES_AT_ONCE = 512
_ROUNDS = 1000


class Manifold(NamedTuple):
    """How samples lie in the neighbourhoods of real frames, and the other way round."""

    precision: float
    """Share of samples that lie in the ball of some real frame: are samples like real frames?"""
    recall: float
    """Share of real frames that lie in the ball of some sample: is all of the real among the samples?"""
    density: float
    """Real balls that a sample lies in, on average, in units of k: precision that one outlier does not raise."""
    coverage: float
    """Share of real frames in whose ball some sample lies: recall that an outlying sample does not raise."""


def manifold(samples: Tensor, real: Tensor, k: int = NEIGHBOURS) -> Manifold:
    """Compare features (N, d) of samples with those (M, d) of real frames; a ball reaches to the k-th neighbour.

    Precision and recall are those of Kynkaanniemi et al. 2019, arXiv:1904.06991; density and coverage those of Naeem et
    al. 2020, arXiv:2002.09797. Distances are plain Euclidean, as in both: dimensions in which the features hardly vary
    are those that tell nothing, and to bring them to one scale would make them heard. Memory does not grow with N M.
    Raises ShapeError unless both have more than k rows.
    """
    if samples.ndim != 2 or real.ndim != 2 or samples.shape[1] != real.shape[1] or min(len(samples), len(real)) <= k:
        raise ShapeError(
            f"features are {tuple(samples.shape)} and {tuple(real.shape)}: they must be (N, d) and (M, d), N and M "
            f"above {k}"
        )
    samples, real = samples.double(), real.double()
    real_radius, sample_radius = _radii(real, k), _radii(samples, k)
    hits = 0
    is_precise = torch.zeros(len(samples), dtype=torch.bool)
    is_recalled, is_covered = torch.zeros(2, len(real), dtype=torch.bool)
    for part, distances in _distances(samples, real):
        in_real = distances <= real_radius
        hits += int(in_real.sum())
        is_precise[part] = in_real.any(dim=1)
        is_covered |= in_real.any(dim=0)
        is_recalled |= (distances <= sample_radius[part, None]).any(dim=0)
    return Manifold(
        precision=float(is_precise.double().mean()),
        recall=float(is_recalled.double().mean()),
        density=hits / (k * len(samples)),
        coverage=float(is_covered.double().mean()),
    )


def mean_pairwise_distance(x: Tensor) -> float:
    """Return the mean Euclidean distance of two different rows of features (N, d), N at least 2."""
    x = x.double()
    return sum(float(distances.sum()) for _, distances in _distances(x, x)) / (len(x) * (len(x) - 1))


def _radii(x: Tensor, k: int) -> Tensor:
    """Return how far each row's k-th neighbour is, the row itself not counted: (N,)."""
    return torch.cat([distances.topk(k + 1, largest=False).values[:, k] for _, distances in _distances(x, x)])


def _distances(a: Tensor, b: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Yield the distances of some rows of `a` to all rows of `b`, and which rows they are of."""
    rows = max(1, _DISTANCES_AT_ONCE // len(b))
    for start in range(0, len(a), rows):
        part = slice(start, start + rows)
        yield part, torch.cdist(a[part], b, compute_mode="donot_use_mm_for_euclid_dist")


class Pictures(Protocol):
    """An array uint8 (N, H, W, 3), or a set of frames."""

    def __len__(self) -> int: ...

    def __getitem__(self, indices: slice | np.ndarray, /) -> np.ndarray: ...


@dataclass(frozen=True, eq=False)
class Nearest:
    """For each query the nearest of some frames, in pixels."""

    index: np.ndarray
    """(N,) int64."""
    rms: np.ndarray
    """(N,) float64, the root mean square of the differences of values in [0, 1]."""


def nearest(queries: Pictures, frames: Pictures, progress: Progress | None = None) -> Nearest:
    """Find the frame that is nearest to each query; both are uint8 of (N, H, W, 3) and (M, H, W, 3).

    Which frame it is, products in float32 decide, so that of two that are as near to some digits either may be it; its
    distance is exact. Memory does not grow with N or M. progress: told of queries. Raises ShapeError if sizes differ.
    """
    shapes = queries[:1].shape, frames[:1].shape
    if shapes[0] != shapes[1] or 0 in shapes[0]:
        raise ShapeError(f"queries are of {shapes[0][1:]}, frames of {shapes[1][1:]}: they must be of one size")
    found = []
    for start in range(0, len(queries), _QUERIES_AT_ONCE):
        block = queries[start : start + _QUERIES_AT_ONCE]
        x = _flat(block)
        best, index = torch.full((len(x),), torch.inf), torch.zeros(len(x), dtype=torch.int64)
        for first in range(0, len(frames), _FRAMES_AT_ONCE):
            y = _flat(frames[first : first + _FRAMES_AT_ONCE])
            nearness = torch.addmm(y.square().sum(dim=1), x, y.T, alpha=-2)  # the squared distance, less the query's
            least, place = nearness.min(dim=1)
            index = torch.where(least < best, first + place, index)
            best = torch.minimum(best, least)
            if progress is not None:
                done = min(first + _FRAMES_AT_ONCE, len(frames))
                progress(start + len(x) * done // len(frames), len(queries))
        found.append(Nearest(index.numpy(), _rms(block, frames, index.numpy())))
    return Nearest(np.concatenate([part.index for part in found]), np.concatenate([part.rms for part in found]))


def _flat(frames: np.ndarray) -> Tensor:
    """Return frames as rows of float32 about 0, which keeps the products small."""
    return torch.from_numpy(frames).flatten(1).float().sub_(128)


def _rms(queries: np.ndarray, frames: Pictures, index: np.ndarray) -> np.ndarray:
    squares = []
    for start in range(0, len(queries), _FRAMES_AT_ONCE):
        part = slice(start, start + _FRAMES_AT_ONCE)
        errors = queries[part].astype(np.int32) - frames[index[part]]
        squares.append(np.square(errors).sum(axis=(1, 2, 3), dtype=np.int64))
    return np.sqrt(np.concatenate(squares) / queries[0].size) / 255


@dataclass(frozen=True)
class Memorisation:
    """How often samples are nearer to a frame trained on than unseen frames are.

    A sample counts as near if it is nearer to a frame trained on than the nearest 5% of unseen frames. A model that
    repeats nothing has a share of 5%, or less where its samples are further from all frames; it repeats what it was
    trained on beyond chance if even the lower end of the share's interval, share - share_interval, lies above 5%.
    """

    share: float
    """Share of samples that are near."""
    share_interval: float
    """Half the width of its 95% interval."""
    smallest_rms: float
    """How near the nearest sample is, as a root mean square of values in [0, 1]."""
    valid_smallest_rms: float
    """How near the nearest unseen frame is."""


def memorisation(
    sample_rms: np.ndarray,
    valid_rms: np.ndarray,
    generator: torch.Generator,
    valid_units: Units | None = None,
    rounds: int = _ROUNDS,
) -> Memorisation:
    """Judge how near samples (N,) and unseen frames (M,) are to frames trained on, as `nearest` measures.

    The unseen frames must have gone through the tokenizer, as samples have: what it smooths away would else tell them
    apart. The interval adds two variances: that of a share of N samples, by Agresti and Coull's rule (1998), which
    knows of no sure thing at 0%; and that of the 5% bound, by a bootstrap of the unseen frames, drawn singly or as
    `units` has it.
    """
    n = len(sample_rms)
    near = int((sample_rms < np.quantile(valid_rms, CHANCE)).sum())
    shares = [
        float((sample_rms < np.quantile(valid_rms[rows.numpy()], CHANCE)).mean())
        for rows in resamples(valid_units or units(len(valid_rms)), rounds, generator)
    ]
    share = (near + 2) / (n + 4)
    interval = float(np.hypot(Z_95 * np.sqrt(share * (1 - share) / (n + 4)), half_width(shares)))
    return Memorisation(near / n, interval, float(sample_rms.min()), float(valid_rms.min()))
