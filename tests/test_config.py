"""Settings: to plain data and back, strictly, with errors of one line that name the field."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import pytest

from bisquit.config import Settings, require
from bisquit.errors import ConfigError


@dataclass(frozen=True)
class Oven(Settings):
    """How to heat."""

    degrees: float
    """Heat in degrees Celsius."""
    trays: tuple[int, ...] = (1,)
    fan: bool = False
    """Whether the fan turns."""

    def __post_init__(self) -> None:
        require(self.degrees >= 0, "degrees", self.degrees, "at least 0")


@dataclass(frozen=True)
class Kitchen(Settings):
    """An oven in a room."""

    oven: Oven = field(default_factory=lambda: Oven(180.0))
    room: str = "cellar"


def one_line(error: pytest.ExceptionInfo[ConfigError]) -> str:
    message = str(error.value)
    assert "\n" not in message
    return message


def test_settings_survive_json():
    settings = Kitchen(Oven(90.5, trays=(3, 1), fan=True), room="attic")
    assert Kitchen.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings


def test_fields_that_are_left_out_take_their_defaults():
    assert Kitchen.from_dict({"oven": {"degrees": 1}}) == Kitchen(Oven(1.0))


@pytest.mark.parametrize(
    ("data", "named"),
    [
        ({"oven": {"degrees": 1, "steam": 2}}, "oven.steam"),
        ({"rooms": "attic"}, "rooms"),
        ({"oven": {}}, "oven.degrees"),
        ({"oven": {"degrees": "warm"}}, "oven.degrees"),
        ({"oven": {"degrees": 1, "trays": [1, 2.5]}}, "oven.trays.1"),
        ({"oven": 180}, "oven"),
        ({"room": None}, "room"),
    ],
    ids=["unknown in a part", "unknown", "missing", "wrong type", "wrong type in a list", "no part", "null"],
)
def test_a_field_that_does_not_fit_is_named(data: dict[str, object], named: str):
    with pytest.raises(ConfigError) as error:
        Kitchen.from_dict(data)
    assert one_line(error).startswith(f"Kitchen: {named}: ")


def test_a_value_out_of_its_range_is_refused_however_it_comes_in():
    wanted = "degrees is -1.0: it must be at least 0"
    with pytest.raises(ConfigError) as made:
        Oven(-1.0)
    with pytest.raises(ConfigError) as read:
        Kitchen.from_dict({"oven": {"degrees": -1.0}})
    with pytest.raises(ConfigError) as replaced:
        Oven(1.0).replace(degrees=-1.0)
    assert {one_line(made), one_line(read), one_line(replaced)} == {wanted}


def test_not_a_number_is_out_of_every_range():
    with pytest.raises(ConfigError, match="degrees is nan"):
        Oven(float("nan"))


def test_replace_leaves_the_original_and_the_other_fields():
    settings = Oven(100.0, trays=(2,))
    assert settings.replace(fan=True) == Oven(100.0, trays=(2,), fan=True)
    assert settings == Oven(100.0, trays=(2,))


def test_descriptions_are_the_docstrings_of_the_fields():
    assert Oven.descriptions() == {"degrees": "Heat in degrees Celsius.", "fan": "Whether the fan turns."}


@dataclass(frozen=True)
class Range(Oven):
    """An oven with rings."""

    rings: int = 4
    """How many rings it has."""


def test_descriptions_are_inherited():
    assert Range.descriptions() == {**Oven.descriptions(), "rings": "How many rings it has."}


def test_defaults_keep_the_kinds_of_nested_settings():
    kitchen = Kitchen(oven=Range(50.0, fan=True, rings=2), room="attic")
    assert kitchen.defaults() == Kitchen(oven=Range(50.0))
