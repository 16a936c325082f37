"""A folder that one process holds at a time, and that says who holds it.

The lock is the system's own on an open file, so that it ends with its process, however that ends.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from bisquit.atomic import PARTIAL, atomic_file, remove_partials
from bisquit.errors import RunError

LOCK_FILE = ".lock"
HOLDER_FILE = ".lock-holder"


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold a folder while the block runs; it is made if it is not there. What killed holders left half-made is removed.

    Raises RunError, which says who holds it, if another process does.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock, holder = FileLock(folder / LOCK_FILE), folder / HOLDER_FILE
    try:
        lock.acquire(blocking=False)
    except Timeout as error:
        raise RunError(f"{folder} is in use by {_holder(holder)}: wait for it, stop it, or name another") from error
    try:
        remove_partials(folder)
        with atomic_file(holder) as partial:
            partial.write_text(f"process {os.getpid()} on {platform.node()}, since {datetime.now():%Y-%m-%d %H:%M}\n")
        yield
        holder.unlink(missing_ok=True)
    finally:
        lock.release()


def names_in(folder: Path) -> set[str]:
    """Return the names in a folder, none if it is not there, but those that a killed holder may leave behind."""
    found = {path.name for path in folder.iterdir()} if folder.exists() else set()
    return {name for name in found - {LOCK_FILE, HOLDER_FILE} if not name.startswith(PARTIAL)}


def _holder(path: Path) -> str:
    """Return who holds a lock, as far as it said so."""
    try:
        return path.read_text().strip() or "another process"
    except (OSError, UnicodeDecodeError):
        return "another process"
