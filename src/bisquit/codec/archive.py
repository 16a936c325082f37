"""An archive: compressed pictures one after another in a file that only ever grows.

    8  header: magic "bqar", version, three zeros
       records, each
           2  mark
           1  length of the name
           2  length of the picture file
           2  CRC-16 of the five bytes before and of the name
           ... name, UTF-8
           ... picture file, as `picture_file` has it, with its own checksum

All numbers are big-endian. There is no index that could be lost: opening an archive walks over the records' frames
without reading what lies between. Where a frame is damaged, the next sound record is looked for by its mark. Appending
writes behind the last record, and a process that is killed over it leaves at most one record that is cut short, which
the next one cuts off.
"""

from __future__ import annotations

import binascii
import fcntl
import mmap
import os
from array import array
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Self

from bisquit.atomic import atomic_file
from bisquit.errors import CodecError

MAGIC = b"bqar"
VERSION = 1
HEADER = MAGIC + bytes([VERSION, 0, 0, 0])
MARK = b"\xb7\x71"
LONGEST_NAME = 255
LONGEST_PART = 200
"""Bytes between two slashes of a name: file systems take 255, of which writing a file whole takes some."""
LARGEST_FILE = 2**16 - 1
_FRAME = 7


@dataclass(frozen=True, slots=True)
class Entry:
    """A record whose frame is sound."""

    name: str
    start: int
    """Where the record begins in the archive."""
    begin: int
    """Where its picture file begins."""
    end: int


@dataclass(frozen=True, slots=True)
class Lost:
    """Bytes of an archive that belong to no record."""

    start: int
    end: int
    is_cut: bool = False
    """Whether they are the beginning of a record that the file ends in."""


class Archive:
    """An archive that is open to be read: its records, in order. A context manager."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Open an archive and walk over its records. Raises CodecError if it is none, or cannot be read."""
        self.path = Path(path)
        self.lost: list[Lost] = []
        self._starts = array("Q")
        try:
            with self.path.open("rb") as file:
                _check_header(self.path, file.read(len(HEADER)))
                self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as error:
            raise CodecError(f"cannot read {self.path}: {error.strerror or error}") from error
        for part in _walk(self._bytes):
            if isinstance(part, Entry):
                self._starts.append(part.start)
            else:
                self.lost.append(part)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._bytes.close()

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, number: int) -> Entry:
        entry = _entry_at(self._bytes, self._starts[number])
        if entry is None:
            raise CodecError(f"{self.path} changed while it was read")
        return entry

    def __iter__(self) -> Iterator[Entry]:
        return (self[number] for number in range(len(self)))

    def find(self, name: str) -> Entry:
        """Return the first record of a name. Raises CodecError if there is none."""
        for entry in self:
            if entry.name == name:
                return entry
        raise CodecError(f"{self.path} holds no picture {name}: `bisquit archive list` shows what it holds")

    def read(self, entry: Entry) -> bytes:
        """Return the picture file of a record."""
        return self._bytes[entry.begin : entry.end]


def append(path: str | os.PathLike[str], pictures: Iterable[tuple[str, bytes]]) -> int:
    """Append pictures, names and picture files, to an archive, which is made if it is not there; return how many.

    Each is written as it comes, and all are on the disk at the end. Two processes take turns. Raises CodecError if the
    file is no archive, or for a name that is there already or that `check_name` refuses, and OSError if a picture
    cannot be written; what came before stays.
    """
    path = Path(path)
    count = 0
    with _locked(path) as file:
        names = _ready_to_append(path, file)
        for name, data in pictures:
            if name in names:
                raise CodecError(f"{path} holds a picture {name} already: give another name")
            _write_whole(file, record(name, data))
            names.add(name)
            count += 1
        os.fsync(file.fileno())
        if not _is_still_there(path, file):
            raise CodecError(f"{path} was replaced while pictures were added to it: they are lost, add them again")
    return count


def _write_whole(file: FileIO, data: bytes) -> None:
    """Write at the end of a file, all or nothing: what a full disk let through is cut off again, and OSError raised."""
    start = file.tell()
    try:
        left = memoryview(data)
        while left:
            left = left[file.write(left) :]
    except OSError:
        file.truncate(start)
        raise


def write(path: str | os.PathLike[str], pictures: Iterable[tuple[str, bytes]]) -> int:
    """Write pictures to a new archive, whole or not at all, in place of what is there; return how many."""
    with atomic_file(path) as partial:
        return append(partial, pictures)


def record(name: str, data: bytes) -> bytes:
    """Return a record of a picture file. Raises CodecError if it is too long, or for a name that cannot be."""
    check_name(name)
    if len(data) > LARGEST_FILE:
        raise CodecError(f"the picture {name} has {len(data):,} bytes: {LARGEST_FILE:,} is the most")
    encoded = name.encode()
    frame = MARK + bytes([len(encoded)]) + len(data).to_bytes(2, "big")
    return frame + binascii.crc_hqx(frame + encoded, 0).to_bytes(2, "big") + encoded + data


def check_name(name: str) -> None:
    """Raise CodecError unless a name is a path that stays inside of a folder, and short enough for one."""
    try:
        length, parts = len(name.encode()), name.split("/")
    except UnicodeEncodeError as error:
        raise CodecError(f"the name {name!r} is not UTF-8: rename the picture") from error
    longest = max(len(part.encode()) for part in parts)
    if length > LONGEST_NAME or longest > LONGEST_PART:
        raise CodecError(f"the name {name!r} is too long: {LONGEST_NAME} bytes, {LONGEST_PART} a part, are the most")
    if any(part in ("", ".", "..") for part in parts) or not name.isprintable():
        raise CodecError(f"the name {name!r} must be a path inside of a folder, without control characters")


def _walk(data: mmap.mmap) -> Iterator[Entry | Lost]:
    """Yield the records of an archive, and what lies between them, from its beginning to its end."""
    place, size = len(HEADER), len(data)
    while place < size:
        entry = _entry_at(data, place)
        if entry is not None and entry.end <= size:
            yield entry
            place = entry.end
            continue
        found, cut = _next_records(data, place + 1)
        if found == size and (entry is not None or _begins_a_frame(data, place)):
            cut = place
        if cut > place:
            yield Lost(place, min(found, cut))
        if cut < found:
            yield Lost(cut, found, is_cut=True)
        place = found


def _next_records(data: mmap.mmap, place: int) -> tuple[int, int]:
    """Return where the next whole record begins, and where one does that the file ends in, if none is whole.

    Each is the end of the file where there is none.
    """
    size = len(data)
    cut = size
    while (place := data.find(MARK, place)) >= 0:
        if (entry := _entry_at(data, place)) is not None:
            if entry.end <= size:
                return place, size
            cut = min(cut, place)
        place += 1
    return size, cut


def _begins_a_frame(data: mmap.mmap, place: int) -> bool:
    """Whether what is left of a file may be the beginning of a record's frame."""
    left = len(data) - place
    return left < _FRAME + LONGEST_NAME and MARK.startswith(data[place : place + min(left, len(MARK))])


def _entry_at(data: mmap.mmap, place: int) -> Entry | None:
    """Return the record that begins at a place, or None if none does whose frame and name are sound."""
    frame = data[place : place + _FRAME]
    if len(frame) < _FRAME or frame[:2] != MARK:
        return None
    begin = place + _FRAME + frame[2]
    name = data[place + _FRAME : begin]
    if binascii.crc_hqx(frame[:5] + name, 0) != int.from_bytes(frame[5:7], "big"):
        return None
    try:
        decoded = name.decode()
        check_name(decoded)
    except (UnicodeDecodeError, CodecError):
        return None
    return Entry(decoded, place, begin, begin + int.from_bytes(frame[3:5], "big"))


def _check_header(path: Path, start: bytes) -> None:
    if start[:4] != MAGIC:
        raise CodecError(f'{path} is no archive: it does not begin with "bqar"')
    if start != HEADER:
        raise CodecError(f"{path} is of archive version {start[4:5].hex() or 'none'}: this bisquit reads {VERSION:02}")


@contextmanager
def _locked(path: Path) -> Iterator[FileIO]:
    """Open an archive to be read and written, made if it is not there, while no other process does the same."""
    while True:
        try:
            file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b", buffering=0)
        except OSError as error:
            raise CodecError(f"cannot write {path}: {error.strerror or error}") from error
        with file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if _is_still_there(path, file):  # and not another file by now, put in its place
                yield file
                return


def _is_still_there(path: Path, file: FileIO) -> bool:
    """Whether a path still leads to an open file."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _ready_to_append(path: Path, file: FileIO) -> set[str]:
    """Go to where the next record belongs, cut off one that was not finished; return the names that are there."""
    start = file.read(len(HEADER))
    if len(start) < len(HEADER) and HEADER.startswith(start):  # new, or killed before the header was there
        file.seek(0)
        _write_whole(file, HEADER)
        return set()
    with Archive(path) as archive:
        if archive.lost and archive.lost[-1].is_cut:
            file.truncate(archive.lost[-1].start)
        file.seek(0, os.SEEK_END)
        return {entry.name for entry in archive}
