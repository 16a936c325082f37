"""Frames from folders of pictures, and which sources are refused."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from bisquit.errors import FrameError
from bisquit.frames import load_frames


@pytest.fixture
def folder(tmp_path, make_frames):
    """Four PNGs: icy/1.png, icy/2.png, lava/1.png and top.png, in this order."""
    root = tmp_path / "pictures"
    for name, frame in zip(("icy/1.png", "icy/2.png", "lava/1.png", "top.png"), make_frames(4), strict=True):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(frame).save(root / name)
    return root


def test_class_is_the_name_of_the_sub_folder(folder, make_frames):
    loaded = load_frames(folder)
    assert loaded.names == ("icy/1.png", "icy/2.png", "lava/1.png", "top.png")
    assert loaded.classes == ("icy", "lava")
    assert loaded.labels.tolist() == [0, 0, 1, -1]
    assert loaded.groups is None
    np.testing.assert_array_equal(loaded[:], make_frames(4))


def test_jpeg_png_and_webp_are_read_and_hidden_and_other_files_are_not(tmp_path, make_frames):
    frame = make_frames(1)[0]
    for name in ("a.jpg", "b.JPEG", "c.png", "d.webp", ".e.png"):
        Image.fromarray(frame).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("notes")
    assert load_frames(tmp_path).names == ("a.jpg", "b.JPEG", "c.png", "d.webp")


def test_single_picture_and_glob_are_sources(folder):
    assert load_frames(folder / "icy" / "2.png").names == ("2.png",)
    some = load_frames(f"{folder}/*/1.png")
    assert some.names == ("icy/1.png", "lava/1.png")
    assert some.classes == ("icy", "lava")


@pytest.mark.parametrize("column", ["track", "label", "class"])
def test_metadata_gives_class_and_race(folder, column):
    rows = ["icy/1.png,frost,1", "icy/2.png,frost,2", "lava/1.png,,1", "top.png,fire,1"]
    (folder / "metadata.csv").write_text("\n".join([f"file_name,{column},race", *rows]))
    loaded = load_frames(folder)
    assert loaded.classes == ("fire", "frost")
    assert loaded.labels.tolist() == [1, 1, -1, 0]
    assert loaded.groups is not None
    assert loaded.groups.tolist() == [0, 1, 2, 3]


def test_metadata_without_a_class_leaves_the_sub_folders_name(folder):
    (folder / "icy" / "metadata.csv").write_text("file_name,race\n1.png,7\n2.png,7\n")
    loaded = load_frames(folder)
    assert loaded.labels.tolist() == [0, 0, 1, -1]
    assert loaded.groups is not None
    assert loaded.groups.tolist() == [0, 0, 1, 2]  # those whose race is not known stand alone


def test_nearer_metadata_holds(folder):
    (folder / "metadata.csv").write_text("file_name,label\nicy/1.png,a\nicy/2.png,a\nlava/1.png,a\ntop.png,a\n")
    (folder / "icy" / "metadata.csv").write_text("file_name,label\n1.png,b\n2.png,b\n")
    assert load_frames(folder).labels.tolist() == [1, 1, 0, 0]


def test_picture_missing_on_either_side_of_the_metadata_is_named_or_skipped(folder):
    (folder / "metadata.csv").write_text("file_name,label\nicy/1.png,a\nicy/2.png,a\nlava/1.png,a\ngone.png,a\n")
    with pytest.raises(FrameError, match=r"^gone\.png is listed in a metadata\.csv, but is not there"):
        load_frames(folder)
    loaded = load_frames(folder, skip_bad=True)
    assert (len(loaded), loaded.skipped) == (3, ("gone.png", "top.png"))


@pytest.mark.parametrize(
    "content", [b"picture,label\n1.png,a\n", b"file_name,label\n\xff\xfe,a\n", b'file_name\n"1.png']
)
def test_unreadable_metadata_is_named(folder, content):
    (folder / "icy" / "metadata.csv").write_bytes(content)
    with pytest.raises(FrameError, match=r"^icy/metadata\.csv "):
        load_frames(folder, skip_bad=True)


def test_broken_pictures_are_named_or_skipped(folder, encode, make_frames):
    (folder / "icy" / "0.png").write_text("no picture")
    whole = encode(make_frames(1, 64, 64)[0], "JPEG")
    (folder / "lava" / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "lava" / "empty.webp").write_bytes(b"")
    with pytest.raises(FrameError, match=r"^icy/0\.png is no JPEG, PNG or WebP picture; pass --skip-bad") as caught:
        load_frames(folder)
    assert "\n" not in str(caught.value)
    loaded = load_frames(folder, skip_bad=True)
    assert loaded.skipped == ("icy/0.png", "lava/cut.jpg", "lava/empty.webp")
    assert loaded.names == ("icy/1.png", "icy/2.png", "lava/1.png", "top.png")


def test_mixed_sizes_are_refused_by_name_and_resized_when_asked_to(folder, make_frames):
    Image.fromarray(make_frames(1, 12, 18)[0]).save(folder / "wide.png")
    with pytest.raises(FrameError, match=r"icy/1\.png is 6 x 9, wide\.png is 12 x 18.*--size HxW"):
        load_frames(folder, skip_bad=True)
    loaded = load_frames(folder, size=(3, 4))
    assert loaded[:].shape == (5, 3, 4, 3)
    wanted = Image.fromarray(make_frames(1)[0]).resize((4, 3), Image.Resampling.LANCZOS)
    np.testing.assert_array_equal(loaded[0], np.asarray(wanted))


def test_empty_folder_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(FrameError, match="empty holds no frames"):
        load_frames(tmp_path / "empty")
    with pytest.raises(FrameError, match="holds no frames"):
        load_frames(f"{tmp_path}/empty/*.png")


def test_missing_source_is_refused(tmp_path):
    with pytest.raises(FrameError, match="does not exist"):
        load_frames(tmp_path / "nowhere")


def test_parquet_and_pictures_together_are_refused(folder, make_frames, write_parquet):
    write_parquet(folder / "a.parquet", make_frames(1))
    with pytest.raises(FrameError, match=r"both Parquet files .* and pictures"):
        load_frames(folder)
