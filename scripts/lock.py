"""Pin every dependency, with the hashes of all files that its release has: locks/*.txt, made by uv.

    make lock                      # keeps each pin that still fits pyproject.toml
    make lock ARGS=--upgrade       # resolves all anew but PyTorch

All is resolved at once, for every platform and each Python that bisquit is for; a file then holds what its extra needs
beside what is in the files of the set-up. PyTorch's own, torch.txt and torch-cpu.txt, are changed by hand: the index
that has its CPU builds is another one. What its CUDA builds need beside it is in locks/cuda.txt.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROJECT, LOCKS = ROOT / "pyproject.toml", ROOT / "locks"
TORCH, CPU_BUILDS = LOCKS / "torch.txt", LOCKS / "torch-cpu.txt"
SETUP = ("torch", "cuda", "runtime", "build", "dev")
"""The files that `make setup` installs, none of which holds what one before it does."""
RUNTIME = ("hub", "onnx", "video")
"""The extras that the container has."""
EXTRAS = ("audit", "bench", "browser", "docs", "fuzz", "ray", "s3", "s3-test", "text")
"""The extras with a file of their own, beside those of the set-up."""
OLDEST_PYTHON = "3.11.5"
"""What one dependency of `docs` asks for; all else is for 3.11.0 as well."""


def main() -> None:
    """Resolve all, then write what each file holds of it."""
    with tempfile.TemporaryDirectory() as scratch:
        total, build, common = (Path(scratch) / name for name in ("total.txt", "build.in", "common.txt"))
        build.write_text("\n".join([*tomllib.loads(PROJECT.read_text())["build-system"]["requires"], "cmake", "ninja"]))
        pinned = [path.read_text() for path in sorted(LOCKS.glob("*.txt")) if path != CPU_BUILDS]
        total.write_text("".join(pinned))  # uv keeps what is there
        resolve(total, PROJECT, build, "--universal", "--all-extras", "--constraints", TORCH, *sys.argv[1:])
        resolve(common, TORCH, "--python-platform=windows", "--constraints", total)  # where there is no CUDA
        write("cuda", total, names(common), TORCH)
        write("runtime", total, held("runtime"), PROJECT, *(f"--extra={extra}" for extra in RUNTIME))
        write("build", total, held("build"), build)
        for extra in ("dev", *EXTRAS):
            write(extra, total, held(extra), PROJECT, f"--extra={extra}")


def write(name: str, total: Path, left_out: Iterable[str], *sources: str | Path) -> None:
    """Write what some requirements need, pinned as in `total`, but for the packages that are left out."""
    without = [f"--no-emit-package={package}" for package in left_out]
    path = LOCKS / f"{name}.txt"
    path.unlink(missing_ok=True)
    resolve(path, *sources, "--universal", "--generate-hashes", "--constraints", total, *without)


def resolve(output: Path, *arguments: str | Path) -> None:
    """Have uv write the pins of some requirements."""
    command = [Path(sys.executable).parent / "uv", "pip", "compile", "--quiet", "--no-annotate"]
    options = ["--custom-compile-command=make lock", f"--python-version={OLDEST_PYTHON}", "--output-file", output]
    subprocess.run([*command, *options, *arguments], check=True)


def held(name: str) -> list[str]:
    """Return the packages of the set-up's files before one of that name, or of all if it is an extra's."""
    before = SETUP[: SETUP.index(name)] if name in SETUP else SETUP
    return [package for other in before for package in names(LOCKS / f"{other}.txt")]


def names(lock: Path) -> list[str]:
    """Return the packages that a file pins."""
    return re.findall(r"^([\w.-]+)==", lock.read_text(), re.MULTILINE)


if __name__ == "__main__":
    main()
