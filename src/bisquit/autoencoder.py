"""The patch auto-encoder: frames to a grid of latent vectors, and back.

    x (B, 3, H, W) ──patches──> (B, 3 p p, h, w) ──linear──> (B, width, h, w) ──residual 3 x 3 convolutions──> latents
    x' (B, 3, H, W) <─patches── (B, 3 p p, h, w) <─linear── (B, width, h, w) <─residual 3 x 3 convolutions── latents

with h = H / p and w = W / p for patches of p x p pixels. It is the first stage of the tokenizer; a quantizer stands
between its two halves. Any H and W that p divides work, for every layer slides over the grid.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bisquit.config import Settings, require
from bisquit.errors import ShapeError


@dataclass(frozen=True)
class AutoEncoderConfig(Settings):
    """The shape of a `PatchAutoEncoder`."""

    patch_size: int = 5
    """Side of a square patch in pixels; one patch becomes one token."""
    width: int = 128
    """Channels of the latent grid and of every convolution."""
    depth: int = 1
    """Residual blocks of two 3 x 3 convolutions in the encoder."""
    decoder_depth: int = 0
    """Those in the decoder; 0 for as many as in the encoder."""

    def __post_init__(self) -> None:
        require(1 <= self.patch_size <= 64, "patch_size", self.patch_size, "between 1 and 64")
        require(1 <= self.width <= 8192, "width", self.width, "between 1 and 8192")
        require(0 <= self.depth <= 256, "depth", self.depth, "between 0 and 256")
        require(0 <= self.decoder_depth <= 256, "decoder_depth", self.decoder_depth, "between 0 and 256")


class ResidualBlock(nn.Module):
    """x + conv(gelu(conv(gelu(x)))), both 3 x 3, the grid's size kept; starts as the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, kernel_size=3, padding=1)
        self.second = nn.Conv2d(width, width, kernel_size=3, padding=1)
        nn.init.kaiming_normal_(self.first.weight, nonlinearity="relu")
        nn.init.zeros_(self.second.weight)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(F.gelu(self.first(F.gelu(x))))


class PatchAutoEncoder(nn.Module):
    """An encoder and a decoder; what they compute is drawn at the top of this module."""

    def __init__(self, config: AutoEncoderConfig) -> None:
        super().__init__()
        self.config = config
        values = 3 * config.patch_size**2
        self.encoder = nn.Sequential(
            nn.PixelUnshuffle(config.patch_size),
            nn.Conv2d(values, config.width, kernel_size=1),
            *(ResidualBlock(config.width) for _ in range(config.depth)),
        )
        self.decoder = nn.Sequential(
            *(ResidualBlock(config.width) for _ in range(config.decoder_depth or config.depth)),
            nn.Conv2d(config.width, values, kernel_size=1),
            nn.PixelShuffle(config.patch_size),
        )
        self._initialise()

    def _initialise(self) -> None:
        """Start with latents of about unit size, where GELU bends, and with frames near grey.

        Pixels are a quarter in size, hence the 4. PyTorch's own start leaves latents so small that all is nearly
        linear, and slow to learn.
        """
        values, width = 3 * self.config.patch_size**2, self.config.width
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]
        nn.init.normal_(self.encoder[1].weight, std=4 / math.sqrt(values))  # type: ignore[arg-type]
        nn.init.normal_(self.decoder[-2].weight, std=0.1 / math.sqrt(width))  # type: ignore[arg-type]

    def encode(self, x: Tensor) -> Tensor:
        """Turn frames into latents.

        x: (B, 3, H, W) float in [-0.5, 0.5]. Returns (B, width, H / p, W / p). Raises ShapeError if p does not divide H
        and W.
        """
        p = self.config.patch_size
        if x.ndim != 4 or x.shape[1] != 3 or x.shape[2] % p or x.shape[3] % p:
            raise ShapeError(
                f"frames are {tuple(x.shape)}: they must be (B, 3, H, W) with H and W multiples of the patch size {p}"
            )
        latents: Tensor = self.encoder(x)
        return latents

    def decode(self, latents: Tensor) -> Tensor:
        """Turn latents (B, width, h, w) into frames (B, 3, h p, w p), about [-0.5, 0.5] but not clipped."""
        frames: Tensor = self.decoder(latents)
        return frames


class PreparedEncoder:
    """An encoder and a projection of its latents as they are now, arranged for many frames on a CPU.

    The function is `projection(encode(to_float(frames)))`, in float32 and to rounding, with a fifth of the products:
    the scale of pixels is part of the first linear map; 3 x 3 convolutions are Winograd's; and since all is linear
    after the last GELU, the last of them gives the projection's few channels at once.
    """

    def __init__(self, autoencoder: PatchAutoEncoder, projection: nn.Conv2d) -> None:
        """projection: a 1 x 1 convolution."""
        self._patch_size = p = autoencoder.config.patch_size
        _, stem, *blocks = autoencoder.encoder.children()
        weight, bias = _float64(stem)
        weight = weight.view(-1, 3, p, p).permute(0, 2, 3, 1).flatten(1)  # pixels as they lie in memory
        self._stem = (weight / 255).float(), (bias - weight.sum(dim=1) / 2).float()
        project, bias = _float64(projection)
        project = project[:, :, 0, 0]  # (outputs, width)
        convolutions = [convolution for block in blocks for convolution in block.children()]
        self._winograd = [WinogradConv3x3(*_float64(convolution)) for convolution in convolutions[:-1]]
        self._last: Tensor | None = None
        if convolutions:
            kernel, last_bias = _float64(convolutions[-1])
            self._last = torch.einsum("oc,cikl->oikl", project, kernel).float()
            self._last = self._last.contiguous(memory_format=torch.channels_last)
            bias = bias + project @ last_bias
        self._projection = project.float(), bias.float()

    @torch.inference_mode()
    def __call__(self, frames: Tensor) -> Tensor:
        """Turn frames, uint8 (B, H, W, 3) on the CPU, into projected latents, float32 (B, outputs, h, w)."""
        p = self._patch_size
        x = pad_to_patches(frames.permute(0, 3, 1, 2).float(), p).permute(0, 2, 3, 1)
        x = x.unflatten(2, (-1, p)).unflatten(1, (-1, p)).transpose(2, 3).flatten(3)  # (B, h, w, p p 3)
        x = F.linear(x, *self._stem)
        for first, second in zip(self._winograd[:-1:2], self._winograd[1::2], strict=True):
            x = x + second(F.gelu(first(F.gelu(x))))
        projected = F.linear(x, *self._projection).permute(0, 3, 1, 2)
        if self._last is None:
            return projected
        hidden = F.gelu(self._winograd[-1](F.gelu(x)))
        return projected + F.conv2d(hidden.permute(0, 3, 1, 2), self._last, padding=1)


class WinogradConv3x3:
    """A 3 x 3 convolution of grids (B, h, w, channels), zeros around them: 4 x 4 outputs from 36 products, not 144.

    F(4 x 4, 3 x 3) of Lavin and Gray 2015, arXiv:1509.09308: inputs and weights are taken to 6 x 6 points, multiplied
    there, and taken back. The points are 0, 1, -1, 2, -2 and infinity, for rows and for columns.
    """

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        """weight: (outputs, inputs, 3, 3) float64. bias: (outputs,)."""
        q = [[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]]
        weight_points = torch.tensor(q, dtype=torch.float64) / 24
        b = [[4, 0, -5, 0, 1, 0], [0, -4, -4, 1, 1, 0], [0, 4, -4, -1, 1, 0]]
        b += [[0, -2, -1, 2, 1, 0], [0, 2, -1, -2, 1, 0], [0, 4, 0, -5, 0, 1]]
        self._input_points = torch.tensor(b, dtype=torch.float32)
        a = torch.tensor([[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]])
        self._outputs = torch.kron(a, a).float()  # (16, 36)
        at_points = torch.einsum("ai,bj,ocij->abco", weight_points, weight_points, weight)
        self._weight = at_points.flatten(0, 1).float().contiguous()  # (36, inputs, outputs)
        self._bias = bias.float()

    def __call__(self, x: Tensor) -> Tensor:
        """Map x (B, h, w, inputs), float32, to (B, h, w, outputs)."""
        batch, h, w, channels = x.shape
        rows, columns = -(-h // 4), -(-w // 4)
        x = F.pad(x, (0, 0, 1, 4 * columns - w + 1, 1, 4 * rows - h + 1))
        tiles = x.unfold(1, 6, 4).unfold(2, 6, 4).permute(4, 5, 0, 1, 2, 3)  # (6, 6, B, rows, columns, inputs)
        points = self._input_points @ tiles.reshape(6, -1)
        points = self._input_points @ points.view(6, 6, -1)
        products = points.view(36, -1, channels) @ self._weight
        y = (self._outputs @ products.flatten(1)).view(4, 4, batch, rows, columns, -1)
        return y.permute(2, 3, 0, 4, 1, 5).reshape(batch, 4 * rows, 4 * columns, -1)[:, :h, :w] + self._bias


def _float64(convolution: nn.Module) -> tuple[Tensor, Tensor]:
    """Return a convolution's weight and bias."""
    assert isinstance(convolution, nn.Conv2d)
    assert convolution.bias is not None
    return convolution.weight.detach().double(), convolution.bias.detach().double()


def patch_grid(height: int, width: int, patch_size: int) -> tuple[int, int]:
    """Return how many rows and columns of patches a frame has; a patch that is begun counts."""
    return -(-height // patch_size), -(-width // patch_size)


def pad_to_patches(x: Tensor, patch_size: int) -> Tensor:
    """Grow frames (B, 3, H, W) at the right and the bottom, edges repeated, until `patch_size` divides H and W."""
    bottom, right = -x.shape[2] % patch_size, -x.shape[3] % patch_size
    return F.pad(x, (0, right, 0, bottom), mode="replicate") if bottom or right else x


def to_float(frames: Tensor) -> Tensor:
    """Turn frames, uint8 (B, H, W, 3), into float32 (B, 3, H, W) in [-0.5, 0.5]. Raises ShapeError on other arrays."""
    check_frames(frames)
    return frames.permute(0, 3, 1, 2).to(torch.float32) / 255 - 0.5  # stays channels-last, which convolutions like


def check_frames(frames: Tensor) -> None:
    """Raise ShapeError unless frames are uint8 (B, H, W, 3), none empty."""
    if frames.dtype != torch.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or frames.numel() == 0:
        raise ShapeError(
            f"frames are {frames.dtype} {tuple(frames.shape)}: they must be uint8 (B, H, W, 3), none empty"
        )


def to_uint8(x: Tensor) -> Tensor:
    """Turn frames from float (B, 3, H, W) into uint8 (B, H, W, 3); what lies outside of [-0.5, 0.5] is clipped."""
    return ((x.float() + 0.5) * 255).round_().clamp_(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()
