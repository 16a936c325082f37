"""Archives: what is in comes out, damage costs what it hits, and no kill costs what was there."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from bisquit.codec import archive
from bisquit.codec.archive import HEADER, Archive, append, write
from bisquit.errors import CodecError

PICTURES = [(f"picture-{i}.png", bytes((i * 7 + j) % 256 for j in range(40 + 13 * i))) for i in range(5)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write(tmp_path / "some.bisq", PICTURES)
    return tmp_path / "some.bisq"


def contents(path: Path) -> list[tuple[str, bytes]]:
    with Archive(path) as opened:
        return [(entry.name, opened.read(entry)) for entry in opened.entries]


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


@pytest.mark.parametrize(("name", "data"), [("", b""), ("x" * 256, b""), ("x", bytes(2**16))])
def test_what_is_too_long_is_refused(path: Path, name: str, data: bytes) -> None:
    with pytest.raises(CodecError, match=r"must have between|is the most"):
        append(path, [(name, data)])
    assert contents(path) == PICTURES


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
        ends = [entry.end for entry in opened.entries]
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        kept = PICTURES[: sum(end <= length for end in ends)]
        append(path, [("after.png", b"after")])
        assert contents(path) == [*kept, ("after.png", b"after")], length


def test_a_flipped_byte_costs_its_own_record_at_most(path: Path) -> None:
    whole = path.read_bytes()
    with Archive(path) as opened:
        spans = [(entry.start, entry.end) for entry in opened.entries]
    for place in range(len(HEADER), len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 0x55
        path.write_bytes(damaged)
        hit = next(i for i, (start, end) in enumerate(spans) if start <= place < end)
        found = contents(path)
        assert [picture for picture in PICTURES if picture in found] == PICTURES[:hit] + PICTURES[hit + 1 :], place
        append(path, [("after.png", b"after")])
        assert contents(path)[-1] == ("after.png", b"after")


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
            assert {entry.name for entry in opened.entries} <= {name for name, _ in PICTURES}
            covered = sorted([*((e.start, e.end) for e in opened.entries), *((g.start, g.end) for g in opened.lost)])
            assert [begin for begin, _ in covered] == [len(HEADER), *(end for _, end in covered)][: len(covered)]


def test_marks_inside_of_pictures_are_no_records(tmp_path: Path) -> None:
    pictures = [("a", archive.MARK * 20), ("b", archive.MARK[:1] + archive.MARK * 9)]
    write(tmp_path / "marks.bisq", pictures)
    assert contents(tmp_path / "marks.bisq") == pictures
    damaged = bytearray((tmp_path / "marks.bisq").read_bytes())
    damaged[len(HEADER)] ^= 1
    (tmp_path / "marks.bisq").write_bytes(damaged)
    assert contents(tmp_path / "marks.bisq") == pictures[1:]
