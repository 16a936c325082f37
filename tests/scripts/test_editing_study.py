"""The study of holes: where they are, what fills them, and how seams are measured."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("cv2", reason="needs the extra bench")

import editing_study as study


@pytest.fixture
def frames(make_noise) -> np.ndarray:
    return make_noise(3, 100, 150)[:]


def test_the_hole_is_in_the_middle():
    mask = study.hole(100, 150)
    assert mask.sum() == 40 * 60
    assert np.array_equal(mask, mask[::-1, ::-1])


def test_every_way_but_models_leaves_what_is_known(frames: np.ndarray, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(study, "load", lambda name: None)
    monkeypatch.setattr(study, "in_rows", lambda model: None)
    monkeypatch.setattr(study, "Editor", lambda *_, **__: type("None", (), {"paint_hole": None}))
    mask = study.hole(100, 150)
    for name, fill in study.ways("a", "b").items():
        if fill is not None:
            done = fill(frames, mask)
            assert np.array_equal(done[:, ~mask], frames[:, ~mask]), name
            assert not np.array_equal(done[:, mask], frames[:, mask]), name
    means = study.by_mean(frames, mask)[0][mask]
    assert (means == means[0]).all()
    assert np.abs(means[0] - frames[0][~mask].mean(axis=0)).max() <= 0.5


def test_steps_are_those_across_the_edge_of_the_hole():
    frames = np.zeros((2, 10, 12, 3), dtype=np.uint8)
    mask = np.zeros((10, 12), dtype=np.bool_)
    mask[3:6, 4:9] = True
    frames[:, mask] = 50
    assert study.edge_step(frames, mask) == 50
    frames[:, 4, 6] = 255  # inside of the hole, and not at its edge
    assert study.edge_step(frames, mask) == 50


def test_a_change_outside_of_the_hole_is_found(frames: np.ndarray):
    mask, changed = study.hole(100, 150), frames.copy()
    changed[1, 0, 0] ^= 1
    with pytest.raises(AssertionError, match="outside of the hole"):
        study.measure(changed, frames, mask, None)
