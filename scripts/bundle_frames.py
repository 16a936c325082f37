"""Choose the frames that ship in the package, from the folder of SuperTuxKart frames.

    python scripts/bundle_frames.py DATA_FOLDER

Writes train.parquet (from train-0*.parquet) and valid.parquet (from valid-00.parquet) into
src/bisquit/frames/bundled: from each track as many frames as from any other, from each of its races likewise, and
from each race at even distances in time. Pictures keep their bytes, rows keep their columns. The choice is the same
each time.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bisquit.atomic import atomic_file

BUNDLED = Path(__file__).parents[1] / "src" / "bisquit" / "frames" / "bundled"
FRAMES_PER_TRACK = {"train": 30, "valid": 6}
SOURCES = {"train": "train-0*.parquet", "valid": "valid-00.parquet"}
LIMIT_BYTES = 5_600_000
ROWS_PER_GROUP = 100
ORDER = [("track", "ascending"), ("race", "ascending"), ("step", "ascending"), ("camera", "ascending")]


def main() -> None:
    """Write the two files and say how large they are; exit with 1 if they are too large to ship."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", type=Path, help="folder of train-0*.parquet and valid-00.parquet")
    data = parser.parse_args().data
    total_bytes = 0
    for split, pattern in SOURCES.items():
        files = sorted(data.glob(pattern))
        if not files:
            parser.error(f"{data} holds no {pattern}")
        chosen = choose(pa.concat_tables([pq.read_table(file) for file in files]), FRAMES_PER_TRACK[split])
        target = BUNDLED / f"{split}.parquet"
        with atomic_file(target) as partial:
            pq.write_table(chosen, partial, row_group_size=ROWS_PER_GROUP, compression="zstd")
        total_bytes += target.stat().st_size
        sys.stdout.write(f"{target.name}: {chosen.num_rows} frames, {target.stat().st_size:,} bytes\n")
    if total_bytes > LIMIT_BYTES:
        raise SystemExit(f"{total_bytes:,} bytes together are more than {LIMIT_BYTES:,}: lower FRAMES_PER_TRACK")


def choose(table: pa.Table, per_track: int) -> pa.Table:
    """Return `per_track` rows of each track, spread evenly over its races and the steps of each; sorted by `ORDER`."""
    table = table.sort_by(ORDER)
    chosen: list[int] = []
    for track in pc.unique(table["track"]).to_pylist():
        of_track = pc.equal(table["track"], track)
        races = pc.unique(table["race"].filter(of_track)).to_pylist()
        for number, race in enumerate(races):
            rows = pc.indices_nonzero(pc.and_(of_track, pc.equal(table["race"], race))).to_pylist()
            wanted = (number + 1) * per_track // len(races) - number * per_track // len(races)
            chosen += [rows[(2 * i + 1) * len(rows) // (2 * wanted)] for i in range(wanted)]
    return table.take(chosen)


if __name__ == "__main__":
    main()
