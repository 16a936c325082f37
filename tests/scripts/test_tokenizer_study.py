"""The study of tokenizers: what it varies is said in flags, and one small round goes from frames to the page."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import tokenizer_study
from PIL import Image

from bisquit.generate import load

FRAMES, VALID_FRAMES = 32, 7


def write_frames(folder: Path, seed: int, count: int) -> Path:
    """Write frames of 20 x 20 pixels of noise, of two classes."""
    generator = np.random.default_rng(seed)
    for number in range(count):
        path = folder / f"class-{number % 2}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (20, 20, 3), dtype=np.uint8)).save(path)
    return folder


def test_folders_of_runs_differ() -> None:
    names = [run.name for run in (*tokenizer_study.VARIED, *tokenizer_study.SHARPENED, *tokenizer_study.BEGUN)]
    assert len(set(names)) == len(names)


def test_sharpened_decoders_leave_the_tokens_alone() -> None:
    assert all("--decoder-only" in run.flags for run in tokenizer_study.SHARPENED)


def test_a_round_goes_from_frames_to_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, commands: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BISQUIT_CACHE", str(tmp_path / "cache"))
    small = ("--width", "16", "--batch-size", "16")
    recipe, many_bits, perceptual = (
        tokenizer_study.Run("recipe", "as it is", small),
        tokenizer_study.Run("24-bits", "24 bits", (*small, "--bits", "24")),
        tokenizer_study.Run(
            "perceptual", "perceptual", (*small, *tokenizer_study.SHARPENED[1].flags), is_sharpened=True
        ),
    )
    monkeypatch.setattr(tokenizer_study, "RECIPE", recipe)
    monkeypatch.setattr(tokenizer_study, "VARIED", (recipe, many_bits))
    monkeypatch.setattr(tokenizer_study, "SHARPENED", (perceptual,))
    begun = tokenizer_study.Run("12-bits-begun", "12 bits, begun", (*small, "--bits", "12"), is_begun=True, times=2)
    monkeypatch.setattr(tokenizer_study, "BEGUN", (begun,))
    frames = write_frames(tmp_path / "train", 0, FRAMES)
    valid_frames = write_frames(tmp_path / "valid", 1, VALID_FRAMES)
    finished = tmp_path / "finished"
    shared = ("--frames", str(frames), "--valid-frames", str(valid_frames))
    train = ("train", "tokenizer", "--preset", "best", *shared, "--epochs", "1", *small)
    tokenizer_study.trainings.bisquit(*train, "--out", finished)
    words = [*shared, "--finished", str(finished), "--epochs", "1"]
    words += ["--runs", str(tmp_path / "runs"), "--docs", str(tmp_path / "docs")]

    def run_all(*more: str) -> int | str | None:
        monkeypatch.setattr(sys, "argv", ["tokenizer_study.py", *words, *more])
        with pytest.raises(SystemExit) as exit_:
            tokenizer_study.main()
        return exit_.value.code

    capsys.readouterr()
    assert run_all() == 0
    measured = json.loads(capsys.readouterr().out.splitlines()[-1])["runs"]
    assert set(measured) == {"recipe", "24-bits", "perceptual", "12-bits-begun"}
    of_begun = next(command for command in commands if "12" in command)
    assert of_begun[of_begun.index("--start") + 1] == str(finished)
    assert of_begun[of_begun.index("--epochs") + 1] == "2"
    assert measured["24-bits"]["count_baseline_bits_per_image"] is None
    before, after = (
        load(folder).tokenizer for folder in (finished, tmp_path / "runs" / "perceptual" / "seed-0" / "run")
    )
    shown = tokenizer_study.load_frames(str(valid_frames))[np.arange(2)]
    x = tokenizer_study.torch.from_numpy(shown)
    assert (before.encode(x) == after.encode(x)).all()
    assert (before.decode(before.encode(x), (20, 20)) != after.decode(before.encode(x), (20, 20))).any()
    text = (tmp_path / "docs" / "tokenizers.md").read_text()
    assert "| 24 bits | 16 x 24 | " in text
    assert "| the finished one | 16 x 10 | " in text
    assert "| 12 bits, begun | 16 x 12 | " in text
    assert "missing" not in text
    assert max(map(len, [line for line in text.splitlines() if not line.startswith("|")])) <= 120
    with Image.open(tmp_path / "docs" / "images" / "tokenizers-sharpened.jpg") as picture:
        assert picture.height > 3 * 2 * 20

    done = len(commands)
    assert run_all() == 0
    assert "holds runs of another budget" in str(run_all("--epochs", "2"))
    assert len(commands) == done
