"""Random changes to frames in training."""

from __future__ import annotations

import pytest
import torch

from bisquit.errors import ConfigError, ShapeError
from bisquit.frames.augment import Augmentation, augment


def noise(count: int, height: int = 5, width: int = 7) -> torch.Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(1)) - 0.5


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_nothing_changes_by_default():
    x = noise(4)
    assert torch.equal(augment(x, Augmentation(), seeded()), x)


def test_generator_alone_decides():
    x, settings = noise(16), Augmentation(flip=True, shift_px=2, colour=0.3)
    torch.manual_seed(1)
    first = augment(x, settings, seeded())
    torch.manual_seed(2)
    state = torch.get_rng_state()
    assert torch.equal(augment(x, settings, seeded()), first)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(augment(x, settings, seeded(1)), first)


def test_flip_mirrors_some_frames_and_leaves_the_others():
    x = noise(64)
    flipped = augment(x, Augmentation(flip=True), seeded())
    mirrored = [torch.equal(after, before.flip(-1)) for after, before in zip(flipped, x, strict=True)]
    kept = [torch.equal(after, before) for after, before in zip(flipped, x, strict=True)]
    assert sum(mirrored) + sum(kept) == 64
    assert 16 < sum(mirrored) < 48


def test_shift_moves_each_frame_in_its_own_way_and_repeats_the_edge():
    x = noise(64)
    shifted = augment(x, Augmentation(shift_px=2), seeded())
    padded = torch.nn.functional.pad(x, (2, 2, 2, 2), mode="replicate")
    windows = {
        (down, right): padded[:, :, down : down + 5, right : right + 7] for down in range(5) for right in range(5)
    }
    found = {
        place for index in range(64) for place, window in windows.items() if torch.equal(shifted[index], window[index])
    }
    assert all(any(torch.equal(shifted[index], window[index]) for window in windows.values()) for index in range(64))
    assert len(found) > 15


def test_colour_changes_each_frame_in_its_own_way_and_stays_in_range():
    x = noise(1).expand(32, -1, -1, -1)
    coloured = augment(x, Augmentation(colour=1.0), seeded())
    assert coloured.min() >= -0.5
    assert coloured.max() <= 0.5
    assert len({frame.sum().item() for frame in coloured}) == 32


def test_slight_colour_changes_slightly():
    x = noise(8)
    assert 0 < (augment(x, Augmentation(colour=0.01), seeded()) - x).abs().max() < 0.04


def test_grey_frames_stay_grey():
    x = noise(4)[:, :1].expand(-1, 3, -1, -1)
    coloured = augment(x, Augmentation(colour=0.5), seeded())
    torch.testing.assert_close(coloured[:, 0], coloured[:, 2])


def test_type_of_the_frames_is_kept():
    assert augment(noise(2).to(torch.bfloat16), Augmentation(True, 1, 0.1), seeded()).dtype == torch.bfloat16


@pytest.mark.parametrize(("field", "value"), [("shift_px", -1), ("colour", -0.1), ("colour", 1.1)])
def test_settings_out_of_range_are_refused_by_name(field, value):
    with pytest.raises(ConfigError, match=field):
        Augmentation(**{field: value})


def test_settings_explain_each_field():
    assert Augmentation.descriptions().keys() == {"flip", "shift_px", "colour"}


def test_unfit_arrays_are_refused():
    for unfit in (torch.zeros(2, 5, 7, 3), torch.zeros(3, 5, 7), torch.zeros(2, 3, 5, 7, dtype=torch.uint8)):
        with pytest.raises(ShapeError, match=r"\(B, 3, H, W\)"):
            augment(unfit, Augmentation(), seeded())
