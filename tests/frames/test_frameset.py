"""What a set of frames gives: by index, as a part, with other classes."""

from __future__ import annotations

import numpy as np
import pytest

from bisquit.frames import load_frames, spread


@pytest.fixture
def frames(tmp_path, make_frames, write_parquet):
    return load_frames(
        write_parquet(tmp_path / "a.parquet", make_frames(5), label=["b", "a", None, "a", "b"], race=[1, 1, 2, 1, 2])
    )


@pytest.mark.parametrize(
    "indices",
    [2, -1, np.int64(3), slice(1, 4), slice(None, None, -2), [4, 0, 4], np.array([1, 3]), np.arange(5) > 2],
)
def test_indexing_is_that_of_an_array(frames, make_frames, indices):
    np.testing.assert_array_equal(frames[indices], make_frames(5)[indices])


def test_index_beyond_the_end_is_an_index_error(frames):
    with pytest.raises(IndexError):
        frames[5]


def test_subset_takes_all_that_is_known_along_and_copies_no_pixels(frames, make_frames):
    part = frames.subset(slice(1, None)).subset([3, 0])
    np.testing.assert_array_equal(part[:], make_frames(5)[[4, 1]])
    assert part.pixels is frames.pixels
    assert part.names == ("a.parquet#4", "a.parquet#1")
    assert part.labels.tolist() == [1, 0]
    assert part.groups.tolist() == [frames.groups[4], frames.groups[1]]
    assert part.classes == ("a", "b")


def test_other_classes_keep_each_frames_class(frames):
    renumbered = frames.with_classes(("_", "a", "aa", "b"))
    assert renumbered.labels.tolist() == [3, 1, -1, 1, 3]


def test_numbers_are_spread_evenly_from_the_first_to_the_last():
    assert spread(3, 9).tolist() == [0, 4, 8]
    assert spread(1, 9).tolist() == [0]
    assert spread(9, 2).tolist() == [0, 1]
    assert len(set(spread(516, 2066))) == 516
