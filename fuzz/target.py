"""What can be given bytes: a check of one input, inputs to begin with, and the code whose coverage guides."""

from __future__ import annotations

import functools
import inspect
import json
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType, ModuleType

MEMORY = Path("/dev/shm") if Path("/dev/shm").is_dir() else None
"""A file system in memory, where there is one: readers that take a path are then not held up by a disk."""


@dataclass(frozen=True)
class Target:
    """A reader of bytes from outside."""

    check: Callable[[bytes], None]
    """Takes one input. Raises AssertionError, or whatever the reader raises, if that is not dealt with well."""
    seeds: Callable[[], Iterable[bytes]]
    """Returns inputs to begin with, sound ones too."""
    modules: tuple[ModuleType, ...]
    """Whose functions are instrumented."""
    longest: int = 4096
    """Bytes of an input."""
    most_growth_mb: int = 200
    """By how much memory may grow, in all."""

    def functions(self) -> Iterator[FunctionType]:
        """Yield the functions and methods that the modules define."""
        for module in self.modules:
            for owner in (module, *(kind for kind in vars(module).values() if isinstance(kind, type))):
                for value in vars(owner).values():
                    function = inspect.unwrap(value) if callable(value) else None
                    if isinstance(function, FunctionType) and function.__module__ == module.__name__:
                        yield function


def changed(data: bytes, changes: bytes) -> bytes:
    """Return data with changes made: flips, cuts and insertions, three bytes each."""
    for kind, place, value in zip(changes[::3], changes[1::3], changes[2::3], strict=False):
        at = place * (len(data) + 1) // 256
        if kind % 4 == 0:
            data = data[:at] + bytes([data[at] ^ (value or 1)]) + data[at + 1 :] if at < len(data) else data
        elif kind % 4 == 1:
            data = data[:at]
        elif kind % 4 == 2:
            data = data[:at] + changes[: value % 32] + data[at:]
        else:
            data = data[:at] + data[at + value % 32 :]
    return data


@functools.cache
def scratch() -> Path:
    """Return a folder of this process, in memory where it can be; it is there until `leave_nothing`."""
    return Path(tempfile.mkdtemp(prefix="bisquit-fuzz-", dir=MEMORY))


def leave_nothing() -> None:
    """Remove what `scratch` made."""
    if scratch.cache_info().currsize:
        shutil.rmtree(scratch(), ignore_errors=True)
        scratch.cache_clear()


@contextmanager
def file_of(data: bytes, name: str) -> Iterator[Path]:
    """Yield a file of these bytes, alone in its folder; fails if whoever reads it leaves anything beside it."""
    path = scratch() / "files" / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    try:
        yield path
        left = sorted(other.name for other in path.parent.iterdir())
        assert left == [name], f"left behind: {left}"
        assert path.read_bytes() == data, "the file was changed"
    finally:
        path.unlink(missing_ok=True)


def plain(text: bytes) -> object:
    """Return what JSON says; None if it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def one_line(error: Exception) -> None:
    """Fail unless an error says what is wrong in one line."""
    assert str(error).strip(), "an error without a word"
    assert len(str(error).splitlines()) == 1, f"an error of several lines: {error}"
