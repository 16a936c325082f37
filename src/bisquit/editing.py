"""Editing: parts of a picture painted anew, so that they fit what stays.

    picture, mask ──fill smoothly──> tokens, known where no hole is ──prior──> tokens ──decode──> painted
    painted + membrane(picture - painted at the hole's edge) ──> the hole; outside of it every pixel stays as it was

An any-order prior is given all that is known first, and paints the hole seeing what surrounds it; a masked prior and a
flow see it as well. Tokens say less than pixels do, so of several fillings that one is taken which the decoder joins
best to the known pixels around. A raster prior sees only what is above and left; of its fillings, that is taken which
makes the tokens that come after likeliest.

A model paints frames of one size. In a larger picture it works in windows of that size, one after another, each where
most is known; extending a picture, closing a seam and joining two pictures are such fillings too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from bisquit.config import Settings, require
from bisquit.engine import Backend, Precision
from bisquit.errors import ModelError, ShapeError
from bisquit.frames.pictures import check_frames
from bisquit.generate import Pipeline
from bisquit.membrane import membrane
from bisquit.painting import Painter
from bisquit.priors import AnyOrderPrior, FlowPrior, MaskedPrior, PyramidPrior
from bisquit.progress import Progress
from bisquit.sampling import SamplingConfig
from bisquit.seeds import derive_seed

BATCH = 64
Misfit = Callable[[Tensor, Tensor], Tensor]
"""From painted tokens (n, h, w), and which picture each is a filling of, (n,), to how badly it fits what is known."""


@dataclass(frozen=True)
class EditConfig(Settings):
    """How holes are filled."""

    candidates: int = 8
    """Fillings of a hole of which the one is taken that fits best what is known."""

    def __post_init__(self) -> None:
        require(1 <= self.candidates <= 1024, "candidates", self.candidates, "between 1 and 1024")


class Editor:
    """A model that edits pictures of its frames' size or larger: uint8 (H, W, 3) in, (n, H, W, 3) out."""

    def __init__(
        self,
        model: Pipeline,
        *,
        edit: EditConfig | None = None,
        settings: SamplingConfig | None = None,
        class_name: str | None = None,
        prompt: str | None = None,
        backend: Backend = "auto",
        precision: Precision = "float32",
    ) -> None:
        """Edit with a model and these settings; class_name, prompt: what is painted is to show, at most one of them.

        Raises ModelError if the model has no prior, or one whose tokens are not of a place, and ConditionError as
        `Pipeline.condition`.
        """
        self.model, self.prior = model, model.painting_prior()
        self.edit, self.settings = edit or EditConfig(), settings or SamplingConfig()
        self.condition = model.condition(class_name, prompt)
        if isinstance(self.prior, PyramidPrior):
            raise ModelError("the coarse tokens of a pyramid are of no one place, so that no part can be painted anew")
        self._painter = Painter(self.prior, backend, precision)

    @property
    def window(self) -> tuple[int, int]:
        """The size (H, W) of the frames that the model paints."""
        p = self.model.tokenizer.patch_size
        return self.model.frame_size or (self.prior.grid[0] * p, self.prior.grid[1] * p)

    def inpaint(
        self, picture: np.ndarray, mask: np.ndarray, n: int = 1, seed: int = 0, progress: Progress | None = None
    ) -> np.ndarray:
        """Paint what a mask, bool (H, W), covers; all else stays as it is, to the bit.

        progress: called with the pixels painted and to paint. Raises ShapeError if the two do not fit together, or the
        picture is smaller than the model's frames.
        """
        check_frames(picture, "picture", "(H, W, 3)")
        if mask.dtype != np.bool_ or mask.shape != picture.shape[:2]:
            raise ShapeError(
                f"the mask is {mask.dtype} {mask.shape}, the picture {picture.shape[0]} x {picture.shape[1]}: "
                "a mask has one value for each pixel"
            )
        return self._complete(picture, mask.copy(), n, seed, progress)

    def extend(
        self,
        picture: np.ndarray,
        left: int = 0,
        right: int = 0,
        top: int = 0,
        bottom: int = 0,
        n: int = 1,
        seed: int = 0,
        progress: Progress | None = None,
    ) -> np.ndarray:
        """Paint so many pixels beyond each side of a picture, which stays as it is within.

        Raises ShapeError for a negative number, or as `inpaint` does.
        """
        check_frames(picture, "picture", "(H, W, 3)")
        sides = ((top, bottom), (left, right))
        if min(top, bottom, left, right) < 0:
            raise ShapeError(f"left, right, top, bottom are {left}, {right}, {top}, {bottom}: none may be negative")
        mask = np.pad(np.zeros(picture.shape[:2], dtype=np.bool_), sides, constant_values=True)
        canvas = np.pad(picture, (*sides, (0, 0)), mode="edge")
        return self._complete(canvas, mask, n, seed, progress)

    def close_seams(
        self,
        picture: np.ndarray,
        band: int,
        n: int = 1,
        seed: int = 0,
        horizontal: bool = True,
        vertical: bool = True,
        progress: Progress | None = None,
    ) -> np.ndarray:
        """Make a picture that can be laid beside itself: a band of pixels along its edges is painted anew.

        horizontal, vertical: in which directions it is to be laid. Raises ShapeError as `inpaint` does, or if the band
        is not within the picture.
        """
        check_frames(picture, "picture", "(H, W, 3)")
        height, width = picture.shape[:2]
        if not 0 < 2 * band < min(height, width):
            raise ShapeError(f"a band of {band} pixels on each side does not fit into {height} x {width}")
        shift = (height // 2 if vertical else 0, width // 2 if horizontal else 0)
        mask = np.zeros((height, width), dtype=np.bool_)
        if vertical:
            mask[:band], mask[height - band :] = True, True
        if horizontal:
            mask[:, :band], mask[:, width - band :] = True, True
        rolled, mask = np.roll(picture, shift, axis=(0, 1)), np.roll(mask, shift, axis=(0, 1))
        closed = self._complete(rolled, mask, n, seed, progress)
        return np.roll(closed, (-shift[0], -shift[1]), axis=(1, 2))

    def join(
        self,
        left: np.ndarray,
        right: np.ndarray,
        band: int,
        n: int = 1,
        seed: int = 0,
        progress: Progress | None = None,
    ) -> np.ndarray:
        """Blend two pictures of one size: the left half of the one, the right half of the other, and a band painted.

        band: pixels to each side of the middle, where they meet. Raises ShapeError if they are of two sizes, or as
        `inpaint` does.
        """
        check_frames(left, "left", "(H, W, 3)")
        check_frames(right, "right", "(H, W, 3)")
        if left.shape != right.shape:
            raise ShapeError(f"the pictures are {left.shape[:2]} and {right.shape[:2]}: they must be of one size")
        middle = left.shape[1] // 2
        if not 0 <= band < middle:
            raise ShapeError(f"a band of {band} pixels to each side does not fit into pictures {left.shape[1]} wide")
        both = np.concatenate((left[:, :middle], right[:, middle:]), axis=1)
        mask = np.zeros(both.shape[:2], dtype=np.bool_)
        mask[:, middle - band : middle + band] = True
        return self._complete(both, mask, n, seed, progress)

    def vary(
        self,
        picture: np.ndarray,
        keep: float = 0.0,
        n: int = 1,
        seed: int = 0,
        strength: float = 1.0,
        progress: Progress | None = None,
    ) -> np.ndarray:
        """Paint a picture of the model's size anew, but for a share of its tokens, scattered, which stay.

        strength: in (0, 1]; below 1, for a flow alone, all else starts from the picture too, so far back towards noise.
        progress: called with the tokens done and to do. The whole picture goes through the tokenizer. Raises ShapeError
        if it is of another size, ConfigError for a strength below 1 of what is no flow.
        """
        require(0 <= keep <= 1, "keep", keep, "in [0, 1]")
        _check_number(n)
        check_frames(picture, "picture", "(H, W, 3)")
        if picture.shape[:2] != self.window:
            raise ShapeError(f"the picture is {picture.shape[:2]}: this model varies pictures of {self.window}")
        tokens = torch.from_numpy(self.model.encode(picture[None])).expand(n, -1, -1)
        draws = [torch.Generator().manual_seed(derive_seed(seed, "kept", number)) for number in range(n)]
        known = torch.stack([torch.rand(self.prior.grid, generator=generator) < keep for generator in draws])
        misfit = self._surprise(tokens, known) if self._is_blind and 0 < keep < 1 else None
        painted = self._paint(tokens, known, seed, misfit, strength, progress)
        return self.model.decode(painted.numpy(), self.window)

    def _complete(
        self, canvas: np.ndarray, mask: np.ndarray, n: int, seed: int, progress: Progress | None
    ) -> np.ndarray:
        """Paint what a mask covers in each of n copies of a picture, window after window."""
        _check_number(n)
        height, width = self.window
        if mask.shape[0] < height or mask.shape[1] < width:
            raise ShapeError(f"the picture is {mask.shape[0]} x {mask.shape[1]}: this model needs {height} x {width}")
        total, number = int(mask.sum()), 0
        canvases = np.repeat(canvas[None], n, axis=0)
        while mask.any():
            top, left = self._best_window(mask)
            place = (slice(top, top + height), slice(left, left + width))
            here = mask[place]
            window_seed = derive_seed(seed, "window", number) if number else seed
            before, pixels = total - int(mask.sum()), int(here.sum())

            def within(done: int, tokens: int, before: int = before, pixels: int = pixels) -> None:
                if progress:
                    progress(before + pixels * done // tokens, total)

            frames = canvases[:, place[0], place[1]]
            canvases[:, place[0], place[1]] = self.fill(frames, here, window_seed, within)
            here[:] = False
            number += 1
        return canvases

    def _best_window(self, mask: np.ndarray) -> tuple[int, int]:
        """Return top and left of the window to paint next, in the middle of equals.

        It is one that covers all there is to paint; else one of those that know at least half of themselves, with the
        most to paint; else that which knows the most, but not all.
        """
        height, width = self.window
        p = self.model.tokenizer.patch_size
        tops, lefts = (
            np.unique([*range(0, mask.shape[axis] - side + 1, p), mask.shape[axis] - side])
            for axis, side in enumerate((height, width))
        )
        sums = np.pad(mask.astype(np.int64).cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
        unknown = (
            sums[np.ix_(tops + height, lefts + width)]
            - sums[np.ix_(tops, lefts + width)]
            - sums[np.ix_(tops + height, lefts)]
            + sums[np.ix_(tops, lefts)]
        )
        known_enough = unknown[(unknown > 0) & (2 * unknown <= height * width)]
        if (unknown == mask.sum()).any():
            wanted = mask.sum()
        else:
            wanted = known_enough.max() if known_enough.size else unknown[unknown > 0].min()
        candidates = np.argwhere(unknown == wanted)
        middle = candidates.mean(axis=0)
        row, column = candidates[np.square(candidates - middle).sum(axis=1).argmin()]
        return int(tops[row]), int(lefts[column])

    def fill(self, frames: np.ndarray, mask: np.ndarray, seed: int = 0, progress: Progress | None = None) -> np.ndarray:
        """Paint what a mask, bool (H, W), covers in each of some frames of the model's size, uint8 (n, H, W, 3).

        What is painted meets what is known without a step: the difference is spread over the hole. progress: called
        with the tokens done and to do.
        """
        return blended(frames, self.paint_hole(frames, mask, seed, progress), mask)

    def paint_hole(
        self, frames: np.ndarray, mask: np.ndarray, seed: int = 0, progress: Progress | None = None
    ) -> np.ndarray:
        """Return whole frames, uint8 (n, H, W, 3), as the decoder makes them once a hole is painted: see `fill`."""
        p, (h, w) = self.model.tokenizer.patch_size, self.prior.grid
        padded = np.pad(mask, ((0, h * p - mask.shape[0]), (0, w * p - mask.shape[1])))
        known = torch.from_numpy(~padded.reshape(h, p, w, p).any(axis=(1, 3)))
        smooth = np.stack([_rounded(membrane(frame.astype(np.float64), mask)) for frame in frames])
        tokens = torch.from_numpy(self.model.encode(smooth))
        everywhere, misfit = known.expand(len(frames), -1, -1), None
        if known.any() and not known.all():
            misfit = self._surprise(tokens, everywhere) if self._is_blind else self._step(frames, mask, known)
        painted = self._paint(tokens, everywhere, seed, misfit, progress=progress)
        return self.model.decode(painted.numpy(), (mask.shape[0], mask.shape[1]))

    @property
    def _is_blind(self) -> bool:
        """Whether the prior does not see what comes after a hole."""
        return not isinstance(self.prior, AnyOrderPrior | MaskedPrior | FlowPrior)

    def _surprise(self, tokens: Tensor, known: Tensor) -> Misfit:
        """Return what tells how many bits known tokens cost after what is painted: bool and int64 (n, h, w)."""
        given = torch.where(known, tokens, -1)

        def misfit(painted: Tensor, of: Tensor) -> Tensor:
            bits = self._painter.bits(painted, self.condition, given[of])
            return torch.where(known[of], bits, 0.0).flatten(1).double().sum(dim=1)

        return misfit

    def _step(self, frames: np.ndarray, mask: np.ndarray, known: Tensor) -> Misfit:
        """Return what tells how far the decoder is from the known pixels in and beside the patches that are painted.

        frames: uint8 (n, H, W, 3). mask: bool (H, W). known: bool (h, w), which patches are.
        """
        p = self.model.tokenizer.patch_size
        near = F.max_pool2d((~known).float()[None, None], kernel_size=3, stride=1, padding=1)[0, 0].bool().numpy()
        around = near.repeat(p, axis=0).repeat(p, axis=1)[: mask.shape[0], : mask.shape[1]] & ~mask

        def misfit(painted: Tensor, of: Tensor) -> Tensor:
            decoded = self.model.decode(painted.numpy(), (mask.shape[0], mask.shape[1]))[:, around].astype(np.float64)
            return torch.from_numpy(np.square(decoded - frames[of.numpy()][:, around]).mean(axis=(1, 2)))

        return misfit

    def _paint(
        self,
        tokens: Tensor,
        known: Tensor,
        seed: int,
        misfit: Misfit | None,
        strength: float = 1.0,
        progress: Progress | None = None,
    ) -> Tensor:
        """Return tokens (n, h, w) of which those that are not known, bool (n, h, w), are painted.

        misfit: by which one of several fillings of each is taken; None to have one alone. strength: below 1 to start
        from the tokens. progress: called with the tokens done and to do, the last time with all of them done.
        """
        each = self.edit.candidates if misfit else 1
        misfit = misfit if each > 1 else None
        given, pictures = torch.where(known, tokens, -1), torch.arange(len(tokens)).repeat_interleave(each)
        parts, costs = [], []
        for start in range(0, len(pictures), BATCH):
            of = pictures[start : start + BATCH]

            def on_tokens(done: int, _: Tensor, start: int = start, count: int = len(of)) -> None:
                if progress:
                    progress(start * self.prior.length + count * done, len(pictures) * self.prior.length)

            painted = self._painter.paint(
                range(start, start + len(of)),
                seed=seed,
                settings=self.settings,
                condition=self.condition,
                given=given[of],
                start=None if strength == 1 else tokens[of],
                strength=strength,
                on_tokens=on_tokens,
            )
            parts.append(painted)
            if misfit:
                costs.append(misfit(painted, of))
        if not misfit:
            return torch.cat(parts)
        best = torch.cat(costs).view(-1, each).argmin(dim=1) + torch.arange(0, len(pictures), each)
        return torch.cat(parts)[best]


def blended(frames: np.ndarray, painted: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return frames in which what a mask, bool (H, W), covers is as painted, and meets the rest without a step.

    frames, painted: uint8 (n, H, W, 3). The difference at the hole's edge is spread over the hole.
    """
    filled = frames.copy()
    for i, (frame, paint) in enumerate(zip(frames, painted.astype(np.float64), strict=True)):
        offset = membrane(np.where(mask[..., None], 0.0, frame - paint), mask)
        filled[i][mask] = _rounded(paint + offset)[mask]
    return filled


def mask_of(picture: np.ndarray) -> np.ndarray:
    """Return where a picture, uint8 (H, W, 3), is more white than black, bool (H, W): how masks are drawn."""
    white: np.ndarray = picture.mean(axis=2) > 127
    return white


def _check_number(n: int) -> None:
    require(n >= 1, "n", n, "at least 1")


def _rounded(levels: np.ndarray) -> np.ndarray:
    return np.rint(levels).clip(0, 255).astype(np.uint8)
