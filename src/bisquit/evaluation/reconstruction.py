"""How much of the frames comes back through the tokens: squared error, PSNR and SSIM, gathered batch by batch.

The squared error is summed in integers, so that it and the PSNR do not depend on how the frames were batched. SSIM is
that of Wang et al. 2004, as torchmetrics computes it, with the 11 x 11 Gaussian window (sigma 1.5) of the paper.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torchmetrics.image.ssim import StructuralSimilarityIndexMeasure

from bisquit.errors import FrameError, ShapeError

SSIM_WINDOW_PX = 11


@dataclass(frozen=True)
class Reconstruction:
    """Means over `frames` frames."""

    mse: float
    """Mean squared error of values in [-0.5, 0.5], that is, of differences of bytes divided by 255."""
    psnr_db: float
    """Mean of each frame's own PSNR; at least the PSNR of `mse`, since the logarithm is concave."""
    ssim: float
    """Mean structural similarity of the channels, 1 for equal frames."""
    frames: int


class ReconstructionMeter:
    """Gathers pairs of frames and their reconstructions; the frames of all batches must have one size.

    An exact reconstruction, whose PSNR would be infinite, counts as if one of its samples were off by one: the largest
    PSNR that an unequal frame of that size can have (94.7 dB at 100 x 150).
    """

    def __init__(self) -> None:
        self._frames = 0
        self._samples = 0
        self._squared_error = 0
        self._psnr_db = 0.0
        self._ssim = StructuralSimilarityIndexMeasure(data_range=1.0)

    def update(self, frames: Tensor, reconstructions: Tensor) -> None:
        """Add a batch of uint8 (B, H, W, 3), both on one device. Raises ShapeError on other types and shapes."""
        _check(frames, reconstructions)
        errors = (frames.int() - reconstructions.int()).square().sum(dim=(1, 2, 3), dtype=torch.int64)
        samples = frames[0].numel()
        mean_errors = errors.clamp(min=1).double() / (samples * 255**2)
        self._frames += len(frames)
        self._samples += frames.numel()
        self._squared_error += int(errors.sum())
        self._psnr_db += float(-10 * mean_errors.log10().sum())
        self._ssim.to(frames.device).update(_channels_first(reconstructions), _channels_first(frames))

    def compute(self) -> Reconstruction:
        """Return the means over all frames so far. Raises FrameError if there are none."""
        if not self._frames:
            raise FrameError("no frames were reconstructed: there is nothing to average")
        return Reconstruction(
            mse=self._squared_error / (self._samples * 255**2),
            psnr_db=self._psnr_db / self._frames,
            ssim=float(torch.as_tensor(self._ssim.compute())),
            frames=self._frames,
        )


def _channels_first(frames: Tensor) -> Tensor:
    return frames.permute(0, 3, 1, 2).float() / 255


def _check(frames: Tensor, reconstructions: Tensor) -> None:
    for name, batch in (("frames", frames), ("reconstructions", reconstructions)):
        if batch.dtype != torch.uint8 or batch.ndim != 4 or batch.shape[-1] != 3 or not len(batch):
            raise ShapeError(f"{name} are {batch.dtype} {tuple(batch.shape)}: they must be uint8 (B, H, W, 3), B > 0")
    if frames.shape != reconstructions.shape:
        raise ShapeError(f"frames are {tuple(frames.shape)}, their reconstructions {tuple(reconstructions.shape)}")
    height, width = frames.shape[1:3]
    if min(height, width) <= SSIM_WINDOW_PX // 2:  # the window is reflected about the borders
        raise ShapeError(
            f"frames are {height} x {width}: SSIM needs {SSIM_WINDOW_PX // 2 + 1} rows and columns at least"
        )
