"""The record of a run, `run.json`: what was trained, on what, how, and whether it is done.

It lies beside the weights that the run makes, so that they can be made again; and it keeps a run from being resumed as
another one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

from bisquit.atomic import atomic_file
from bisquit.config import Settings
from bisquit.errors import ConfigError, RunError
from bisquit.locks import names_in

RECORD_FILE = "run.json"
_OF_NO_CONSEQUENCE = ("checkpoint_minutes", "snapshot_epochs", "sharded")  # settings that change no loss


@dataclass(frozen=True)
class RunRecord(Settings):
    """What `run.json` holds."""

    stage: Literal["tokenizer", "prior", "features"]
    preset: str | None
    """The name of the recipe that it started from."""
    recipe: dict[str, Any]
    """All settings."""
    data: dict[str, Any]
    """What the run was given, as far as a glance can tell: numbers, sizes, the tokenizer's fingerprint."""
    precision: Literal["float32", "bf16"]
    """What the setting `auto` came to mean where the run began."""
    versions: dict[str, str]
    sources: dict[str, str] = field(default_factory=dict)
    """Where the data came from; not compared, for files may be moved."""
    finished: bool = False

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read the record of the run in a folder. Raises RunError if there is none, or if it is none of ours."""
        path = folder / RECORD_FILE
        try:
            return cls.from_dict(json.loads(path.read_text()))
        except (OSError, ValueError, TypeError, RecursionError, ConfigError) as error:
            raise RunError(f"{path} is not the record of a run") from error

    def save(self, folder: Path) -> None:
        """Write the record into the run's folder, whole or not at all."""
        with atomic_file(folder / RECORD_FILE) as partial:
            partial.write_text(json.dumps(self.to_dict(), indent=2) + "\n")

    def open(self, folder: Path, resume: bool, defaults: Mapping[str, Any] | None = None) -> Self:
        """Return the record of the run in `folder`, which is this one's from now on if there was none.

        defaults: a recipe as it is by default; settings that the run there is older than are taken from it.

        Raises RunError if there is a run that is not to be resumed, or that differs in stage, recipe or data; and if
        the folder holds other files, so that nobody's are overwritten.
        """
        if not (folder / RECORD_FILE).exists():
            if names_in(folder):
                raise RunError(f"{folder} holds files, but no {RECORD_FILE} of a run: pass another --out")
            self.save(folder)
            return self
        if not resume:
            raise RunError(f"{folder} holds a run already: pass --resume to go on with it, or another --out")
        begun = self.load(folder)
        begun = begun.replace(recipe=_filled(begun.recipe, defaults or {}))
        if difference := _difference(begun._identity(), self._identity()):
            raise RunError(f"{folder} holds a run with {difference}: resume it with the same, or pass another --out")
        return begun

    def _identity(self) -> dict[str, Any]:
        """Return what must be the same for a run to be the same, as plain data."""
        plain = self.to_dict()
        for name in _OF_NO_CONSEQUENCE:
            plain["recipe"].get("training", {}).pop(name, None)
        return {name: plain[name] for name in ("stage", "recipe", "data")}


def _filled(found: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested plain data with what it lacks taken from `defaults`."""
    filled = dict(found)
    for name, default in defaults.items():
        if name not in filled:
            filled[name] = default
        elif isinstance(filled[name], dict) and isinstance(default, dict):
            filled[name] = _filled(filled[name], default)
    return filled


def _difference(found: Any, wanted: Any, path: str = "") -> str:
    """Say where two pieces of plain data first differ, such as "recipe.training.epochs = 5, not 6"; "" if nowhere."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        keys = [*wanted, *(key for key in found if key not in wanted)]
        parts = (_difference(found.get(key), wanted.get(key), f"{path}.{key}" if path else key) for key in keys)
        return next(filter(None, parts), "")
    return "" if found == wanted else f"{path} = {found}, not {wanted}"
