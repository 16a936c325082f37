"""Labelled pictures on the disk: a folder and a file hold the same, and a folder that was begun is gone on with."""

from __future__ import annotations

import csv
import gc
from collections.abc import Iterator
from pathlib import Path

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest

from bisquit.augmenting import Chunk, Count, Painted
from bisquit.errors import FrameError
from bisquit.frames import load_frames
from bisquit.painted_set import JOURNAL, Paint, write_set

CLASSES = ("ice", "sand")
SOURCE = {"model": "mine", "sampling_guidance": 2.0}
ASKED = {**SOURCE, "seed": 0, "classes": ["ice", "sand"], "real": None}


def picture(class_name: str, number: int) -> Painted:
    frame = np.random.default_rng([len(class_name), number]).integers(0, 256, (8, 12, 3)).astype(np.uint8)
    return Painted(frame, class_name, 7, number, 10.5 + number, "real-0" if number % 2 else "", number / 10 or None)


def chunks(class_name: str, begun: Count) -> Iterator[Chunk]:
    """Six pictures of each class, every other one of twelve, in three chunks."""
    for start in range(begun.painted, 12, 4):
        taken = tuple(picture(class_name, number) for number in (start, start + 2))
        yield Chunk(class_name, Count(start + 4, start // 2 + 2, 0), taken)


def dying(at: int, error: type[BaseException] = KeyboardInterrupt) -> Paint:
    """Return what paints so many chunks and is then interrupted."""
    left = at

    def paint(class_name: str, begun: Count) -> Iterator[Chunk]:
        nonlocal left
        for chunk in chunks(class_name, begun):
            if left == 0:
                raise error
            left -= 1
            yield chunk

    return paint


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith(".lock")
    }


def test_a_folder_and_a_file_hold_the_same_frames_with_where_they_come_from(tmp_path: Path):
    taken = [picture for name in CLASSES for chunk in chunks(name, Count()) for picture in chunk.pictures]
    for output in (tmp_path / "folder", tmp_path / "file.parquet"):
        assert write_set(chunks, CLASSES, output, SOURCE, ASKED) == 12
        frames = load_frames(str(output))
        assert frames.classes == CLASSES
        assert np.bincount(frames.labels).tolist() == [6, 6]
        ours = {(p.class_name, p.frame.tobytes()) for p in taken}
        assert {(frames.classes[frames.labels[i]], frames[i].tobytes()) for i in range(12)} == ours
    with (tmp_path / "folder" / "metadata.csv").open() as file:
        rows = list(csv.DictReader(file))
    for row, table_row, of in zip(rows, pq.read_table(tmp_path / "file.parquet").to_pylist(), taken, strict=True):
        for known in (row, table_row):
            assert known["track"] == of.class_name
            assert int(known["seed"]) == of.seed
            assert int(known["number"]) == of.number
            assert float(known["bits"]) == pytest.approx(of.bits, abs=0.01)
            assert known["nearest"] == of.nearest
            assert known["model"] == "mine"
            assert float(known["sampling_guidance"]) == 2.0
        assert table_row["nearest_rms"] == of.nearest_rms
        assert row["nearest_rms"] == ("" if of.nearest_rms is None else str(of.nearest_rms))


@pytest.mark.parametrize("at", range(6))
def test_what_was_interrupted_is_gone_on_with_to_the_same_bytes(tmp_path: Path, at: int):
    write_set(chunks, CLASSES, tmp_path / "whole", SOURCE, ASKED)
    with pytest.raises(KeyboardInterrupt):
        write_set(dying(at), CLASSES, tmp_path / "new", SOURCE, ASKED)
    assert not (tmp_path / "new" / "metadata.csv").exists()
    painted: list[tuple[str, int]] = []

    def paint(class_name: str, begun: Count) -> Iterator[Chunk]:
        for chunk in chunks(class_name, begun):
            painted.append((class_name, chunk.count.painted))
            yield chunk

    assert write_set(paint, CLASSES, tmp_path / "new", SOURCE, ASKED) == 12
    assert len(painted) == 6 - at
    assert contents(tmp_path / "new") == contents(tmp_path / "whole")


def test_a_line_that_somebody_died_in_writing_is_painted_again(tmp_path: Path):
    write_set(chunks, CLASSES, tmp_path / "whole", SOURCE, ASKED)
    with pytest.raises(KeyboardInterrupt):
        write_set(dying(4), CLASSES, tmp_path / "new", SOURCE, ASKED)
    journal = (tmp_path / "new" / JOURNAL).read_bytes()
    for length in (0, 5, journal.index(b"\n"), len(journal) - 1, len(journal) - 40):
        folder = tmp_path / f"cut-{length}"
        with pytest.raises(KeyboardInterrupt):
            write_set(dying(4), CLASSES, folder, SOURCE, ASKED)
        (folder / JOURNAL).write_bytes(journal[:length])
        assert write_set(chunks, CLASSES, folder, SOURCE, ASKED) == 12
        assert contents(folder) == contents(tmp_path / "whole")


def test_what_was_begun_otherwise_is_left_alone(tmp_path: Path):
    with pytest.raises(KeyboardInterrupt):
        write_set(dying(2), CLASSES, tmp_path, SOURCE, ASKED)
    before = contents(tmp_path)
    with pytest.raises(FrameError, match="pictures of another seed, 0 and not 1"):
        write_set(chunks, CLASSES, tmp_path, SOURCE, {**ASKED, "seed": 1})
    assert contents(tmp_path) == before


def test_a_folder_that_is_not_empty_is_left_alone(tmp_path: Path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(FrameError, match="not empty"):
        write_set(chunks, CLASSES, tmp_path, SOURCE, ASKED)
    with pytest.raises(FrameError, match="is a file"):
        write_set(chunks, CLASSES, tmp_path / "mine.txt", SOURCE, ASKED)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_finished_folder_stays_finished(tmp_path: Path):
    write_set(chunks, CLASSES, tmp_path, SOURCE, ASKED)
    before = contents(tmp_path)
    assert write_set(dying(0), CLASSES, tmp_path, SOURCE, ASKED) == 12
    assert contents(tmp_path) == before


def test_a_class_that_leads_elsewhere_names_no_folder(tmp_path: Path):
    for name in ("../ice", "/ice", "..", ""):
        with pytest.raises(FrameError, match="cannot name a folder"):
            write_set(chunks, [name], tmp_path / "new", {}, {})
    assert not list(tmp_path.iterdir())


# datasets reads metadata.csv without closing it
@pytest.mark.filterwarnings(
    r"ignore:Exception ignored in. <_io.FileIO name=.*metadata\.csv:pytest.PytestUnraisableExceptionWarning"
)
@pytest.mark.parametrize("kind", ["imagefolder", "parquet"])
def test_what_is_written_is_read_by_datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str):
    monkeypatch.setattr("datasets.config.HF_DATASETS_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    output = tmp_path / ("new.parquet" if kind == "parquet" else "new")
    write_set(chunks, ["ice"], output, {"model": "mine"}, {})
    where = {"data_files": str(output)} if kind == "parquet" else {"data_dir": str(output)}
    rows = datasets.load_dataset(kind, split="train", cache_dir=str(tmp_path / "cache"), **where)
    taken = [picture for chunk in chunks("ice", Count()) for picture in chunk.pictures]
    assert len(rows) == 6
    for row, of in zip(rows, taken, strict=True):
        np.testing.assert_array_equal(np.asarray(row["image"]), of.frame)
        assert (row["track"], row["seed"], row["number"], row["model"]) == ("ice", of.seed, of.number, "mine")
    gc.collect()  # so that what is left open is told of here, if at all
