"""Locks: one process at a time, which says who it is, and which need not end well."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bisquit.atomic import PARTIAL
from bisquit.errors import RunError
from bisquit.locks import HOLDER_FILE, held

HOLD = """
import sys, pathlib
from bisquit.locks import held

with held(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def holder(folder: Path) -> Iterator[subprocess.Popen]:
    """Another process that holds a folder until its input ends."""
    command = [sys.executable, "-c", HOLD, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.stdin.close()


def test_a_folder_that_is_held_says_by_whom(tmp_path: Path) -> None:
    with holder(tmp_path) as process:
        said = f"in use by process {process.pid} on "
        with pytest.raises(RunError, match=said), held(tmp_path):
            pass


def test_a_folder_is_free_once_its_holder_ends(tmp_path: Path) -> None:
    with holder(tmp_path):
        pass
    with held(tmp_path):
        assert str(os.getpid()) in (tmp_path / HOLDER_FILE).read_text()
    assert not (tmp_path / HOLDER_FILE).exists()


@pytest.mark.skipif(os.name != "posix", reason="kills as POSIX does")
def test_a_killed_holder_leaves_the_folder_free(tmp_path: Path) -> None:
    with holder(tmp_path) as process:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        with held(tmp_path):
            pass


def test_an_error_inside_frees_the_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="inside"), held(tmp_path):
        raise ValueError("inside")
    with held(tmp_path / "new" / "folder"), held(tmp_path):
        pass


def test_what_a_killed_holder_left_half_made_is_removed(tmp_path: Path) -> None:
    (tmp_path / "epoch-1").mkdir()
    (tmp_path / "last.ckpt").write_text("whole")
    (tmp_path / "epoch-1" / f"{PARTIAL}last-x1.ckpt").write_text("half")
    (tmp_path / f"{PARTIAL}snapshot-x2").mkdir()
    (tmp_path / f"{PARTIAL}snapshot-x2" / "a").write_text("half")
    with held(tmp_path):
        left = {path.name for path in tmp_path.rglob("*") if not path.name.startswith(".lock")}
    assert left == {"epoch-1", "last.ckpt"}
