"""Files and folders that are there whole or not at all.

Each is made under a temporary name beside its target, flushed to the disk, and renamed in one step. When the work in
between fails (a full disk, an exception, a signal that raises), what was made so far is removed and an older target
stays as it was. A process that is killed leaves it behind, hidden: `remove_partials` is for a folder's next owner.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PARTIAL = ".partial-"
"""How the names of files and folders begin that are being made."""


@contextmanager
def atomic_file(target: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a path to write; it becomes `target` when the block ends well. Raises OSError as the file system does.

    The path ends as `target` does, so that writers that go by the suffix choose the right format.
    """
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=f"{PARTIAL}{target.stem}-", suffix=target.suffix, dir=target.parent)
    os.close(descriptor)
    partial = Path(name)
    try:
        yield partial
        _flush(partial)
        partial.chmod(0o666 & ~_umask())  # mkstemp makes files that only their owner reads
        partial.replace(target)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


@contextmanager
def atomic_folder(target: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a folder to fill; it becomes `target`, which must not exist yet, when the block ends well.

    If another process made `target` meanwhile, that one stays and this one's is dropped.
    """
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f"{PARTIAL}{target.name}-", dir=target.parent))
    try:
        yield partial
        for path in partial.rglob("*"):
            if path.is_file():
                _flush(path)
        partial.chmod(0o777 & ~_umask())
        try:
            partial.rename(target)
        except OSError:
            if not target.is_dir():
                raise
            shutil.rmtree(partial)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


@contextmanager
def scratch_in(folder: Path) -> Iterator[Path]:
    """Yield a hidden folder in another: for what a library leaves beside the file that it writes, if it is killed."""
    with tempfile.TemporaryDirectory(prefix=PARTIAL, dir=folder) as scratch:
        yield Path(scratch)


def remove_partials(folder: Path) -> None:
    """Remove what processes that were killed have left in a folder and below. Nobody else may be writing there."""
    for path in [*folder.rglob(f"{PARTIAL}*")]:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _umask() -> int:
    mask = os.umask(0)  # the only way to read it is to set it
    os.umask(mask)
    return mask
