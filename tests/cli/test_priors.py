"""A prior of any kind, by one flag, and what can then be done with it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.cli.driver import TINY, Run, Trained

import bisquit
from bisquit.priors import KINDS, FlowPrior

SHAPE = (*TINY, "--n-heads", "2", "--feed-forward", "16", "--epochs", "1")


@pytest.mark.parametrize("kind", KINDS)
def test_a_prior_of_every_kind_is_trained_measured_and_paints(
    run: Run, trained: Trained, frame_folder: Path, tmp_path: Path, kind: str
):
    tokens = trained.tokens
    if kind == "pyramid":
        frames = ("--frames", frame_folder)
        flags = ("--preset", "demo", "--quantizer", "pyramid", "--scales", "0,0.5,1", "--bits", "4")
        assert run("train", "tokenizer", *flags, *frames, "--out", tmp_path / "tokenizer", *TINY).status == 0
        tokens = tmp_path / "tokens.safetensors"
        assert run("tokenize", "--tokenizer", tmp_path / "tokenizer", *frames, "-o", tokens).status == 0
    data = ("--tokens", tokens, "--valid-tokens", tokens, "--out", tmp_path / "model")
    done = run("train", "prior", "--preset", "demo", "--prior", kind, "--classes", *data, *SHAPE)
    assert done.status == 0, done.err
    sheet = tmp_path / "sheet.png"
    assert run("sample", "--model", tmp_path / "model", "-n", "2", "--class", "noon", "-o", sheet).status == 0
    assert sheet.is_file()
    found = json.loads(run("info", tmp_path / "model", "--json").out)
    assert found["classes"] == ["night", "noon"]
    figures = tmp_path / "figures.json"
    measured = run("evaluate", "--model", tmp_path / "model", "--frames", frame_folder, "--json", figures)
    assert measured.status == 0, measured.err
    found = json.loads(figures.read_text())
    assert (found["bits_per_image"] is not None) == (kind not in ("masked", "flow"))
    assert (found["bits_per_image_at_most"] is not None) == (kind == "masked")
    assert ("at most" in measured.out) == (kind == "masked")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--prior", "pyramid"), "train a tokenizer with --quantizer pyramid"),
        (("--prior", "parts", "--parts", "3"), "parts is 3: it must be a divisor of the 4 bits"),
        (("--flipped", "0.1"), "flipped is 0.1: it must be 0 but for a pyramid prior"),
        (("--prior", "pyramid", "--flipped", "0.1"), "tokens do not tell what would mend them"),
        (("--parts", "2"), "--parts is for the prior parts, and the recipe's is raster"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_what_cannot_be_is_one_line(run: Run, trained: Trained, tmp_path: Path, flags: tuple[str, ...], words: str):
    data = ("--tokens", trained.tokens, "--valid-tokens", trained.tokens, "--out", tmp_path / "model")
    done = run("train", "prior", "--preset", "demo", *data, *SHAPE, *flags)
    assert done.status == 2
    assert words in " ".join(done.err.split())


def test_a_flow_takes_the_levels_of_finite_scalar_quantisation_for_numbers(
    run: Run, frame_folder: Path, tmp_path: Path
):
    frames, tokens = ("--frames", frame_folder), tmp_path / "tokens.safetensors"
    flags = ("--preset", "demo", "--quantizer", "fsq", "--levels", "16,16")
    assert run("train", "tokenizer", *flags, *frames, "--out", tmp_path / "tokenizer", *TINY).status == 0
    assert run("tokenize", "--tokenizer", tmp_path / "tokenizer", *frames, "-o", tokens).status == 0
    data = ("--tokens", tokens, "--valid-tokens", tokens, "--out", tmp_path / "model")
    done = run("train", "prior", "--preset", "demo", "--prior", "flow", *data, *SHAPE)
    assert done.status == 0, done.err
    prior = bisquit.load(tmp_path / "model").prior
    assert isinstance(prior, FlowPrior)
    assert prior.numbers == 2
    done = run("sample", "--model", tmp_path / "model", "-n", "2", "-o", tmp_path / "sheet.png")
    assert done.status == 0, done.err
