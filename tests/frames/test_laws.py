"""Laws of frames: what is written is read, whatever its size, its classes and the way that it is stored."""

from __future__ import annotations

import csv
import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from bisquit.errors import FrameError
from bisquit.frames import FrameSet, encode_png, load_frames
from bisquit.frames.decode import decode_picture
from bisquit.frames.pictures import contact_sheet, fit_frame, read_frame, write_frame
from bisquit.frames.pieces import find_pieces, read_piece
from bisquit.frames.record import BadFrames
from bisquit.frames.split import split_by_group

few = settings(max_examples=12)
SIDES = st.integers(1, 9)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=4)
SEEDS = st.integers(0, 2**32)


@contextmanager
def folder() -> Iterator[Path]:
    """A folder of one example's own."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def noise(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*shape, 3), dtype=np.uint8)


@dataclass(frozen=True)
class Table:
    """Pictures with what is known of each."""

    pixels: np.ndarray
    classes: Sequence[str | None]
    races: Sequence[str | None]


@st.composite
def tables(draw: st.DrawFn) -> Table:
    count = draw(st.integers(1, 9))
    names = draw(st.lists(TEXTS, min_size=1, max_size=3))
    known = st.lists(st.none() | st.sampled_from(names), min_size=count, max_size=count)
    return Table(noise(draw(SEEDS), count, draw(SIDES), draw(SIDES)), draw(known), draw(known))


def written(path: Path, table: Table, rows: int) -> Path:
    """Write a table, so many rows a group, as Parquet or as Arrow by the end of its name."""
    columns = pa.table(
        {
            "image": [encode_png(picture) for picture in table.pixels],
            "track": pa.array(table.classes, pa.string()),
            "race": pa.array(table.races, pa.string()),
        }
    )
    if path.suffix == ".parquet":
        pq.write_table(columns, path, row_group_size=rows)
    else:
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, columns.schema) as stream:
            stream.write_table(columns, max_chunksize=rows)
    return path


def class_names(frames: FrameSet) -> list[str | None]:
    return [frames.classes[label] if label >= 0 else None for label in frames.labels]


@few
@given(SEEDS, SIDES, SIDES, st.sampled_from([".png", ".webp", ".PNG"]))
def test_a_picture_of_any_size_is_read_as_it_was_written(seed: int, height: int, width: int, suffix: str):
    picture = noise(seed, height, width)
    with folder() as place:
        write_frame(picture, place / f"a{suffix}")
        np.testing.assert_array_equal(read_frame(place / f"a{suffix}"), picture)
    np.testing.assert_array_equal(decode_picture(encode_png(picture), "a"), picture)


@few
@given(st.data(), SEEDS, SIDES, SIDES)
def test_a_damaged_picture_is_an_error_or_a_picture(data: st.DataObject, seed: int, height: int, width: int):
    encoded = bytearray(encode_png(noise(seed, height, width)))
    for _ in range(data.draw(st.integers(1, 3))):
        encoded[data.draw(st.integers(0, len(encoded) - 1))] = data.draw(st.integers(0, 255))
    try:
        picture = decode_picture(bytes(encoded[: data.draw(st.integers(0, len(encoded)))]), "a")
    except FrameError:
        return
    assert (picture.dtype, picture.ndim, picture.shape[2]) == (np.uint8, 3, 3)


@few
@given(SEEDS, SIDES, SIDES, st.tuples(SIDES, SIDES))
def test_a_frame_fits_any_size_and_its_own_as_it_is(seed: int, height: int, width: int, size: tuple[int, int]):
    frame = noise(seed, height, width)
    assert fit_frame(frame, size).shape == (*size, 3)
    np.testing.assert_array_equal(fit_frame(frame, (height, width)), frame)
    np.testing.assert_array_equal(fit_frame(np.full_like(frame, 77), size), np.full((*size, 3), 77))


@few
@given(SEEDS, st.integers(1, 7), SIDES, SIDES, st.integers(1, 4), st.integers(0, 3))
def test_a_sheet_is_its_frames_on_white(seed: int, count: int, height: int, width: int, columns: int, gap: int):
    frames = noise(seed, count, height, width)
    sheet = contact_sheet(frames, columns, gap)
    for number, frame in enumerate(frames):
        row, column = divmod(number, columns)
        top, left = gap + row * (height + gap), gap + column * (width + gap)
        np.testing.assert_array_equal(sheet[top : top + height, left : left + width], frame)
        sheet[top : top + height, left : left + width] = 255
    assert (sheet == 255).all()


@few
@given(tables(), st.integers(1, 10), st.sampled_from(["a.parquet", "a.arrow"]))
def test_tables_are_read_as_they_were_written_and_alike_from_the_cache(table: Table, rows: int, name: str):
    with folder() as place:
        path = written(place / name, table, rows)
        for _ in range(2):
            frames = load_frames(path, cache=place / "cache")
            np.testing.assert_array_equal(frames[:], table.pixels)
            assert class_names(frames) == list(table.classes)
            assert frames.names == tuple(f"{name}#{row}" for row in range(len(frames)))
        groups = [None] * len(frames) if frames.groups is None else frames.groups.tolist()
        for (one, race), (other, another) in (
            ((groups[i], (table.classes[i], table.races[i])), (groups[j], (table.classes[j], table.races[j])))
            for i in range(len(groups))
            for j in range(i)
        ):
            assert (one == other) == (race == another and race[1] is not None) or frames.groups is None


@few
@given(tables(), st.integers(1, 10), st.integers(1, 10), st.integers(1, 3))
def test_pieces_of_any_size_are_all_rows_once_in_order(table: Table, rows: int, at_most: int, files: int):
    with folder() as place:
        parts = [part for part in np.array_split(np.arange(len(table.pixels)), files) if len(part)]
        for number, part in enumerate(parts):
            of_file = Table(table.pixels[part], [table.classes[i] for i in part], [table.races[i] for i in part])
            written(place / f"{number}.parquet", of_file, rows)
        pieces = find_pieces(f"{place}/*.parquet", at_most)
        assert [piece.name for piece in pieces] == sorted({piece.name for piece in pieces})
        assert max(piece.rows for piece in pieces) <= at_most
        size = table.pixels.shape[1:3]
        read = [read_piece(piece, (size[0], size[1]), BadFrames(skip=False)) for piece in pieces]
    np.testing.assert_array_equal(np.concatenate([frames[:] for frames in read]), table.pixels)
    assert [name for frames in read for name in class_names(frames)] == list(table.classes)


@few
@given(SEEDS, st.lists(TEXTS, min_size=1, max_size=5))
def test_a_folder_with_metadata_has_the_classes_that_it_says(seed: int, classes: list[str]):
    with folder() as place:
        pictures = noise(seed, len(classes), 3, 4)
        for number, picture in enumerate(pictures):
            write_frame(picture, place / "in" / f"{number}.png")
        with (place / "in" / "metadata.csv").open("w", encoding="utf-8", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["file_name", "class"])
            rows.writerows([f"{number}.png", name] for number, name in enumerate(classes))
        frames = load_frames(place / "in", cache=place / "cache")
    assert class_names(frames) == classes
    np.testing.assert_array_equal(frames[:], pictures)


@few
@given(st.lists(st.tuples(st.integers(-1, 2), st.integers(0, 5)), min_size=1, max_size=14), st.floats(0.01, 0.99))
def test_a_split_shares_all_frames_out_and_no_race(known: list[tuple[int, int]], fraction: float):
    labels, groups = (np.array(column, dtype=np.int64) for column in zip(*known, strict=True))
    pixels = np.arange(len(known), dtype=np.uint8)[:, None, None, None].repeat(3, axis=3)
    names = tuple(map(str, range(len(known))))
    frames = FrameSet(pixels, np.arange(len(known)), names, ("a", "b", "c"), labels, groups)
    if len(set(groups.tolist())) < 2:
        with pytest.raises(FrameError, match="one race"):
            split_by_group(frames, fraction)
        return
    train, valid = split_by_group(frames, fraction)
    assert sorted([*train.names, *valid.names], key=int) == list(names)
    assert list(train.names) == sorted(train.names, key=int)
    assert len(train)
    assert len(valid)
    assert train.groups is not None
    assert valid.groups is not None
    assert not set(train.groups.tolist()) & set(valid.groups.tolist())


PLAIN = st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=3), st.lists, max_leaves=4)


@few
@given(st.data(), SEEDS)
def test_an_entry_of_the_cache_that_says_anything_else_gives_the_same_frames(data: st.DataObject, seed: int):
    with folder() as place:
        for number, picture in enumerate(noise(seed, 3, 2, 3)):
            write_frame(picture, place / "in" / "abc"[number % 2] / f"{number}.png")
        wanted = load_frames(place / "in", cache=place / "cache")
        (known,) = (place / "cache" / "frames").glob("*/frames.json")
        content = json.loads(known.read_text())
        field = data.draw(st.sampled_from(["shape", "labels", "groups", "skipped"]))
        other = data.draw(PLAIN)
        assume(other not in (content[field], []))
        known.write_text(json.dumps(content | {field: other}))
        found = load_frames(place / "in", cache=place / "cache")
        np.testing.assert_array_equal(found[:], wanted[:])
        assert (found.labels.shape, found.groups is None or len(found.groups) == 3) == ((3,), True)
