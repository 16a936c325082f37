"""From what the user names (a file, a folder, a glob, a bundled set) to the files that are read, in a fixed order."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bisquit.errors import FrameError

BUNDLED = "bundled"
BUNDLED_SPLITS = ("train", "valid")
PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
PARQUET_SUFFIX = ".parquet"
ARROW_SUFFIX = ".arrow"
TABLE_SUFFIXES = (PARQUET_SUFFIX, ARROW_SUFFIX)
METADATA_NAME = "metadata.csv"
_KINDS = ("Parquet files", "Arrow files", "pictures")


@dataclass(frozen=True)
class Listing:
    """The files of a source, sorted: Parquet files, Arrow files or pictures, of one kind alone.

    Names of frames are paths relative to `root`. `metadata` holds the metadata.csv files of a folder of pictures.
    """

    root: Path
    tables: tuple[Path, ...] = ()
    pictures: tuple[Path, ...] = ()
    metadata: tuple[Path, ...] = ()

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file whose content the frames come from."""
        return self.tables + self.pictures + self.metadata

    def name(self, path: Path) -> str:
        """Return a file's name as the frames and the messages have it: relative to `root`, with forward slashes."""
        return path.relative_to(self.root).as_posix()


def list_files(source: str | os.PathLike[str]) -> Listing:
    """Find the files of a source: a Parquet or Arrow file, a picture, a folder of either, a glob, or a bundled set.

    Folders are searched to any depth; hidden files and folders are passed over. Raises FrameError if there is no such
    source, if it holds no frames, or if it holds files of more than one kind.
    """
    text = os.fspath(source)
    if text == BUNDLED or text.startswith(f"{BUNDLED}:"):
        return _bundled(text)
    path = Path(os.path.normpath(Path(text).expanduser()))
    if path.is_dir():
        return _sort_out(text, path, visible_files(path), with_metadata=True)
    if path.is_file():
        return _sort_out(text, path.parent, [path])
    if glob.has_magic(text):
        return _sort_out(text, _fixed_part(path), _matches(path))
    raise FrameError(f"{text} does not exist: give a Parquet or Arrow file, a folder, a glob, or bundled")


def can_name_folder(name: str) -> bool:
    """Whether a folder of this name is found again: within the folder that it is in, and not passed over as hidden."""
    return bool(name) and not name.startswith((".", "__")) and not any(mark in name for mark in "/\\\0:")


def _bundled(text: str) -> Listing:
    names = BUNDLED_SPLITS if text == BUNDLED else (text.removeprefix(f"{BUNDLED}:"),)
    if not set(names) <= set(BUNDLED_SPLITS):
        raise FrameError(f"{text} is no set of frames: the bundled ones are bundled, bundled:train and bundled:valid")
    folder = Path(__file__).parent / BUNDLED
    return Listing(folder, tables=tuple(folder / f"{name}{PARQUET_SUFFIX}" for name in names))


def _sort_out(source: str, root: Path, paths: Iterable[Path], *, with_metadata: bool = False) -> Listing:
    ordered = sorted(set(paths), key=lambda path: path.as_posix())
    kinds = ((PARQUET_SUFFIX,), (ARROW_SUFFIX,), PICTURE_SUFFIXES)
    parquet, arrow, pictures = (tuple(path for path in ordered if path.suffix.lower() in kind) for kind in kinds)
    found = [(what, paths[0]) for what, paths in zip(_KINDS, (parquet, arrow, pictures), strict=True) if paths]
    if len(found) > 1:
        (one, first), (other, second), *_ = found
        raise FrameError(
            f"{source} holds both {one} ({first.name}) and {other} ({second.name}): "
            f"choose one kind with a glob such as '{source}/*{first.suffix}'"
        )
    if not found:
        raise FrameError(f"{source} holds no frames: no Parquet or Arrow file, no JPEG, PNG or WebP picture was found")
    metadata = tuple(path for path in ordered if path.name == METADATA_NAME) if with_metadata and pictures else ()
    return Listing(root, parquet or arrow, pictures, metadata)


def visible_files(folder: Path) -> Iterator[Path]:
    """Yield the files of a folder, to any depth, but for those that are hidden, or in hidden folders."""
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith((".", "__"))]
        yield from (Path(parent, name) for name in files if not name.startswith("."))


def _matches(pattern: Path) -> Iterator[Path]:
    for match in map(Path, glob.glob(str(pattern), recursive=True)):
        if match.is_dir():
            yield from visible_files(match)
        else:
            yield match


def _fixed_part(pattern: Path) -> Path:
    """Return the folders of a glob before its first wildcard."""
    fixed = pattern.parent
    while glob.has_magic(str(fixed)):
        fixed = fixed.parent
    return fixed
