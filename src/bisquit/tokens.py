"""Tokens on disk: what a tokenizer made of a set of frames, in one file that is complete in itself.

The file is safetensors. Beside the tokens, in the smallest unsigned type that holds them, it carries each frame's class
and race where they are known, and the tokenizer itself, so that it can be turned back into pictures and so that a prior
that is trained on it knows, and ships with, the tokenizer that it belongs to.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bisquit.autoencoder import PreparedEncoder
from bisquit.checkpoint import MOST_PIXELS, build_tokenizer, read_tensors, whole_numbers, write_tensors
from bisquit.errors import ModelError, ShapeError, TokenError
from bisquit.frames import FrameSet
from bisquit.progress import Progress
from bisquit.tokenizer import Tokenizer


@dataclass(frozen=True, eq=False)
class TokenSet:
    """The tokens of a set of frames."""

    tokens: np.ndarray
    """(N, h, w), of the smallest unsigned type that holds `bits` bits."""
    tokenizer: Tokenizer
    """What made them."""
    frame_size: tuple[int, int]
    """(H, W) of the frames in pixels."""
    classes: tuple[str, ...]
    """The names of the classes, empty where no frame has one."""
    labels: np.ndarray
    """(N,) int64, index into `classes`, -1 where unknown."""
    groups: np.ndarray | None
    """(N,) int64, the race that each frame is of; None where unknown."""

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def bits(self) -> int:
        """Bits a token."""
        return self.tokenizer.bits

    @property
    def grid(self) -> tuple[int, int]:
        """The grid (h, w) of each picture."""
        return self.tokens.shape[1], self.tokens.shape[2]

    def batch(self, indices: np.ndarray | slice) -> Tensor:
        """Return the tokens of some frames as int64 (B, h, w)."""
        return torch.from_numpy(self.tokens[indices].astype(np.int64))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything to one file, whole or not at all."""
        tensors = {f"tokenizer.{name}": value.contiguous() for name, value in self.tokenizer.state_dict().items()}
        tensors["tokens"] = torch.from_numpy(self.tokens)
        tensors["labels"] = torch.from_numpy(self.labels)
        if self.groups is not None:
            tensors["groups"] = torch.from_numpy(self.groups)
        description = {
            "part": "tokens",
            "config": self.tokenizer.config.to_dict(),
            "fingerprint": self.tokenizer.fingerprint(),
            "frame_size": list(self.frame_size),
            "classes": list(self.classes),
        }
        write_tensors(path, tensors, description)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> TokenSet:
        """Read what `save` wrote. Raises TokenError on anything else."""
        try:
            tensors, description = read_tensors(path, "tokens")
            weights = {name[10:]: value for name, value in tensors.items() if name.startswith("tokenizer.")}
            tokenizer = build_tokenizer(description.get("config"), weights, path)
            height, width = whole_numbers(description["frame_size"], 2, MOST_PIXELS)
            loaded = cls(
                tokens=tensors["tokens"].numpy(),
                tokenizer=tokenizer,
                frame_size=(height, width),
                classes=tuple(map(str, description["classes"])),
                labels=tensors["labels"].numpy(),
                groups=tensors["groups"].numpy() if "groups" in tensors else None,
            )
            if not loaded._fits_together():
                raise TokenError(f"{path}: its tokens, labels, classes, races and frame size do not fit together")
            if len(loaded) and int(loaded.tokens.max()) >= tokenizer.codebook_size:
                raise TokenError(f"{path}: a token is outside of the codebook of {tokenizer.codebook_size}")
            if tokenizer.fingerprint() != description["fingerprint"]:
                raise TokenError(f"{path}: its tokenizer is not the one that its fingerprint names")
        except ModelError as error:
            raise TokenError(str(error)) from error
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise TokenError(f"{path} lacks a part of a token file: {error}") from error
        return loaded

    def _fits_together(self) -> bool:
        """Whether arrays are of the types and shapes that they must be, and labels of classes that there are."""
        count = self.tokens.shape[:1]
        numbers = [self.labels] if self.groups is None else [self.labels, self.groups]
        return (
            (self.tokens.dtype, self.tokens.ndim) == (smallest_unsigned(self.bits), 3)
            and self.tokenizer.grid(*self.frame_size) == self.grid
            and all(array.dtype == np.int64 and array.shape == count for array in numbers)
            and bool(((self.labels >= -1) & (self.labels < len(self.classes))).all())
        )


@dataclass(frozen=True, eq=False)
class FreshTokens:
    """The tokens of frames that are changed at random each time, and so tokenized anew each time."""

    frames: FrameSet
    tokenizer: Tokenizer

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def grid(self) -> tuple[int, int]:
        """The grid (h, w) of each picture."""
        return self.tokenizer.grid(self.frames.height, self.frames.width)

    @property
    def frame_size(self) -> tuple[int, int]:
        """(H, W) of the frames in pixels."""
        return self.frames.height, self.frames.width

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, empty where no frame has one."""
        return self.frames.classes

    @property
    def labels(self) -> np.ndarray:
        """The frames' labels, int64 (N,), -1 where unknown."""
        return self.frames.labels

    def batch(self, indices: np.ndarray) -> Tensor:
        """Return some of the frames as they are, uint8 (B, H, W, 3)."""
        return torch.from_numpy(self.frames[indices])


def tokenize(
    tokenizer: Tokenizer,
    frames: FrameSet,
    batch_size: int = 64,
    mirrored: bool = False,
    progress: Progress | None = None,
) -> TokenSet:
    """Turn a set of frames into tokens, in the set's order.

    On a CPU each frame is encoded by itself, on a core of its own, so that a frame's tokens are the same in any set.
    mirrored: append the tokens of every frame flipped left to right. Raises ShapeError if there is no frame.
    """
    if len(frames) == 0:
        raise ShapeError("there are no frames to tokenize")
    copies = 2 if mirrored else 1
    grid = tokenizer.grid(frames.height, frames.width)
    tokens = np.empty((copies * len(frames), *grid), dtype=smallest_unsigned(tokenizer.bits))
    with _encoder(tokenizer) as encode:
        for start in range(0, len(frames), batch_size):
            batch = torch.from_numpy(frames[start : start + batch_size])
            for copy in range(copies):
                images = batch.flip(2) if copy else batch
                place = copy * len(frames) + start
                tokens[place : place + len(images)] = encode(images).cpu().numpy().astype(tokens.dtype)
            if progress:
                progress(min(start + batch_size, len(frames)), len(frames))
    return TokenSet(
        tokens=tokens,
        tokenizer=tokenizer,
        frame_size=(frames.height, frames.width),
        classes=frames.classes,
        labels=np.tile(frames.labels, copies),
        groups=None if frames.groups is None else np.tile(frames.groups, copies),
    )


@contextmanager
def _encoder(tokenizer: Tokenizer) -> Iterator[Callable[[Tensor], Tensor]]:
    """Yield the fastest way from many frames, uint8 (B, H, W, 3), to tokens, int64 (B, h, w)."""
    encode = prepared_encode(tokenizer)
    if tokenizer.device.type != "cpu":
        yield encode
        return
    threads = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield lambda frames: torch.cat(list(pool.map(encode, frames.split(1))))
    finally:
        torch.set_num_threads(threads)  # what is set in one thread reaches those that come later


def prepared_encode(tokenizer: Tokenizer) -> Callable[[Tensor], Tensor]:
    """Return `tokenizer.encode` as it is now, arranged to be called often; equal to it but for rounding."""
    if tokenizer.device.type != "cpu":
        return tokenizer.encode
    quantizer, project = tokenizer.quantizer, prepared_projection(tokenizer)
    return lambda frames: quantizer.tokens_of(project(frames))


def prepared_projection(tokenizer: Tokenizer) -> Callable[[Tensor], Tensor]:
    """Return the way from frames, uint8 (B, H, W, 3), to what the quantizer decides by, arranged to be called often."""
    if tokenizer.device.type != "cpu":
        return tokenizer.project
    return PreparedEncoder(tokenizer.autoencoder, tokenizer.quantizer.down)


def smallest_unsigned(bits: int) -> np.dtype:
    """Return the smallest unsigned type that holds `bits` bits, 1 to 32."""
    return np.dtype(np.uint8 if bits <= 8 else np.uint16 if bits <= 16 else np.uint32)
