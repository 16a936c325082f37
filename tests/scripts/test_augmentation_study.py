"""The study of painted frames: its shares, its sets, and its page."""

from __future__ import annotations

import argparse

import augmentation_study as study
import numpy as np
import pytest

from bisquit.frames import FrameSet
from bisquit.training import train_features


@pytest.fixture
def frames(make_noise) -> FrameSet:
    plain = make_noise(300, 32, 48)
    return FrameSet(plain.pixels, plain.rows, plain.names, ("ice", "sand"), np.arange(300) % 3 // 2, None)


def test_a_share_has_as_much_of_each_class_and_other_frames_for_each_seed(frames: FrameSet):
    share = study.share_of(frames, 10, seed=0)
    assert np.bincount(share.labels).tolist() == [20, 10]
    assert len(set(share.names)) == 30
    assert set(share.names) != set(study.share_of(frames, 10, seed=1).names)
    assert np.bincount(study.share_of(frames, 1, seed=0).labels).tolist() == [2, 1]


def test_two_sets_become_one(frames: FrameSet, make_noise):
    other = make_noise(7, 32, 48, seed=3).with_classes(("ice", "sand"))
    both = study.joined(frames.subset(slice(5, 9)), other)
    np.testing.assert_array_equal(both[:4], frames[5:9])
    np.testing.assert_array_equal(both[4:], other[:])
    assert both.labels.tolist() == [*frames.labels[5:9], *other.labels]


def test_accuracy_is_the_mean_of_the_classes(frames: FrameSet, monkeypatch: pytest.MonkeyPatch):
    import torch

    class Network:
        classes = ("sand", "ice")

    monkeypatch.setattr(study, "described", lambda network, of: (None, torch.ones(len(of), dtype=torch.int64)))
    assert study.accuracy(Network(), frames) == 0.5  # ice is always said, and of both classes one is right


def test_a_run_is_trained_measured_and_let_go(frames: FrameSet, make_noise, tmp_path, monkeypatch: pytest.MonkeyPatch):
    painted = make_noise(80, 32, 48, seed=3).with_classes(("ice", "sand"))
    work = study.Work(frames, frames.subset(slice(0, 60)), painted, 2, tmp_path)
    monkeypatch.setattr(study, "BATCH", 16)
    seen = []

    def watched(recipe, *arguments, **flags):
        seen.append((recipe, len(arguments[0])))
        return train_features(recipe, *arguments, **flags)

    monkeypatch.setattr(study, "train_features", watched)
    run = study.Run(20, True, True)
    study.finish(run, 1, work)
    assert [path.name for path in study.folder(run, 1, work).iterdir()] == [study.FIGURES_FILE]
    ((recipe, count),) = seen
    assert recipe.augmentation == study.ORDINARY
    assert recipe.training.seed == 1
    assert count == 60 + 80
    figures = study.gather(tmp_path)
    assert 0 <= figures[run.name, 1]["accuracy"] <= 1
    options = argparse.Namespace(frames="a", valid_frames="b", painted="c", seeds=5)
    page = study.page(figures, work, options)
    assert "missing" in page
    assert f"{figures[run.name, 1]['accuracy']:.1%}" in page


def test_what_painted_frames_add_is_told_seed_by_seed_with_an_interval():
    found = {run.name: [] for run in study.RUNS}
    assert study.gain(found, 1) == "missing"
    found[study.Run(1, painted=False, changed=True).name] = [0.70, 0.72, 0.74]
    found[study.Run(1, painted=True, changed=True).name] = [0.80, 0.83, 0.83, 0.99]
    # gains of 10, 11 and 9 points: a mean of 10, a deviation of 1, and 4.303 standard errors of it
    assert study.gain(found, 1) == "+10.0% ± 2.5%"
