"""Labelled pictures on the disk, with where they come from: a folder that can be gone on with, or a Parquet file.

    chunks of pictures ──> CLASS/NUMBER.png ──> a line of the journal ──> at the end: metadata.csv

The journal holds of each chunk what is known of its pictures, once these are there. Whoever stops or dies, the next
with the same wishes goes on after the last whole line, and what comes out is the same to the byte. The journal stays,
so that the same wishes find a finished folder finished.
"""

from __future__ import annotations

import csv
import dataclasses
import itertools
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from bisquit.atomic import atomic_file
from bisquit.augmenting import Chunk, Count, Painted
from bisquit.errors import FrameError
from bisquit.frames import encode_png
from bisquit.frames.listing import METADATA_NAME, PARQUET_SUFFIX, can_name_folder
from bisquit.locks import held, names_in

Paint = Callable[[str, Count], Iterator[Chunk]]
"""Yields the chunks of a class, on from a count."""
JOURNAL = ".painted.jsonl"
PROVENANCE = {
    "track": pa.string(),
    "seed": pa.int64(),
    "number": pa.int64(),
    "bits": pa.float64(),
    "nearest": pa.string(),
    "nearest_rms": pa.float64(),
}
"""What is written of each picture beside its pixels."""
_FEATURES = {"info": {"features": {"image": {"_type": "Image"}}}}
"""By which Hugging Face's `datasets` knows pictures in a column; the other columns' types say enough."""
ROWS_AT_ONCE = 100


def write_set(
    paint: Paint, classes: Sequence[str], output: Path, source: Mapping[str, Any], asked: Mapping[str, Any]
) -> int:
    """Write the pictures of classes to a Parquet file or to a folder; return how many.

    source: what is the same for all, such as the model; it stands in each row. asked: all that says which pictures
    these are, of plain JSON types. A folder must be new or empty, or hold what was begun of the same, with which it
    goes on; a file begins anew. Raises FrameError if the folder holds anything else; RunError if another process is
    writing there.
    """
    if output.suffix.lower() == PARQUET_SUFFIX:
        chunks = itertools.chain.from_iterable(paint(name, Count()) for name in classes)
        return _write_parquet((picture for chunk in chunks for picture in chunk.pictures), output, source)
    return _write_folder(paint, classes, output, source, asked)


def _write_folder(
    paint: Paint, classes: Sequence[str], output: Path, source: Mapping[str, Any], asked: Mapping[str, Any]
) -> int:
    for name in classes:
        if not can_name_folder(name):
            raise FrameError(f"the class {name!r} cannot name a folder: write a file that ends in {PARQUET_SUFFIX}")
    _check_can_write(output)
    with held(output):
        journal = output / JOURNAL
        begun = _begun(journal, asked)
        for name in classes:
            for chunk in paint(name, begun.get(name, Count())):
                for picture in chunk.pictures:
                    with atomic_file(output / _file_name(name, picture.number)) as image:
                        image.write_bytes(encode_png(picture.frame))
                _append(journal, _line(chunk))
        rows = [row for line in _lines(journal)[1:] for row in line["rows"]]
        with (  # without the metadata the folder is no whole set, so it has its name only now
            atomic_file(output / METADATA_NAME) as partial,
            partial.open("w", encoding="utf-8", newline="") as file,
        ):
            writer = csv.DictWriter(file, ["file_name", *PROVENANCE, *source])
            writer.writeheader()
            writer.writerows({"file_name": _file_name(row["track"], row["number"]), **row, **source} for row in rows)
    return len(rows)


def _check_can_write(output: Path) -> None:
    """Raise FrameError if a folder holds anything but such a set."""
    if output.exists() and not output.is_dir():
        raise FrameError(f"{output} is a file: name a new folder, or a file that ends in {PARQUET_SUFFIX}")
    kept = names_in(output)
    if kept and JOURNAL not in kept:
        raise FrameError(f"{output} is not empty: name a new folder, or a file that ends in {PARQUET_SUFFIX}")


def _begun(journal: Path, asked: Mapping[str, Any]) -> dict[str, Count]:
    """Return how far each class is; the journal begins with what is asked, and ends with a whole line."""
    lines = _lines(journal)
    if not lines:
        journal.unlink(missing_ok=True)
        _append(journal, asked)
        return {}
    if lines[0] != asked:
        other = next(name for name in {**lines[0], **asked} if lines[0].get(name) != asked.get(name))
        raise FrameError(
            f"{journal.parent} holds pictures of another {other}, {lines[0].get(other)} and not {asked.get(other)}: "
            "name a new folder"
        )
    try:
        if not all(isinstance(line["rows"], list) for line in lines[1:]):
            raise _damaged(journal)
        return {line["track"]: _count(line["count"]) for line in lines[1:]}
    except (KeyError, TypeError) as error:
        raise _damaged(journal) from error


def _lines(journal: Path) -> list[dict[str, Any]]:
    """Return the whole lines of a journal; what is after the last one, which somebody died in writing, is cut off."""
    if not journal.exists():
        return []
    written = journal.read_bytes()
    whole = written.rfind(b"\n") + 1
    if whole < len(written):
        os.truncate(journal, whole)
    try:
        lines = [json.loads(line) for line in written[:whole].splitlines()]
    except (ValueError, RecursionError) as error:
        raise _damaged(journal) from error
    if not all(isinstance(line, dict) for line in lines):
        raise _damaged(journal)
    return lines


def _count(said: Mapping[str, Any]) -> Count:
    """Return how far a class is. Raises TypeError if that is not said in whole numbers."""
    count = Count(**said)
    if not all(type(number) is int and number >= 0 for number in dataclasses.astuple(count)):
        raise TypeError("a count is a whole number")
    return count


def _damaged(journal: Path) -> FrameError:
    return FrameError(f"{journal} is damaged: name a new folder")


def _append(journal: Path, line: Mapping[str, Any]) -> None:
    with journal.open("ab") as file:
        file.write(json.dumps(line).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def _line(chunk: Chunk) -> dict[str, Any]:
    return {
        "track": chunk.class_name,
        "count": dataclasses.asdict(chunk.count),
        "rows": [picture.provenance() for picture in chunk.pictures],
    }


def _file_name(class_name: str, number: int) -> str:
    return f"{class_name}/{number:06d}.png"


def _write_parquet(pictures: Iterable[Painted], output: Path, source: Mapping[str, Any]) -> int:
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    sources = {name: pa.scalar(value).type for name, value in source.items()}
    schema = pa.schema({"image": image, **PROVENANCE, **sources}, metadata={"huggingface": json.dumps(_FEATURES)})
    written, rows = 0, (_parquet_row(picture, source) for picture in pictures)
    with atomic_file(output) as partial, pq.ParquetWriter(partial, schema, compression="zstd") as writer:
        while some := [*itertools.islice(rows, ROWS_AT_ONCE)]:
            writer.write_table(pa.Table.from_pylist(some, schema))
            written += len(some)
    return written


def _parquet_row(picture: Painted, source: Mapping[str, Any]) -> dict[str, Any]:
    image = {"bytes": encode_png(picture.frame), "path": f"{picture.class_name}-{picture.number:06d}.png"}
    return {"image": image, **picture.provenance(), "nearest_rms": picture.nearest_rms, **source}
