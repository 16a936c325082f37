"""Errors, PSNR, SSIM, MS-SSIM and sharpness of pairs whose figures are known."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics.functional.image import multiscale_structural_similarity_index_measure
from torchmetrics.functional.image.psnr import peak_signal_noise_ratio

from bisquit.errors import FrameError, ShapeError
from bisquit.evaluation import Reconstruction, ReconstructionMeter
from bisquit.evaluation.reconstruction import MS_SSIM_WEIGHTS


def measure(*pairs: tuple[Tensor, Tensor]) -> Reconstruction:
    meter = ReconstructionMeter()
    for frames, reconstructions in pairs:
        meter.update(frames, reconstructions)
    return meter.compute()


def grey(value: int, frames: int = 1) -> Tensor:
    return torch.full((frames, 12, 16, 3), value, dtype=torch.uint8)


def noise(frames: int, seed: int, height: int = 12, width: int = 16) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (frames, height, width, 3), dtype=torch.uint8, generator=generator)


def blurred(frames: Tensor) -> Tensor:
    mean = F.avg_pool2d(frames.permute(0, 3, 1, 2).float(), 3, stride=1, padding=1, count_include_pad=False)
    return mean.round().to(torch.uint8).permute(0, 2, 3, 1)


def stripes(contrast: int) -> Tensor:
    """Columns of 100 and 100 + contrast in turns of two."""
    columns = 100 + contrast * (torch.arange(16) // 2 % 2)
    return columns.to(torch.uint8)[None, None, :, None].expand(1, 12, 16, 3).contiguous()


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


def test_equal_frames_are_as_similar_and_as_sharp_as_can_be():
    frames = noise(2, seed=0, height=100, width=150)
    equal = measure((frames, frames))
    assert equal.ms_ssim == pytest.approx(1, abs=1e-6)
    assert equal.sharpness == 1


def test_ms_ssim_is_that_of_torchmetrics_with_the_papers_first_four_weights():
    frames = noise(3, seed=0, height=100, width=150)
    remade = torch.cat((blurred(frames[:2]), noise(1, seed=1, height=100, width=150)))
    kept = 0.0448 + 0.2856 + 0.3001 + 0.2363
    wanted = multiscale_structural_similarity_index_measure(
        remade.permute(0, 3, 1, 2) / 255,
        frames.permute(0, 3, 1, 2) / 255,
        data_range=1.0,
        betas=(0.0448 / kept, 0.2856 / kept, 0.3001 / kept, 0.2363 / kept),
    )
    measured = measure((frames, remade))
    assert measured.ms_ssim == pytest.approx(float(wanted), abs=1e-6)
    assert 0 < measured.ms_ssim < 0.9
    assert sum(MS_SSIM_WEIGHTS) == pytest.approx(1)


def test_frames_too_small_for_four_scales_have_no_ms_ssim():
    for height, width in ((98, 150), (150, 98)):
        frames = noise(1, seed=0, height=height, width=width)
        assert measure((frames, frames)).ms_ssim is None
    frames = noise(1, seed=0, height=99, width=99)
    assert measure((frames, frames)).ms_ssim == pytest.approx(1, abs=1e-6)


def test_sharpness_is_the_ratio_of_the_edges_contrasts():
    assert measure((stripes(100), stripes(25))).sharpness == pytest.approx(0.25)
    assert measure((stripes(40), stripes(100))).sharpness == pytest.approx(2.5)
    turned = measure((stripes(100).transpose(1, 2).contiguous(), stripes(25).transpose(1, 2).contiguous()))
    assert turned.sharpness == pytest.approx(0.25)


def test_blurred_frames_are_less_sharp():
    frames = noise(2, seed=0)
    assert measure((frames, blurred(frames))).sharpness < 0.5


def test_sharpness_goes_by_luma():
    red, blue = stripes(100), stripes(100)
    red[..., 1:] = 100
    blue[..., :2] = 100
    assert measure((stripes(100), red)).sharpness == pytest.approx(0.299)
    assert measure((stripes(100), blue)).sharpness == pytest.approx(0.114)


def test_flat_frames_do_not_decide_on_sharpness():
    frames, reconstructions = torch.cat((stripes(100), grey(100))), torch.cat((stripes(50), grey(101)))
    assert measure((frames, reconstructions)).sharpness == pytest.approx(0.5)
    assert measure((grey(100), grey(100))).sharpness is None


def test_batches_do_not_change_the_figures():
    frames, reconstructions = noise(5, seed=0, height=99, width=99), noise(5, seed=1, height=99, width=99)
    whole = measure((frames, reconstructions))
    parts = measure((frames[:2], reconstructions[:2]), (frames[2:], reconstructions[2:]))
    assert (parts.frames, parts.mse) == (whole.frames, whole.mse) == (5, whole.mse)
    assert parts.psnr_db == pytest.approx(whole.psnr_db, abs=1e-12)
    assert parts.ssim == pytest.approx(whole.ssim, abs=1e-6)
    assert parts.ms_ssim == pytest.approx(whole.ms_ssim, abs=1e-6)
    assert parts.sharpness == pytest.approx(whole.sharpness, abs=1e-12)


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
