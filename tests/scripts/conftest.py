"""The scripts import one another from their own folder, and run their commands in this process."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "scripts"))


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The `bisquit` commands that scripts run from here on, which run in this process."""
    import trainings

    from bisquit.cli.main import main as bisquit_main

    run: list[list[str]] = []

    def run_here(*arguments: str | Path) -> None:
        run.append([str(argument) for argument in arguments])
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", ["bisquit", *run[-1]])
            bisquit_main()

    monkeypatch.setattr(trainings, "bisquit", run_here)
    return run
