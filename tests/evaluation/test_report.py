"""The whole evaluation of a tokenizer and priors that can be worked out by hand."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bisquit.errors import FrameError, TokenError
from bisquit.evaluation import CountModel, Evaluation, Generation, Nearest, evaluate, summary
from bisquit.evaluation.generation import FIGURES
from bisquit.frames import FrameSet

TOKENS = np.array([[[0, 1], [1, 0]], [[1, 1], [1, 1]], [[0, 0], [1, 0]]])
REQUIRED = {"mse", "psnr_db", "ssim", "bits_per_token", "bits_per_image", "codes_used", "count_baseline_bits_per_image"}


class BlackOrWhite(nn.Module):
    """A tokenizer of one bit for each 4 x 4 patch: the brightness of its first pixel."""

    bits = 1
    codebook_size = 2

    def encode(self, frames: Tensor) -> Tensor:
        return (frames[:, ::4, ::4, 0] >= 128).long()

    def decode(self, tokens: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        height, width = size
        patches = tokens.repeat_interleave(4, dim=1).repeat_interleave(4, dim=2)[:, :height, :width]
        return (patches.unsqueeze(-1).expand(-1, -1, -1, 3) * 255).to(torch.uint8)


def frame_set(pixels: np.ndarray) -> FrameSet:
    count = len(pixels)
    names = tuple(str(index) for index in range(count))
    return FrameSet(pixels, np.arange(count), names, (), np.full(count, -1), None)


@pytest.fixture
def frames() -> FrameSet:
    """Frames of 7 x 8 pixels that come back but for an even error of 51, that is 0.2."""
    pixels = TOKENS.repeat(4, axis=1).repeat(4, axis=2)[:, :7, :, None].repeat(3, axis=3)
    return frame_set(np.where(pixels == 1, 204, 51).astype(np.uint8))


@pytest.fixture
def evaluation(frames: FrameSet, uniform_prior) -> Evaluation:
    count_model = CountModel.fit(TOKENS.repeat(20, axis=0), codebook_size=2)
    return evaluate(BlackOrWhite(), uniform_prior(1, (2, 2)), frames, count_model, batch_size=2)


def test_the_figures_are_those_of_the_parts(evaluation: Evaluation):
    data = evaluation.to_dict()
    assert data["frames"] == 3
    assert (data["height_px"], data["width_px"], data["tokens_per_image"]) == (7, 8, 4)
    assert data["mse"] == pytest.approx(0.04)
    assert data["bits_per_token"] == pytest.approx(1)
    assert data["bits_per_image"] == pytest.approx(4)
    assert data["bits_per_pixel"] == pytest.approx(4 / 56)
    assert data["raw_bits_per_image"] == 4
    assert (data["codes"], data["codes_used"], data["dead_codes"]) == (2, 2, 0)
    assert data["count_baseline_fitted_on"] == 60
    assert 0 < data["count_baseline_bits_per_image"] < 4
    assert data["gain_over_count_baseline"] == pytest.approx(1 - 4 / data["count_baseline_bits_per_image"])


def test_the_json_is_the_flat_dictionary(evaluation: Evaluation):
    data = json.loads(json.dumps(evaluation.to_dict(), allow_nan=False))
    assert data == evaluation.to_dict()
    assert data.keys() >= REQUIRED
    assert not any(isinstance(value, dict) for value in data.values())


def test_without_a_prior_its_figures_are_null(frames: FrameSet):
    data = evaluate(BlackOrWhite(), None, frames, None, batch_size=3).to_dict()
    missing = {key for key, value in data.items() if value is None}
    assert data.keys() >= REQUIRED
    assert missing - set(FIGURES) == {
        "ms_ssim",  # frames are too small for it
        "bits_per_image",
        "bits_per_image_stderr",
        "bits_per_image_at_most",
        "bits_per_image_at_most_stderr",
        "bits_per_token",
        "bits_per_pixel",
        "count_baseline_bits_per_image",
        "count_baseline_fitted_on",
        "gain_over_count_baseline",
    }
    assert missing >= set(FIGURES)


def test_what_was_judged_of_new_frames_is_among_the_figures_and_in_the_table(evaluation: Evaluation):
    figures = dict.fromkeys(FIGURES, 0.25) | {"samples": 70, "class_accuracy": None, "frechet_track_interval": 0.5}
    generation = Generation(**figures, neighbours=Nearest(np.zeros(70, dtype=np.int64), np.ones(70)))
    data = replace(evaluation, generation=generation).to_dict()
    assert {key: data[key] for key in FIGURES} == figures
    rows = dict(summary(json.loads(json.dumps(data, allow_nan=False))))
    assert rows["new frames judged"] == "70"
    assert rows["Fréchet distance to the frames"] == "0.250 ± 0.500"
    assert rows["nearer to training than 95% of frames"] == "25.0% ± 25.0%, 5% by chance"
    assert "of the class that was asked for" not in rows
    assert "new frames judged" not in dict(summary(evaluation.to_dict()))


def test_the_summary_has_a_row_for_each_figure_measured(evaluation: Evaluation, frames: FrameSet):
    rows = dict(summary(evaluation.to_dict()))
    assert rows["frames"] == "3 of 7 x 8 pixels"
    assert rows["mean squared error, of [-0.5, 0.5]"] == "0.04000"
    assert rows["bits an image, by the prior"] == "4"
    assert rows["codes in use"] == "2 of 2"
    without_prior = dict(summary(evaluate(BlackOrWhite(), None, frames, None, batch_size=3).to_dict()))
    assert rows.keys() - without_prior.keys() >= {"bits an image, by the prior", "bits an image, by counts"}


def test_the_summary_takes_what_was_read_from_json(evaluation: Evaluation):
    assert summary(json.loads(json.dumps(evaluation.to_dict(), allow_nan=False))) == summary(evaluation.to_dict())


def test_progress_counts_frames_through_both_parts(frames: FrameSet, uniform_prior):
    told: list[tuple[int, int]] = []
    prior = uniform_prior(1, (2, 2))
    evaluate(BlackOrWhite(), prior, frames, None, batch_size=2, progress=lambda *counts: told.append(counts))
    assert told == [(2, 6), (3, 6), (5, 6), (6, 6)]


def test_no_frames_are_an_error():
    with pytest.raises(FrameError, match="no frames"):
        evaluate(BlackOrWhite(), None, frame_set(np.zeros((0, 8, 8, 3), dtype=np.uint8)), None, batch_size=1)


def test_models_of_another_codebook_are_refused(frames: FrameSet, uniform_prior):
    with pytest.raises(TokenError, match="the prior has a codebook of 4, the tokenizer one of 2"):
        evaluate(BlackOrWhite(), uniform_prior(2, (2, 2)), frames, None, batch_size=1)
    with pytest.raises(TokenError, match="the count model"):
        evaluate(BlackOrWhite(), None, frames, CountModel.fit(TOKENS, 3), batch_size=1)
