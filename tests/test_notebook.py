"""The notebook runs from top to bottom, and is kept without what it printed."""

from __future__ import annotations

import json
import shlex
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from tests.test_examples import ROOT, check_command

from bisquit.cli.main import main

NOTEBOOK = ROOT / "docs" / "notebook.ipynb"


@pytest.fixture(scope="module")
def cells() -> list[dict[str, Any]]:
    """Return the cells of code."""
    return [cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == "code"]


def as_python(cell: dict[str, Any]) -> str:
    """Return a cell as Python: after an exclamation mark is a command, with names in braces, as IPython has it."""
    lines = "".join(cell["source"]).splitlines()
    return "\n".join(f"_shell(f{line[1:]!r})" if line.startswith("!") else line for line in lines)


def test_it_holds_no_outputs(cells: list[dict[str, Any]]):
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells)


def test_its_commands_can_be_given(cells: list[dict[str, Any]]):
    lines = [line for cell in cells for line in "".join(cell["source"]).splitlines() if line.startswith("!")]
    assert len(lines) >= 5
    for line in lines:
        check_command(line[1:])


def test_it_runs_from_top_to_bottom(
    cells: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def shell(line: str) -> None:
        monkeypatch.setattr(sys, "argv", shlex.split(line))
        status: object = 0
        try:
            main()
        except SystemExit as ended:
            status = ended.code
        assert not status, f"{line}: {capsys.readouterr().err}"

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BISQUIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    exec("\n".join(map(as_python, cells)), {"_shell": shell})
    assert "(4, 20, 30)" in capsys.readouterr().out
    assert len(list(tmp_path.glob("tmp*/model/prior.safetensors"))) == 1
