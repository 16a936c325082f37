"""The native tokenizer behind the interface of `IntegerTokenizer`: the same tokens and pixels, many times faster."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from bisquit.autoencoder import check_frames
from bisquit.config import require
from bisquit.engine.integer_tokenizer import IntegerTokenizer, check_are_tokens, check_pairs, in_steps
from bisquit.engine.native import engine_missing, integer_arrays, usable_kernels
from bisquit.errors import ModelError, ShapeError

if engine_missing() is None:
    from bisquit.engine import _native


class EngineTokenizer:
    """A tokenizer in integers, in native code, on the CPU. Pictures are shared out among threads."""

    def __init__(self, tokenizer: IntegerTokenizer, threads: int | None = None, kernels: str = "") -> None:
        """Pack a tokenizer. threads: PyTorch's number by default; kernels: the fastest.

        Raises ConfigError if the engine is not built or has no such kernels, ModelError for a shape that it does not
        take.
        """
        known = usable_kernels()
        require(not kernels or kernels in known, "kernels", kernels, "one of " + ", ".join(known))
        require(threads is None or 1 <= threads <= 1024, "threads", threads, "between 1 and 1024")
        self.patch_size = tokenizer.patch_size
        self.codebook = copy.deepcopy(tokenizer.codebook).cpu()
        self.threads = threads or torch.get_num_threads()
        self.kernels = kernels
        try:
            self._tokenizer = _native.Tokenizer(
                patch_size=tokenizer.patch_size,
                width=len(tokenizer.up.bias),
                channels=len(self.codebook.spread),
                encoder_blocks=len(tokenizer.encoder),
                decoder_blocks=len(tokenizer.decoder),
                code_step=self.codebook.step,
                arrays=integer_arrays(tokenizer),
            )
        except ValueError as error:
            raise ModelError(f"the engine cannot take this tokenizer: {error}") from error

    def encode(self, frames: Tensor) -> Tensor:
        """Turn frames, uint8 (B, H, W, 3), into tokens, int64 (B, h, w)."""
        pixels = _frames(frames)
        with _sizes_named():
            projected = self._tokenizer.project(pixels, self.threads, self.kernels)
        return self.codebook.tokens_of(torch.from_numpy(projected))

    def decode(self, tokens: Tensor, size: tuple[int, int]) -> Tensor:
        """Turn tokens, int64 (B, h, w), into frames, uint8 (B, H, W, 3), cropped to size (H, W)."""
        check_are_tokens(tokens)
        return self.decode_vectors(self.codebook.vectors(tokens), size)

    def decode_vectors(self, vectors: Tensor, size: tuple[int, int]) -> Tensor:
        """Turn vectors, int8 (B, h, w, channels), into frames: `IntegerTokenizer.decode_vectors`."""
        steps, p, (rows, columns) = vectors.contiguous().numpy(), self.patch_size, vectors.shape[1:3]
        with _sizes_named():
            frames = self._tokenizer.decode(steps, rows * p, columns * p, self.threads, self.kernels)
        return torch.from_numpy(np.ascontiguousarray(frames[:, : size[0], : size[1]]))

    def slopes(self, tokens: Tensor, frames: Tensor) -> Tensor:
        """Return how the squared error changes, float32 (B, h, w, channels): `IntegerTokenizer.slopes`."""
        check_pairs(tokens, frames, self.patch_size)
        steps, pixels = self.codebook.vectors(tokens).contiguous().numpy(), _frames(frames)
        with _sizes_named():
            slopes = self._tokenizer.slopes(steps, pixels, self.threads, self.kernels)
        return in_steps(torch.from_numpy(slopes), self.codebook)


@contextmanager
def _sizes_named() -> Iterator[None]:
    """Have the engine's refusal of pictures that are too large, too many or empty be a ShapeError."""
    try:
        yield
    except ValueError as error:
        raise ShapeError(str(error)) from error


def _frames(frames: Tensor) -> np.ndarray:
    check_frames(frames)
    return frames.contiguous().numpy()
