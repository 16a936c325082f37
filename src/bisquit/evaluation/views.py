"""Views into a prior: what it finds odd in a picture, and what a token looks at.

surprise:   a raster prior knows what is above and left of a token; an any-order prior is asked about each token when
            nearly all others are known, in a few passes that each hold back one in so many.
attention:  for one token, how much its step looks at every token before it, in each layer and head.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from bisquit.config import require
from bisquit.errors import ModelError, ShapeError
from bisquit.evaluation.inference import measured
from bisquit.priors import AnyOrderPrior, CausalPrior, Prior, SequentialPrior

APART = 4
"""Tokens that are held back together are so far apart, down and across."""
_GLOW = np.array([255.0, 120.0, 0.0])


def surprise(prior: Prior, tokens: np.ndarray) -> np.ndarray:
    """Return how many bits each token of (N, h, w) costs a prior that knows what it can of the rest: float32.

    Raises ModelError for a prior without exact likelihood.
    """
    if not isinstance(prior, SequentialPrior):
        raise ModelError(f"a {type(prior).__name__} does not say how likely a token is")
    with measured(prior) as device:
        batch = torch.from_numpy(tokens.astype(np.int64)).to(device)
        if not isinstance(prior, AnyOrderPrior):
            return prior.token_bits(batch).cpu().numpy()
        found = torch.zeros(batch.shape, dtype=torch.float32, device=device)
        for held_back in _lattices(prior.grid):
            path = prior.after(~held_back.to(device).expand(batch.shape))
            bits = prior.token_bits(batch, path)
            found[:, held_back] = bits[:, held_back]
        return found.cpu().numpy()


def _lattices(grid: tuple[int, int]) -> list[Tensor]:
    """Return which tokens are held back in each pass, bool (h, w): all in one pass or another, far apart in each."""
    rows, columns = torch.arange(grid[0]).unsqueeze(1), torch.arange(grid[1]).unsqueeze(0)
    passes = [(rows % APART == i) & (columns % APART == j) for i in range(APART) for j in range(APART)]
    return [held_back for held_back in passes if held_back.any()]


def attention(prior: Prior, tokens: np.ndarray, row: int, column: int) -> np.ndarray:
    """Return how much the token at a place of (h, w) looks at each other one: float (n_layers, n_heads, h, w).

    An any-order prior is shown all others first. What falls on the start, or is not known yet, is left out, so that
    sums may be below 1. Raises ShapeError for a place outside of the grid, ModelError for a prior without attention.
    """
    if not isinstance(prior, CausalPrior):
        raise ModelError(f"a {type(prior).__name__} has no attention to look at")
    h, w = prior.grid
    if not (0 <= row < h and 0 <= column < w):
        raise ShapeError(f"row {row}, column {column} is outside of the grid of {h} x {w}")
    with measured(prior) as device:
        batch = torch.from_numpy(tokens.astype(np.int64)).to(device)[None]
        if isinstance(prior, AnyOrderPrior):
            known = torch.ones(1, h, w, dtype=torch.bool, device=device)
            known[0, row, column] = False
            path, step = prior.after(known), h * w - 1
            assert path.order is not None
            places = path.order[0, :step]
        else:
            path, step = None, row * w + column
            places = torch.arange(step, device=device)
        weights = prior.attention_at(batch, step, path)[0, :, :, 1:]  # but for the start
        found = weights.new_zeros(*weights.shape[:2], h * w)
        found[:, :, places] = weights
        return found.unflatten(2, (h, w)).cpu().numpy()


def attention_picture(frame: np.ndarray, weights: np.ndarray, place: tuple[int, int], patch_size: int) -> np.ndarray:
    """Return a frame, uint8 (H, W, 3), darkened but where a token looks, that token framed.

    weights: float (h, w), brightest where they are largest. place: (row, column) of the token. Raises ShapeError unless
    the frame is of as many patches.
    """
    require(patch_size >= 1, "patch_size", patch_size, "at least 1")
    height, width = frame.shape[:2]
    wanted = (-(-height // patch_size), -(-width // patch_size))
    if weights.shape != wanted:
        raise ShapeError(f"weights are {weights.shape}: a frame {frame.shape[:2]} needs {wanted}")
    share = (weights / max(float(weights.max()), 1e-12)) ** 0.5
    light = share.repeat(patch_size, axis=0).repeat(patch_size, axis=1)[:height, :width, None]
    shown = frame * (0.25 + 0.75 * light)
    top, left = place[0] * patch_size, place[1] * patch_size
    bottom, right = min(top + patch_size, height), min(left + patch_size, width)
    shown[top:bottom, left:right] = _GLOW
    if bottom - top > 2 and right - left > 2:
        shown[top + 1 : bottom - 1, left + 1 : right - 1] = frame[top + 1 : bottom - 1, left + 1 : right - 1]
    return np.rint(shown).astype(np.uint8)
