"""Archives: what is in comes out, damage costs what it hits, and no kill costs what was there."""

from __future__ import annotations

import binascii
import itertools
import multiprocessing
import random
import resource
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from bisquit.codec import archive
from bisquit.codec.archive import HEADER, Archive, append, record, write
from bisquit.errors import CodecError

PICTURES = [(f"picture-{i}.png", bytes((i * 7 + j) % 256 for j in range(40 + 13 * i))) for i in range(5)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write(tmp_path / "some.bisq", PICTURES)
    return tmp_path / "some.bisq"


def contents(path: Path) -> list[tuple[str, bytes]]:
    with Archive(path) as opened:
        return [(entry.name, opened.read(entry)) for entry in opened]


def test_what_is_written_is_read(path: Path) -> None:
    assert contents(path) == PICTURES
    with Archive(path) as opened:
        assert opened.read(opened.find("picture-3.png")) == PICTURES[3][1]
        assert (len(opened), opened.lost) == (5, [])
        with pytest.raises(CodecError, match="no picture picture-9"):
            opened.find("picture-9")


def test_appending_changes_nothing_that_is_there(path: Path) -> None:
    before = path.read_bytes()
    assert append(path, [("more.png", b"new"), ("naïve 写.png", b"")]) == 2
    assert path.read_bytes().startswith(before)
    assert contents(path) == [*PICTURES, ("more.png", b"new"), ("naïve 写.png", b"")]


def test_appending_makes_an_archive(tmp_path: Path) -> None:
    append(tmp_path / "new.bisq", PICTURES[:1])
    append(tmp_path / "new.bisq", PICTURES[1:])
    assert (tmp_path / "new.bisq").read_bytes()[: len(HEADER)] == HEADER
    assert contents(tmp_path / "new.bisq") == PICTURES


def test_a_name_is_given_once(path: Path) -> None:
    with pytest.raises(CodecError, match=r"picture-1\.png already"):
        append(path, [("fresh.png", b"1"), PICTURES[1]])
    assert contents(path) == [*PICTURES, ("fresh.png", b"1")]


BAD_NAMES = (
    "",
    ".",
    "..",
    "/a",
    "a/",
    "a//b",
    "../a",
    "a/../../b",
    "x" * 201,
    "xyz/" * 64,
    "a\nb",
    "a\0",
    "\udce4.png",
)


@pytest.mark.parametrize("name", BAD_NAMES)
def test_names_that_are_no_paths_inside_of_a_folder_are_refused(path: Path, name: str) -> None:
    with pytest.raises(CodecError, match="name"):
        append(path, [(name, b"")])
    assert contents(path) == PICTURES


@pytest.mark.parametrize("name", [name for name in BAD_NAMES if name != "\udce4.png" and len(name) < 256])
def test_a_crafted_record_of_such_a_name_is_none(path: Path, name: str) -> None:
    frame = archive.MARK + bytes([len(name), 0, 1])
    crafted = frame + binascii.crc_hqx(frame + name.encode(), 0).to_bytes(2, "big") + name.encode() + b"!"
    path.write_bytes(path.read_bytes() + crafted)
    append(path, [("after", b"after")])
    assert contents(path)[-1] == ("after", b"after")
    assert [picture for picture in contents(path) if picture in PICTURES] == PICTURES
    assert all(found != name for found, _ in contents(path))


def test_names_of_many_kinds_are_taken(path: Path) -> None:
    names = ["12:00.png", "a b\\c.png", "naïve/写.png", "x" * 200, ".hidden", "...", "~"]
    append(path, [(name, b"1") for name in names])
    assert [name for name, _ in contents(path)][5:] == names


def test_pictures_that_are_too_large_are_refused(path: Path) -> None:
    with pytest.raises(CodecError, match="is the most"):
        append(path, [("x", bytes(2**16))])
    assert contents(path) == PICTURES


def test_of_two_records_of_a_name_the_first_is_found(path: Path) -> None:
    again = archive.record(PICTURES[0][0], b"another")
    path.write_bytes(path.read_bytes() + again)
    with Archive(path) as opened:
        assert len(opened) == 6
        assert opened.read(opened.find(PICTURES[0][0])) == PICTURES[0][1]


@pytest.mark.parametrize("start", [b"", b"bqa", b"PNG and more", b"bqar\x02\x00\x00\x00", b"bqar\x01\x00\x00\x01"])
def test_other_files_are_refused(tmp_path: Path, start: bytes) -> None:
    (tmp_path / "other").write_bytes(start)
    with pytest.raises(CodecError, match=r"no archive|archive version"):
        Archive(tmp_path / "other")
    if not HEADER.startswith(start):
        with pytest.raises(CodecError):
            append(tmp_path / "other", PICTURES)
        assert (tmp_path / "other").read_bytes() == start


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(CodecError, match="nowhere"):
        Archive(tmp_path / "nowhere")
    with pytest.raises(CodecError, match="nowhere"):
        append(tmp_path / "no-folder" / "nowhere", PICTURES)


def test_cut_anywhere_all_whole_records_are_read_and_more_are_taken(path: Path) -> None:
    whole = path.read_bytes()
    with Archive(path) as opened:
        ends = [entry.end for entry in opened]
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        kept = PICTURES[: sum(end <= length for end in ends)]
        append(path, [("after.png", b"after")])
        assert contents(path) == [*kept, ("after.png", b"after")], length


def test_a_flipped_byte_costs_its_own_record_at_most(path: Path) -> None:
    whole = path.read_bytes()
    with Archive(path) as opened:
        spans = [(entry.start, entry.end) for entry in opened]
    for place in range(len(HEADER), len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 0x55
        path.write_bytes(damaged)
        hit = next(i for i, (start, end) in enumerate(spans) if start <= place < end)
        found = contents(path)
        assert [picture for picture in PICTURES if picture in found] == PICTURES[:hit] + PICTURES[hit + 1 :], place
        append(path, [("after.png", b"after")])
        assert contents(path)[-1] == ("after.png", b"after")


def test_damage_before_a_record_that_is_cut_costs_no_more(path: Path) -> None:
    whole = path.read_bytes()
    with Archive(path) as opened:
        third, last = opened[3].start, opened[4]
    for cut in range(last.start + 1, last.end):
        damaged = bytearray(whole[:cut])
        damaged[third] ^= 1
        path.write_bytes(damaged)
        assert append(path, [("after", b"after"), ("more", bytes(300))]) == 2
        assert contents(path) == [*PICTURES[:3], ("after", b"after"), ("more", bytes(300))], cut


def test_bytes_that_are_taken_out_of_the_last_but_one_do_not_cost_the_last(path: Path) -> None:
    whole = path.read_bytes()
    with Archive(path) as opened:
        begin, end = opened[3].begin, opened[3].end
    path.write_bytes(whole[: end - 60] + whole[end:])  # so that its length leads beyond the end, or into the last
    assert begin < end - 60
    append(path, [("after", b"after")])
    assert contents(path)[:3] == PICTURES[:3]
    assert contents(path)[-1] == ("after", b"after")


def test_each_picture_is_on_the_disk_before_the_next_is_made(path: Path) -> None:
    def pictures() -> Iterator[tuple[str, bytes]]:
        for i in range(3):
            assert [name for name, _ in contents(path)[5:]] == [f"new-{j}" for j in range(i)]
            yield f"new-{i}", b"new"

    assert append(path, pictures()) == 3


def test_an_archive_that_is_replaced_meanwhile_is_not_said_to_have_grown(path: Path, tmp_path: Path) -> None:
    def pictures() -> Iterator[tuple[str, bytes]]:
        yield "new", b"new"
        write(path, PICTURES[:1])

    with pytest.raises(CodecError, match="replaced"):
        append(path, pictures())
    assert contents(path) == PICTURES[:1]


def test_processes_take_turns(path: Path) -> None:
    with ProcessPoolExecutor(4, mp_context=multiprocessing.get_context("spawn")) as pool:
        assert sum(pool.map(append_some, [path] * 8, range(8))) == 160
    found = contents(path)
    assert found[:5] == PICTURES
    assert sorted(name for name, _ in found[5:]) == sorted(f"{i}-{j}" for i in range(8) for j in range(20))
    assert not Archive(path).lost


def append_some(path: Path, number: int) -> int:
    return append(path, [(f"{number}-{j}", bytes([j]) * 50) for j in range(20)])


def append_for_ever(path: Path, size: int) -> None:
    for number in itertools.count():
        append(path, [(f"{size}-{number}-{j}", bytes([number % 256]) * size) for j in range(3)])


@pytest.mark.parametrize("size", [1, 500, 60_000])
def test_killed_at_any_moment_what_was_there_is_there(path: Path, size: int) -> None:
    process = multiprocessing.get_context("spawn").Process(target=append_for_ever, args=(path, size))
    process.start()
    whole = path.stat().st_size
    while path.stat().st_size == whole:
        time.sleep(0.001)
    before = contents(path)
    time.sleep(random.Random(size).random() / 20)
    process.kill()
    process.join()
    with Archive(path) as opened:
        assert [opened.read(entry) for entry in opened][: len(before)] == [data for _, data in before]
        assert [entry.name for entry in opened][:6] == [*(name for name, _ in PICTURES), f"{size}-0-0"]
        assert all(part.is_cut for part in opened.lost)
        count = len(opened)
    append(path, [("after.png", b"after")])
    found = contents(path)
    assert len(found) == count + 1
    assert found[-1] == ("after.png", b"after")
    assert not Archive(path).lost


@pytest.mark.parametrize("room", [0, 1, 7, 12])
def test_a_disk_that_fills_up_leaves_no_half_of_a_record(path: Path, room: int) -> None:
    whole, new = path.stat().st_size, [("a.png", b"a"), ("b.png", b"b")]
    each = len(record(*new[0]))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (whole + each + room, hard))  # no file may grow beyond this
    try:
        with pytest.raises(OSError, match="File too large"):
            append(path, new)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert contents(path) == PICTURES + new[:1]
    assert not Archive(path).lost
    assert path.stat().st_size == whole + each
    append(path, new[1:])
    assert contents(path) == PICTURES + new


def test_random_damage_never_raises_and_never_invents_a_record(path: Path) -> None:
    whole, generator = path.read_bytes(), random.Random(0)
    for _ in range(2000):
        damaged = bytearray(whole)
        for _ in range(generator.randrange(1, 20)):
            begin = generator.randrange(len(HEADER), len(damaged))
            match generator.randrange(3):
                case 0:
                    damaged[begin] = generator.randrange(256)
                case 1:
                    del damaged[begin : begin + generator.randrange(30)]
                case _:
                    damaged[begin:begin] = generator.randbytes(generator.randrange(30))
            if len(damaged) <= len(HEADER):
                break
        path.write_bytes(damaged)
        with Archive(path) as opened:
            assert {entry.name for entry in opened} <= {name for name, _ in PICTURES}
            covered = sorted([*((e.start, e.end) for e in opened), *((g.start, g.end) for g in opened.lost)])
            assert [begin for begin, _ in covered] == [len(HEADER), *(end for _, end in covered)][: len(covered)]


def test_marks_inside_of_pictures_are_no_records(tmp_path: Path) -> None:
    pictures = [("a", archive.MARK * 20), ("b", archive.MARK[:1] + archive.MARK * 9)]
    write(tmp_path / "marks.bisq", pictures)
    assert contents(tmp_path / "marks.bisq") == pictures
    damaged = bytearray((tmp_path / "marks.bisq").read_bytes())
    damaged[len(HEADER)] ^= 1
    (tmp_path / "marks.bisq").write_bytes(damaged)
    assert contents(tmp_path / "marks.bisq") == pictures[1:]
