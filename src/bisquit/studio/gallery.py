"""The gallery: pictures that stay, each with the recipe that paints it again.

    gallery.sqlite             who is there: id, when, recipe
    pictures/ID.png            the pictures
    inputs/SHA256.png          what edited pictures were made of, once each

A file is written before its row and removed after it, so that no row is without its files; files without a row, which
a crash can leave, are removed at the start. All of it may be called from any thread.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bisquit.atomic import atomic_file
from bisquit.errors import ConfigError, FrameError

_SCHEMA = """
CREATE TABLE IF NOT EXISTS pictures (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    created REAL NOT NULL,
    height INTEGER NOT NULL,
    width INTEGER NOT NULL,
    recipe TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS inputs (
    picture INTEGER NOT NULL REFERENCES pictures (number) ON DELETE CASCADE,
    sha256 TEXT NOT NULL
);
"""
_ID = re.compile(r"[0-9a-f]{32}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Entry:
    """A picture of the gallery."""

    id: str
    created: float
    height: int
    width: int
    recipe: dict[str, Any]


@dataclass(frozen=True)
class Page:
    """Some pictures, the latest first."""

    entries: list[Entry]
    next: str | None
    """The id after which the next page begins; None on the last."""
    total: int


def digest(png: bytes) -> str:
    """Return the name of an input by its content."""
    return hashlib.sha256(png).hexdigest()


class Gallery:
    """A folder of pictures with their recipes."""

    def __init__(self, folder: Path, most: int) -> None:
        """Open the gallery of a folder, which is made if need be; it holds at most so many pictures.

        Raises ConfigError if the folder or the database in it cannot be used.
        """
        self._folder, self._most, self._lock = folder, most, threading.Lock()
        try:
            for name in ("pictures", "inputs"):
                (folder / name).mkdir(parents=True, exist_ok=True)
            with self._open() as database:
                database.executescript(_SCHEMA)
                self._sweep(database)
        except OSError as error:
            raise ConfigError(f"{folder} cannot hold a gallery: {error}") from error

    def add(self, png: bytes, size: tuple[int, int], recipe: Mapping[str, Any], inputs: Mapping[str, bytes]) -> str:
        """Keep a picture, and return its id. inputs: PNGs that its recipe names by their `digest`.

        Raises ConfigError if the gallery is full.
        """
        identity = secrets.token_hex(16)
        with self._lock, self._open() as database:
            (count,) = database.execute("SELECT count(*) FROM pictures").fetchone()
            if count >= self._most:
                raise ConfigError(f"the gallery is full, it holds {count:,} pictures: delete some")
            for name, data in inputs.items():
                self._write("inputs", name, data)
            self._write("pictures", identity, png)
            row = (identity, time.time(), *size, json.dumps(recipe))
            columns = "id, created, height, width, recipe"
            number = database.execute(f"INSERT INTO pictures ({columns}) VALUES (?, ?, ?, ?, ?)", row).lastrowid
            database.executemany("INSERT INTO inputs VALUES (?, ?)", [(number, name) for name in inputs])
        return identity

    def page(self, limit: int, before: str | None = None) -> Page:
        """Return so many pictures, those older than `before`. Raises KeyError if that is not there."""
        with self._open() as database:
            latest = 2**62 if before is None else self._number(database, before)
            rows = database.execute(
                "SELECT id, created, height, width, recipe FROM pictures WHERE number < ? ORDER BY number DESC LIMIT ?",
                (latest, limit + 1),
            ).fetchall()
            (total,) = database.execute("SELECT count(*) FROM pictures").fetchone()
        entries = [_entry(row) for row in rows[:limit]]
        return Page(entries, entries[-1].id if len(rows) > limit else None, total)

    def get(self, identity: str) -> Entry:
        """Return what is known of a picture. Raises KeyError if it is not there."""
        with self._open() as database:
            row = database.execute(
                "SELECT id, created, height, width, recipe FROM pictures WHERE id = ?", (identity,)
            ).fetchone()
        if row is None:
            raise KeyError(identity)
        return _entry(row)

    def png(self, identity: str) -> bytes:
        """Return a picture. Raises KeyError if it is not there, FrameError if its file was taken away."""
        return self._read("pictures", self.get(identity).id, _ID)

    def input(self, name: str) -> bytes:
        """Return an input by its `digest`. Raises FrameError if it is not there."""
        return self._read("inputs", name, _SHA256)

    def delete(self, identity: str) -> None:
        """Remove a picture, and inputs that no other one is made of. Raises KeyError if it is not there."""
        with self._lock:
            with self._open() as database:
                number = self._number(database, identity)
                database.execute("DELETE FROM pictures WHERE number = ?", (number,))
            with self._open() as database:
                self._sweep(database)

    def _sweep(self, database: sqlite3.Connection) -> None:
        """Remove files that no row names."""
        for name, query in (("pictures", "SELECT id FROM pictures"), ("inputs", "SELECT sha256 FROM inputs")):
            known = {identity for (identity,) in database.execute(query)}
            for path in (self._folder / name).iterdir():
                if path.suffix == ".png" and path.stem not in known:
                    path.unlink(missing_ok=True)

    def _write(self, kind: str, name: str, png: bytes) -> None:
        with atomic_file(self._folder / kind / f"{name}.png") as partial:
            partial.write_bytes(png)

    def _read(self, kind: str, name: str, pattern: re.Pattern[str]) -> bytes:
        path = self._folder / kind / f"{name}.png"
        if not pattern.fullmatch(name) or not path.is_file():
            raise FrameError(f"the gallery has lost a file of its {kind}: {name[:64]}")
        return path.read_bytes()

    def _number(self, database: sqlite3.Connection, identity: str) -> int:
        row = database.execute("SELECT number FROM pictures WHERE id = ?", (identity,)).fetchone()
        if row is None:
            raise KeyError(identity)
        return int(row[0])

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """Yield the database; what is done with it is done whole or not at all."""
        try:
            with closing(sqlite3.connect(self._folder / "gallery.sqlite", timeout=30)) as database:
                database.execute("PRAGMA foreign_keys = ON")
                with database:
                    yield database
        except sqlite3.Error as error:  # a full disk, one that may only be read, damage
            raise ConfigError(f"{self._folder} cannot hold a gallery: {error}") from error


def _entry(row: tuple[Any, ...]) -> Entry:
    identity, created, height, width, recipe = row
    return Entry(identity, created, height, width, json.loads(recipe))
