"""The tokenizer in integers: the same tokens of a picture, and the same pixels of tokens, on every machine.

The weights of any trained tokenizer with a token for each place are rounded as they are, without calibration, as
`IntegerPrior` rounds a prior's: each output's weights to int8 with a step of their own, and so each cell of the grid,
as it comes, and what tokens stand for (`bisquit.engine.codebooks`). A cell's step may differ from its neighbour's, so
that a 3 x 3 convolution is nine products, one for each of its taps, and what they give is scaled cell by cell and then
added, tap after tap:

    x (B, h, w, width) ──int8──products (B, h, w, 9, width)──x each cell's step──shift and add──x each output's step──+

Plain PyTorch, on a CPU or a GPU of CUDA.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bisquit.autoencoder import check_frames, pad_to_patches, patch_grid
from bisquit.engine import arithmetic
from bisquit.engine.arithmetic import Codes, product, to_codes
from bisquit.engine.codebooks import Codebook, codebook_of
from bisquit.errors import ModelError, ShapeError
from bisquit.tokenizer import Tokenizer


class IntegerTokenizer(nn.Module):
    """A tokenizer rounded to integers: tokens and pixels are equal wherever they are computed, in any batch."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Round a tokenizer; it is left as it is.

        Raises ModelError if a weight is not finite, or the quantizer one whose tokens are not of a place each.
        """
        super().__init__()
        if not all(parameter.isfinite().all() for parameter in tokenizer.parameters()):
            raise ModelError("the tokenizer has weights that are not finite: it is damaged, or its training diverged")
        self.config = tokenizer.config
        self.codebook = codebook_of(tokenizer.quantizer)
        self.patch_size = tokenizer.patch_size
        up = cast(nn.Module, tokenizer.quantizer.up)
        _, stem, *encoder = tokenizer.autoencoder.encoder.children()
        *decoder, last, _ = tokenizer.autoencoder.decoder.children()
        self.stem = IntegerConvolution(stem)
        self.encoder = nn.ModuleList(IntegerBlock(block) for block in encoder)
        self.down = IntegerConvolution(tokenizer.quantizer.down)
        self.up = IntegerConvolution(up)
        self.decoder = nn.ModuleList(IntegerBlock(block) for block in decoder)
        self.last = IntegerConvolution(last)
        self.up_back = IntegerConvolution(up, is_back=True)
        self.decoder_back = nn.ModuleList(IntegerBlock(block, is_back=True) for block in decoder)
        self.last_back = IntegerConvolution(last, is_back=True)

    @torch.no_grad()
    def encode(self, frames: Tensor) -> Tensor:
        """Turn frames, uint8 (B, H, W, 3), into tokens, int64 (B, h, w)."""
        x = (2 * self._patches(frames) - 255) * (1 / 510)  # [-0.5, 0.5] by one rounding
        x = self.stem(x)
        for block in self.encoder:
            x = block(x)
        return self.codebook.tokens_of(self.down(x))

    def decode(self, tokens: Tensor, size: tuple[int, int]) -> Tensor:
        """Turn tokens, int64 (B, h, w), into frames, uint8 (B, H, W, 3), cropped to size (H, W).

        Raises ShapeError for other arrays, TokenError for tokens that are not of the codebook.
        """
        check_are_tokens(tokens)
        return self.decode_vectors(self.codebook.vectors(tokens), size)

    @torch.no_grad()
    def decode_vectors(self, vectors: Tensor, size: tuple[int, int]) -> Tensor:
        """Turn vectors, of tokens or between them, int8 (B, h, w, channels), into frames, as `decode` does."""
        x = self._codes(vectors)
        for block in self.decoder:
            x = block(x)
        pixels = F.pixel_shuffle(_pixels(self.last(x)).permute(0, 3, 1, 2), self.patch_size).round().to(torch.uint8)
        return pixels.permute(0, 2, 3, 1)[:, : size[0], : size[1]].contiguous()

    @torch.no_grad()
    def slopes(self, tokens: Tensor, frames: Tensor) -> Tensor:
        """Return how the squared error of what tokens decode to changes along the codebook's channels, step by step.

        tokens: int64 (B, h, w). frames: uint8 (B, H, W, 3), what they stand for. Returns float32 (B, h, w, channels).
        The error is a sum over the pixels of whole patches, in squared levels of 255. By the chain rule, in integers
        from layer to layer. Raises ShapeError unless there is a picture's tokens for each frame.
        """
        check_pairs(tokens, frames, self.patch_size)
        x = self._codes(self.codebook.vectors(tokens))
        seen = []
        for block in cast(Sequence[IntegerBlock], self.decoder):
            hidden = block.hidden(x)
            seen.append((x, hidden))
            x = block.add(x, hidden)
        slope = self.last_back(_pixels(self.last(x)) - self._patches(frames))
        blocks_back = cast(Sequence[IntegerBlock], self.decoder_back)
        for block, (x, hidden) in zip(reversed(blocks_back), reversed(seen), strict=True):
            slope = block.back(slope, x, hidden)
        return in_steps(self.up_back(slope), self.codebook)

    def _patches(self, frames: Tensor) -> Tensor:
        """Turn frames, uint8 (B, H, W, 3), into float32 (B, h, w, 3 patch_size^2), edges repeated to whole patches."""
        check_frames(frames)
        x = pad_to_patches(frames.to(self.stem.bias.device).permute(0, 3, 1, 2).float(), self.patch_size)
        return F.pixel_unshuffle(x, self.patch_size).permute(0, 2, 3, 1)

    def _codes(self, vectors: Tensor) -> Tensor:
        """Turn vectors, int8 (B, h, w, channels), into what the decoder takes, float32 (B, h, w, width)."""
        whole = vectors.to(self.last.bias.device).float()
        codes: Tensor = self.up.of_codes(Codes(whole, torch.full_like(whole[..., :1], self.codebook.step)))
        return codes


class IntegerConvolution(nn.Module):
    """A convolution, 1 x 1 or 3 x 3, of grids (B, h, w, inputs), zeros around them."""

    codes: Tensor
    step: Tensor
    bias: Tensor

    def __init__(self, convolution: nn.Module, *, is_back: bool = False) -> None:
        """Round a convolution, or, with `is_back`, the one that takes slopes of its outputs to those of its inputs."""
        super().__init__()
        assert isinstance(convolution, nn.Conv2d)
        assert convolution.bias is not None
        weight, bias = convolution.weight.detach().float(), convolution.bias.detach().float().clone()
        if is_back:
            weight, bias = weight.transpose(0, 1).flip(2, 3), torch.zeros_like(weight[0, :, 0, 0])
        rounded = to_codes(weight.flatten(1))
        taps = rounded.codes.view_as(weight).permute(2, 3, 0, 1).flatten(0, 1)  # (taps, outputs, inputs)
        self.register_buffer("codes", taps.contiguous())
        self.register_buffer("step", rounded.step[:, 0].contiguous())
        self.register_buffer("bias", bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.of_codes(to_codes(x))

    def of_codes(self, cells: Codes) -> Tensor:
        """Map cells that are integers already."""
        height, width = cells.codes.shape[1:3]
        reach = 1 if len(self.codes) == 9 else 0
        of_taps = product(cells.codes, self.codes.flatten(0, 1).T) * cells.step
        of_taps = F.pad(of_taps, (0, 0, reach, reach, reach, reach)).unflatten(3, (len(self.codes), -1))
        total = torch.zeros_like(of_taps[:, :height, :width, 0])
        for tap in range(len(self.codes)):  # one after another: every order has its own rounding
            row, column = divmod(tap, 3)
            total += of_taps[:, row : row + height, column : column + width, tap]
        return total * self.step + self.bias


class IntegerBlock(nn.Module):
    """x + conv(gelu(conv(gelu(x)))), in integers."""

    def __init__(self, block: nn.Module, *, is_back: bool = False) -> None:
        super().__init__()
        first, second = block.children()
        self.first = IntegerConvolution(first, is_back=is_back)
        self.second = IntegerConvolution(second, is_back=is_back)

    def forward(self, x: Tensor) -> Tensor:
        return self.add(x, self.hidden(x))

    def hidden(self, x: Tensor) -> Tensor:
        """Return what lies between the two convolutions."""
        hidden: Tensor = self.first(arithmetic.gelu(x))
        return hidden

    def add(self, x: Tensor, hidden: Tensor) -> Tensor:
        """Return the block's output of its input and of what lies between."""
        added: Tensor = self.second(arithmetic.gelu(hidden))
        return x + added

    def back(self, slope: Tensor, x: Tensor, hidden: Tensor) -> Tensor:
        """Return the slope of the block's input of that of its output, where this is a block back."""
        of_hidden = self.second(slope) * arithmetic.gelu_slope(hidden)
        of_x: Tensor = self.first(of_hidden) * arithmetic.gelu_slope(x)
        return slope + of_x


def check_pairs(tokens: Tensor, frames: Tensor, patch_size: int) -> None:
    """Raise ShapeError unless tokens, int64 (B, h, w), are on the grid of frames, uint8 (B, H, W, 3), and as many."""
    check_frames(frames)
    check_are_tokens(tokens)
    wanted = (len(frames), *patch_grid(frames.shape[1], frames.shape[2], patch_size))
    if tuple(tokens.shape) != wanted:
        raise ShapeError(f"tokens are {tuple(tokens.shape)}: they must be {wanted} for frames {tuple(frames.shape)}")


def check_are_tokens(tokens: Tensor) -> None:
    """Raise ShapeError unless tokens are int64 (B, h, w)."""
    if tokens.ndim != 3 or tokens.dtype != torch.int64:
        raise ShapeError(f"tokens are {tokens.dtype} {tuple(tokens.shape)}: they must be int64 (B, h, w)")


def in_steps(slopes: Tensor, codebook: Codebook) -> Tensor:
    """Turn pixels less frames, taken back to what `up` takes, into slopes of the squared error by a codebook's step."""
    return slopes * (510 * codebook.step)


def _pixels(x: Tensor) -> Tensor:
    """Turn what the decoder gives into levels between 0 and 255, before they are rounded."""
    return ((x + 0.5) * 255).clamp(0, 255)
