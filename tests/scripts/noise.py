"""Frames of noise in the files that studies read."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image


def write_parquet(path: Path, seed: int, count: int) -> list[bytes]:
    """Write frames of 10 x 15 pixels of noise, and return them encoded."""
    generator = np.random.default_rng(seed)
    encoded = []
    for _ in range(count):
        file = io.BytesIO()
        Image.fromarray(generator.integers(0, 256, (10, 15, 3), dtype=np.uint8)).save(file, "JPEG")
        encoded.append(file.getvalue())
    image = pa.array([{"bytes": data, "path": None} for data in encoded])
    pq.write_table(pa.table({"image": image, "race": pa.array([i // 2 for i in range(count)])}), path)
    return encoded
