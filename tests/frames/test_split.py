"""Parts to train on and to hold out, disjoint by race."""

from __future__ import annotations

import numpy as np
import pytest

from bisquit.errors import ConfigError, FrameError
from bisquit.frames import load_splits, split_by_group


def races(frames) -> set[int]:
    return set(frames.groups.tolist())


def test_no_race_is_on_both_sides_and_no_frame_is_lost(make_frame_set):
    groups = np.repeat(np.arange(40), 5)
    train, valid = split_by_group(make_frame_set(groups % 4, groups), 0.1)
    assert not races(train) & races(valid)
    assert sorted(train.names + valid.names) == sorted(make_frame_set(groups % 4, groups).names)
    assert len(valid) == 20


def test_split_is_the_same_each_time(make_frame_set):
    groups = np.repeat(np.arange(40), 5)
    first, second = (split_by_group(make_frame_set(groups % 4, groups), 0.1) for _ in range(2))
    assert first[1].names == second[1].names


def test_valid_takes_from_each_class_in_turn(make_frame_set):
    groups = np.repeat(np.arange(40), 5)
    _, valid = split_by_group(make_frame_set(groups % 4, groups), 0.1)
    assert sorted(valid.labels.tolist()) == sorted([0, 1, 2, 3] * 5)


@pytest.mark.parametrize("fraction", [0.05, 0.5, 0.95])
def test_every_class_keeps_a_race_to_train_on(make_frame_set, fraction):
    labels = [0] * 6 + [1] * 2 + [2] * 4
    groups = [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]  # class 1 has race 3 alone
    train, valid = split_by_group(make_frame_set(labels, groups), fraction)
    assert set(train.labels.tolist()) == {0, 1, 2}
    assert len(valid) > 0


def test_classes_of_one_race_each_give_whole_classes(make_frame_set):
    train, valid = split_by_group(make_frame_set([0, 0, 1, 1, 2, 2], [0, 0, 1, 1, 2, 2]), 0.99)
    assert not races(train) & races(valid)
    assert (len(train), len(valid)) == (2, 4)


def test_frames_of_unknown_races_are_split_by_frame(make_frame_set):
    train, valid = split_by_group(make_frame_set([-1] * 200, None), 0.05)
    assert (len(train), len(valid)) == (190, 10)


def test_one_race_alone_is_refused(make_frame_set):
    with pytest.raises(FrameError, match=r"one race.*--valid-frames"):
        split_by_group(make_frame_set([0, 0, 0], [0, 0, 0]))


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1])
def test_fraction_outside_its_range_is_refused(make_frame_set, fraction):
    with pytest.raises(ConfigError, match="valid_fraction is"):
        split_by_group(make_frame_set([0, 0], [0, 1]), fraction)


def test_given_valid_frames_share_the_classes_of_both(tmp_path, make_frames, write_parquet):
    train_path = write_parquet(tmp_path / "train.parquet", make_frames(2), track=["b", "d"])
    valid_path = write_parquet(tmp_path / "valid.parquet", make_frames(3), track=["a", "d", None])
    train, valid = load_splits(train_path, valid_path)
    assert train.classes == valid.classes == ("a", "b", "d")
    assert train.labels.tolist() == [1, 2]
    assert valid.labels.tolist() == [0, 2, -1]


def test_given_valid_frames_of_another_size_are_refused(tmp_path, make_frames, write_parquet):
    train_path = write_parquet(tmp_path / "train.parquet", make_frames(2))
    valid_path = write_parquet(tmp_path / "valid.parquet", make_frames(2, 8, 8))
    with pytest.raises(FrameError, match=r"6 x 9, to validate on 8 x 8.*--size"):
        load_splits(train_path, valid_path)
    train, valid = load_splits(train_path, valid_path, size=(4, 4))
    assert train[:].shape[1:] == valid[:].shape[1:] == (4, 4, 3)


def test_without_valid_frames_races_are_held_out(tmp_path, make_frames, write_parquet):
    path = write_parquet(tmp_path / "a.parquet", make_frames(12), race=[index // 2 for index in range(12)])
    train, valid = load_splits(path, valid_fraction=0.25)
    assert not races(train) & races(valid)
    assert (len(train), len(valid)) == (8, 4)
