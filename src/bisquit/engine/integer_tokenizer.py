"""The tokenizer in integers: the same tokens of a picture, and the same pixels of tokens, on every machine.

The weights of any trained tokenizer with binary spherical quantisation are rounded as they are, without calibration, as
`IntegerPrior` rounds a prior's: each output's weights to int8 with a step of their own, and so each cell of the grid,
as it comes. A cell's step may differ from its neighbour's, so that a 3 x 3 convolution is nine products, one for each
of its taps, and what they give is scaled cell by cell and then added, tap after tap:

    x (B, h, w, width) ──int8──products (B, h, w, 9, width)──x each cell's step──shift and add──x each output's step──+

Plain PyTorch, on a CPU or a GPU of CUDA.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bisquit.autoencoder import check_frames, pad_to_patches
from bisquit.engine import arithmetic
from bisquit.engine.arithmetic import Codes, product, to_codes
from bisquit.errors import ModelError
from bisquit.quantizers import BSQ
from bisquit.quantizers.bsq import pack_bits, unpack_bits
from bisquit.tokenizer import Tokenizer

TAPS = tuple((row, column) for row in range(3) for column in range(3))


class IntegerTokenizer(nn.Module):
    """A tokenizer rounded to integers: tokens and pixels are equal wherever they are computed, in any batch."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Round a tokenizer; it is left as it is.

        Raises ModelError if a weight is not finite or the quantizer another than BSQ.
        """
        super().__init__()
        if not isinstance(tokenizer.quantizer, BSQ):
            raise ModelError("only tokenizers of binary spherical quantisation can be rounded to integers")
        if not all(parameter.isfinite().all() for parameter in tokenizer.parameters()):
            raise ModelError("the tokenizer has weights that are not finite: it is damaged, or its training diverged")
        self.config, self.bits = tokenizer.config, tokenizer.bits
        self.patch_size = tokenizer.patch_size
        _, stem, *encoder = tokenizer.autoencoder.encoder.children()
        *decoder, last, _ = tokenizer.autoencoder.decoder.children()
        self.stem = IntegerLinear(stem)
        self.encoder = nn.ModuleList(IntegerBlock(block) for block in encoder)
        self.down = IntegerLinear(tokenizer.quantizer.down)
        self.up = IntegerLinear(tokenizer.quantizer.up)
        self.decoder = nn.ModuleList(IntegerBlock(block) for block in decoder)
        self.last = IntegerLinear(last)

    @torch.no_grad()
    def project(self, frames: Tensor) -> Tensor:
        """Turn frames, uint8 (B, H, W, 3), into what tokens are the signs of, float32 (B, bits, h, w)."""
        p = self.patch_size
        check_frames(frames)
        x = pad_to_patches(frames.to(self.stem.bias.device).permute(0, 3, 1, 2).float(), p)
        x = (2 * x - 255) * (1 / 510)  # [-0.5, 0.5] by one rounding
        x = self.stem(F.pixel_unshuffle(x, p).permute(0, 2, 3, 1))
        for block in self.encoder:
            x = block(x)
        return self.down(x).permute(0, 3, 1, 2)

    def encode(self, frames: Tensor) -> Tensor:
        """Turn frames, uint8 (B, H, W, 3), into tokens, int64 (B, h, w)."""
        return pack_bits(self.project(frames) >= 0)

    @torch.no_grad()
    def decode(self, tokens: Tensor, size: tuple[int, int]) -> Tensor:
        """Turn tokens, int64 (B, h, w), into frames, uint8 (B, H, W, 3), cropped to size (H, W)."""
        corners = unpack_bits(tokens.to(self.last.bias.device), self.bits).float().permute(0, 2, 3, 1) * 2 - 1
        scale = torch.full_like(corners[..., :1], 1 / math.sqrt(self.bits))
        x = self.up.of_codes(Codes(corners, scale))
        for block in self.decoder:
            x = block(x)
        x = F.pixel_shuffle(self.last(x).permute(0, 3, 1, 2), self.patch_size)
        pixels = ((x + 0.5) * 255).round().clamp(0, 255).to(torch.uint8)
        return pixels.permute(0, 2, 3, 1)[:, : size[0], : size[1]].contiguous()


class IntegerLinear(nn.Module):
    """A 1 x 1 convolution of rows (..., inputs)."""

    codes: Tensor
    step: Tensor
    bias: Tensor

    def __init__(self, convolution: nn.Module) -> None:
        super().__init__()
        weight, bias = _weights(convolution)
        rounded = to_codes(weight.flatten(1))
        self.register_buffer("codes", rounded.codes)
        self.register_buffer("step", rounded.step)
        self.register_buffer("bias", bias)

    def forward(self, x: Tensor) -> Tensor:
        return arithmetic.linear(x, Codes(self.codes, self.step), self.bias)

    def of_codes(self, rows: Codes) -> Tensor:
        """Map rows that are integers already."""
        return product(rows.codes, self.codes.T) * (rows.step * self.step[:, 0]) + self.bias


class IntegerConv3x3(nn.Module):
    """A 3 x 3 convolution of grids (B, h, w, inputs), zeros around them."""

    codes: Tensor
    step: Tensor
    bias: Tensor

    def __init__(self, convolution: nn.Module) -> None:
        super().__init__()
        weight, bias = _weights(convolution)  # (outputs, inputs, 3, 3)
        rounded = to_codes(weight.flatten(1))
        taps = rounded.codes.view_as(weight).permute(2, 3, 0, 1).flatten(0, 2)  # (9 outputs, inputs)
        self.register_buffer("codes", taps.contiguous())
        self.register_buffer("step", rounded.step[:, 0])
        self.register_buffer("bias", bias)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[1:3]
        cells = to_codes(x)
        of_taps = product(cells.codes, self.codes.T) * cells.step
        of_taps = F.pad(of_taps, (0, 0, 1, 1, 1, 1)).unflatten(3, (9, -1))
        total = torch.zeros_like(of_taps[:, :height, :width, 0])
        for tap, (row, column) in enumerate(TAPS):  # one after another: every order has its own rounding
            total += of_taps[:, row : row + height, column : column + width, tap]
        return total * self.step + self.bias


class IntegerBlock(nn.Module):
    """x + conv(gelu(conv(gelu(x)))), in integers."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        first, second = block.children()
        self.first, self.second = IntegerConv3x3(first), IntegerConv3x3(second)

    def forward(self, x: Tensor) -> Tensor:
        hidden: Tensor = self.second(arithmetic.gelu(self.first(arithmetic.gelu(x))))
        return x + hidden


def _weights(convolution: nn.Module) -> tuple[Tensor, Tensor]:
    """Return a convolution's weight and bias, copied, float32."""
    assert isinstance(convolution, nn.Conv2d)
    assert convolution.bias is not None
    return convolution.weight.detach().float().clone(), convolution.bias.detach().float().clone()
