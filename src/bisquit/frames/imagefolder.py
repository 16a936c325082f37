"""Frames from a folder of pictures, laid out as Hugging Face's imagefolder has it.

    icy/003.png                            the class is the name of the folder that the picture is in
    metadata.csv: file_name,track,race     a column `track`, `label` or `class` of a metadata.csv goes before it

A metadata.csv speaks for the pictures of its own folder and of those below it, and must list each of them; where two
do, the nearer one holds. Its `file_name` is relative to itself.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from pathlib import Path

from bisquit.errors import FrameError
from bisquit.frames.listing import Listing
from bisquit.frames.record import CLASS_COLUMNS, RACE_COLUMN, BadFrames, Known, Record

_FILE_COLUMN = "file_name"

_Row = dict[str, str]


class PictureRecords:
    """The records of pictures, by path; a record is named by its path below the folder.

    A picture that a metadata.csv should list and does not, and one that it lists and is not there, are reported to
    `bad`. Raises FrameError for a metadata.csv that cannot be read.
    """

    def __init__(self, listing: Listing, bad: BadFrames) -> None:
        rows = _read_metadata(listing)
        covered = {path.parent for path in listing.metadata}
        for path in sorted(rows.keys() - set(listing.pictures)):
            name = os.path.relpath(path, listing.root)
            bad.report(name, FrameError(f"{name} is listed in a metadata.csv, but is not there"))
        self._records: list[Record] = []
        for path in listing.pictures:
            name = listing.name(path)
            if path not in rows and not covered.isdisjoint(path.parents):
                bad.report(name, FrameError(f"{name} is not listed in its metadata.csv"))
            else:
                self._records.append(_record(listing, path, rows.get(path, {})))

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[Record]:
        return iter(self._records)


def _record(listing: Listing, path: Path, row: _Row) -> Record:
    folder = path.parent.name if path.parent != listing.root else None
    class_column = next((column for column in CLASS_COLUMNS if column in row), None)
    class_name = row[class_column] if class_column else folder
    return Record(Known(listing.name(path), class_name or None, row.get(RACE_COLUMN) or None), path)


def _read_metadata(listing: Listing) -> dict[Path, _Row]:
    """Return the row of each picture that is listed, the nearer metadata.csv's where two list it."""
    rows: dict[Path, _Row] = {}
    for path in sorted(listing.metadata, key=lambda path: len(path.parts)):
        try:
            with path.open(encoding="utf-8-sig", newline="") as file:
                for row in csv.DictReader(file, strict=True):
                    rows[Path(os.path.normpath(path.parent / row[_FILE_COLUMN]))] = row
        except KeyError as error:
            raise FrameError(f"{listing.name(path)} has no column '{_FILE_COLUMN}'") from error
        except (OSError, ValueError, csv.Error, TypeError) as error:
            raise FrameError(f"{listing.name(path)} cannot be read as CSV: {error}") from error
    return rows
