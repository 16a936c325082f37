"""One picture as it was found, still encoded, and the tally of those that are broken.

Every kind of source is an iterable of `Record` with a length; what decodes and caches them knows no more than this.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

from bisquit.errors import FrameError

CLASS_COLUMNS = ("track", "label", "class")
"""Columns that may hold a frame's class; the first that is there counts."""

RACE_COLUMN = "race"
"""The column that holds which recording a frame is from."""


class Known(NamedTuple):
    """What a source knows of a picture beside its pixels."""

    name: str
    class_name: str | None
    race: str | None


class Record(NamedTuple):
    """A picture that has not been decoded: its bytes, or the file that holds them."""

    known: Known
    encoded: bytes | Path


class Records(Protocol):
    """A source's pictures in a fixed order. The length is what can be known beforehand: broken pictures count."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Record]: ...


class BadFrames:
    """What becomes of broken pictures: the first one is an error, or each is noted in `names` and left out."""

    def __init__(self, *, skip: bool) -> None:
        self.skip = skip
        self.names: list[str] = []

    def report(self, name: str, error: FrameError) -> None:
        """Note that `name` is left out; where nothing is to be skipped, raise `error` with the remedy."""
        if not self.skip:
            raise FrameError(f"{error}; pass --skip-bad to leave broken frames out") from error
        self.names.append(name)
