"""Flags made from settings, also where a field may be of several classes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import click
from click.testing import CliRunner

from bisquit.cli.settings import override, settings_options
from bisquit.config import Settings


@dataclass(frozen=True)
class Kettle(Settings):
    kind: Literal["kettle"] = field(default="kettle", kw_only=True)
    litres: float = 1.0
    """How much it holds."""


@dataclass(frozen=True)
class Pan(Settings):
    kind: Literal["pan"] = field(default="pan", kw_only=True)
    lid: bool = True
    sizes: tuple[int, ...] = (20,)


@dataclass(frozen=True)
class Kitchen(Settings):
    pot: Kettle | Pan = field(default_factory=Kettle)
    stove: Literal["gas", "electric"] = "gas"


def cook(kitchen: Kitchen, *arguments: str) -> Kitchen:
    cooked = []

    @click.command()
    @settings_options(Kitchen)
    def command(**given: object) -> None:
        cooked.append(override(kitchen, given))

    result = CliRunner().invoke(command, arguments, standalone_mode=False)
    if result.exception:
        raise result.exception
    return cooked[0]


def test_what_is_not_given_stays():
    assert cook(Kitchen(Pan(lid=False))) == Kitchen(Pan(lid=False))


def test_each_member_of_a_union_has_its_flags():
    assert cook(Kitchen(), "--litres", "2", "--stove", "electric") == Kitchen(Kettle(2.0), "electric")
    assert cook(Kitchen(Pan()), "--no-lid", "--sizes", "18,24") == Kitchen(Pan(False, (18, 24)))
