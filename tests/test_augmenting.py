"""Augmenting: so many of each class, the likely ones, no copies, and each can be painted again."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tests.conftest import roughen

from bisquit.augmenting import AugmentConfig, Painted, chosen_classes, paint_chunks
from bisquit.conditioning import Conditions
from bisquit.errors import ConditionError, ConfigError, ModelError
from bisquit.frames import FrameSet
from bisquit.generate import Pipeline
from bisquit.priors import RasterConfig, build_prior
from bisquit.sampling import SamplingConfig
from bisquit.transformer import TransformerConfig

TINY = TransformerConfig(width=8, n_layers=1, n_heads=2, feed_forward=12)


@pytest.fixture
def model(make_tokenizer) -> Pipeline:
    prior = build_prior(RasterConfig(transformer=TINY, condition_size=2), 3, (2, 3))
    roughen(prior, 1)
    return Pipeline(make_tokenizer(), prior, (8, 12), Conditions(("ice", "sand")))


def paint_class(model: Pipeline, name: str, config: AugmentConfig, **options: Any) -> list[Painted]:
    return [picture for chunk in paint_chunks(model, name, config, **options) for picture in chunk.pictures]


def set_of(frames: np.ndarray) -> FrameSet:
    count = len(frames)
    names = tuple(f"real-{i}" for i in range(count))
    return FrameSet(frames, np.arange(count), names, (), np.full(count, -1), None)


def test_as_many_as_are_wanted_are_painted_and_each_can_be_painted_again(model: Pipeline):
    settings = SamplingConfig(guidance=2.0)
    taken = paint_class(model, "sand", AugmentConfig(per_class=10), seed=3, settings=settings)
    assert len(taken) == 10
    numbers = [picture.number for picture in taken]
    assert numbers == sorted(set(numbers))
    again = model.sample(max(numbers) + 1, seed=taken[0].seed, settings=settings, class_name="sand")
    for picture in taken:
        np.testing.assert_array_equal(again[picture.number], picture.frame)


def test_the_likeliest_are_taken(model: Pipeline):
    taken = paint_class(model, "ice", AugmentConfig(per_class=5, likely_share=0.25))
    bits = model.paint(range(20), seed=taken[0].seed, class_name="ice").bits
    assert sorted(picture.bits for picture in taken) == pytest.approx(sorted(bits)[:5])


def test_bits_are_those_of_the_prior_told_of_the_class(model: Pipeline):
    painted = model.paint(range(3), seed=0, class_name="ice", batch_size=2)
    prior, condition = model.prior, model.conditions.of_class("ice").expand(3, -1)
    bits = prior.token_bits(torch.from_numpy(painted.tokens), prior.conditioned(condition, 3))
    np.testing.assert_allclose(painted.bits, bits.sum(dim=(1, 2)).detach().numpy(), rtol=1e-5)


def test_classes_and_seeds_have_pictures_of_their_own(model: Pipeline):
    config = AugmentConfig(per_class=3)
    seeds = {paint_class(model, name, config, seed=seed)[0].seed for name in ("ice", "sand") for seed in (0, 1)}
    assert len(seeds) == 4


def test_copies_of_real_frames_are_left_out_and_others_painted(model: Pipeline):
    config = AugmentConfig(per_class=6, likely_share=1.0, least_distance=0.001)
    plain = paint_class(model, "ice", config)
    copies = {2, 4}
    real = set_of(np.stack([picture.frame for picture in plain if picture.number in copies]))
    taken = paint_class(model, "ice", config, real=real)
    assert len(taken) == 6
    assert copies.isdisjoint(picture.number for picture in taken)
    assert all(picture.nearest_rms is not None and picture.nearest_rms >= 0.001 for picture in taken)
    assert {picture.nearest for picture in taken} <= {"real-0", "real-1"}


def test_a_model_that_paints_nothing_but_copies_is_refused(model: Pipeline):
    real = set_of(np.full((1, 8, 12, 3), 128, dtype=np.uint8))
    with pytest.raises(ModelError, match=r"of 60 pictures of ice, only 0 could be taken: 40 are within 1\.0 of"):
        paint_class(model, "ice", AugmentConfig(per_class=2, least_distance=1.0), real=real)


def test_many_are_painted_some_at_a_time(model: Pipeline, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("bisquit.augmenting.MOST_AT_ONCE", 3)
    seen: list[tuple[int, int]] = []
    config = AugmentConfig(per_class=8, likely_share=0.5)
    taken = list(paint_class(model, "ice", config, progress=lambda done, total: seen.append((done, total))))
    bits = model.paint(range(16), seed=taken[0].seed, class_name="ice").bits
    for numbers, count in ((range(6), 3), (range(6, 12), 3), (range(12, 16), 2)):
        likeliest = sorted(numbers, key=lambda number: bits[number])[:count]
        assert {p.number for p in taken} & set(numbers) == set(likeliest)
    shares = [done / total for done, total in seen]
    assert shares == sorted(shares)
    assert shares[-1] == 1


def test_a_class_is_gone_on_with_after_any_chunk(model: Pipeline, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("bisquit.augmenting.MOST_AT_ONCE", 3)
    config = AugmentConfig(per_class=8, likely_share=0.5, least_distance=0.001)
    copied = paint_class(model, "ice", config)[1]
    chunks = list(paint_chunks(model, "ice", config, real=set_of(copied.frame[None])))
    assert sum(chunk.count.copies for chunk in chunks[-1:]) == 1
    for i, chunk in enumerate(chunks):
        rest = list(paint_chunks(model, "ice", config, begun=chunk.count, real=set_of(copied.frame[None])))
        assert [other.count for other in rest] == [other.count for other in chunks[i + 1 :]]
        numbers = [[picture.number for picture in other.pictures] for other in chunks[i + 1 :]]
        assert [[picture.number for picture in other.pictures] for other in rest] == numbers


def test_classes_are_all_or_those_that_are_named(model: Pipeline):
    assert chosen_classes(model, None) == ("ice", "sand")
    assert chosen_classes(model, ["sand"]) == ("sand",)
    with pytest.raises(ConditionError, match="no class 'lava'"):
        chosen_classes(model, ["ice", "lava"])
    with pytest.raises(ConditionError, match="knows no classes"):
        chosen_classes(Pipeline(model.tokenizer, model.prior), None)


@pytest.mark.parametrize("fields", [{"per_class": 0}, {"likely_share": 0.0}, {"least_distance": -0.1}])
def test_settings_out_of_their_range_are_refused(fields: dict[str, float]):
    with pytest.raises(ConfigError, match=next(iter(fields))):
        AugmentConfig(**fields)
