"""Errors, PSNR and SSIM of pairs whose figures are known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torchmetrics.functional.image.psnr import peak_signal_noise_ratio

from bisquit.errors import FrameError, ShapeError
from bisquit.evaluation import Reconstruction, ReconstructionMeter


def measure(*pairs: tuple[Tensor, Tensor]) -> Reconstruction:
    meter = ReconstructionMeter()
    for frames, reconstructions in pairs:
        meter.update(frames, reconstructions)
    return meter.compute()


def grey(value: int, frames: int = 1) -> Tensor:
    return torch.full((frames, 12, 16, 3), value, dtype=torch.uint8)


def noise(frames: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (frames, 12, 16, 3), dtype=torch.uint8, generator=generator)


def test_an_even_error_has_its_square_as_mse():
    measured = measure((grey(100), grey(151)))  # 51 / 255 = 0.2
    assert measured.mse == pytest.approx(0.04)
    assert measured.psnr_db == pytest.approx(10 * math.log10(1 / 0.04))


def test_errors_of_both_signs_count_alike():
    assert measure((grey(0), grey(255))).mse == measure((grey(255), grey(0))).mse == 1.0


def test_psnr_is_the_mean_of_the_frames_and_not_that_of_the_mean_error():
    frames, reconstructions = torch.cat((grey(0), grey(0))), torch.cat((grey(255), grey(51)))
    assert measure((frames, reconstructions)).psnr_db == pytest.approx((0 + 10 * math.log10(25)) / 2)


def test_psnr_agrees_with_torchmetrics():
    frames, reconstructions = noise(3, seed=0), noise(3, seed=1)
    wanted = peak_signal_noise_ratio(reconstructions / 255, frames / 255, data_range=1.0, dim=(1, 2, 3))
    assert measure((frames, reconstructions)).psnr_db == pytest.approx(float(wanted), abs=1e-4)


def test_equal_frames_have_the_psnr_of_one_sample_off_by_one():
    almost = noise(1, seed=0).clamp(min=1)
    off_by_one = almost.clone()
    off_by_one[0, 3, 4, 1] -= 1
    equal = measure((almost, almost))
    assert equal.mse == 0
    assert equal.ssim == pytest.approx(1, abs=1e-6)
    assert equal.psnr_db == pytest.approx(measure((almost, off_by_one)).psnr_db)
    assert equal.psnr_db == pytest.approx(10 * math.log10(255**2 * 12 * 16 * 3))


def test_ssim_of_flat_frames_is_the_luminance_term():
    a, b, c1 = 100 / 255, 200 / 255, 0.01**2
    assert measure((grey(100), grey(200))).ssim == pytest.approx((2 * a * b + c1) / (a * a + b * b + c1), abs=1e-4)


def test_batches_do_not_change_the_figures():
    frames, reconstructions = noise(5, seed=0), noise(5, seed=1)
    whole = measure((frames, reconstructions))
    parts = measure((frames[:2], reconstructions[:2]), (frames[2:], reconstructions[2:]))
    assert (parts.frames, parts.mse) == (whole.frames, whole.mse) == (5, whole.mse)
    assert parts.psnr_db == pytest.approx(whole.psnr_db, abs=1e-12)
    assert parts.ssim == pytest.approx(whole.ssim, abs=1e-6)


def test_no_frames_are_an_error():
    with pytest.raises(FrameError, match="nothing to average"):
        ReconstructionMeter().compute()


@pytest.mark.parametrize(
    ("frames", "reconstructions", "complaint"),
    [
        (grey(0).float(), grey(0), "frames are torch.float32"),
        (grey(0), grey(0)[0], "reconstructions are"),
        (grey(0)[:0], grey(0)[:0], "B > 0"),
        (grey(0), grey(0, frames=2), "their reconstructions"),
        (grey(0)[:, :5], grey(0)[:, :5], "5 x 16: SSIM needs 6"),
    ],
)
def test_unfit_batches_are_named(frames: Tensor, reconstructions: Tensor, complaint: str):
    with pytest.raises(ShapeError, match=complaint):
        ReconstructionMeter().update(frames, reconstructions)
