"""Laws of edits: what no mask covers stays, and what is smoothed stays between what surrounds it."""

from __future__ import annotations

from functools import cache

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tests.conftest import roughen

from bisquit.autoencoder import AutoEncoderConfig
from bisquit.editing import EditConfig, Editor, mask_of
from bisquit.generate import Pipeline
from bisquit.membrane import membrane
from bisquit.priors import AnyOrderConfig, build_prior
from bisquit.quantizers import BSQConfig
from bisquit.tokenizer import Tokenizer, TokenizerConfig
from bisquit.transformer import TransformerConfig

few = settings(max_examples=6)
SEEDS = st.integers(0, 2**32)
HEIGHT, WIDTH = 7, 12


@cache
def editor() -> Editor:
    """A model of frames of 7 x 12, the last row of patches cut."""
    prior = build_prior(AnyOrderConfig(transformer=TransformerConfig(8, 1, 2, 12), neighbours=8), 3, (2, 3)).eval()
    tokenizer = Tokenizer(TokenizerConfig(AutoEncoderConfig(4, 8, 1), BSQConfig(bits=3))).eval()
    for seed, module in enumerate((tokenizer, prior)):
        roughen(module, seed)
    return Editor(Pipeline(tokenizer, prior, (HEIGHT, WIDTH)), edit=EditConfig(candidates=2), backend="torch")


def picture(seed: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@st.composite
def masks(draw: st.DrawFn, height: int, width: int) -> np.ndarray:
    """Any mask: rectangles, one on another, and scattered pixels."""
    mask = np.random.default_rng(draw(SEEDS)).random((height, width)) < draw(st.sampled_from([0.0, 0.0, 0.05, 0.9]))
    for _ in range(draw(st.integers(0, 3))):
        top, left = draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))
        mask[top : draw(st.integers(top, height)), left : draw(st.integers(left, width))] ^= True
    return mask


@few
@given(SEEDS, st.integers(1, 9), st.integers(1, 14), st.tuples(*[st.integers(0, 9)] * 4))
def test_a_picture_that_is_extended_stays_within(seed: int, height: int, width: int, sides: tuple[int, int, int, int]):
    left, right, top, bottom = sides
    assume(height + top + bottom >= HEIGHT)
    assume(width + left + right >= WIDTH)
    before = picture(seed, height, width)
    (after,) = editor().extend(before, left, right, top, bottom, seed=seed)
    assert after.shape == (top + height + bottom, left + width + right, 3)
    np.testing.assert_array_equal(after[top : top + height, left : left + width], before)


@few
@given(st.data(), SEEDS, st.integers(HEIGHT, 11), st.integers(WIDTH, 20), st.booleans(), st.booleans())
def test_closing_seams_and_joining_leave_all_but_their_bands(
    data: st.DataObject, seed: int, height: int, width: int, horizontal: bool, vertical: bool
):
    one, other = picture(seed, height, width), picture(seed + 1, height, width)
    band = data.draw(st.integers(1, (min(height, width) - 1) // 2))
    (closed,) = editor().close_seams(one, band, horizontal=horizontal, vertical=vertical)
    rows = slice(band, height - band) if vertical else slice(None)
    columns = slice(band, width - band) if horizontal else slice(None)
    np.testing.assert_array_equal(closed[rows, columns], one[rows, columns])
    middle, band = width // 2, data.draw(st.integers(0, width // 2 - 1))
    (joined,) = editor().join(one, other, band)
    np.testing.assert_array_equal(joined[:, : middle - band], one[:, : middle - band])
    np.testing.assert_array_equal(joined[:, middle + band :], other[:, middle + band :])


@few
@given(st.data(), SEEDS, st.integers(1, 9), st.integers(1, 9))
def test_a_membrane_stays_between_what_surrounds_it(data: st.DataObject, seed: int, height: int, width: int):
    values = np.random.default_rng(seed).uniform(-300, 300, (height, width, 2))
    hole = data.draw(masks(height, width))
    found = membrane(values, hole, 1e-6)
    assert np.isfinite(found).all()
    if hole.all():
        assert (found == 0).all()
        return
    np.testing.assert_array_equal(found[~hole], values[~hole])
    assert (found >= values[~hole].min(axis=0) - 1e-3).all()
    assert (found <= values[~hole].max(axis=0) + 1e-3).all()


@few
@given(st.data(), st.integers(1, 9), st.integers(1, 9))
def test_a_mask_that_is_drawn_is_that_mask(data: st.DataObject, height: int, width: int):
    mask = data.draw(masks(height, width))
    drawn = (255 * mask.astype(np.uint8))[..., None].repeat(3, axis=2)
    np.testing.assert_array_equal(mask_of(drawn), mask)
