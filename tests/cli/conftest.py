"""A command line that runs in this process, and one tiny model made by it, from frames to prior."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from tests.cli.driver import TINY, Outcome, Run, Trained

from bisquit.cli.main import main
from bisquit.frames import write_frame


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs `bisquit` with some arguments."""

    def call(*arguments: str | Path) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["bisquit", *map(str, arguments)])
        capsys.readouterr()
        try:
            main()
            status = 0
        except SystemExit as exit_:
            status = int(exit_.code or 0)
        out, err = capsys.readouterr()
        return Outcome(status, out, err)

    return call


@pytest.fixture(scope="session")
def frame_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of 2 classes of 8 pictures of 12 x 16 pixels, which 5 does not divide."""
    folder = tmp_path_factory.mktemp("frames")
    generator = np.random.default_rng(0)
    for name, tint in (("night", 40), ("noon", 200)):
        for i in range(8):
            frame = generator.integers(tint - 40, tint + 40, (12, 16, 3)).astype(np.uint8)
            write_frame(frame, folder / name / f"{i}.png")
    return folder


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, frame_folder: Path) -> Trained:
    """Return a tiny tokenizer, its tokens of `frame_folder`, and a tiny model, all made by commands."""
    folder = tmp_path_factory.mktemp("runs")
    made = Trained(folder / "tokenizer", folder / "tokens.safetensors", folder / "model")
    commands = (
        (
            "train",
            "tokenizer",
            "--preset",
            "demo",
            "--frames",
            frame_folder,
            "--out",
            made.tokenizer,
            *TINY,
            "--bits",
            "4",
        ),
        ("tokenize", "--tokenizer", made.tokenizer, "--frames", frame_folder, "-o", made.tokens),
        (
            *("train", "prior", "--preset", "demo", "--tokens", made.tokens, "--valid-tokens", made.tokens),
            *("--out", made.model, *TINY, "--n-heads", "2", "--feed-forward", "16"),
        ),
    )
    with pytest.MonkeyPatch.context() as patch:
        for arguments in commands:
            patch.setattr(sys, "argv", ["bisquit", *map(str, arguments)])
            main()
    return made
