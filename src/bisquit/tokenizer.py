"""The tokenizer: frames to tokens and back, a patch auto-encoder with a quantizer in its middle.

    frames ──pad──> auto-encoder ──latents──> quantizer ──> tokens
    frames <──crop── auto-encoder <──codes── quantizer <── tokens

with frames uint8 (B, H, W, 3) and tokens int64 (B, h, w). Most quantizers have a token for each patch; the grid of
others is theirs to say.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn

from bisquit.autoencoder import AutoEncoderConfig, PatchAutoEncoder, pad_to_patches, patch_grid, to_float, to_uint8
from bisquit.config import Settings
from bisquit.errors import ShapeError
from bisquit.fingerprint import fingerprint
from bisquit.quantizers import BSQConfig, QuantizerConfig, build_quantizer

GREY = 128
"""The level of what is not there yet."""


@dataclass(frozen=True)
class TokenizerConfig(Settings):
    """The shape of a `Tokenizer`."""

    autoencoder: AutoEncoderConfig = field(default_factory=AutoEncoderConfig)
    quantizer: QuantizerConfig = field(default_factory=BSQConfig)


class TokenizerOutput(NamedTuple):
    """What one pass through the tokenizer gives."""

    frames: Tensor
    """(B, 3, H, W) float, not clipped."""
    tokens: Tensor
    """(B, h, w) int64."""
    quantizer_loss: Tensor
    """() float."""


class Tokenizer(nn.Module):
    """Frames to tokens and back."""

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        self.config = config
        self.autoencoder = PatchAutoEncoder(config.autoencoder)
        self.quantizer = build_quantizer(config.quantizer, config.autoencoder.width)

    @property
    def bits(self) -> int:
        """Bits a token."""
        return self.quantizer.bits

    @property
    def codebook_size(self) -> int:
        """How many tokens there are: 2**bits."""
        return 2**self.bits

    @property
    def patch_size(self) -> int:
        """Side of a token's patch in pixels."""
        return self.config.autoencoder.patch_size

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Return the grid (h, w) of tokens of a frame of height x width pixels; a patch that is begun counts."""
        return self.quantizer.grid(patch_grid(height, width, self.patch_size))

    def forward(self, x: Tensor) -> TokenizerOutput:
        """Reconstruct frames (B, 3, H, W) in [-0.5, 0.5] through their tokens; patches must divide H and W."""
        quantized = self.quantizer(self.autoencoder.encode(x))
        return TokenizerOutput(self.autoencoder.decode(quantized.codes), quantized.tokens, quantized.loss)

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return next(self.parameters()).device

    @torch.no_grad()
    def encode(self, frames: Tensor) -> Tensor:
        """Turn frames into tokens.

        frames: uint8 (B, H, W, 3) of any size; one that the patch does not divide is padded by repeating its edge.
        Returns int64 (B, h, w). Raises ShapeError on other types and shapes.
        """
        tokens: Tensor = self.quantizer(self._latents(frames)).tokens
        return tokens

    @torch.no_grad()
    def project(self, frames: Tensor) -> Tensor:
        """Return what the quantizer decides on the tokens of frames by, v (B, bits, h, w); see `encode`."""
        projected: Tensor = self.quantizer.down(self._latents(frames))
        return projected

    def _latents(self, frames: Tensor) -> Tensor:
        """Return the latents (B, width, h, w) of frames, uint8 (B, H, W, 3), padded to whole patches."""
        return self.autoencoder.encode(pad_to_patches(to_float(frames.to(self.device)), self.patch_size))

    @torch.no_grad()
    def decode(self, tokens: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """Turn tokens into frames.

        tokens: int64 (B, h, w). size: (H, W) of the frames, to which they are cropped where they had been padded; where
        each token is a patch's, by default as many whole patches as there are tokens. Returns uint8 (B, H, W, 3).
        Raises TokenError on tokens outside of the codebook, ShapeError where the grid is not that of `size`.
        """
        height, width = size = self._size(tokens, size)
        codes = self.quantizer.codes(tokens.to(self.device), patch_grid(height, width, self.patch_size))
        return self._decoded(codes, size)

    @torch.no_grad()
    def decode_partial(self, tokens: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """Turn tokens into frames of which some are not there yet, -1: grey there, or all as coarse as they can be.

        Arguments, result and errors are otherwise those of `decode`.
        """
        height, width = size = self._size(tokens, size)
        grid, p = patch_grid(height, width, self.patch_size), self.patch_size
        coarse = self.quantizer.codes_so_far(tokens.to(self.device), grid)
        if coarse is not None:
            return self._decoded(coarse, size)
        frames = self.decode(tokens.clamp_min(0), size)
        is_there = (tokens >= 0).repeat_interleave(p, dim=1).repeat_interleave(p, dim=2)[:, :height, :width]
        frames[~is_there.to(frames.device)] = GREY
        return frames

    def _size(self, tokens: Tensor, size: tuple[int, int] | None) -> tuple[int, int]:
        """Return the size (H, W) of the frames of tokens. Raises ShapeError if they are not int64 (B, h, w) of it."""
        if tokens.dtype != torch.int64 or tokens.ndim != 3:
            raise ShapeError(f"tokens are {tokens.dtype} {tuple(tokens.shape)}: they must be int64 (B, h, w)")
        height, width = size or (tokens.shape[1] * self.patch_size, tokens.shape[2] * self.patch_size)
        if self.grid(height, width) != tuple(tokens.shape[1:]):
            raise ShapeError(
                f"tokens are {tuple(tokens.shape)}: frames of {height} x {width} have {self.grid(height, width)}"
                + ("" if size else "; pass the size of their frames")
            )
        return height, width

    def _decoded(self, codes: Tensor, size: tuple[int, int]) -> Tensor:
        """Return the frames, uint8 (B, H, W, 3), of codes (B, width, h, w)."""
        return to_uint8(self.autoencoder.decode(codes))[:, : size[0], : size[1]].contiguous()

    def fingerprint(self) -> str:
        """Return 16 hexadecimal digits that name this tokenizer: its configuration and every weight, as float32."""
        config = self.config.to_dict()
        if not config["autoencoder"]["decoder_depth"]:
            del config["autoencoder"]["decoder_depth"]  # some fingerprints are older than it
        return fingerprint(config, self)
