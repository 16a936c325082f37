"""An archive: compressed pictures one after another in a file that only ever grows.

    8  header: magic "bqar", version, three zeros
       records, each
           2  mark
           1  length of the name
           2  length of the picture file
           2  CRC-16 of the five bytes before and of the name
           ... name, UTF-8
           ... picture file, as `picture_file` has it, with its own checksum

All numbers are big-endian. There is no index that could be lost: opening an archive walks over the records' lengths
without reading what lies between. Where a record's frame is damaged, the next sound one is looked for by its mark, so
that damage to one picture costs that picture alone. Appending writes behind the last record, and a process that is
killed over it leaves at most one record that is cut short, which the next one cuts off.
"""

from __future__ import annotations

import binascii
import fcntl
import mmap
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Self

from bisquit.atomic import atomic_file
from bisquit.errors import CodecError

MAGIC = b"bqar"
VERSION = 1
HEADER = MAGIC + bytes([VERSION, 0, 0, 0])
MARK = b"\xb7\x71"
LONGEST_NAME = 255
LARGEST_FILE = 2**16 - 1
_FRAME = 7


@dataclass(frozen=True)
class Entry:
    """A record whose frame is sound."""

    name: str
    start: int
    """Where the record begins in the archive."""
    begin: int
    """Where its picture file begins."""
    end: int


@dataclass(frozen=True)
class Lost:
    """Bytes of an archive that belong to no record."""

    start: int
    end: int
    is_cut: bool = False
    """Whether they are the beginning of a record that the file ends in."""


class Archive:
    """An archive that is open to be read; a context manager."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Open an archive and walk over its records. Raises CodecError if it is none, or cannot be read."""
        self.path = Path(path)
        try:
            with self.path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                start = file.read(len(HEADER))
                _check_header(self.path, start)
                self._bytes = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ)
        except OSError as error:
            raise CodecError(f"cannot read {self.path}: {error.strerror or error}") from error
        parts = list(_walk(self._bytes))
        self.entries = [part for part in parts if isinstance(part, Entry)]
        self.lost = [part for part in parts if isinstance(part, Lost)]
        self._by_name = {entry.name: entry for entry in self.entries}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._bytes.close()

    def __len__(self) -> int:
        return len(self.entries)

    def find(self, name: str) -> Entry:
        """Return the record of a name. Raises CodecError if there is none."""
        if name not in self._by_name:
            raise CodecError(f"{self.path} holds no picture {name}: `bisquit archive list` shows what it holds")
        return self._by_name[name]

    def read(self, entry: Entry) -> bytes:
        """Return the picture file of a record."""
        return self._bytes[entry.begin : entry.end]


def append(path: str | os.PathLike[str], pictures: Iterable[tuple[str, bytes]]) -> int:
    """Append pictures, names and picture files, to an archive, which is made if it is not there; return how many.

    Each is written as it comes, and all are on the disk at the end. Two processes take turns. Raises CodecError if the
    file is no archive, if a name is there already, or if one or its picture is too long; what came before stays.
    """
    path = Path(path)
    count = 0
    with _locked(path) as file:
        names = _ready_to_append(path, file)
        for name, data in pictures:
            if name in names:
                raise CodecError(f"{path} holds a picture {name} already: give another name")
            file.write(record(name, data))
            names.add(name)
            count += 1
        file.flush()
        os.fsync(file.fileno())
    return count


def write(path: str | os.PathLike[str], pictures: Iterable[tuple[str, bytes]]) -> int:
    """Write pictures to a new archive, whole or not at all, in place of what is there; return how many."""
    with atomic_file(path) as partial:
        return append(partial, pictures)


@contextmanager
def _locked(path: Path) -> Iterator[BinaryIO]:
    """Open an archive to be read and written, made if it is not there, while no other process does the same."""
    try:
        with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield file
    except OSError as error:
        raise CodecError(f"cannot write {path}: {error.strerror or error}") from error


def _ready_to_append(path: Path, file: BinaryIO) -> set[str]:
    """Go to where the next record belongs, cut off one that was not finished; return the names that are there."""
    start = file.read(len(HEADER))
    if len(start) < len(HEADER) and HEADER.startswith(start):  # new, or killed before the header was there
        file.seek(0)
        file.write(HEADER)
        return set()
    with Archive(path) as archive:
        if archive.lost and archive.lost[-1].is_cut:
            file.truncate(archive.lost[-1].start)
        file.seek(0, os.SEEK_END)
        return {entry.name for entry in archive.entries}


def record(name: str, data: bytes) -> bytes:
    """Return a record of a picture file. Raises CodecError if it or its name is too long."""
    encoded = name.encode()
    if not 1 <= len(encoded) <= LONGEST_NAME:
        raise CodecError(f"the name {name!r} has {len(encoded)} bytes: it must have between 1 and {LONGEST_NAME}")
    if len(data) > LARGEST_FILE:
        raise CodecError(f"the picture {name} has {len(data):,} bytes: {LARGEST_FILE:,} is the most")
    frame = MARK + bytes([len(encoded)]) + len(data).to_bytes(2, "big")
    return frame + binascii.crc_hqx(frame + encoded, 0).to_bytes(2, "big") + encoded + data


def _walk(data: mmap.mmap) -> Iterator[Entry | Lost]:
    """Yield the records of an archive, and what lies between them, from its beginning to its end."""
    place, size = len(HEADER), len(data)
    while place < size:
        entry = _entry_at(data, place)
        if entry is not None and entry.end <= size:
            yield entry
            place = entry.end
            continue
        if entry is not None:
            yield Lost(place, size, is_cut=True)
            return
        found = _next_record(data, place + 1)
        begins = data[place : min(size, place + len(MARK))]
        is_cut = found == size and size - place < _FRAME + LONGEST_NAME and MARK.startswith(begins)
        yield Lost(place, found, is_cut)
        place = found


def _next_record(data: mmap.mmap, place: int) -> int:
    """Return where the next record begins that is whole, or the end."""
    while (place := data.find(MARK, place)) >= 0:
        entry = _entry_at(data, place)
        if entry is not None and entry.end <= len(data):
            return place
        place += 1
    return len(data)


def _entry_at(data: mmap.mmap, place: int) -> Entry | None:
    """Return the record that begins at a place, or None if none does whose frame is sound."""
    frame = data[place : place + _FRAME]
    if len(frame) < _FRAME or frame[:2] != MARK:
        return None
    begin = place + _FRAME + frame[2]
    name = data[place + _FRAME : begin]
    if binascii.crc_hqx(frame[:5] + name, 0) != int.from_bytes(frame[5:7], "big"):
        return None
    try:
        return Entry(name.decode(), place, begin, begin + int.from_bytes(frame[3:5], "big"))
    except UnicodeDecodeError:
        return None


def _check_header(path: Path, start: bytes) -> None:
    if start[:4] != MAGIC:
        raise CodecError(f'{path} is no archive: it does not begin with "bqar"')
    if start != HEADER:
        raise CodecError(f"{path} is of archive version {start[4:5].hex() or 'none'}: this bisquit reads {VERSION:02}")
