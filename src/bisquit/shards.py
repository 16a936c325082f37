"""Tokens of sets that no machine holds: shards, each made of one piece of the frames, on any storage.

    OUT/shards.json               what the shards are of: the tokenizer, the frames and their size; written first
    OUT/tokenizer.safetensors     the tokenizer
    OUT/000003-00012-0004096.parquet ...
                                  the tokens of a piece: its file, its row group, its first row there

A shard appears whole under its own name, which follows from its piece; so pieces may be done in any order, on any
machine, and again after a failure, and there is exactly one shard of each in the end. What is there is not made again.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem

from bisquit.atomic import PARTIAL, atomic_file
from bisquit.checkpoint import TOKENIZER_FILE, load_tokenizer, save_tokenizer
from bisquit.config import Settings, require
from bisquit.errors import ConfigError, TokenError
from bisquit.frames.pieces import Piece, find_pieces, reaching, read_piece, storage_of
from bisquit.frames.record import BadFrames
from bisquit.progress import Progress
from bisquit.tokenizer import Tokenizer
from bisquit.tokens import TokenSet, smallest_unsigned, tokenize

DESCRIPTION_FILE = "shards.json"
FORMAT_VERSION = 1


@dataclass(frozen=True)
class ShardsDescription(Settings):
    """What `shards.json` holds."""

    format: int
    tokenizer: str
    """The tokenizer's fingerprint."""
    frame_size: tuple[int, int]
    """(H, W), to which other frames are resized."""
    pieces: int
    frames: int
    """Rows of all pieces; those that cannot be read may be missing from the shards."""
    source: str
    """A digest of which pieces there are, and of which files."""


@dataclass(frozen=True)
class Work:
    """What is to be done for some frames, and where."""

    out: str
    """A URL of a folder."""
    frame_size: tuple[int, int]
    pieces: tuple[Piece, ...]
    """Those of which there is no shard yet."""
    total: int
    """Pieces of all frames."""
    skip_bad: bool
    """Whether pictures that cannot be read are left out; else the first one raises FrameError."""

    def without_pieces(self) -> Work:
        """Return all that a worker must know beside the piece that it is to do."""
        return replace(self, pieces=())


TokenizePieces = Callable[[Tokenizer, Work], Iterator[int]]
"""Does work, yielding the number of frames of each piece that is done."""


def begin(
    tokenizer: Tokenizer, frames: str, out: str, size: tuple[int, int], piece_frames: int, skip_bad: bool = False
) -> Work:
    """Return what is left to do to have the shards of frames in a folder, which is begun if it is not there.

    frames: a URL of Parquet files, such as s3://bucket/frames/*.parquet. out: the folder's URL. size: (H, W) that
    frames are resized to where they are of another. piece_frames: the most frames of a shard. Raises FrameError if
    frames cannot be read, TokenError if the folder holds shards of anything else.
    """
    require(piece_frames >= 1, "piece_frames", piece_frames, "at least 1")
    pieces = find_pieces(frames, piece_frames)
    digest = sha256(repr([(piece.url, piece.name, piece.rows) for piece in pieces]).encode()).hexdigest()[:16]
    rows = sum(piece.rows for piece in pieces)
    wanted = ShardsDescription(FORMAT_VERSION, tokenizer.fingerprint(), size, len(pieces), rows, digest)
    system, folder = storage_of(out)
    with reaching(out):
        is_begun = system.exists(f"{folder}/{DESCRIPTION_FILE}")
    if is_begun:
        found = _description(out)
        if found != wanted:
            raise TokenError(f"{out} holds shards of {found}, not of {wanted}: pass another folder")
    else:
        with TemporaryDirectory() as scratch:
            path = Path(scratch) / TOKENIZER_FILE
            save_tokenizer(tokenizer, path)
            _put(out, TOKENIZER_FILE, path.read_bytes())
        _put(out, DESCRIPTION_FILE, json.dumps(wanted.to_dict(), indent=2).encode())
    there = {str(path).rpartition("/")[2] for path in system.ls(folder, detail=False, refresh=True)}
    left = tuple(piece for piece in pieces if f"{piece.name}.parquet" not in there)
    return Work(out, size, left, len(pieces), skip_bad)


def tokenize_piece(tokenizer: Tokenizer, work: Work, piece: Piece) -> int:
    """Make the shard of a piece; return how many frames it has. Its tokens are those that `tokenize` gives."""
    frames = read_piece(piece, work.frame_size, BadFrames(skip=work.skip_bad))
    dtype, (h, w) = smallest_unsigned(tokenizer.bits), tokenizer.grid(*work.frame_size)
    tokens = tokenize(tokenizer, frames).tokens if len(frames) else np.empty((0, h, w), dtype)
    names = [frames.classes[label] if label >= 0 else None for label in frames.labels]
    cells = [picture.astype(dtype.newbyteorder("<")).tobytes() for picture in tokens]
    columns = {"tokens": pa.array(cells, pa.binary(h * w * dtype.itemsize)), "class": pa.array(names, pa.string())}
    file = io.BytesIO()
    pq.write_table(pa.table(columns), file)
    _put(work.out, f"{piece.name}.parquet", file.getvalue())
    return len(frames)


def in_this_process(tokenizer: Tokenizer, work: Work) -> Iterator[int]:
    """Do work piece by piece."""
    for piece in work.pieces:
        yield tokenize_piece(tokenizer, work, piece)


def tokenize_shards(
    tokenizer: Tokenizer, work: Work, way: TokenizePieces = in_this_process, progress: Progress | None = None
) -> int:
    """Do all work that is left, and return of how many frames it was. way: how, here or on many machines."""
    done, frames = work.total - len(work.pieces), 0
    for count in way(tokenizer, work):
        done, frames = done + 1, frames + count
        if progress:
            progress(done, work.total)
    return frames


@dataclass(frozen=True)
class Shards:
    """The shards of a folder, all or some."""

    names: tuple[str, ...]
    """Paths on their storage, in order."""
    tokenizer: Tokenizer
    frame_size: tuple[int, int]
    """(H, W)"""
    storage: Any
    """Their file system."""

    def __len__(self) -> int:
        return len(self.names)

    @property
    def grid(self) -> tuple[int, int]:
        """The grid (h, w) of each picture."""
        return self.tokenizer.grid(*self.frame_size)

    def read(self, number: int) -> tuple[np.ndarray, list[str | None]]:
        """Return the tokens (N, h, w) of a shard, and the class of each, None where unknown. Raises TokenError."""
        dtype = smallest_unsigned(self.tokenizer.bits).newbyteorder("<")
        with self._opened(number) as file:
            table = file.read(["tokens", "class"])
            cells = b"".join(table.column("tokens").to_pylist())
            tokens = np.frombuffer(cells, dtype).reshape(-1, *self.grid).astype(dtype.newbyteorder("="))
            if len(tokens) != len(table):
                raise ValueError("its tokens are not of this grid")
            if len(tokens) and int(tokens.max()) >= self.tokenizer.codebook_size:
                raise ValueError(f"a token is outside of the codebook of {self.tokenizer.codebook_size}")
            classes = table.column("class").to_pylist()
        return tokens, classes

    def contents(self, number: int) -> tuple[int, set[str]]:
        """Return how many pictures a shard has, and of which classes, without its tokens. Raises TokenError."""
        with self._opened(number) as file:
            names = file.read(["class"]).column("class").unique().to_pylist()
            return file.metadata.num_rows, {name for name in names if name is not None}

    @contextmanager
    def _opened(self, number: int) -> Iterator[pq.ParquetFile]:
        """Yield a shard's file. Raises TokenError if it cannot be read."""
        try:
            with self.storage.open(self.names[number], "rb") as file:
                yield pq.ParquetFile(file, pre_buffer=False)
        except (pa.ArrowException, OSError, KeyError, ValueError, TypeError) as error:
            raise TokenError(f"{self.names[number]} is no shard of tokens: {error}".partition("\n")[0]) from error


def find_shards(url: str) -> Shards:
    """Return the shards of a folder on any storage; with * in the last part of its URL, those that it names.

    Raises TokenError if there are none, or, of a whole folder, not all that there are to be.
    """
    out, pattern = url.rpartition("/")[::2] if "*" in url else (url, "*")
    description = _description(out)
    system, folder = storage_of(out)
    there = [str(path).rpartition("/")[2] for path in system.ls(folder, detail=False, refresh=True)]
    shards = [name for name in there if name.endswith(".parquet") and not name.startswith(PARTIAL)]
    names = sorted(name for name in shards if fnmatchcase(name, pattern))
    if pattern == "*" and len(names) != description.pieces:
        raise TokenError(f"{out} has {len(names)} of {description.pieces} shards: the same command makes the others")
    if not names:
        raise TokenError(f"{url} names none of the {len(shards)} shards that are there")
    paths = tuple(f"{folder}/{name}" for name in names)
    return Shards(paths, read_tokenizer(out), description.frame_size, system)


def shards_of(out: str) -> Iterator[tuple[np.ndarray, list[str | None]]]:
    """Yield the tokens (N, h, w) of each shard of a folder in order, and the class of each, None where unknown.

    Raises TokenError if the folder has no shards, or not all of them.
    """
    shards = find_shards(out)
    for number in range(len(shards)):
        yield shards.read(number)


def collected(out: str) -> TokenSet:
    """Return the tokens of all shards of a folder as one set. Raises TokenError as `shards_of` does."""
    tokens, names = zip(*shards_of(out), strict=True)
    flat = [name for of_shard in names for name in of_shard]
    classes = tuple(sorted({name for name in flat if name is not None}))
    labels = np.array([-1 if name is None else classes.index(name) for name in flat], dtype=np.int64)
    return TokenSet(np.concatenate(tokens), read_tokenizer(out), _description(out).frame_size, classes, labels, None)


def read_tokenizer(out: str) -> Tokenizer:
    """Return the tokenizer of a folder of shards."""
    system, folder = storage_of(out)
    with TemporaryDirectory() as scratch:
        path = Path(scratch) / TOKENIZER_FILE
        path.write_bytes(system.cat_file(f"{folder}/{TOKENIZER_FILE}"))
        return load_tokenizer(path)


def _description(out: str) -> ShardsDescription:
    system, folder = storage_of(out)
    try:
        with reaching(out):
            content = system.cat_file(f"{folder}/{DESCRIPTION_FILE}")
        return ShardsDescription.from_dict(json.loads(content))
    except (OSError, ValueError, ConfigError) as error:
        raise TokenError(f"{out} has no {DESCRIPTION_FILE} of shards of tokens") from error


def _put(out: str, name: str, content: bytes) -> None:
    """Have a file in a folder, whole or not at all: other storage than disks shows none before it is whole."""
    system, folder = storage_of(out)
    if isinstance(system, LocalFileSystem):
        with atomic_file(Path(folder) / name) as partial:
            partial.write_bytes(content)
    else:
        with reaching(out):
            system.makedirs(folder, exist_ok=True)
            system.pipe_file(f"{folder}/{name}", content)
