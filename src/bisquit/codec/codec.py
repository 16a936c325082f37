"""Frames to compressed pictures and back, by one model, the same bytes and the same pixels on every machine.

frames ──IntegerTokenizer──> tokens ──range coder under the prior──> content ──header──> picture files
frames <─IntegerTokenizer─── tokens <─range coder under the prior─── content <─header─── picture files
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch

from bisquit.autoencoder import patch_grid
from bisquit.codec import coding, picture_file
from bisquit.engine import Backend, prepare
from bisquit.engine.integer_tokenizer import IntegerTokenizer
from bisquit.errors import CodecError, ModelError, ShapeError
from bisquit.priors import Prior, RasterPrior
from bisquit.progress import Progress
from bisquit.tokenizer import Tokenizer


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
        self._tokenizer = IntegerTokenizer(tokenizer)
        self._prior = prepare(prior, backend, "int8")

    def compress(self, frames: np.ndarray, progress: Progress | None = None) -> list[bytes]:
        """Turn frames, uint8 (B, H, W, 3), into picture files.

        Raises ShapeError on other arrays, and for frames whose patches do not fill the model's grid.
        """
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or frames.size == 0:
            raise ShapeError(f"frames are {frames.dtype} {frames.shape}: they must be uint8 (B, H, W, 3), none empty")
        size = frames.shape[1], frames.shape[2]
        if not self._fits(size):
            raise ShapeError(self._misfit(size))
        tokens = self._tokenizer.encode(torch.from_numpy(np.ascontiguousarray(frames)))
        contents = coding.encode(self._prior, tokens, progress)
        written = None if size == self.frame_size else size
        return [picture_file.pack(content, self.fingerprint, written) for content in contents]

    def decompress(self, files: Sequence[bytes], progress: Progress | None = None) -> list[np.ndarray]:
        """Turn picture files into frames, each uint8 (H, W, 3).

        Raises CodecError if one is no picture file, damaged, or another model's; then none is decoded.
        """
        opened = [self.open(data) for data in files]
        if not opened:
            return []
        tokens = coding.decode(self._prior, [file.content for file in opened], progress)
        return [
            self._tokenizer.decode(of_picture, file.size or self.frame_size)[0].cpu().numpy()
            for of_picture, file in zip(tokens.split(1), opened, strict=True)
        ]

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
