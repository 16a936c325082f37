"""Settings: frozen dataclasses that check themselves, travel as JSON, and explain their fields.

A class of settings stands beside the class that it configures, derives from `Settings`, is a frozen dataclass, and
checks its ranges in `__post_init__`. The docstring under a field is also the help text of its command-line flag.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from functools import cache
from typing import Any, Self

from pydantic import ConfigDict, TypeAdapter, ValidationError

from bisquit.errors import ConfigError


class Settings:
    """Base of all settings: to plain data and back, strictly."""

    __pydantic_config__ = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as plain data for JSON."""
        kind: Any = type(self)
        plain: dict[str, Any] = _adapter(kind).dump_python(self, mode="json")
        return plain

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Return settings made from what `to_dict` gave. Raises ConfigError on a missing, unknown or unfit field."""
        settings: Self = parse_settings(cls, data)
        return settings

    @classmethod
    def descriptions(cls) -> dict[str, str]:
        """Return the docstring of each field that has one, inherited ones too."""
        found: dict[str, str] = {}
        for kind in reversed(cls.__mro__):
            if dataclasses.is_dataclass(kind):
                properties = _adapter(kind).json_schema()["properties"]
                found |= {name: field["description"] for name, field in properties.items() if "description" in field}
        return found

    def defaults(self) -> Self:
        """Return settings of the same kinds, nested ones too, as they are by default; what has none stays."""
        kept: dict[str, Any] = {}
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if isinstance(value, Settings):
                kept[field.name] = value.defaults()
            elif field.default is field.default_factory is dataclasses.MISSING:
                kept[field.name] = value
        return type(self)(**kept)

    def replace(self, **changes: Any) -> Self:
        """Return a copy with some fields changed, checked anew."""
        return dataclasses.replace(self, **changes)  # type: ignore[type-var]


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    """Return what turns settings of a class, or of a union, into plain data and back.

    It is kept, for to make it reads the source of every class in it.
    """
    return TypeAdapter(kind)


def parse_settings(kind: Any, data: Mapping[str, Any]) -> Any:
    """Return settings of a class, or of the member of a union that their `kind` names, from plain data.

    Raises ConfigError on a missing, unknown or unfit field.
    """
    try:
        return _adapter(kind).validate_json(json.dumps(data), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"{getattr(kind, '__name__', 'settings')}: {field}: {first['msg']}") from error


def require(holds: bool, field: str, value: object, wanted: str) -> None:
    """Raise a ConfigError that names the field, its value and what was wanted, unless `holds`."""
    if not holds:
        raise ConfigError(f"{field} is {value}: it must be {wanted}")
