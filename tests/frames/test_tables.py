"""Frames from Parquet files in the schema of the data card, and to and from Hugging Face's `datasets`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from bisquit.errors import FrameError
from bisquit.frames import load_frames
from bisquit.frames.listing import list_files
from bisquit.frames.record import BadFrames
from bisquit.frames.tables import TableRecords


def test_frames_come_back_to_the_pixel_with_names_classes_and_races(tmp_path, make_frames, write_parquet):
    frames = make_frames(5)
    tracks = ["scotland", "abyss", None, "abyss", "scotland"]
    path = write_parquet(tmp_path / "a.parquet", frames, track=tracks, race=[1, 1, 2, 1, 2], step=[0, 1, 2, 3, 4])
    loaded = load_frames(path)
    assert (len(loaded), loaded.height, loaded.width) == (5, 6, 9)
    np.testing.assert_array_equal(loaded[:], frames)
    assert loaded.names == tuple(f"a.parquet#{row}" for row in range(5))
    assert loaded.classes == ("abyss", "scotland")
    assert loaded.labels.tolist() == [1, 0, -1, 0, 1]
    assert loaded.groups is not None
    assert loaded.groups.tolist() == [0, 1, 2, 1, 3]  # a race is one seed on one track


@pytest.mark.parametrize("column", ["label", "class"])
def test_class_may_be_in_another_column(tmp_path, make_frames, write_parquet, column):
    loaded = load_frames(write_parquet(tmp_path / "a.parquet", make_frames(2), **{column: ["kart", "tux"]}))
    assert loaded.classes == ("kart", "tux")
    assert loaded.groups is None


def test_frames_without_classes_have_no_labels(tmp_path, make_frames, write_parquet):
    loaded = load_frames(write_parquet(tmp_path / "a.parquet", make_frames(3)))
    assert loaded.classes == ()
    assert loaded.labels.tolist() == [-1, -1, -1]


def test_image_column_may_hold_plain_bytes(tmp_path, make_frames, encode):
    frames = make_frames(2)
    pq.write_table(pa.table({"image": [encode(frame) for frame in frames]}), tmp_path / "a.parquet")
    np.testing.assert_array_equal(load_frames(tmp_path / "a.parquet")[:], frames)


def test_folder_and_glob_read_their_files_in_the_order_of_their_names(tmp_path, make_frames, write_parquet):
    frames = make_frames(6)
    write_parquet(tmp_path / "data" / "train-02.parquet", frames[2:4])
    write_parquet(tmp_path / "data" / "train-01.parquet", frames[:2])
    write_parquet(tmp_path / "data" / "valid.parquet", frames[4:])
    (tmp_path / "data" / "README.md").write_text("frames")
    np.testing.assert_array_equal(load_frames(tmp_path / "data")[:], frames)
    some = load_frames(f"{tmp_path}/data/train-0*.parquet")
    np.testing.assert_array_equal(some[:], frames[:4])
    assert some.names[2] == "train-02.parquet#0"


def test_truncated_file_is_named_or_skipped_as_one_entry(tmp_path, make_frames, write_parquet):
    write_parquet(tmp_path / "data" / "a.parquet", make_frames(2))
    cut = write_parquet(tmp_path / "data" / "b.parquet", make_frames(4))
    cut.write_bytes(cut.read_bytes()[:-20])
    with pytest.raises(FrameError, match=r"^b\.parquet is no readable Parquet file.*--skip-bad"):
        load_frames(tmp_path / "data")
    loaded = load_frames(tmp_path / "data", skip_bad=True)
    assert (len(loaded), loaded.skipped) == (2, ("b.parquet",))


def test_file_damaged_in_the_middle_is_named_or_gives_the_frames_before(tmp_path, make_frames, write_parquet):
    path = write_parquet(tmp_path / "a.parquet", make_frames(4))
    second_group = pq.ParquetFile(path).metadata.row_group(1).column(0)
    start = second_group.dictionary_page_offset or second_group.data_page_offset
    content = bytearray(path.read_bytes())
    content[start : start + second_group.total_compressed_size] = b"\xff" * second_group.total_compressed_size
    path.write_bytes(content)
    with pytest.raises(FrameError, match=r"^a\.parquet is damaged"):
        load_frames(path)
    loaded = load_frames(path, skip_bad=True)
    np.testing.assert_array_equal(loaded[:], make_frames(4)[:2])
    assert loaded.skipped == ("a.parquet",)


def test_empty_cell_is_named_or_skipped(tmp_path, make_frames, write_parquet):
    frames = make_frames(2)
    path = write_parquet(tmp_path / "a.parquet", [frames[0], None, frames[1], b""])
    with pytest.raises(FrameError, match=r"^a\.parquet#1 is empty"):
        load_frames(path)
    loaded = load_frames(path, skip_bad=True)
    np.testing.assert_array_equal(loaded[:], frames)
    assert loaded.skipped == ("a.parquet#1", "a.parquet#3")
    assert loaded.names == ("a.parquet#0", "a.parquet#2")


def test_file_of_other_columns_is_named_with_them(tmp_path: Path):
    pq.write_table(pa.table({"text": ["a"], "image": [1]}), tmp_path / "a.parquet")
    with pytest.raises(FrameError, match=r"a\.parquet has no column 'image' of encoded pictures.*text, image"):
        load_frames(tmp_path / "a.parquet")


def test_file_of_one_row_group_is_not_held_in_memory(tmp_path):
    cells = [{"bytes": np.random.default_rng(row).bytes(100_000), "path": None} for row in range(200)]
    # A page is the least that can be read: small batches make the writer end pages at a megabyte.
    pq.write_table(
        pa.table({"image": cells}), tmp_path / "a.parquet", row_group_size=200, use_dictionary=False, write_batch_size=8
    )
    del cells
    before = pa.total_allocated_bytes()
    records = TableRecords(list_files(tmp_path / "a.parquet"), BadFrames(skip=False))
    most = max(pa.total_allocated_bytes() - before for _ in records)
    assert most < 8_000_000  # of 20 MB


def test_nothing_readable_is_an_error_even_when_skipping(tmp_path, write_parquet):
    with pytest.raises(FrameError, match=r"no frame .* could be read.*a\.parquet#0"):
        load_frames(write_parquet(tmp_path / "a.parquet", [b"text"]), skip_bad=True)
    with pytest.raises(FrameError, match=r"no frame .* could be read.*hold none"):
        load_frames(write_parquet(tmp_path / "b.parquet", []))


CLASSES = ("ice", "sand")


def dataset_of(frames: np.ndarray, labels: list[int]) -> Any:
    """Return a set of `datasets`, with its own types for pictures and classes."""
    import datasets

    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=list(CLASSES))})
    pictures = [Image.fromarray(frame) for frame in frames]
    return datasets.Dataset.from_dict({"image": pictures, "label": labels}, features=features)


@pytest.fixture
def quiet_datasets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have `datasets` draw no bars, and ask no network."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.mark.usefixtures("quiet_datasets")
def test_what_datasets_saves_is_read_with_the_names_of_its_classes(tmp_path: Path, make_frames):
    frames, labels = make_frames(40), [0, 1, 1, -1] * 10
    saved = dataset_of(frames, labels)
    saved.save_to_disk(tmp_path / "saved", num_shards=2)
    saved.to_parquet(tmp_path / "saved.parquet")
    for source in (tmp_path / "saved", tmp_path / "saved.parquet"):
        loaded = load_frames(source)
        np.testing.assert_array_equal(loaded[:], frames)
        assert loaded.classes == CLASSES
        assert loaded.labels.tolist() == labels
    assert load_frames(tmp_path / "saved").names[0] == "data-00000-of-00002.arrow#0"


@pytest.mark.usefixtures("quiet_datasets")
def test_a_cut_arrow_file_is_named_and_kinds_are_not_mixed(tmp_path: Path, make_frames, write_parquet):
    dataset_of(make_frames(4), [0, 1, 0, 1]).save_to_disk(tmp_path / "saved")
    (file,) = (tmp_path / "saved").glob("*.arrow")
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FrameError, match=r"arrow is no readable Arrow file"):
        load_frames(tmp_path / "saved")
    file.write_bytes(whole)
    write_parquet(tmp_path / "saved" / "a.parquet", make_frames(1))
    with pytest.raises(FrameError, match=r"both Parquet files \(a\.parquet\) and Arrow files \(data-00000"):
        load_frames(tmp_path / "saved")
