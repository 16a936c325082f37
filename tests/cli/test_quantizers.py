"""A tokenizer of any quantizer, by one flag, and what can then be done with it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.cli.driver import TINY, Outcome, Run

from bisquit.quantizers import quantizer_kinds


@pytest.fixture
def train(run: Run, frame_folder: Path, tmp_path: Path):
    """Return a function that trains a tiny tokenizer with some flags."""

    def call(*arguments: str) -> Outcome:
        out = ("--frames", frame_folder, "--out", tmp_path / "run")
        return run("train", "tokenizer", "--preset", "demo", *out, *TINY, *arguments)

    return call


def settings(folder: Path) -> dict[str, object]:
    return json.loads((folder / "run.json").read_text())["recipe"]["tokenizer"]["quantizer"]


@pytest.mark.parametrize("kind", quantizer_kinds())
def test_a_tokenizer_of_every_kind_is_trained_tokenizes_and_reconstructs(
    train, run: Run, frame_folder: Path, tmp_path: Path, kind: str
):
    assert train("--quantizer", kind, "--bits", "5").status == 0
    assert settings(tmp_path / "run")["kind"] == kind
    tokens = tmp_path / "tokens.safetensors"
    assert run("tokenize", "--tokenizer", tmp_path / "run", "--frames", frame_folder, "-o", tokens).status == 0
    assert json.loads(run("info", tokens, "--json").out)["bits_a_token"] == 5
    picture = frame_folder / "noon" / "0.png"
    assert "PSNR" in run("reconstruct", "--model", tmp_path / "run", picture, "-o", tmp_path / "back.png").out


def test_a_kind_has_as_many_bits_as_the_presets_and_its_own_flags(train, tmp_path: Path):
    assert train("--quantizer", "vq", "--code-width", "3", "--commitment-weight", "0.5").status == 0
    found = settings(tmp_path / "run")
    assert (found["bits"], found["code_width"], found["commitment_weight"]) == (10, 3, 0.5)


def test_levels_say_how_many_bits_there_are(train, tmp_path: Path):
    assert train("--quantizer", "fsq", "--levels", "4,2").status == 0
    assert settings(tmp_path / "run")["levels"] == [4, 2]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--levels", "4,4"), "--levels is for the quantizer fsq, and the recipe's is bsq"),
        (("--commitment-weight", "1"), "--commitment-weight is for the quantizer lfq or vq, and the recipe's is bsq"),
        (("--quantizer", "vq", "--levels", "4,4"), "--levels is for the quantizer fsq, and the recipe's is vq"),
        (("--quantizer", "vq", "--bits", "17"), "bits is 17: it must be between 1 and 16"),
        (("--quantizer", "fsq", "--levels", "8,5"), "levels is (8, 5): it must be powers of two"),
        (("--quantizer", "fsq", "--levels", "8,8", "--bits", "5"), "--bits is 5, but --levels give 6"),
        (("--quantizer", "fsq", "--bits", "0"), "bits is 0"),
        (("--quantizer", "abacus"), "abacus"),
    ],
    ids=str,
)
def test_flags_that_do_not_fit_are_one_line_and_leave_no_run(train, tmp_path: Path, flags: tuple[str, ...], words: str):
    refused = train(*flags)
    assert refused.status == 2
    assert words in refused.err
    assert "Traceback" not in refused.err
    assert not (tmp_path / "run").exists()


def test_a_priors_flag_of_another_kind_is_refused(run: Run, tmp_path: Path):
    files = ("--tokens", tmp_path / "t", "--valid-tokens", tmp_path / "t", "--out", tmp_path / "run")
    refused = run("train", "prior", "--preset", "demo", *files, "--scattered", "0.3")
    assert refused.status == 2
    assert "--scattered is for the prior any-order, and the recipe's is raster" in refused.err
