"""Flags made from settings, also where a field may be of several classes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import click
import pytest
from click.testing import CliRunner

from bisquit.cli.settings import override, settings_options
from bisquit.config import Settings
from bisquit.training import PriorRecipe


@dataclass(frozen=True)
class Kettle(Settings):
    kind: Literal["kettle"] = field(default="kettle", kw_only=True)
    litres: float = 1.0
    """How much it holds."""


@dataclass(frozen=True)
class Pan(Settings):
    kind: Literal["pan"] = field(default="pan", kw_only=True)
    litres: float = 2.0
    """How much boils over."""
    lid: bool = True
    sizes: tuple[int, ...] = (20,)
    """Across, in centimetres."""


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
    assert cook(Kitchen(Pan(3.0))) == Kitchen(Pan(3.0))


def test_each_member_of_a_union_has_its_flags():
    assert cook(Kitchen(), "--litres", "2", "--stove", "electric") == Kitchen(Kettle(2.0), "electric")
    assert cook(Kitchen(Pan()), "--no-lid", "--sizes", "18,24") == Kitchen(Pan(lid=False, sizes=(18, 24)))


def test_a_field_of_two_members_is_one_flag_for_both():
    assert cook(Kitchen(Kettle()), "--litres", "5") == Kitchen(Kettle(5.0))
    assert cook(Kitchen(Pan()), "--litres", "5") == Kitchen(Pan(5.0))


def test_a_flag_of_another_member_is_refused_and_says_whose_it_is():
    with pytest.raises(click.UsageError) as error:
        cook(Kitchen(Kettle()), "--sizes", "18")
    assert (
        error.value.message
        == "--sizes is for the pot pan, and the recipe's is kettle: leave it out, or choose that pot"
    )
    with pytest.raises(click.UsageError, match="--lid is for the pot pan"):
        cook(Kitchen(Kettle()), "--no-lid")


def test_the_help_says_whose_a_flag_is_unless_it_is_the_same_for_all():
    @click.command()
    @settings_options(Kitchen)
    def command(**given: object) -> None: ...

    texts = {option.name: option.help for option in command.params if isinstance(option, click.Option)}
    assert texts["litres"] == "kettle: How much it holds. pan: How much boils over."
    assert texts["sizes"] == "pan: Across, in centimetres."
    assert "gas" not in str(texts["stove"])


def test_the_flags_of_a_family_have_one_text_where_it_says_the_same_of_all():
    @click.command()
    @settings_options(PriorRecipe)
    def command(**given: object) -> None: ...

    texts = {option.name: str(option.help) for option in command.params if isinstance(option, click.Option)}
    assert texts["condition_size"].startswith("Numbers of a condition")
    assert texts["scattered"].startswith("any-order: ")
