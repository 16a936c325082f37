"""The count model is a distribution, agrees with the formula, and finds what counting can find."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from itertools import product

import numpy as np
import pytest

from bisquit.errors import ConfigError, ShapeError, TokenError
from bisquit.evaluation import CountModel

OUTSIDE = -1


def correlated_tokens(images: int, codebook_size: int, seed: int, stay: float = 0.7) -> np.ndarray:
    """Return tokens (images, 6, 8) each of which is its left or upper neighbour plus one with chance `stay`."""
    random = np.random.default_rng(seed)
    tokens = random.integers(0, codebook_size, (images, 6, 8))
    for row, column in product(range(6), range(1, 8)):
        source = tokens[:, row, column - 1] if row % 2 or not row else tokens[:, row - 1, column]
        kept = random.random(images) < stay
        tokens[kept, row, column] = (source[kept] + 1) % codebook_size
    return tokens


def kneser_ney(
    tokens: np.ndarray, discounts: tuple[float, ...], codebook_size: int, own: int, left: int, upper: int
) -> float:
    """Return p(own | left, upper) by the formula, counting with dictionaries."""
    both = Counter()
    for image in tokens.tolist():
        for row, column in np.ndindex(tokens.shape[1:]):
            before = image[row][column - 1] if column else OUTSIDE
            above = image[row - 1][column] if row else OUTSIDE
            both[(before, above), image[row][column]] += 1
    after_left = Counter((before, t) for (before, _), t in both)
    after_none = Counter((None, t) for _, t in after_left)
    p = 1 / codebook_size
    levels = ((after_none, None), (after_left, left), (both, (left, upper)))
    for (counts, context), discount in zip(levels, discounts, strict=True):
        row = defaultdict(int, {t: n for (c, t), n in counts.items() if c == context})
        total = sum(row.values())
        kinds = len(row)
        if total:
            p = max(row[own] - discount, 0) / total + discount * kinds / total * p
    return p


def token_probability(model: CountModel, own: int, left: int, upper: int) -> float:
    """Return p(own | left, upper), both inside of the grid, from the bits of a grid less those of its other tokens."""
    grid = np.array([[[0, upper], [left, own]]])
    first_row, first_column, corner = np.array([[[0, upper]]]), np.array([[[0], [left]]]), np.array([[[0]]])
    rest = model.bits(first_row) + model.bits(first_column) - model.bits(corner)
    return float(2 ** (rest - model.bits(grid))[0])


def test_agrees_with_the_formula():
    tokens = correlated_tokens(images=12, codebook_size=5, seed=0)
    model = CountModel.fit(tokens, codebook_size=7)  # two codes are never seen
    for own, left, upper in [(1, 0, 2), (3, 2, 2), (0, 4, 4), (6, 1, 1), (2, 6, 0), (4, 3, 6)]:
        wanted = kneser_ney(tokens, model.discounts, 7, own, left, upper)
        assert token_probability(model, own, left, upper) == pytest.approx(wanted)


def test_the_first_token_is_counted_after_the_outside_on_both_sides():
    tokens = correlated_tokens(images=12, codebook_size=5, seed=0)
    model = CountModel.fit(tokens, codebook_size=5)
    wanted = kneser_ney(tokens, model.discounts, 5, 3, OUTSIDE, OUTSIDE)
    assert 2.0 ** -model.bits(np.array([[[3]]]))[0] == pytest.approx(wanted)


@pytest.mark.parametrize("codebook_size", [1, 2, 3])
def test_the_probabilities_of_all_grids_sum_to_one(codebook_size: int):
    model = CountModel.fit(correlated_tokens(images=11, codebook_size=max(1, codebook_size - 1), seed=1), codebook_size)
    grids = np.array(list(product(range(codebook_size), repeat=6))).reshape(-1, 2, 3)
    assert np.exp2(-model.bits(grids)).sum() == pytest.approx(1)


def test_a_pattern_costs_next_to_nothing():
    stripes = np.arange(8) % 4 + np.zeros((200, 6, 1), dtype=np.int64)
    assert CountModel.fit(stripes, codebook_size=4).bits(stripes).max() < 0.1


def test_noise_costs_about_the_bits_of_the_codebook():
    noise = np.random.default_rng(0).integers(0, 4, (400, 6, 8))
    bits_per_token = CountModel.fit(noise[:300], codebook_size=4).bits(noise[300:]).mean() / 48
    assert 1.99 < bits_per_token < 2.05


def test_what_the_neighbours_tell_is_found_in_images_not_fitted_on():
    tokens = correlated_tokens(images=600, codebook_size=16, seed=2)
    bits_per_token = CountModel.fit(tokens[:500], codebook_size=16).bits(tokens[500:]).mean() / 48
    # Within a row: to go on with chance 0.7 + 0.3 / 16, else one of 15 others; the first column is noise.
    go_on = 0.7 + 0.3 / 16
    best = (7 * -(go_on * math.log2(go_on) + (1 - go_on) * math.log2((1 - go_on) / 15)) + 4) / 8
    assert best < bits_per_token < 4 - 0.5 * (4 - best)


def test_tuned_discounts_beat_the_usual_ones():
    tokens = correlated_tokens(images=300, codebook_size=16, seed=3)
    tuned = CountModel.fit(tokens[:200], codebook_size=16)
    usual = CountModel(16, tuned.frames, (0.75, 0.75, 0.75), tuned.levels)
    assert tuned.discounts != usual.discounts
    assert tuned.bits(tokens[200:]).mean() < usual.bits(tokens[200:]).mean()


def test_fewer_than_ten_frames_keep_the_usual_discounts():
    assert CountModel.fit(correlated_tokens(9, 4, seed=0), 4).discounts == (0.75, 0.75, 0.75)


def test_all_frames_are_counted_in_the_end():
    model = CountModel.fit(np.zeros((20, 2, 2), dtype=np.uint8), codebook_size=2)
    assert model.frames == 20
    assert sum(model.levels[-1].counts) == 80


def test_bits_of_an_image_do_not_depend_on_the_others_nor_on_the_type():
    tokens = correlated_tokens(images=20, codebook_size=5, seed=4)
    model = CountModel.fit(tokens, codebook_size=5)
    alone = np.concatenate([model.bits(tokens[at : at + 1].astype(np.uint8)) for at in range(20)])
    np.testing.assert_array_equal(model.bits(tokens), alone)


def test_images_in_many_parts_have_the_same_bits(monkeypatch: pytest.MonkeyPatch):
    tokens = correlated_tokens(images=20, codebook_size=5, seed=4)
    model = CountModel.fit(tokens, codebook_size=5)
    whole = model.bits(tokens)
    monkeypatch.setattr("bisquit.evaluation.count_baseline._TOKENS_AT_ONCE", 3 * 48)
    np.testing.assert_array_equal(model.bits(tokens), whole)


def test_the_largest_codebook_keeps_distinct_contexts_apart():
    last = 2**18 - 1
    model = CountModel.fit(np.array([[[last, last], [last, last]]]), codebook_size=2**18)
    assert all((level.keys >= 0).all() for level in model.levels)
    seen, unseen = model.bits(np.array([[[last, last], [last, last]], [[last, last], [last, 0]]]))
    assert seen < 10
    assert unseen - seen > 15


@pytest.mark.parametrize("codebook_size", [0, 2**18 + 1])
def test_codebooks_without_a_key_are_refused(codebook_size: int):
    with pytest.raises(ConfigError, match=f"codebook_size is {codebook_size}"):
        CountModel.fit(np.zeros((1, 1, 1), dtype=np.int64), codebook_size)


def test_unfit_tokens_are_refused():
    with pytest.raises(ShapeError, match=r"\(N, h, w\)"):
        CountModel.fit(np.zeros((2, 2), dtype=np.int64), 4)
    model = CountModel.fit(np.zeros((1, 2, 2), dtype=np.int64), 4)
    with pytest.raises(TokenError, match="from 0 to 4: the codebook ends at 3"):
        model.bits(np.array([[[0, 4]]]))
