"""One model that compresses: frames to picture files and back, the same bytes and the same pixels on every machine.

frames ──tokenizer──> tokens ──search──> tokens ──range coder under the prior──> content ──header──> picture files
frames <─tokenizer─── tokens <──────────range coder under the prior───────────── content <─header─── picture files
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from bisquit.autoencoder import patch_grid
from bisquit.codec import coding, picture_file, search
from bisquit.engine import Backend, prepare, prepare_tokenizer
from bisquit.errors import CodecError, ModelError, ShapeError
from bisquit.priors import Prior, RasterPrior
from bisquit.progress import Progress, share_of
from bisquit.tokenizer import Tokenizer

MOST_LOGITS = 2**24
"""Of the pictures that are searched together: 64 MB, and a few times as much on the way."""


@dataclass(frozen=True)
class Coded:
    """A picture file, and how far the picture in it is from the frame."""

    data: bytes
    error: float
    """The sum of squared errors, in levels of 255; not a number where nobody asked."""


class CodecModel:
    """A tokenizer and a raster prior over its tokens, in integers. Arrays in and out are NumPy's, wherever they are."""

    def __init__(
        self, tokenizer: Tokenizer, prior: Prior | None, frame_size: tuple[int, int] | None, backend: Backend = "auto"
    ) -> None:
        """Round a model to integers; it is left as it is.

        frame_size: (H, W) of pictures whose size need not be written down; by default whole patches. Raises ModelError
        if the prior is missing, of another kind or not to be rounded, and ConfigError if there is no such backend.
        """
        if not isinstance(prior, RasterPrior):
            raise ModelError("compression needs a model with a raster prior: train one with `bisquit train prior`")
        self.grid, self.patch_size = prior.grid, tokenizer.patch_size
        self.frame_size = frame_size or self.whole_size
        identity = f"{tokenizer.fingerprint()} {prior.fingerprint()} {self.frame_size[0]} {self.frame_size[1]}"
        self.fingerprint = hashlib.sha256(identity.encode()).digest()[:8]
        self.at_once = max(1, MOST_LOGITS // (prior.steps * prior.symbols))
        self._tokenizer, self._prior = prepare_tokenizer(tokenizer, backend), prepare(prior, backend, "int8")

    @property
    def whole_size(self) -> tuple[int, int]:
        """The size (H, W) of whole patches."""
        return self.grid[0] * self.patch_size, self.grid[1] * self.patch_size

    def check_size(self, size: tuple[int, int]) -> None:
        """Raise ShapeError unless the patches of pictures of a size (H, W), one that is begun counted, are the grid."""
        if patch_grid(*size, self.patch_size) != self.grid:
            height, width = self.frame_size
            wanted = f"this model compresses {height} x {width} (--size {height}x{width})"
            raise ShapeError(f"pictures are {size[0]} x {size[1]}: {wanted}")

    def encode(
        self, frames: Tensor, trade: np.ndarray, effort: int, measures: bool, progress: Progress | None = None
    ) -> list[Coded]:
        """Turn frames, uint8 (B, H, W, 3), into picture files.

        trade: float64 (B,), squared levels of 255 that a bit is worth in each. effort: sweeps of the search. measures:
        whether errors are asked for. progress: called with the steps done and to do. Raises ShapeError for frames whose
        patches do not fill the grid.
        """
        size = frames.shape[1], frames.shape[2]
        self.check_size(size)
        nearest = self._tokenizer.encode(frames)
        searching = share_of(progress, 0, effort, effort + 1)
        tokens = search.improve(self._tokenizer, self._prior, frames, nearest, trade, effort, searching)
        contents = coding.encode(self._prior, tokens, share_of(progress, effort, 1, effort + 1))
        written = None if size == self.frame_size else size
        errors = self._errors(tokens, frames) if measures else [np.nan] * len(frames)
        files = (picture_file.pack(content, self.fingerprint, written) for content in contents)
        return list(map(Coded, files, errors))

    def _errors(self, tokens: Tensor, frames: Tensor) -> list[float]:
        """Return the sums of squared errors of what tokens (B, h, w) stand for."""
        decoded = self._tokenizer.decode(tokens, (frames.shape[1], frames.shape[2]))
        errors: list[float] = (decoded.cpu().double() - frames.double()).square().flatten(1).sum(dim=1).tolist()
        return errors

    def decode(self, files: Sequence[picture_file.PictureFile], progress: Progress | None = None) -> list[np.ndarray]:
        """Turn picture files that are verified into frames, each uint8 (H, W, 3). Raises CodecError for damage."""
        tokens = coding.decode(self._prior, [file.content for file in files], progress)
        frames = self._tokenizer.decode(tokens, self.whole_size).cpu().numpy()
        sizes = [file.size or self.frame_size for file in files]
        return [frame[:height, :width].copy() for frame, (height, width) in zip(frames, sizes, strict=True)]

    def verify(self, file: picture_file.PictureFile) -> None:
        """Raise CodecError unless a picture file is sound and this model's."""
        picture_file.verify(file, self.fingerprint)
        if file.size is not None:
            try:
                self.check_size(file.size)
            except ShapeError as error:
                raise CodecError(str(error)) from error
