"""What is importable, and at what price: the public names are there, and PyTorch waits until one of them is used."""

from __future__ import annotations

import subprocess
import sys

import pytest

import bisquit

SLOW_TO_IMPORT = {"lightning", "pyarrow", "tensorboard", "torch", "torchmetrics"}


def modules_after(code: str) -> set[str]:
    """Run code in a fresh interpreter and return the modules that it leaves imported."""
    script = f"{code}\nimport sys\nprint(*sys.modules, sep='\\n', file=sys.stderr)"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(run.stderr.split())


def test_importing_the_package_imports_nothing_slow():
    assert modules_after("import bisquit") & SLOW_TO_IMPORT == set()


@pytest.mark.parametrize("arguments", [["--help"], ["--version"]], ids=" ".join)
def test_the_command_line_helps_without_importing_anything_slow(arguments: list[str]):
    ask = (
        "import contextlib, sys\n"
        "from bisquit.cli.main import main\n"
        f"sys.argv = ['bisquit', *{arguments}]\n"
        "with contextlib.suppress(SystemExit): main()"
    )
    assert modules_after(ask) & SLOW_TO_IMPORT == set()


def test_a_model_is_loaded_and_training_explained_without_lightning_and_pytorchs_compiler():
    ask = (
        "import contextlib, sys\n"
        "import bisquit\n"
        "from bisquit.cli.main import main\n"
        "bisquit.load('seed')\n"
        "sys.argv = ['bisquit', 'train', 'prior', '--help']\n"
        "with contextlib.suppress(SystemExit): main()"
    )
    assert modules_after(ask) & {"lightning", "torch._dynamo", "torchmetrics"} == set()


@pytest.mark.parametrize(("given", "kept"), [(None, "passive"), ("active", "active")])
def test_threads_of_the_command_line_wait_asleep_unless_told_otherwise(
    monkeypatch: pytest.MonkeyPatch, given: str | None, kept: str
):
    if given is None:
        monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    else:
        monkeypatch.setenv("OMP_WAIT_POLICY", given)
    ask = (
        "import contextlib, os, sys\n"
        "from bisquit.cli.main import main\n"
        "sys.argv = ['bisquit', '--help']\n"
        "with contextlib.suppress(SystemExit): main()\n"
        "print(os.environ['OMP_WAIT_POLICY'])"
    )
    run = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines()[-1] == kept


@pytest.mark.parametrize("name", bisquit.__all__)
def test_every_public_name_resolves(name: str):
    assert getattr(bisquit, name) is not None
    assert name in dir(bisquit)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = bisquit.no_such_name
