"""The frames that ship in the package."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import bisquit.frames
from bisquit.errors import FrameError
from bisquit.frames import load_frames, load_splits

FOLDER = Path(bisquit.frames.__file__).parent / "bundled"


def test_bundled_splits_hold_every_track_evenly():
    train, valid = load_splits("bundled")
    assert (len(train), len(valid)) == (600, 120)
    assert (train.height, train.width) == (valid.height, valid.width) == (100, 150)
    assert len(train.classes) == 20
    assert train.classes == valid.classes
    assert set(Counter(train.labels.tolist()).values()) == {30}
    assert set(Counter(valid.labels.tolist()).values()) == {6}


def test_single_split_can_be_loaded():
    assert len(load_frames("bundled:valid")) == 120


def test_both_splits_can_be_loaded_as_one_set():
    frames = load_frames("bundled")
    assert len(frames) == 720
    assert len(np.unique(frames.groups)) == 120


@pytest.mark.parametrize("name", ["bundled:", "bundled:test"])
def test_other_bundled_names_are_refused(name):
    with pytest.raises(FrameError, match="bundled:train and bundled:valid"):
        load_frames(name)


def test_bundled_files_are_small_jpegs_of_disjoint_races_with_the_schema_of_the_data():
    tables = {split: pq.read_table(FOLDER / f"{split}.parquet") for split in ("train", "valid")}
    races = {
        split: set(zip(*table.select(["track", "race"]).to_pydict().values(), strict=True))
        for split, table in tables.items()
    }
    assert not races["train"] & races["valid"]
    assert len(races["train"]) == 100
    assert sum(file.stat().st_size for file in FOLDER.glob("*.parquet")) <= 5_600_000
    for table in tables.values():
        assert table.column_names == ["image", "track", "race", "step", "camera"]
        assert all(cell["bytes"].startswith(b"\xff\xd8") for cell in table["image"].to_pylist())


def test_attribution_ships_beside_the_frames():
    text = (FOLDER / "LICENSE.md").read_text(encoding="utf-8")
    assert "SuperTuxKart and its contributors" in text
    assert "CC BY-SA 4.0" in text
