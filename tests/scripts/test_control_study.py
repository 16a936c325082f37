"""The study of asking: what it asks for, what it keeps, and its page."""

from __future__ import annotations

import argparse

import control_study as study
import numpy as np
import pytest

from bisquit.frames import FrameSet

pytest.importorskip("matplotlib", reason="needs the extra bench")


def test_as_many_real_frames_of_each_class_are_taken(make_noise):
    plain = make_noise(60)
    frames = FrameSet(plain.pixels, plain.rows, plain.names, ("ice", "sand"), np.arange(60) // 50, None)
    taken = study.balanced(frames, 5)
    assert taken.shape[0] == 10
    np.testing.assert_array_equal(taken[0], frames[0])
    np.testing.assert_array_equal(taken[-1], frames[59])


def test_learnt_sentences_are_as_many_as_are_held_back():
    learnt = {"ice": tuple(f"cold {i}" for i in range(9)), "sand": ("dry", "hot")}
    assert study.learnt_like(learnt, {"ice": ("a", "b", "c"), "sand": ("d",)}) == {
        "ice": ["cold 0", "cold 4", "cold 8"],
        "sand": ["dry"],
    }


def test_figures_are_measured_once(tmp_path):
    kept = study.Study(None, None, np.empty(0), tmp_path)
    calls = []

    def measure() -> dict[str, float]:
        calls.append(1)
        return {"accuracy": 0.5}

    assert kept.kept("one", measure) == kept.kept("one", measure) == {"accuracy": 0.5}
    assert calls == [1]


def test_the_page_and_the_curve_show_what_was_measured(tmp_path):
    of_classes = {"accuracy": 0.91, "frechet_track": 3.25, "precision": 0.7, "recall": 0.6, "pictures": 500.0}
    figures = {"valid frames": {"accuracy": 0.998, "pictures": 2066.0}}
    figures |= {f"guidance {scale:g}": of_classes for scale in study.SCALES}
    figures |= {f"guidance 3, {schedule}": of_classes for schedule in study.SCHEDULES}
    figures |= {
        f"prompts {name}, guidance {scale}": {"accuracy": accuracy, "pictures": 430.0}
        for name, scale, accuracy in [
            ("held back", 1, 0.71),
            ("learnt", 1, 0.9),
            ("held back", 3, 0.75),
            ("learnt", 3, 1),
        ]
    }
    options = argparse.Namespace(model="told", valid_frames="valid.parquet", per_class=25, per_prompt=5)
    page = study.page(figures, 1.0, {"icy": "the pole"}, options)
    for said in (
        "| 3, cosine | 91.0% | 3.25 | 0.700 | 0.600 |",
        "99.80%",
        "| held back | 3 | 430 | 75.0% |",
        '"the pole" (of icy)',
    ):
        assert said in page
    study.draw_curve(figures, tmp_path / "curve.png")
    assert (tmp_path / "curve.png").stat().st_size > 1000
