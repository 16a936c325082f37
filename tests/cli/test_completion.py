"""Completion: the script is one that the shell takes, and names verbs, flags, models, presets and files."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete
from tests.cli.driver import Run

from bisquit.cli.main import VERBS, bisquit
from bisquit.generate import shipped_models
from bisquit.presets import PRESETS


def completed(*words: str) -> dict[str, str]:
    """Return what the last word can become, and of what type each is."""
    *before, last = words
    shell = ShellComplete(bisquit, {}, "bisquit", "_BISQUIT_COMPLETE")
    return {item.value: item.type for item in shell.get_completions(before, last)}


def test_verbs_and_their_flags_are_completed():
    assert completed("") == dict.fromkeys(VERBS, "plain")
    assert completed("tok") == {"tokenize": "plain"}
    assert {"--model", "--top-p"} <= completed("sample", "--").keys()
    assert completed("train", "t") == {"tokenizer": "plain"}


@pytest.mark.parametrize(
    "words", [("sample", "--model"), ("info",), ("export",), ("train", "prior", "--start"), ("tokenize", "--tokenizer")]
)
def test_models_are_those_that_ship_or_folders(words: tuple[str, ...]):
    assert completed(*words, "") == {"": "dir", **dict.fromkeys(shipped_models(), "plain")}
    assert completed(*words, "se") == {"se": "dir", "seed": "plain"}


def test_presets_and_frames_are_completed():
    assert completed("train", "prior", "--preset", "") == dict.fromkeys(PRESETS, "plain")
    assert completed("train", "tokenizer", "--frames", "b") == {"b": "file", "bundled": "plain"}
    assert completed("train", "prior", "--prior", "py") == {"pyramid": "plain"}


def test_naming_the_verbs_imports_none_of_them():
    words = {"_BISQUIT_COMPLETE": "bash_complete", "COMP_WORDS": "bisquit sam", "COMP_CWORD": "1"}
    ask = (
        "import contextlib, sys\n"
        "from bisquit.cli.main import main\n"
        "sys.argv = ['bisquit']\n"
        "with contextlib.suppress(SystemExit): main()\n"
        "print('torch' in sys.modules)"
    )
    run = subprocess.run(
        [sys.executable, "-c", ask], capture_output=True, text=True, check=True, env={**os.environ, **words}
    )
    assert run.stdout.split() == ["plain,sample", "False"]


@pytest.mark.parametrize(
    ("shell", "hook"),
    [
        ("bash", "complete -o nosort -F _bisquit_completion bisquit"),
        ("zsh", "compdef"),
        ("fish", "complete --no-files"),
    ],
)
def test_each_shell_has_its_script(run: Run, shell: str, hook: str):
    done = run("completion", shell)
    assert done.status == 0
    assert hook in done.out
    assert f"_BISQUIT_COMPLETE={shell}_complete" in done.out


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_bash_completes_by_the_script():
    ask = (
        'eval "$(bisquit completion bash)"\n'
        'COMP_WORDS=(bisquit train prior --preset s); COMP_CWORD=4; _bisquit_completion bisquit; echo "${COMPREPLY[@]}"'
    )
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    run = subprocess.run(["bash", "-c", ask], capture_output=True, text=True, env={**os.environ, "PATH": path})
    assert run.stdout.split() == ["seed", "small"], run.stderr


def test_another_shell_is_refused_by_one_line(run: Run):
    refused = run("completion", "csh")
    assert refused.status == 2
    assert refused.err.count("\n") == 1
