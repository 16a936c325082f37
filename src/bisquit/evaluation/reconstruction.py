"""How much of the frames comes back through the tokens: error, PSNR, SSIM, MS-SSIM, sharpness, gathered by batches.

The squared error is summed in integers, so that it and the PSNR do not depend on how the frames were batched. SSIM is
that of Wang et al. 2004, as torchmetrics computes it, with the 11 x 11 Gaussian window (sigma 1.5) of the paper.

MS-SSIM is that of Wang, Simoncelli and Bovik, "Multiscale structural similarity for image quality assessment", 2003, as
torchmetrics computes it with the same window, and negative terms taken as 0. The paper's five scales need frames larger
than ours: at the fifth, 100 rows are 6, fewer than the window's. So there are four, with the paper's first four weights
divided by their sum: 0.0517, 0.3295, 0.3462, 0.2726.

Sharpness is the mean magnitude of the Sobel gradient of the reconstructions' luma (ITU-R BT.601, without the outermost
pixels) over that of the frames' luma. It is one ratio of means over all frames and not a mean of ratios, so that flat
frames, which have no edges to lose, do not decide on it. Edges that a reconstruction invents, such as those between
patches, count as well: it tells blur, and no more.

torchmetrics takes seconds to import, and so is not before something is measured: whoever asks for help need not wait.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bisquit.errors import FrameError, ShapeError

SSIM_WINDOW_PX = 11

MS_SSIM_SCALES = 4
MS_SSIM_PAPER_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
MS_SSIM_WEIGHTS = tuple(
    weight / sum(MS_SSIM_PAPER_WEIGHTS[:MS_SSIM_SCALES]) for weight in MS_SSIM_PAPER_WEIGHTS[:MS_SSIM_SCALES]
)
"""The finest scale first; they sum to 1."""
MS_SSIM_SMALLEST_PX = SSIM_WINDOW_PX * (MS_SSIM_SCALES - 1) ** 2
"""99: with fewer rows or columns, torchmetrics takes the frames to be too small for four scales."""


@dataclass(frozen=True)
class Reconstruction:
    """Means over `frames` frames."""

    mse: float
    """Mean squared error of values in [-0.5, 0.5], that is, of differences of bytes divided by 255."""
    psnr_db: float
    """Mean of each frame's own PSNR; at least the PSNR of `mse`, since the logarithm is concave."""
    ssim: float
    """Mean structural similarity of the channels, 1 for equal frames."""
    ms_ssim: float | None
    """Mean structural similarity of the channels at four scales; None for frames of fewer than 99 rows or columns."""
    sharpness: float | None
    """Mean gradient of the reconstructions over that of the frames: 1 is as sharp, below is blurred, above has edges
    that the frames have not. None where the frames have no edges at all."""
    frames: int


class ReconstructionMeter:
    """Gathers pairs of frames and their reconstructions; the frames of all batches must have one size.

    An exact reconstruction, whose PSNR would be infinite, counts as if one of its samples were off by one: the largest
    PSNR that an unequal frame of that size can have (94.7 dB at 100 x 150).
    """

    def __init__(self) -> None:
        from torchmetrics.image.ssim import StructuralSimilarityIndexMeasure

        self._frames = 0
        self._samples = 0
        self._squared_error = 0
        self._psnr_db = 0.0
        self._ssim = StructuralSimilarityIndexMeasure(data_range=1.0)
        self._ms_ssim: float | None = 0.0
        self._gradients = 0.0
        self._remade_gradients = 0.0

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
        self._gradients += _gradients(frames)
        self._remade_gradients += _gradients(reconstructions)
        remade, wanted = _channels_first(reconstructions), _channels_first(frames)
        self._ssim.to(frames.device).update(remade, wanted)
        if self._ms_ssim is None or min(frames.shape[1:3]) < MS_SSIM_SMALLEST_PX:
            self._ms_ssim = None
        else:
            self._ms_ssim += float(_ms_ssim(remade, wanted).double().sum())

    def compute(self) -> Reconstruction:
        """Return the means over all frames so far. Raises FrameError if there are none."""
        if not self._frames:
            raise FrameError("no frames were reconstructed: there is nothing to average")
        return Reconstruction(
            mse=self._squared_error / (self._samples * 255**2),
            psnr_db=self._psnr_db / self._frames,
            ssim=float(torch.as_tensor(self._ssim.compute())),
            ms_ssim=None if self._ms_ssim is None else self._ms_ssim / self._frames,
            sharpness=self._remade_gradients / self._gradients if self._gradients else None,
            frames=self._frames,
        )


def _channels_first(frames: Tensor) -> Tensor:
    return frames.permute(0, 3, 1, 2).float() / 255


def _ms_ssim(reconstructions: Tensor, frames: Tensor) -> Tensor:
    """Return the similarity of each pair of float (B, 3, H, W) in [0, 1], as float32 (B,)."""
    from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

    return multiscale_structural_similarity_index_measure(
        reconstructions,
        frames,
        kernel_size=SSIM_WINDOW_PX,
        reduction="none",
        data_range=1.0,
        betas=MS_SSIM_WEIGHTS,
        normalize="relu",
    )


def _gradients(frames: Tensor) -> float:
    """Return the sum of the Sobel gradient's magnitudes over all inner pixels of uint8 (B, H, W, 3)."""
    red, green, blue = frames.int().unbind(dim=3)
    luma = 299 * red + 587 * green + 114 * blue  # in thousandths: whole numbers, so that flat frames have exactly 0
    by_rows = luma[:, :-2] + 2 * luma[:, 1:-1] + luma[:, 2:]  # (B, H - 2, W)
    by_columns = luma[:, :, :-2] + 2 * luma[:, :, 1:-1] + luma[:, :, 2:]  # (B, H, W - 2)
    across = by_rows[:, :, 2:] - by_rows[:, :, :-2]  # (B, H - 2, W - 2)
    down = by_columns[:, 2:] - by_columns[:, :-2]
    return float(torch.hypot(across.double(), down.double()).sum())


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
