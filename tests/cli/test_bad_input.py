"""Bad input is one clear line on standard error and exit status 2, and leaves nothing behind."""

from __future__ import annotations

import resource
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.cli.driver import TINY, Outcome, Run, Trained

from bisquit.checkpoint import read_tensors, write_tensors


def assert_refused(outcome: Outcome, *words: str) -> None:
    assert outcome.status == 2
    lines = outcome.err.strip().splitlines()
    assert "Traceback" not in outcome.err
    assert len([line for line in lines if not line.startswith(("Usage:", "Try"))]) == 1, outcome.err
    for word in words:
        assert word in lines[-1]


@pytest.fixture
def train(run: Run, tmp_path: Path):
    """Return a function that trains a tokenizer on some frames, and checks that a refusal leaves no run."""

    def call(frames: str | Path, *arguments: str) -> Outcome:
        out = tmp_path / "run"
        outcome = run("train", "tokenizer", "--preset", "demo", "--frames", frames, "--out", out, *arguments, *TINY)
        assert outcome.status == 0 or not out.exists()
        return outcome

    return call


def test_an_empty_folder(train, tmp_path: Path):
    (tmp_path / "empty").mkdir()
    assert_refused(train(tmp_path / "empty"), "empty")


def test_frames_that_are_not_there(train, tmp_path: Path):
    assert_refused(train(tmp_path / "nowhere"), "nowhere")


def test_a_text_file_named_png_is_named_and_can_be_skipped(train, frame_folder: Path, tmp_path: Path):
    shutil.copytree(frame_folder, tmp_path / "frames")
    (tmp_path / "frames" / "noon" / "0.png").write_text("no picture")
    assert_refused(train(tmp_path / "frames"), "noon/0.png")
    skipped = train(tmp_path / "frames", "--skip-bad")
    assert skipped.status == 0
    assert "left out 1 that could not be read: noon/0.png" in skipped.err


def test_a_truncated_parquet(train, frame_folder: Path, tmp_path: Path):
    pictures = [{"bytes": path.read_bytes(), "path": path.name} for path in sorted(frame_folder.rglob("*.png"))]
    whole = tmp_path / "whole.parquet"
    pq.write_table(pa.table({"image": pictures}), whole)
    cut = tmp_path / "cut.parquet"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    assert_refused(train(cut), "cut.parquet")


def test_frames_of_mixed_sizes(train, run: Run, frame_folder: Path, trained: Trained, tmp_path: Path):
    shutil.copytree(frame_folder, tmp_path / "frames")
    run("sample", "--model", trained.model, "-n", "2", "-o", tmp_path / "frames" / "noon" / "sheet.png")
    assert_refused(train(tmp_path / "frames"), "--size")
    assert train(tmp_path / "frames", "--size", "12x16").status == 0


@pytest.mark.parametrize("bits", ["0", "33"])
def test_zero_and_33_bits(train, frame_folder: Path, bits: str):
    assert_refused(train(frame_folder, "--bits", bits), f"bits is {bits}", "between 1 and 32")


def test_a_preset_that_does_not_exist(run: Run, frame_folder: Path, tmp_path: Path):
    outcome = run("train", "tokenizer", "--preset", "huge", "--frames", frame_folder, "--out", tmp_path / "run")
    assert_refused(outcome, "huge", "seed, small, best, edit, demo")


def test_a_model_that_does_not_exist(run: Run, tmp_path: Path):
    assert_refused(run("sample", "--model", "nothing", "-o", tmp_path / "sheet.png"), "nothing")


@pytest.mark.parametrize("part", ["tokenizer", "prior"])
def test_a_model_cut_in_half(run: Run, trained: Trained, tmp_path: Path, part: str):
    shutil.copytree(trained.model, tmp_path / "model")
    path = tmp_path / "model" / f"{part}.safetensors"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    outcome = run("sample", "--model", tmp_path / "model", "-o", tmp_path / "sheet.png")
    assert_refused(outcome, path.name, "cut or damaged")
    assert not (tmp_path / "sheet.png").exists()


def test_a_model_of_another_format_version(run: Run, trained: Trained, tmp_path: Path):
    shutil.copytree(trained.model, tmp_path / "model")
    path = tmp_path / "model" / "prior.safetensors"
    tensors, description = read_tensors(path, "prior")
    write_tensors(path, tensors, {**description, "format": 99})
    outcome = run("sample", "--model", tmp_path / "model", "-o", tmp_path / "sheet.png")
    assert_refused(outcome, "version 99", "reads version 1")


def test_a_prior_with_the_wrong_tokenizer(run: Run, train, trained: Trained, frame_folder: Path, tmp_path: Path):
    assert train(frame_folder, "--bits", "4", "--seed", "1").status == 0
    other_tokens = tmp_path / "other.safetensors"
    run("tokenize", "--tokenizer", tmp_path / "run", "--frames", frame_folder, "-o", other_tokens)
    mixed = ("--tokens", trained.tokens, "--valid-tokens", other_tokens, "--out", tmp_path / "model")
    assert_refused(run("train", "prior", "--preset", "demo", *mixed), "same one")
    assert not (tmp_path / "model").exists()
    evaluate = ("evaluate", "--model", trained.model, "--frames", frame_folder, "--count-tokens", other_tokens)
    assert_refused(run(*evaluate), "other.safetensors")
    shutil.copytree(trained.model, tmp_path / "swapped")
    shutil.copy(tmp_path / "run" / "tokenizer.safetensors", tmp_path / "swapped")
    swapped = run("sample", "--model", tmp_path / "swapped", "-o", tmp_path / "sheet.png")
    assert_refused(swapped, "its prior is over the tokens of tokenizer")


def test_a_tokenizer_cannot_sample(run: Run, trained: Trained, tmp_path: Path):
    assert_refused(run("sample", "--model", trained.tokenizer, "-o", tmp_path / "sheet.png"), "no prior")


def test_a_picture_that_cannot_be_written(run: Run, trained: Trained, tmp_path: Path):
    assert_refused(run("sample", "--model", trained.model, "-o", tmp_path / "sheet.txt"), "sheet.txt")
    (tmp_path / "file").write_text("")
    assert_refused(run("sample", "--model", trained.model, "-o", tmp_path / "file" / "sheet.png"), "file")


def test_settings_that_are_no_numbers(run: Run, trained: Trained, tmp_path: Path):
    sample = ("sample", "--model", trained.model, "-o", tmp_path / "sheet.png")
    assert_refused(run(*sample, "--temperature", "hot"), "--temperature")
    assert_refused(run(*sample, "--temperature", "-1"), "temperature is -1.0")
    assert_refused(run(*sample, "--top-p", "0"), "top_p is 0.0")
    assert_refused(run(*sample, "-n", "0"), "-n")
    assert_refused(run(*sample, "--device", "abacus"), "abacus")


@contextmanager
def no_room() -> Iterator[None]:
    """Limit the size of files: the nearest to a full disk that any user can set, it stops writing half-way."""
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (700, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("verb", ["frames", "tokenize", "train", "sample", "evaluate"])
def test_a_full_disk_leaves_nothing_half_written(
    verb: str, run: Run, trained: Trained, frame_folder: Path, tmp_path: Path
):
    output = tmp_path / {"sample": "sheet.png"}.get(verb, "output")
    arguments = {
        "frames": ("import", frame_folder, "-o", output),
        "tokenize": ("--tokenizer", trained.tokenizer, "--frames", frame_folder, "-o", output),
        "train": ("tokenizer", "--preset", "demo", "--frames", frame_folder, "--out", output, *TINY),
        "sample": ("--model", trained.model, "-o", output),
        "evaluate": ("--model", trained.model, "--frames", frame_folder, "--json", output),
    }[verb]
    with no_room():
        assert_refused(run(verb, *arguments), "File too large")
    left = [path.name for path in tmp_path.rglob("*") if path.is_file() and not path.name.startswith("events.")]
    assert left == []
