"""Sentences about classes: what a prior is told of a picture in words, from a table that people can read and write.

A table is a TOML file with a section for each class. `sentences` are taken as they are; from `weather`, `time`,
`ground` and `surroundings` others are composed; `held_back` is learnt by no prior, and shows what it understands.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from bisquit.errors import FrameError

SHIPPED = ("supertuxkart",)
"""The tables that ship with bisquit."""
TRAITS = ("weather", "time", "ground", "surroundings")


@dataclass(frozen=True)
class Captions:
    """Sentences about each class."""

    learnt: Mapping[str, tuple[str, ...]]
    held_back: Mapping[str, tuple[str, ...]]

    def of(self, name: str) -> tuple[str, ...]:
        """Return the sentences about a class to learn from; none if it is not in the table."""
        return self.learnt.get(name, ())

    def fingerprint(self) -> str:
        """Return 16 hexadecimal digits that name what is learnt."""
        plain = json.dumps(sorted(self.learnt.items())).encode()
        return hashlib.sha256(plain).hexdigest()[:16]


def load_captions(source: str | os.PathLike[str]) -> Captions:
    """Read a table: the name of one that ships with bisquit, or a TOML file. Raises FrameError on anything else."""
    name = os.fspath(source)
    try:
        shipped = files("bisquit") / "captions" / f"{name}.toml"
        text = shipped.read_text() if name in SHIPPED else Path(name).read_text()
        table = tomllib.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise FrameError(f"{name} is no table of captions ({error}): a TOML file, or {', '.join(SHIPPED)}") from error
    learnt, held_back = {}, {}
    for of_class, entry in table.items():
        unknown = set(entry) - {*TRAITS, "sentences", "held_back"} if isinstance(entry, dict) else ()
        if unknown:
            raise FrameError(f"{name}: [{of_class}] may not have {', '.join(sorted(unknown))}")
        lists = {key: _strings(entry, key, f"{name}: [{of_class}]") for key in (*TRAITS, "sentences", "held_back")}
        learnt[of_class] = tuple(dict.fromkeys((*lists["sentences"], *_composed(lists))))
        held_back[of_class] = lists["held_back"]
        if not learnt[of_class]:
            raise FrameError(f"{name}: [{of_class}] has no sentence to learn from")
    return Captions(learnt, held_back)


def _strings(entry: Any, key: str, where: str) -> tuple[str, ...]:
    found = entry.get(key, []) if isinstance(entry, dict) else None
    if not isinstance(found, list) or not all(isinstance(text, str) and text.strip() for text in found):
        raise FrameError(f"{where} must hold lists of sentences, and {key} is none")
    return tuple(found)


def _composed(traits: Mapping[str, tuple[str, ...]]) -> list[str]:
    """Return sentences that name two traits each, and those that name all, one phrasing of each trait after another.

    Weather and time alone make none: a fine day is the same everywhere.
    """
    pairs = [
        f"{first}, {second}"
        for one, other in itertools.combinations(TRAITS, 2)
        if (one, other) != ("weather", "time")
        for first in traits[one]
        for second in traits[other]
    ]
    present = [traits[name] for name in TRAITS if traits[name]]
    longest = max(map(len, present), default=0)
    whole = [", ".join(phrasings[n % len(phrasings)] for phrasings in present) for n in range(longest)]
    return pairs + whole
