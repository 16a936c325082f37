"""Flags made from settings: each field of a recipe is a flag, its docstring the flag's help.

A recipe nests settings; their fields become flags side by side, so names must differ. A flag that is given overrides
the preset's value.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import click

from bisquit.config import Settings

Recipe = TypeVar("Recipe", bound=Settings)
Function = TypeVar("Function", bound=Callable[..., Any])


def settings_options(cls: type[Settings]) -> Callable[[Function], Function]:
    """Return a decorator that gives a command one flag for each field in `cls` and the settings nested in it."""

    def decorate(function: Function) -> Function:
        for name, kind, help_text in reversed(list(_fields(cls))):
            flag = name.replace("_", "-")
            if kind is bool:
                option = click.option(f"--{flag}/--no-{flag}", name, default=None, help=help_text)
            else:
                option = click.option(f"--{flag}", name, type=_click_type(kind), default=None, help=help_text)
            function = option(function)
        return function

    return decorate


def override(recipe: Recipe, given: Mapping[str, Any]) -> Recipe:
    """Return a recipe with the fields that were given a value, wherever they are nested, replaced."""
    changes: dict[str, Any] = {}
    for field in dataclasses.fields(recipe):  # type: ignore[arg-type]
        value = getattr(recipe, field.name)
        if isinstance(value, Settings):
            changes[field.name] = override(value, given)
        elif given.get(field.name) is not None:
            changes[field.name] = given[field.name]
    return recipe.replace(**changes)


def _fields(cls: type[Settings]) -> Iterator[tuple[str, Any, str]]:
    """Yield name, type and docstring of each field that is no settings itself and not the tag of a union."""
    texts = cls.descriptions()
    for name, hint in get_type_hints(cls).items():
        members = [part for part in (hint, *get_args(hint)) if isinstance(part, type) and issubclass(part, Settings)]
        if members:  # more than one where the field is a union, of a family's configurations
            yield from {field[0]: field for member in members for field in _fields(member)}.values()
        elif name != "kind":
            yield name, hint, texts.get(name, "")


def _click_type(hint: Any) -> click.ParamType[Any] | type:
    if get_origin(hint) is Literal:
        return click.Choice(get_args(hint))
    if get_origin(hint) is tuple:
        return Numbers()
    if isinstance(hint, types.UnionType):  # with None, for a flag that is left out
        (hint,) = (member for member in get_args(hint) if member is not types.NoneType)
    assert isinstance(hint, type)
    return hint


class Numbers(click.ParamType[tuple[int, ...]]):
    """Whole numbers with commas between them."""

    name = "numbers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        try:
            return tuple(int(part) for part in value.split(",") if part)
        except ValueError:
            self.fail(f"{value} must be whole numbers with commas between them, such as 1,5", param, ctx)
