"""A set of frames into a part to train on and a part to hold out.

Frames of one race are so alike that a set split by frame would measure memory, so races go to one side or the other
as a whole.
"""

from __future__ import annotations

import hashlib
from itertools import zip_longest

import numpy as np

from bisquit.errors import ConfigError, FrameError
from bisquit.frames.frameset import FrameSet


def split_by_group(frames: FrameSet, valid_fraction: float = 0.05) -> tuple[FrameSet, FrameSet]:
    """Return (train, valid), disjoint by race where races are known, else by frame; both in the order of `frames`.

    Valid takes whole races, one from each class in turn, until it has `valid_fraction` of the frames or there is none
    left to take; which ones, a hash of their frames' names decides. No class loses its last race, unless no class has
    two.

    Raises ConfigError for a fraction outside (0, 1), FrameError if all frames are of one race, or there is only one
    frame.
    """
    if not 0 < valid_fraction < 1:
        raise ConfigError(f"valid_fraction is {valid_fraction}: it must be between 0 and 1")
    groups = frames.groups if frames.groups is not None else np.arange(len(frames))
    _, first, members = np.unique(groups, return_index=True, return_inverse=True)
    if len(first) < 2:
        raise FrameError(f"all {len(frames)} frames are of one race, which is not split: pass others as --valid-frames")
    sizes = np.bincount(members)
    wanted = valid_fraction * len(frames)
    held_out: list[int] = []
    n_held_out = 0
    for group in _candidates(frames, first):
        if n_held_out >= wanted:
            break
        held_out.append(group)
        n_held_out += sizes[group]
    is_valid = np.isin(members, held_out)
    return frames.subset(np.flatnonzero(~is_valid)), frames.subset(np.flatnonzero(is_valid))


def _candidates(frames: FrameSet, first: np.ndarray) -> list[int]:
    """Return the groups that may be held out, in the order to take them. first: (G,), the first frame of each group."""
    by_class: dict[int, list[int]] = {}
    for group in sorted(range(len(first)), key=lambda group: _hash(frames.names[first[group]])):
        by_class.setdefault(int(frames.labels[first[group]]), []).append(group)
    in_turn = [group for turn in zip_longest(*by_class.values()) for group in turn if group is not None]
    kept = {groups[-1] for groups in by_class.values()}
    return [group for group in in_turn if group not in kept] or in_turn[:-1]


def _hash(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()
