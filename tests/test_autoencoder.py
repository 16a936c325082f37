"""The patch auto-encoder: any patch, any grid; frames to floats and back."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bisquit.autoencoder import (
    AutoEncoderConfig,
    PatchAutoEncoder,
    PreparedEncoder,
    WinogradConv3x3,
    pad_to_patches,
    to_float,
    to_uint8,
)
from bisquit.errors import ConfigError, ShapeError


@pytest.mark.parametrize("patch_size", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("grid", [(1, 1), (2, 3), (4, 1)])
@pytest.mark.parametrize("depth", [0, 2])
def test_any_patch_grid_and_depth_go_there_and_back(patch_size: int, grid: tuple[int, int], depth: int):
    model = PatchAutoEncoder(AutoEncoderConfig(patch_size=patch_size, width=6, depth=depth))
    x = torch.zeros(2, 3, grid[0] * patch_size, grid[1] * patch_size)
    latents = model.encode(x)
    assert latents.shape == (2, 6, *grid)
    assert model.decode(latents).shape == x.shape


def test_a_patch_becomes_the_latent_at_its_place():
    model = PatchAutoEncoder(AutoEncoderConfig(patch_size=2, width=12, depth=0))
    x = torch.rand(1, 3, 4, 6, generator=torch.Generator().manual_seed(0)) - 0.5
    changed = x.clone()
    changed[:, :, 2:4, 0:2] += 0.1  # the patch in row 1 and column 0
    differs = (model.encode(changed) != model.encode(x)).any(dim=1)[0]
    assert differs.tolist() == [[False, False, False], [True, False, False]]


def test_a_latent_becomes_the_patch_at_its_place():
    model = PatchAutoEncoder(AutoEncoderConfig(patch_size=2, width=4, depth=0))
    latents = torch.zeros(1, 4, 2, 3)
    changed = latents.clone()
    changed[:, :, 1, 2] = 1.0
    differs = (model.decode(changed) != model.decode(latents)).any(dim=1)[0]
    assert differs[2:, 4:].all()
    assert differs.sum() == 4


def test_an_auto_encoder_of_enough_channels_can_keep_everything():
    model = PatchAutoEncoder(AutoEncoderConfig(patch_size=2, width=12, depth=1))
    with torch.no_grad():
        for linear in (model.encoder[1], model.decoder[1]):
            linear.weight.copy_(torch.eye(12).view(12, 12, 1, 1))
            linear.bias.zero_()
    x = torch.rand(1, 3, 4, 6, generator=torch.Generator().manual_seed(0)) - 0.5
    torch.testing.assert_close(model.decode(model.encode(x)), x)


@pytest.mark.parametrize("shape", [(1, 3, 9, 10), (1, 3, 10, 9), (1, 4, 10, 10), (3, 10, 10)])
def test_frames_that_do_not_fit_are_refused(shape: tuple[int, ...]):
    model = PatchAutoEncoder(AutoEncoderConfig(patch_size=5, width=2))
    with pytest.raises(ShapeError) as error:
        model.encode(torch.zeros(shape))
    assert str(error.value) == (
        f"frames are {shape}: they must be (B, 3, H, W) with H and W multiples of the patch size 5"
    )


@pytest.mark.parametrize("grid", [(1, 1), (4, 8), (5, 7), (3, 2)])
def test_a_winograd_convolution_is_the_convolution(grid: tuple[int, int]):
    generator = torch.Generator().manual_seed(0)
    weight, bias = (torch.randn(shape, generator=generator, dtype=torch.float64) for shape in [(6, 3, 3, 3), (6,)])
    x = torch.randn(2, 3, *grid, generator=generator)
    wanted = F.conv2d(x.double(), weight, bias, padding=1).float()
    y = WinogradConv3x3(weight, bias)(x.permute(0, 2, 3, 1))
    torch.testing.assert_close(y.permute(0, 3, 1, 2), wanted, rtol=0, atol=1e-4)


@pytest.mark.parametrize("depth", [0, 1, 3])
@pytest.mark.parametrize(("patch_size", "size"), [(1, (3, 5)), (4, (20, 36)), (5, (11, 23))])
def test_a_prepared_encoder_gives_the_projected_latents(
    make_tokenizer, depth: int, patch_size: int, size: tuple[int, int]
):
    autoencoder = make_tokenizer(patch_size=patch_size, depth=depth).autoencoder
    projection = nn.Conv2d(8, 3, kernel_size=1)
    frames = torch.randint(256, (2, *size, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    projected = PreparedEncoder(autoencoder, projection)(frames)
    with torch.no_grad():
        wanted = projection(autoencoder.encode(pad_to_patches(to_float(frames), patch_size)))
    scale = wanted.abs().max()
    torch.testing.assert_close(projected / scale, wanted / scale, rtol=0, atol=1e-5)


def test_padding_repeats_the_edges_at_the_right_and_the_bottom():
    x = torch.arange(6.0).view(1, 1, 2, 3).expand(1, 3, 2, 3)
    padded = pad_to_patches(x, 4)
    wanted = [[0.0, 1, 2, 2], [3, 4, 5, 5], [3, 4, 5, 5], [3, 4, 5, 5]]
    assert padded[0].tolist() == [wanted] * 3


def test_frames_that_fit_are_not_padded():
    x = torch.zeros(1, 3, 4, 8)
    assert pad_to_patches(x, 4) is x


def test_a_frame_smaller_than_its_patch_is_padded():
    assert pad_to_patches(torch.ones(1, 3, 1, 2), 7).tolist() == torch.ones(1, 3, 7, 7).tolist()


def test_every_value_of_a_pixel_survives_floats():
    frames = torch.arange(256, dtype=torch.uint8).view(1, 16, 16, 1).repeat(1, 1, 1, 3)
    x = to_float(frames)
    assert x.dtype == torch.float32
    assert (x.min(), x.max()) == (-0.5, 0.5)
    assert torch.equal(to_uint8(x), frames)


def test_channels_keep_their_places():
    frames = torch.tensor([[[[255, 0, 0], [0, 255, 0], [0, 0, 255]]]], dtype=torch.uint8)
    assert to_float(frames)[0, :, 0].tolist() == [[0.5, -0.5, -0.5], [-0.5, 0.5, -0.5], [-0.5, -0.5, 0.5]]


def test_values_outside_are_clipped_and_others_rounded_to_the_nearest():
    x = torch.tensor([-7.0, 9.0, 0.4 / 255 - 0.5, 0.6 / 255 - 0.5]).view(1, 1, 2, 2).repeat(1, 3, 1, 1)
    assert to_uint8(x)[0, :, :, 0].tolist() == [[0, 255], [0, 1]]


@pytest.mark.parametrize(
    "frames",
    [torch.zeros(1, 2, 2, 3), torch.zeros(2, 2, 3, dtype=torch.uint8), torch.zeros(1, 3, 2, 2, dtype=torch.uint8)],
    ids=["float", "one frame", "channels first"],
)
def test_other_arrays_are_no_frames(frames: torch.Tensor):
    with pytest.raises(ShapeError, match="they must be uint8"):
        to_float(frames)


@pytest.mark.parametrize(("field", "value"), [("patch_size", 0), ("patch_size", 65), ("width", 0), ("depth", -1)])
def test_settings_out_of_range_are_refused(field: str, value: int):
    with pytest.raises(ConfigError, match=f"^{field} is {value}: it must be between"):
        AutoEncoderConfig(**{field: value})
