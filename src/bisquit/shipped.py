"""What keeps the weights that ship with bisquit as they were shipped: the digest of each file, compared at each load.

weights/SHA256SUMS has a line for each, as `sha256sum` writes and checks them: `sha256sum --check SHA256SUMS`.
"""

from __future__ import annotations

import hashlib
from importlib.resources.abc import Traversable
from pathlib import Path

from bisquit.errors import ModelError

SUMS_FILE = "SHA256SUMS"


def require_as_shipped(weights: Traversable, path: str) -> None:
    """Raise ModelError unless a file is the one that shipped. path: from `weights`, such as best/prior.safetensors."""
    sums = (weights / SUMS_FILE).read_text(encoding="ascii") if (weights / SUMS_FILE).is_file() else ""
    if f"{_digest(weights / path)}  {path}" not in sums.splitlines():
        raise ModelError(
            f"{weights / path} is not the file that ships with this bisquit, but damaged or changed: install it anew"
        )


def write_sums(weights: Path) -> None:
    """Have the files of weights in a folder, as they are now, be those that ship."""
    paths = sorted(path.relative_to(weights).as_posix() for path in weights.glob("*/*.safetensors"))
    lines = [f"{_digest(weights / path)}  {path}\n" for path in paths]
    (weights / SUMS_FILE).write_text("".join(lines), encoding="ascii")


def _digest(file: Traversable) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
