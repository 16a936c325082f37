"""Single pictures in and out, and sheets."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from bisquit.errors import ConfigError, FrameError, ShapeError
from bisquit.frames import contact_sheet, read_frame, write_frame


@pytest.mark.parametrize("name", ["a.png", "a.webp", "new/folder/a.PNG"])
def test_lossless_formats_come_back_to_the_pixel(tmp_path, make_frames, name):
    frame = make_frames(1)[0]
    write_frame(frame, tmp_path / name)
    np.testing.assert_array_equal(read_frame(tmp_path / name), frame)


def test_jpeg_comes_back_nearly(tmp_path):
    frame = np.tile(np.arange(0, 240, 10, dtype=np.uint8)[:, None, None], (1, 24, 3))
    write_frame(frame, tmp_path / "a.jpg")
    assert np.abs(read_frame(tmp_path / "a.jpg").astype(int) - frame).max() <= 4


def test_frame_that_was_read_may_be_written_to(tmp_path, make_frames):
    write_frame(make_frames(1)[0], tmp_path / "a.png")
    frame = read_frame(tmp_path / "a.png")
    frame[:] = 7
    assert frame.min() == frame.max() == 7


def test_unknown_suffix_and_unfit_arrays_are_refused_and_nothing_is_written(tmp_path, make_frames):
    frame = make_frames(1)[0]
    with pytest.raises(FrameError, match=r"a\.txt has no suffix of a picture format"):
        write_frame(frame, tmp_path / "a.txt")
    for unfit in (frame.astype(np.float32), frame[..., 0], frame[..., :2], frame[:0]):
        with pytest.raises(ShapeError, match=r"need uint8 \(H, W, 3\)"):
            write_frame(unfit, tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == []


def test_frame_that_cannot_be_written_is_a_frame_error(tmp_path, make_frames):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(FrameError, match=r"cannot write .*a\.png"):
        write_frame(make_frames(1)[0], tmp_path / "file" / "a.png")


def test_missing_picture_is_a_frame_error(tmp_path):
    with pytest.raises(FrameError, match=r"gone\.png does not exist"):
        read_frame(tmp_path / "gone.png")


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "1", "I;16"])
def test_other_modes_become_rgb(tmp_path, mode):
    grey = Image.fromarray(np.full((4, 5), 255, dtype=np.uint8))
    if mode == "I;16":
        Image.fromarray(np.full((4, 5), 65535, dtype=np.uint16)).save(tmp_path / "a.png")
    else:
        grey.convert(mode).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_frame(tmp_path / "a.png"), np.full((4, 5, 3), 255, dtype=np.uint8))


def test_16_bit_grey_is_scaled_and_not_clipped(tmp_path):
    Image.fromarray(np.array([[0, 256, 32768, 65535]], dtype=np.uint16)).save(tmp_path / "a.png")
    assert read_frame(tmp_path / "a.png")[0, :, 0].tolist() == [0, 1, 128, 255]


def test_transparent_pixels_are_laid_on_black(tmp_path):
    Image.new("RGBA", (3, 2), (200, 100, 50, 0)).save(tmp_path / "a.png")
    assert read_frame(tmp_path / "a.png").max() == 0


def test_exif_orientation_is_applied(tmp_path):
    upright = np.zeros((8, 16, 3), dtype=np.uint8)
    upright[:, 8:] = 255
    image = Image.fromarray(upright)
    exif = image.getexif()
    exif[0x0112] = 6  # to be seen upright, turn by a quarter clockwise
    image.save(tmp_path / "a.jpg", exif=exif, quality=95)
    turned = read_frame(tmp_path / "a.jpg")
    assert turned.shape == (16, 8, 3)
    assert turned[:6].max() < 30
    assert turned[10:].min() > 225


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")  # Pillow's own answer to the second
@pytest.mark.parametrize("limit", [20, 53])
def test_picture_above_pillows_limit_is_refused(tmp_path, make_frames, monkeypatch, limit):
    write_frame(make_frames(1)[0], tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with pytest.raises(FrameError, match=r"a\.png .*limit of \d+ pixels"):
        read_frame(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 54)
    assert read_frame(tmp_path / "a.png").shape == (6, 9, 3)


def test_sheet_lays_frames_row_by_row_with_white_gaps(make_frames):
    frames = make_frames(5)
    sheet = contact_sheet(frames, columns=3, gap_px=2)
    assert sheet.shape == (2 + 2 * 8, 2 + 3 * 11, 3)
    for index, frame in enumerate(frames):
        top, left = 2 + (index // 3) * 8, 2 + (index % 3) * 11
        np.testing.assert_array_equal(sheet[top : top + 6, left : left + 9], frame)
    assert sheet[:2].min() == sheet[8:10].min() == sheet[:, 11:13].min() == 255
    assert sheet[10:, 24:].min() == 255  # the sixth place is empty


def test_sheet_without_gaps_is_the_frames_alone(make_frames):
    frames = make_frames(2)
    np.testing.assert_array_equal(contact_sheet(frames, columns=2, gap_px=0), np.concatenate([*frames], axis=1))


def test_sheet_of_nothing_is_refused(make_frames):
    with pytest.raises(ShapeError):
        contact_sheet(make_frames(0), columns=2)
    with pytest.raises(ConfigError, match="columns is 0"):
        contact_sheet(make_frames(1), columns=0)
