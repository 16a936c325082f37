"""Frames to compressed pictures and back, by one model, the same bytes and the same pixels on every machine.

frames ──tokenizer──> tokens ──search──> tokens ──range coder under the prior──> content ──header──> picture files
frames <─tokenizer─── tokens <──────────range coder under the prior───────────── content <─header─── picture files
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from bisquit.autoencoder import patch_grid
from bisquit.codec import coding, picture_file, search
from bisquit.codec.rate import BEST_QUALITY, ROUNDS, RateConfig, Try, furthest, most_error, trades
from bisquit.engine import Backend, prepare, prepare_tokenizer
from bisquit.errors import CodecError, ModelError, ShapeError
from bisquit.priors import Prior, RasterPrior
from bisquit.progress import Progress
from bisquit.tokenizer import Tokenizer

MOST_LOGITS = 2**24
"""Of the pictures that are searched together: 64 MB, and a few times as much on the way."""

_log = logging.getLogger("bisquit")


class Codec:
    """A model that compresses. Arrays in and out are NumPy's, wherever the model is."""

    def __init__(
        self, tokenizer: Tokenizer, prior: Prior | None, frame_size: tuple[int, int] | None, backend: Backend = "auto"
    ) -> None:
        """Round a tokenizer and the raster prior over its tokens to integers; both are left as they are.

        frame_size: (H, W) of pictures whose size need not be written down; by default whole patches. Raises ModelError
        if the prior is missing or of another kind, and ConfigError if there is no such backend.
        """
        if not isinstance(prior, RasterPrior):
            raise ModelError("compression needs a model with a raster prior: train one with `bisquit train prior`")
        self.grid, self._patch_size = prior.grid, tokenizer.patch_size
        self.frame_size = frame_size or (self.grid[0] * self._patch_size, self.grid[1] * self._patch_size)
        identity = f"{tokenizer.fingerprint()} {prior.fingerprint()} {self.frame_size[0]} {self.frame_size[1]}"
        self.fingerprint = hashlib.sha256(identity.encode()).digest()[:8]
        self._tokenizer = prepare_tokenizer(tokenizer, backend)
        self._prior = prepare(prior, backend, "int8")

    def compress(
        self, frames: np.ndarray, rate: RateConfig | None = None, progress: Progress | None = None
    ) -> list[bytes]:
        """Turn frames, uint8 (B, H, W, 3), into picture files.

        Where no quality meets a target, the one that comes nearest is taken, with a warning. progress: called with the
        steps done and to do. Raises ShapeError on other arrays, and for frames whose patches do not fill the model's
        grid.
        """
        rate = rate or RateConfig()
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or frames.size == 0:
            raise ShapeError(f"frames are {frames.dtype} {frames.shape}: they must be uint8 (B, H, W, 3), none empty")
        size = frames.shape[1], frames.shape[2]
        if not self._fits(size):
            raise ShapeError(self._misfit(size))
        at_once = (
            max(1, MOST_LOGITS // (self._prior.length * self._prior.codebook_size)) if rate.effort else len(frames)
        )
        tries: list[Try] = []
        for part in torch.from_numpy(np.ascontiguousarray(frames)).split(at_once):
            tries += self._compress(part, rate, _share(progress, len(tries), len(part), len(frames)))
        if missed := sum(not tried.is_good for tried in tries):
            _log.warning("%d of %d pictures miss the target: no quality of this model meets it", missed, len(tries))
        return [tried.data for tried in tries]

    def _compress(self, frames: Tensor, rate: RateConfig, progress: Progress | None) -> list[Try]:
        """Compress frames (B, H, W, 3) that fit into memory together."""
        nearest = self._tokenizer.encode(frames)
        has_target = rate.target_bytes is not None or rate.target_psnr is not None
        rounds = ROUNDS if has_target else 1
        round_ = 0

        def attempt(numbers: np.ndarray, steps: np.ndarray) -> list[Try]:
            nonlocal round_
            of_round = _share(progress, round_, 1, rounds)
            round_ += 1
            chosen = torch.from_numpy(numbers)
            pictures = frames[chosen]
            qualities = steps if rate.target_psnr is None else BEST_QUALITY - steps
            tokens = search.improve(
                self._tokenizer,
                self._prior,
                pictures,
                nearest[chosen],
                trades(qualities),
                rate.effort,
                _share(of_round, 0, rate.effort, rate.effort + 1),
            )
            files = self._pack(tokens, pictures, _share(of_round, rate.effort, 1, rate.effort + 1))
            return list(map(Try, files, self._good(files, tokens, pictures, rate)))

        if has_target:
            found = furthest(len(frames), attempt)
            if progress is not None:
                progress(1, 1)  # they may have settled in fewer rounds
            return found
        return attempt(np.arange(len(frames)), np.full(len(frames), rate.quality))

    def _pack(self, tokens: Tensor, frames: Tensor, progress: Progress | None) -> list[bytes]:
        """Return the picture files of tokens (B, h, w) that frames (B, H, W, 3) became."""
        size = frames.shape[1], frames.shape[2]
        written = None if size == self.frame_size else size
        contents = coding.encode(self._prior, tokens, progress)
        return [picture_file.pack(content, self.fingerprint, written) for content in contents]

    def _good(self, files: list[bytes], tokens: Tensor, frames: Tensor, rate: RateConfig) -> list[bool]:
        """Whether each picture is what is asked for."""
        if rate.target_psnr is None:
            return [rate.target_bytes is None or len(file) <= rate.target_bytes for file in files]
        most = most_error(rate.target_psnr, frames[0].numel())
        decoded = self._tokenizer.decode(tokens, (frames.shape[1], frames.shape[2]))
        errors = (decoded.cpu().double() - frames.double()).square().flatten(1).sum(dim=1)
        return (errors <= most).tolist()

    def decompress(self, files: Sequence[bytes], progress: Progress | None = None) -> list[np.ndarray]:
        """Turn picture files into frames, each uint8 (H, W, 3).

        Raises CodecError if one is no picture file, damaged, or another model's; then none is decoded.
        """
        opened = [self.open(data) for data in files]
        if not opened:
            return []
        tokens = coding.decode(self._prior, [file.content for file in opened], progress)
        whole = self.grid[0] * self._patch_size, self.grid[1] * self._patch_size
        frames = self._tokenizer.decode(tokens, whole).cpu().numpy()
        sizes = [file.size or self.frame_size for file in opened]
        return [frame[:height, :width].copy() for frame, (height, width) in zip(frames, sizes, strict=True)]

    def open(self, data: bytes) -> picture_file.PictureFile:
        """Take a picture file apart, and check that it is sound and this model's. Raises CodecError if it is not."""
        file = picture_file.unpack(data)
        picture_file.verify(file, self.fingerprint)
        if file.size is not None and not self._fits(file.size):
            raise CodecError(self._misfit(file.size))
        return file

    def _fits(self, size: tuple[int, int]) -> bool:
        """Whether the patches of pictures of a size (H, W) are the model's grid; one that is begun counts."""
        return patch_grid(*size, self._patch_size) == self.grid

    def _misfit(self, size: tuple[int, int]) -> str:
        height, width = self.frame_size
        return f"pictures are {size[0]} x {size[1]}: this model compresses {height} x {width} (--size {height}x{width})"


def _share(progress: Progress | None, before: int, parts: int, total: int) -> Progress | None:
    """Return a progress for work that is `parts` of a `total`, of which as many as `before` are done."""
    if progress is None:
        return None
    return lambda done, of: progress(before * of + parts * done, total * of)
