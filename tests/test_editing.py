"""Editing: what stays, what is painted, and where windows lie."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tests.conftest import roughen

from bisquit.conditioning import Conditions
from bisquit.editing import EditConfig, Editor
from bisquit.errors import ConditionError, ConfigError, ModelError, ShapeError
from bisquit.generate import Pipeline
from bisquit.priors import KINDS, AnyOrderConfig, FlowConfig, RasterConfig, build_prior
from bisquit.sampling import SamplingConfig
from bisquit.transformer import TransformerConfig

TINY = TransformerConfig(width=8, n_layers=1, n_heads=2, feed_forward=12)
CONFIGS: dict[str, Any] = {
    "raster": RasterConfig(transformer=TINY, neighbours=4, condition_size=2),
    "any-order": AnyOrderConfig(transformer=TINY, neighbours=8, condition_size=2),
}
HEIGHT, WIDTH = 19, 30  # five patches of four, the last row cut; seven and a half


@pytest.fixture(params=CONFIGS)
def model(request: pytest.FixtureRequest, make_tokenizer) -> Pipeline:
    """A model of frames of 19 x 30: grids of 5 x 8."""
    prior = build_prior(CONFIGS[request.param], 3, (5, 8))
    roughen(prior, 1)
    return Pipeline(make_tokenizer(), prior, (HEIGHT, WIDTH), Conditions(("ice", "sand")))


@pytest.fixture
def editor(model: Pipeline) -> Editor:
    return Editor(model)


def picture(height: int = HEIGHT, width: int = WIDTH, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def hole(height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    mask = np.zeros((height, width), dtype=np.bool_)
    mask[6:13, 9:17] = True
    return mask


def test_outside_of_the_mask_every_pixel_stays(editor: Editor):
    before, mask = picture(), hole()
    filled = editor.inpaint(before, mask, n=3)
    assert filled.shape == (3, HEIGHT, WIDTH, 3)
    assert filled.dtype == np.uint8
    for one in filled:
        np.testing.assert_array_equal(one[~mask], before[~mask])
    assert not np.array_equal(filled[0][mask], filled[1][mask])
    np.testing.assert_array_equal(before, picture())


def test_what_the_mask_covers_changes_nothing(editor: Editor):
    before, mask = picture(), hole()
    other = before.copy()
    other[mask] = 255 - other[mask]
    np.testing.assert_array_equal(editor.inpaint(before, mask), editor.inpaint(other, mask))


def test_a_picture_is_the_same_alone_and_among_others(editor: Editor):
    filled = editor.inpaint(picture(), hole(), n=3, seed=7)
    np.testing.assert_array_equal(editor.inpaint(picture(), hole(), n=1, seed=7), filled[:1])
    assert not np.array_equal(editor.inpaint(picture(), hole(), n=1, seed=8), filled[:1])


def test_a_mask_that_covers_nothing_leaves_the_picture(editor: Editor):
    before = picture()
    np.testing.assert_array_equal(editor.inpaint(before, np.zeros((HEIGHT, WIDTH), dtype=np.bool_))[0], before)


def test_a_mask_that_covers_everything_is_a_new_picture(editor: Editor, model: Pipeline):
    everything = np.ones((HEIGHT, WIDTH), dtype=np.bool_)
    np.testing.assert_array_equal(editor.inpaint(picture(), everything, n=2, seed=3), model.sample(2, seed=3))


def test_a_larger_picture_is_filled_window_after_window(editor: Editor):
    before = picture(31, 77)
    mask = np.zeros((31, 77), dtype=np.bool_)
    mask[5:25, 10:70] = True
    done = []
    filled = editor.inpaint(before, mask, n=2, progress=lambda now, total: done.append((now, total)))
    for one in filled:
        np.testing.assert_array_equal(one[~mask], before[~mask])
    assert done[-1] == (1200, 1200)
    assert len(done) > 1
    assert [now for now, _ in done] == sorted(now for now, _ in done)


class _EnoughError(Exception):
    pass


@pytest.mark.parametrize("way", ["inpaint", "vary"])
def test_whoever_is_told_how_far_it_is_can_stop_an_edit_on_its_way(editor: Editor, way: str):
    told: list[tuple[int, int]] = []

    def progress(done: int, total: int) -> None:
        told.append((done, total))
        if stop:
            raise _EnoughError

    everything = np.ones((HEIGHT, WIDTH), dtype=np.bool_)
    edits = {
        "inpaint": lambda: editor.inpaint(picture(), everything, progress=progress),
        "vary": lambda: editor.vary(picture(), progress=progress),
    }
    stop = False
    edits[way]()
    assert len(told) > 1
    assert told == sorted(told)
    assert told[-1][0] == told[-1][1]
    whole, stop = told.copy(), True
    told.clear()
    with pytest.raises(_EnoughError):
        edits[way]()
    assert told == whole[:1]


def test_the_sides_are_added_and_the_picture_stays(editor: Editor):
    before = picture()
    extended = editor.extend(before, left=11, right=3, top=2, bottom=5, n=2)
    assert extended.shape == (2, HEIGHT + 7, WIDTH + 14, 3)
    for one in extended:
        np.testing.assert_array_equal(one[2 : 2 + HEIGHT, 11 : 11 + WIDTH], before)
    assert not np.array_equal(extended[0], extended[1])


def test_more_than_a_frame_can_be_added(editor: Editor):
    assert editor.extend(picture(), right=2 * WIDTH + 1).shape == (1, HEIGHT, 3 * WIDTH + 1, 3)


@pytest.mark.parametrize("sides", [(True, True), (True, False), (False, True)], ids=str)
def test_seams_are_closed_and_the_middle_stays(editor: Editor, sides: tuple[bool, bool]):
    horizontal, vertical = sides
    before = picture()
    closed = editor.close_seams(before, 4, horizontal=horizontal, vertical=vertical)[0]
    rows = slice(4, HEIGHT - 4) if vertical else slice(None)
    columns = slice(4, WIDTH - 4) if horizontal else slice(None)
    np.testing.assert_array_equal(closed[rows, columns], before[rows, columns])
    changed = (closed != before).any(axis=2)
    assert changed[0].any() == vertical or horizontal
    assert changed[:, 0].any() == horizontal or vertical


def test_two_halves_are_joined_by_a_band(editor: Editor):
    left, right = picture(seed=1), picture(seed=2)
    joined = editor.join(left, right, band=5)[0]
    np.testing.assert_array_equal(joined[:, :10], left[:, :10])
    np.testing.assert_array_equal(joined[:, 20:], right[:, 20:])
    np.testing.assert_array_equal(editor.join(left, right, band=0)[0][:, 15:], right[:, 15:])


@pytest.mark.parametrize("keep", [0.0, 0.02, 0.5])
def test_a_variation_is_the_same_alone_and_among_others(editor: Editor, keep: float):
    varied = editor.vary(picture(), keep, n=30, seed=7)
    np.testing.assert_array_equal(editor.vary(picture(), keep, n=1, seed=7), varied[:1])


def test_a_hole_larger_than_a_frame_is_filled_in_few_windows(editor: Editor, monkeypatch):
    mask = np.zeros((90, 140), dtype=np.bool_)
    mask[10:80, 10:130] = True
    painted: list[int] = []
    fill = editor.fill

    def counted(frames: np.ndarray, here: np.ndarray, *how: Any) -> np.ndarray:
        painted.append(int(here.sum()))
        return fill(frames, here, *how)

    monkeypatch.setattr(editor, "fill", counted)
    editor.inpaint(picture(90, 140), mask)
    assert sum(painted) == mask.sum()
    assert len(painted) < 4 * mask.sum() / (HEIGHT * WIDTH)  # half a window each would be the least but for the last


def test_many_candidates_are_painted_some_at_a_time(make_tokenizer, monkeypatch):
    prior = build_prior(CONFIGS["raster"], 3, (5, 8))
    roughen(prior, 1)
    editor = Editor(Pipeline(make_tokenizer(), prior, (HEIGHT, WIDTH)), edit=EditConfig(candidates=7))
    wanted = editor.inpaint(picture(), hole(), n=3)
    monkeypatch.setattr("bisquit.editing.BATCH", 4)
    np.testing.assert_array_equal(editor.inpaint(picture(), hole(), n=3), wanted)


@pytest.mark.parametrize("edit", ["inpaint", "vary"])
def test_no_pictures_are_refused(editor: Editor, edit: str):
    with pytest.raises(ConfigError, match="n is 0"):
        editor.inpaint(picture(), hole(), n=0) if edit == "inpaint" else editor.vary(picture(), 0.5, n=0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_a_gpu_edits_as_a_cpu_does(model: Pipeline, precision: Any):
    def edited() -> np.ndarray:
        editor = Editor(model, class_name="ice", settings=SamplingConfig(guidance=2.0), precision=precision)
        return editor.inpaint(picture(), hole(), n=2)

    wanted = edited()
    model.to("cuda")
    np.testing.assert_allclose(edited(), wanted, atol=1)  # decoders round in their own ways


@pytest.mark.parametrize("keep", [0.0, 0.5, 1.0])
def test_as_many_tokens_stay_as_are_kept(editor: Editor, model: Pipeline, keep: float, monkeypatch):
    known_of: list[torch.Tensor] = []
    paint = editor._paint

    def watched(tokens: torch.Tensor, known: torch.Tensor, *how: Any, **more: Any) -> torch.Tensor:
        known_of.append(known)
        painted = paint(tokens, known, *how, **more)
        assert torch.equal(painted[known], tokens[known])
        return painted

    monkeypatch.setattr(editor, "_paint", watched)
    varied = editor.vary(picture(), keep, n=20)
    assert varied.shape == (20, HEIGHT, WIDTH, 3)
    assert known_of[0].float().mean().item() == pytest.approx(keep, abs=0.08)
    if keep == 1:
        np.testing.assert_array_equal(varied[0], model.decode(model.encode(picture()[None]), (HEIGHT, WIDTH))[0])
    elif keep:
        assert not torch.equal(known_of[0][0], known_of[0][1])


def test_of_several_fillings_a_raster_prior_takes_the_one_that_fits_what_comes_after(make_tokenizer):
    prior = build_prior(CONFIGS["raster"], 3, (5, 8))
    roughen(prior, 1)
    model = Pipeline(make_tokenizer(), prior, (20, 32))
    tokens = torch.from_numpy(model.encode(picture(20, 32)[None]))
    known = torch.ones(1, 5, 8, dtype=torch.bool)
    known[0, 1:3, 2:5] = False
    one, many = (Editor(model, edit=EditConfig(candidates=n)) for n in (1, 32))
    each = one._paint(tokens.expand(32, -1, -1), known.expand(32, -1, -1), 0, misfit=None)
    rest = torch.where(known, prior.token_bits(each), 0.0).sum(dim=(1, 2))
    assert torch.equal(many._paint(tokens, known, 0, many._surprise(tokens, known))[0], each[rest.argmin()])
    assert rest.min() < rest[0]


@pytest.mark.parametrize("kind", ["any-order", "masked"])
def test_of_several_fillings_that_is_taken_which_the_decoder_joins_best_to_the_rest(make_tokenizer, kind: str):
    prior = build_prior(KINDS[kind](transformer=TINY), 3, (5, 8))
    roughen(prior, 1)
    model = Pipeline(make_tokenizer(), prior, (HEIGHT, WIDTH))
    mask = np.zeros((HEIGHT, WIDTH), dtype=np.bool_)
    mask[5:11, 9:19] = True  # in patches 1 to 2 down and 2 to 4 across
    around = ~mask
    around[:, :4] = around[:, 24:] = around[16:] = False
    frames = np.stack([picture(), picture()[::-1].copy()])
    one, many = (Editor(model, edit=EditConfig(candidates=n)) for n in (1, 6))
    each = one.paint_hole(frames.repeat(6, axis=0), mask, seed=2)
    errors = np.square(each[:, around].astype(float) - frames.repeat(6, axis=0)[:, around]).mean(axis=(1, 2))
    best = errors.reshape(2, 6).argmin(axis=1) + np.array([0, 6])
    np.testing.assert_array_equal(many.paint_hole(frames, mask, seed=2), each[best])
    assert (errors.reshape(2, 6).min(axis=1) < errors.reshape(2, 6).mean(axis=1)).all()


def test_what_is_painted_shows_what_is_asked_for(model: Pipeline):
    settings = SamplingConfig(guidance=3.0)
    plain, ice, sand = (
        Editor(model, **how).inpaint(picture(), hole(), n=8)
        for how in ({}, {"class_name": "ice", "settings": settings}, {"class_name": "sand", "settings": settings})
    )
    assert not np.array_equal(ice, sand)
    assert not np.array_equal(ice, plain)


def test_a_flow_starts_from_a_picture_so_far_back_as_it_is_told(make_tokenizer):
    prior = build_prior(FlowConfig(transformer=TINY), 3, (5, 8))
    for parameter in prior.parameters():
        torch.nn.init.zeros_(parameter)  # so that it leaves all where noise has put it
    model = Pipeline(make_tokenizer(), prior, (HEIGHT, WIDTH))
    editor = Editor(model)
    remade = model.decode(model.encode(picture()[None]), (HEIGHT, WIDTH))[0]
    np.testing.assert_array_equal(editor.vary(picture(), strength=1e-3)[0], remade)
    half = editor.vary(picture(), strength=0.5, n=3, seed=7)
    np.testing.assert_array_equal(editor.vary(picture(), strength=0.5, n=1, seed=7), half[:1])
    assert not np.array_equal(half[0], half[1])
    kept, changed = ((one[:16] == remade[:16]).all(axis=2).mean() for one in (half[0], editor.vary(picture())[0]))
    assert kept > changed
    with pytest.raises(ConfigError, match=r"strength is 1\.5"):
        editor.vary(picture(), strength=1.5)


def test_what_is_no_flow_starts_from_nothing(editor: Editor):
    with pytest.raises(ConfigError, match="only a flow starts from a picture"):
        editor.vary(picture(), strength=0.5)


def test_what_does_not_fit_is_refused(editor: Editor, model: Pipeline):
    with pytest.raises(ShapeError, match="a mask has one value for each pixel"):
        editor.inpaint(picture(), hole(20, 30))
    with pytest.raises(ShapeError, match="a mask has one value for each pixel"):
        editor.inpaint(picture(), hole().astype(np.uint8))
    with pytest.raises(ShapeError, match=r"uint8 \(H, W, 3\)"):
        editor.inpaint(picture()[..., 0], hole())
    with pytest.raises(ShapeError, match="this model needs 19 x 30"):
        editor.inpaint(picture(18, 30), hole(18, 30))
    with pytest.raises(ShapeError, match="none may be negative"):
        editor.extend(picture(), left=-1)
    with pytest.raises(ShapeError, match="does not fit into 19 x 30"):
        editor.close_seams(picture(), 10)
    with pytest.raises(ShapeError, match="of one size"):
        editor.join(picture(), picture(19, 31), 3)
    with pytest.raises(ShapeError, match="varies pictures of"):
        editor.vary(picture(20, 30), 0.5)
    with pytest.raises(ConfigError, match="keep"):
        editor.vary(picture(), 1.1)
    with pytest.raises(ConfigError, match="candidates"):
        EditConfig(candidates=0)
    with pytest.raises(ConditionError, match="no class 'lava'"):
        Editor(model, class_name="lava")
    with pytest.raises(ModelError, match="no prior"):
        Editor(Pipeline(model.tokenizer))
