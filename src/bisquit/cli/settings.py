"""Flags made from settings: each field of a recipe is a flag, its docstring the flag's help.

A recipe nests settings; their fields become flags side by side, so names must differ. A flag that is given overrides
the preset's value. Where a field may be of several kinds, a family's settings, each kind has its flags, and what more
than one has is one flag for all of them; a flag of another kind than the recipe's is refused.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal, TypeVar, get_args, get_origin, get_type_hints

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
    """Return a recipe with the fields that were given a value, wherever they are nested, replaced.

    Raises click.UsageError for a field that only other kinds than the recipe's have.
    """
    changes: dict[str, Any] = {}
    hints = get_type_hints(type(recipe))
    for field in dataclasses.fields(recipe):  # type: ignore[arg-type]
        value = getattr(recipe, field.name)
        if isinstance(value, Settings):
            _refuse_of_others(field.name, value, _members(hints[field.name]), given)
            changes[field.name] = override(value, given)
        elif given.get(field.name) is not None:
            changes[field.name] = given[field.name]
    return recipe.replace(**changes)


def _fields(cls: type[Settings]) -> Iterator[tuple[str, Any, str]]:
    """Yield name, type and docstring of each field that is no settings itself and not the tag of a union."""
    texts = cls.descriptions()
    for name, hint in get_type_hints(cls).items():
        if members := _members(hint):
            yield from _fields_of_family(members)
        elif name != "kind" and get_origin(hint) is not ClassVar and not _is_nested(hint):
            yield name, hint, texts.get(name, "")


def _is_nested(hint: Any) -> bool:
    """Whether a field is of tuples in a tuple, for which there is no flag: the data say what they are."""
    return get_origin(hint) is tuple and get_origin(get_args(hint)[0]) is tuple


def _members(hint: Any) -> list[type[Settings]]:
    """Return the settings that a field may be of: none where it is no settings itself, several if of a family."""
    return [part for part in (hint, *get_args(hint)) if isinstance(part, type) and issubclass(part, Settings)]


def _fields_of_family(members: Sequence[type[Settings]]) -> Iterator[tuple[str, Any, str]]:
    """Yield the fields of several kinds, each name once; its docstring says whose it is if it is not one for all."""
    hints: dict[str, Any] = {}
    kinds: dict[str, dict[str, list[str]]] = {}  # of each field, by what they say of it
    for member in members:
        for name, hint, text in _fields(member):
            hints.setdefault(name, hint)
            assert hints[name] == hint, f"{name} is of two types, and so cannot be one flag"
            kinds.setdefault(name, {}).setdefault(text, []).append(getattr(member, "kind", ""))
    for name, texts in kinds.items():
        is_one_for_all = len(texts) == 1 and all(len(of) == len(members) for of in texts.values())
        said = texts if is_one_for_all else [f"{', '.join(of)}: {text}" for text, of in texts.items()]
        yield name, hints[name], " ".join(said)


def _refuse_of_others(role: str, value: Settings, members: Sequence[type[Settings]], given: Mapping[str, Any]) -> None:
    """Raise click.UsageError if a field was given a value that other members of a family have, and this one has not."""
    own = {name for name, _, _ in _fields(type(value))}
    owners: dict[str, list[str]] = {}
    for member in members:
        for name, _, _ in _fields(member):
            owners.setdefault(name, []).append(getattr(member, "kind", ""))
    for name, kinds in owners.items():
        if name not in own and given.get(name) is not None:
            flag, kind = name.replace("_", "-"), getattr(value, "kind", "")
            wanted = " or ".join(kinds)
            raise click.UsageError(
                f"--{flag} is for the {role} {wanted}, and the recipe's is {kind}: leave it out, or choose that {role}"
            )


def _click_type(hint: Any) -> click.ParamType[Any] | type:
    if get_origin(hint) is Literal:
        return click.Choice(get_args(hint))
    if get_origin(hint) is tuple:
        return Numbers(get_args(hint)[0])
    if isinstance(hint, types.UnionType):  # with None, for a flag that is left out
        (hint,) = (member for member in get_args(hint) if member is not types.NoneType)
    assert isinstance(hint, type)
    return hint


class Numbers(click.ParamType[tuple[float, ...]]):
    """Numbers with commas between them, whole ones or not."""

    name = "numbers"

    def __init__(self, kind: type[int] | type[float]) -> None:
        self.kind = kind

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:
        if isinstance(value, tuple):
            return value
        try:
            return tuple(self.kind(part) for part in value.split(",") if part)
        except ValueError:
            wanted = (
                "whole numbers with commas between them, such as 1,5" if self.kind is int else "numbers, such as 0,0.5"
            )
            self.fail(f"{value} must be {wanted}", param, ctx)
