"""Painting: every family of priors paints by its own loop, hears what it can, and refuses the rest by one line."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tests.conftest import roughen

from bisquit.conditioning import Conditions
from bisquit.editing import EditConfig, Editor
from bisquit.errors import ConfigError, ModelError
from bisquit.generate import Pipeline
from bisquit.painting import Painter
from bisquit.priors import (
    KINDS,
    AnyOrderConfig,
    FlowPrior,
    Prior,
    PyramidConfig,
    PyramidPrior,
    SequentialPrior,
    build_prior,
    of_kind,
)
from bisquit.quantizers import PyramidBSQConfig
from bisquit.sampling import SamplingConfig
from bisquit.tokenizer import GREY
from bisquit.transformer import TransformerConfig

TINY = TransformerConfig(width=8, n_layers=1, n_heads=2, feed_forward=12)
GRID = (3, 4)
SIZE = (12, 16)
PYRAMID = PyramidBSQConfig(bits=4, scales=(0.0, 0.5, 1.0))
SCALES = ((1, 1), (2, 2), (3, 4))
HEARD = {
    "masked": {"steps": 3, "confidence_noise": 0.0},
    "flow": {"steps": 3, "solver": "heun"},
}

every_kind = pytest.mark.parametrize("kind", KINDS)


def prior_of(kind: str, condition_size: int = 2) -> Prior:
    config = of_kind(AnyOrderConfig(transformer=TINY, neighbours=2, condition_size=condition_size), kind)
    is_pyramid = isinstance(config, PyramidConfig)
    torch.manual_seed(0)
    prior = build_prior(config.replace(scales=SCALES) if is_pyramid else config, 4, (1, 17) if is_pyramid else GRID)
    if isinstance(prior, FlowPrior):
        with torch.no_grad():
            prior.between.weight.mul_(20)  # in rough weights the noise is lost, and all pictures are one
    else:
        roughen(prior, 1)
    return prior.eval()


@pytest.fixture
def make_model(make_tokenizer):
    """Return a function that makes a model whose prior is of a kind; it knows two classes."""

    def make(kind: str) -> Pipeline:
        tokenizer = make_tokenizer(quantizer=PYRAMID) if kind == "pyramid" else make_tokenizer(bits=4)
        return Pipeline(tokenizer, prior_of(kind), SIZE, Conditions(("ice", "sand")))

    return make


@every_kind
def test_a_model_paints_the_same_pictures_in_any_batch(make_model, kind: str):
    model = make_model(kind)
    frames = model.sample(3, seed=1)
    assert frames.shape == (3, *SIZE, 3)
    np.testing.assert_array_equal(model.sample(3, seed=1, batch_size=1), frames)
    assert len(np.unique(frames.reshape(3, -1), axis=0)) == 3


@every_kind
@pytest.mark.parametrize("is_told", [False, True], ids=["plain", "told"])
def test_pictures_of_several_seeds_are_painted_in_one_batch(kind: str, is_told: bool):
    painter, condition = Painter(prior_of(kind)), torch.eye(2).repeat(2, 1)[:3] if is_told else None
    settings = SamplingConfig(guidance=2.0) if is_told else None
    together = painter.paint([2, 0, 0], seed=[5, 7, 5], settings=settings, condition=condition)
    for i, (number, seed) in enumerate([(2, 5), (0, 7), (0, 5)]):
        own = condition if condition is None else condition[i]
        assert torch.equal(painter.paint([number], seed=seed, settings=settings, condition=own)[0], together[i])
    assert len(together.flatten(1).unique(dim=0)) == 3
    with pytest.raises(ConfigError, match="2 seeds for 3 pictures"):
        painter.paint(range(3), seed=[1, 2])


@every_kind
def test_a_class_and_guidance_are_heard(make_model, kind: str):
    model = make_model(kind)
    plain, told, guided = (
        model.sample(6, seed=1, class_name=name, settings=SamplingConfig(guidance=guidance))
        for name, guidance in ((None, 1.0), ("ice", 1.0), ("ice", 6.0))
    )
    assert not np.array_equal(plain, told)
    assert not np.array_equal(told, guided)
    each = model.sample(2, seed=1, class_name=["sand", "ice"])
    np.testing.assert_array_equal(each[1], told[1])
    with pytest.raises(ConfigError, match="guidance is 3"):
        model.sample(1, settings=SamplingConfig(guidance=3.0))


@every_kind
@pytest.mark.parametrize("setting", [{"steps": 3}, {"confidence_noise": 0.0}, {"solver": "heun"}], ids=str)
def test_settings_are_heard_or_refused(make_model, kind: str, setting: dict[str, Any]):
    model, settings = make_model(kind), SamplingConfig(**setting)
    if set(setting) <= set(HEARD.get(kind, {})):
        assert not np.array_equal(model.sample(4, settings=settings), model.sample(4))
    else:
        with pytest.raises(ConfigError, match=f"{next(iter(setting))} is for a .*Prior, not for a"):
            model.sample(1, settings=settings)


@every_kind
def test_what_is_given_stays_and_what_is_not_there_yet_is_told_apart(kind: str):
    prior, told = prior_of(kind), []
    given = torch.full((2, *prior.grid), -1)
    given[:, -1, 2:4] = torch.tensor([[5, 9], [14, 0]])
    tokens = Painter(prior).paint(
        range(2), seed=0, given=given, on_tokens=lambda done, some: told.append((done, some.clone()))
    )
    assert torch.equal(tokens[given >= 0], given[given >= 0])
    assert tokens.min() >= 0
    done = [count for count, _ in told]
    assert done == sorted(done)
    assert done[-1] == prior.length
    assert torch.equal(told[-1][1], tokens)
    for count, some in told:
        if kind != "flow":  # which has all tokens from the first step on
            assert ((some >= 0).flatten(1).sum(dim=1) >= count).all()
            assert torch.equal(some[some >= 0], tokens[some >= 0])


@every_kind
def test_bits_are_the_priors_or_there_are_none(make_model, kind: str):
    model = make_model(kind)
    if not isinstance(model.prior, SequentialPrior):
        with pytest.raises(ModelError, match="cannot say how likely"):
            model.paint(range(2))
        return
    painting = model.paint(range(3), class_name="ice", batch_size=2)
    path = model.prior.conditioned(model.conditions.of_class("ice").expand(3, -1), 3)
    wanted = model.prior.token_bits(torch.from_numpy(painting.tokens), path).sum(dim=(1, 2))
    np.testing.assert_allclose(painting.bits, wanted, rtol=1e-5)


@every_kind
def test_previews_end_with_the_picture(make_model, kind: str):
    model, shown = make_model(kind), []
    frames = model.sample(2, preview=shown.append)
    np.testing.assert_array_equal(shown[-1], frames)
    assert len(shown) == {"pyramid": 3, "masked": 12, "flow": 20}.get(kind, 3)
    if kind == "pyramid":
        assert not (shown[0] == GREY).all(axis=3).any()
        coarse = model.tokenizer.quantizer.coarse(torch.from_numpy(model.paint(range(2)).tokens), GRID, 1)
        wanted = model.tokenizer._decoded(coarse, SIZE)
        assert (torch.from_numpy(shown[0]).int() - wanted.int()).abs().max() <= 1
    elif kind == "raster":
        assert (shown[0][:, 4:] == GREY).all()


@every_kind
def test_holes_are_filled_but_by_a_pyramid(make_model, kind: str):
    model = make_model(kind)
    if isinstance(model.prior, PyramidPrior):
        with pytest.raises(ModelError, match="of no one place"):
            Editor(model)
        return
    picture = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    mask = np.zeros(SIZE, dtype=np.bool_)
    mask[4:9, 5:12] = True
    filled = Editor(model, edit=EditConfig(candidates=1), class_name="sand").inpaint(picture, mask, n=2)
    for one in filled:
        np.testing.assert_array_equal(one[~mask], picture[~mask])
    assert not np.array_equal(filled[0][mask], filled[1][mask])
