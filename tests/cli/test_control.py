"""Asking for classes and words, and editing, by commands."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.cli.driver import TINY, Run, Trained
from tests.conftest import letters_read

import bisquit
from bisquit.frames import write_frame

TABLE = '[night]\nsentences = ["a dark road"]\n[noon]\nsentences = ["a light road"]\n'


@pytest.fixture(scope="module")
def told(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model that is told classes and words, and paints in any order."""
    folder = tmp_path_factory.mktemp("told")
    (folder / "captions.toml").write_text(TABLE)
    with pytest.MonkeyPatch.context() as patch, letters_read():
        import sys

        from bisquit.cli.main import main

        command = (
            *("train", "prior", "--preset", "edit", "--classes", "--captions", folder / "captions.toml"),
            *("--no-flip", "--shift-px", "0", "--tokens", trained.tokens, "--valid-tokens", trained.tokens),
            *("--out", folder / "model", *TINY, "--n-layers", "1", "--n-heads", "2", "--feed-forward", "16"),
        )
        patch.setattr(sys, "argv", ["bisquit", *map(str, command)])
        main()
    return folder / "model"


def test_info_says_what_a_model_can_be_asked_for(run: Run, told: Path):
    with letters_read():
        shown = run("info", told, "--json")
    assert '"night"' in shown.out
    assert '"reads_words_by": "all-MiniLM-L6-v2"' in shown.out


@pytest.mark.parametrize("asked", [("--class", "noon"), ("--prompt", "a light road at noon")], ids=["class", "prompt"])
def test_a_class_or_a_prompt_is_painted(run: Run, told: Path, tmp_path: Path, asked: tuple[str, str]):
    with letters_read():
        sample = ("sample", "--model", told, "-n", "2", *asked, "--guidance", "2", "--guidance-schedule", "cosine")
        done = run(*sample, "-o", tmp_path / "sheet.png")
    assert done.status == 0, done.err
    assert bisquit.read_frame(tmp_path / "sheet.png").shape[2] == 3


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (("--class", "nigth"), "no class 'nigth'; near it are: night"),
        (("--class", "noon", "--prompt", "noon"), "either a class or a prompt"),
        (("--prompt", ""), "the prompt is empty"),
        (("--prompt", "a" * 100_000), "100,000 characters"),
        (("--guidance", "3"), "none is given"),
        (("--class", "noon", "--guidance", "-1"), "guidance is -1.0"),
    ],
    ids=["unknown", "both", "empty", "long", "no condition", "negative"],
)
def test_what_cannot_be_asked_for_is_one_line(
    run: Run, told: Path, tmp_path: Path, asked: tuple[str, ...], message: str
):
    with letters_read():
        refused = run("sample", "--model", told, "-n", "1", *asked, "-o", tmp_path / "sheet.png")
    assert refused.status == 2
    assert message in refused.err
    assert refused.err.count("\n") == 1
    assert not (tmp_path / "sheet.png").exists()


def test_a_model_that_knows_nothing_says_so(run: Run, trained: Trained, tmp_path: Path):
    sample = ("sample", "--model", trained.model, "-n", "1", "-o", tmp_path / "sheet.png")
    assert "knows no classes" in run(*sample, "--class", "noon").err
    assert "knows no words" in run(*sample, "--prompt", "noon").err


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(1).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    write_frame(pixels, tmp_path / "in.png")
    return tmp_path / "in.png"


def mask_of(path: Path, *place: slice, size: tuple[int, int] = (12, 16)) -> Path:
    mask = np.zeros((*size, 3), dtype=np.uint8)
    mask[place] = 255
    write_frame(mask, path)
    return path


@pytest.mark.parametrize("which", ["raster", "any-order"])
def test_a_hole_is_filled_and_the_rest_stays(run: Run, trained: Trained, told: Path, picture: Path, which: str):
    model, folder = trained.model if which == "raster" else told, picture.parent
    mask = mask_of(folder / "mask.png", slice(3, 8), slice(6, 12))
    with letters_read():
        done = run("edit", "inpaint", picture, "--mask", mask, "--model", model, "-n", "2", "-o", folder / "out.png")
    assert done.status == 0, done.err
    before = bisquit.read_frame(picture)
    for i in range(2):
        after = bisquit.read_frame(folder / f"out-{i}.png").astype(int)
        after[3:8, 6:12] = before[3:8, 6:12]
        np.testing.assert_array_equal(after, before)


def test_each_edit_makes_a_picture_of_its_size(run: Run, trained: Trained, picture: Path):
    folder, model = picture.parent, ("--model", trained.model)
    edits = {
        ("extend", picture, "--left", "5", "--bottom", "2"): (14, 21),
        ("vary", picture, "--keep", "0.3"): (12, 16),
        ("vary", picture, "--region", mask_of(folder / "kept.png", slice(0, 6))): (12, 16),
        ("blend", picture, picture, "--band", "3"): (12, 16),
        ("tile", picture, "--band", "2", "--along", "horizontal"): (12, 16),
    }
    for i, (edit, size) in enumerate(edits.items()):
        done = run("edit", *edit, *model, "-o", folder / f"{i}.png")
        assert done.status == 0, done.err
        assert bisquit.read_frame(folder / f"{i}.png").shape == (*size, 3)
    kept = bisquit.read_frame(folder / "2.png")
    np.testing.assert_array_equal(kept[:6], bisquit.read_frame(picture)[:6])


def test_a_black_mask_leaves_the_picture_and_says_so(run: Run, trained: Trained, picture: Path):
    mask, out = mask_of(picture.parent / "mask.png", slice(0, 0)), picture.parent / "out.png"
    done = run("edit", "inpaint", picture, "--mask", mask, "--model", trained.model, "-o", out)
    assert done.status == 0
    assert "nothing to paint" in done.err
    np.testing.assert_array_equal(bisquit.read_frame(out), bisquit.read_frame(picture))


def test_a_white_mask_is_a_new_picture(run: Run, trained: Trained, picture: Path):
    mask, out = mask_of(picture.parent / "mask.png", slice(None)), picture.parent / "out.png"
    assert run("edit", "inpaint", picture, "--mask", mask, "--model", trained.model, "-o", out).status == 0
    np.testing.assert_array_equal(bisquit.read_frame(out), bisquit.load(trained.model).sample(1, seed=0)[0])


def test_edits_that_cannot_be_are_one_line(run: Run, trained: Trained, picture: Path):
    folder, model = picture.parent, ("--model", trained.model)
    other = mask_of(folder / "other.png", slice(0, 3), size=(12, 17))
    refused = {
        ("inpaint", picture, "--mask", other): "12 x 17",
        ("inpaint", picture, "--mask", folder / "none.png"): "does not exist",
        ("inpaint", folder / "none.png", "--mask", other): "does not exist",
        ("extend", picture): "nothing is to be added",
        ("extend", picture, "--left", "-3"): "-3",
        ("vary", other, "--keep", "0.5"): "varies pictures of",
        ("vary", picture, "--keep", "2"): "2",
        ("vary", picture, "--region", other): "12 x 17",
        ("vary", picture, "--region", other, "--keep", "0.5"): "leave out --keep and --strength",
        ("vary", picture, "--strength", "0.5"): "only a flow starts from a picture",
        ("vary", picture, "--strength", "0"): "0",
        ("blend", picture, other): "of one size",
        ("tile", picture, "--band", "9"): "does not fit",
    }
    for edit, message in refused.items():
        done = run("edit", *edit, *model, "-o", folder / "out.png")
        assert done.status == 2, edit
        assert message in done.err
        assert done.err.count("\n") == 1
        assert not (folder / "out.png").exists()


def test_augment_writes_labelled_frames(run: Run, told: Path, frame_folder: Path, tmp_path: Path):
    with letters_read():
        command = ("augment", "--model", told, "--per-class", "3", "--real", frame_folder, "--guidance", "2")
        done = run(*command, "-o", tmp_path / "new")
        assert done.status == 0, done.err
        assert "6 frames of 2 classes" in done.out
        assert run(*command, "--classes", "noon", "-o", tmp_path / "new.parquet").status == 0
        refused = run(*command, "--classes", "noon,dusk", "-o", tmp_path / "other")
    assert refused.status == 2
    assert "no class 'dusk'" in refused.err
    assert not (tmp_path / "other").exists()
    frames = bisquit.load_frames(str(tmp_path / "new"))
    assert frames.classes == ("night", "noon")
    assert len(bisquit.load_frames(str(tmp_path / "new.parquet"))) == 3


@pytest.mark.parametrize("which", ["raster", "any-order"])
def test_views_are_pictures(run: Run, trained: Trained, told: Path, picture: Path, which: str):
    model, folder = trained.model if which == "raster" else told, picture.parent
    look = ("view", "attention", picture, "--model", model)
    with letters_read():
        done = run("view", "surprise", picture, "--model", model, "-o", folder / "surprise.png")
        assert done.status == 0, done.err
        assert "bits, most in row" in done.out
        assert run(*look, "--row", "1", "--column", "2", "-o", folder / "attention.png").status == 0
        assert bisquit.read_frame(folder / "attention.png").shape[0] > 12
        refused = run(*look, "--row", "9", "--column", "2", "-o", folder / "none.png")
    assert refused.status == 2
    assert "outside of the grid" in refused.err


def test_a_tokenizer_has_no_view(run: Run, trained: Trained, picture: Path):
    done = run("view", "surprise", picture, "--model", trained.tokenizer, "-o", picture.parent / "s.png")
    assert done.status == 2
    assert "no prior to look into" in done.err
