"""Augmenting: labelled pictures that a model paints to train others with, so many of each class.

    class ──prior──> tokens ──likeliest share──> frames ──no copies of real ones──> folder or Parquet, with provenance

Of every picture it is kept where it comes from: model, seed, number and guidance paint it again, and beside them stand
its bits and the real frame that is nearest to it.
"""

from __future__ import annotations

import csv
import itertools
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bisquit.atomic import atomic_file
from bisquit.config import Settings, require
from bisquit.engine import Backend, Precision
from bisquit.errors import ConditionError, FrameError, ModelError
from bisquit.evaluation.neighbours import nearest
from bisquit.frames import FrameSet, encode_png
from bisquit.frames.listing import METADATA_NAME, PARQUET_SUFFIX, can_name_folder
from bisquit.generate import Pipeline
from bisquit.progress import Progress, share_of
from bisquit.sampling import SamplingConfig
from bisquit.seeds import derive_seed

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
MOST_AT_ONCE = 1000
"""How many pictures are taken at a time, the likely ones of those that are painted for it."""
MOST_TRIES = 20
"""Times as many pictures are painted as it takes where none is a copy, before it is given up."""


@dataclass(frozen=True)
class AugmentConfig(Settings):
    """How many pictures are painted, and which of them are taken."""

    per_class: int = 100
    """Pictures of each class."""
    likely_share: float = 0.8
    """Share of the painted pictures of a class that are taken, the likeliest by the model's own measure."""
    least_distance: float = 0.03
    """Least root mean square difference, of values in [0, 1], to any --real frame: what is nearer is a copy."""

    def __post_init__(self) -> None:
        require(1 <= self.per_class <= 1_000_000, "per_class", self.per_class, "between 1 and 1000000")
        require(0 < self.likely_share <= 1, "likely_share", self.likely_share, "in (0, 1]")
        require(0 <= self.least_distance <= 1, "least_distance", self.least_distance, "in [0, 1]")


@dataclass(frozen=True, eq=False)
class Painted:
    """A picture, and where it comes from."""

    frame: np.ndarray
    """uint8 (H, W, 3)."""
    class_name: str
    seed: int
    number: int
    """Which picture of the seed it is."""
    bits: float
    """What its tokens cost under the model, told of the class."""
    nearest: str
    """The name of the real frame that is nearest; empty where none were given."""
    nearest_rms: float | None

    def provenance(self) -> dict[str, Any]:
        """Return what is known of it, but for its pixels, by the names in `PROVENANCE`."""
        return {
            "track": self.class_name,
            "seed": self.seed,
            "number": self.number,
            "bits": round(self.bits, 2),
            "nearest": self.nearest,
            "nearest_rms": "" if self.nearest_rms is None else round(self.nearest_rms, 5),
        }


def paint_class(
    model: Pipeline,
    class_name: str,
    config: AugmentConfig,
    *,
    seed: int = 0,
    settings: SamplingConfig | None = None,
    real: FrameSet | None = None,
    backend: Backend = "auto",
    precision: Precision = "float32",
    progress: Progress | None = None,
) -> Iterator[Painted]:
    """Paint pictures of a class, and yield those that are likely and no copies, until there are enough.

    real: frames that the model was trained on. Each class has a seed of its own, made from `seed`. They are painted and
    judged some at a time, so that memory does not grow with how many are wanted. Raises ModelError if the model cannot
    paint, or paints little but copies; ConditionError if it does not know the class.
    """
    own_seed = derive_seed(seed, "augment", class_name) % 2**31
    taken = copies = painted = 0
    while taken < config.per_class:
        if painted >= MOST_TRIES * math.ceil(config.per_class / config.likely_share):
            raise ModelError(
                f"of {painted:,} pictures of {class_name}, only {taken:,} could be taken: {copies:,} are within "
                f"{config.least_distance} of a real frame; lower --least-distance, or train a model that does not "
                "repeat what it has seen"
            )
        wanted = min(config.per_class - taken, MOST_AT_ONCE)
        numbers = range(painted, painted + math.ceil(wanted / config.likely_share))
        found = model.paint(
            numbers,
            seed=own_seed,
            settings=settings,
            class_name=class_name,
            backend=backend,
            precision=precision,
            progress=share_of(progress, taken, wanted, config.per_class),
        )
        painted += len(numbers)
        likely = np.sort(np.argsort(found.bits, kind="stable")[:wanted])
        frames = model.decode(found.tokens[likely], model.frame_size)
        near = nearest(frames, real) if real is not None else None
        for frame, i, row in zip(frames, range(wanted), likely.tolist(), strict=True):
            name, distance = "", None
            if real is not None and near is not None:
                name, distance = real.names[near.index[i]], float(near.rms[i])
                if distance < config.least_distance:
                    copies += 1
                    continue
            taken += 1
            yield Painted(frame, class_name, own_seed, numbers[row], float(found.bits[row]), name, distance)


def chosen_classes(model: Pipeline, names: Sequence[str] | None) -> tuple[str, ...]:
    """Return the classes to paint, by default all that a model knows. Raises ConditionError if it knows not one."""
    chosen = tuple(dict.fromkeys(names)) if names else model.conditions.classes
    if not chosen:
        raise ConditionError("this model knows no classes: train a prior with --classes")
    for name in chosen:
        model.conditions.of_class(name)
    return chosen


def write_pictures(pictures: Iterator[Painted], output: Path, source: dict[str, Any]) -> int:
    """Write pictures to a Parquet file, or to a folder that must be new or empty; return how many.

    source: what is the same for all, such as the model; it stands in each row. Raises FrameError if the folder is not
    empty.
    """
    if output.suffix.lower() == PARQUET_SUFFIX:
        return _write_parquet(pictures, output, source)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise FrameError(f"{output} is not empty: name a new folder, or a file that ends in {PARQUET_SUFFIX}")
    written = 0
    with atomic_file(output / METADATA_NAME) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["file_name", *PROVENANCE, *source])
        writer.writeheader()
        for picture in pictures:
            name = f"{_folder_name(picture.class_name)}/{picture.number:06d}.png"
            writer.writerow({"file_name": name, **picture.provenance(), **source})
            with atomic_file(output / name) as image:
                image.write_bytes(encode_png(picture.frame))
            written += 1
    return written  # the metadata has its name only now: without it the folder is no whole set


def _folder_name(class_name: str) -> str:
    """Return a class's name. Raises FrameError if it leads out of the folder that it is to name, or would hide it."""
    if not can_name_folder(class_name):
        raise FrameError(f"the class {class_name!r} cannot name a folder: write a file that ends in {PARQUET_SUFFIX}")
    return class_name


def _write_parquet(pictures: Iterator[Painted], output: Path, source: dict[str, Any]) -> int:
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    sources = {name: pa.scalar(value).type for name, value in source.items()}
    schema = pa.schema({"image": image, **PROVENANCE, **sources}, metadata={"huggingface": json.dumps(_FEATURES)})
    written = 0
    with atomic_file(output) as partial, pq.ParquetWriter(partial, schema, compression="zstd") as writer:
        while rows := [_parquet_row(picture, source) for picture in itertools.islice(pictures, ROWS_AT_ONCE)]:
            writer.write_table(pa.Table.from_pylist(rows, schema))
            written += len(rows)
    return written


def _parquet_row(picture: Painted, source: dict[str, Any]) -> dict[str, Any]:
    image = {"bytes": encode_png(picture.frame), "path": f"{picture.class_name}-{picture.number:06d}.png"}
    return {"image": image, **picture.provenance(), "nearest_rms": picture.nearest_rms, **source}
