"""The models that the studio serves: loaded when they are first asked for, and kept.

A request names a model by its name alone, one that ships or one of the folders that the studio was started with; what a
name could say of other places on the disk is never looked at.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from bisquit.codec import Codec
from bisquit.engine import Precision
from bisquit.errors import ConfigError, ModelError
from bisquit.generate import Pipeline, load, load_codec, shipped_models
from bisquit.painting import Painter

T = TypeVar("T")


@dataclass(frozen=True)
class Model:
    """A model that is loaded."""

    name: str
    pipeline: Pipeline
    fingerprint: str
    """Names its weights, so that a recipe knows whether they are still the same."""


class Models:
    """Models by name. All of it may be called from any thread."""

    def __init__(self, folders: Mapping[str, Path], device: str = "cpu") -> None:
        """Serve the models that ship, and those of some folders. Raises ConfigError for a name that is taken."""
        if taken := next((name for name in folders if name in shipped_models()), None):
            raise ConfigError(f"a model named {taken} ships with bisquit: rename the folder {folders[taken]}")
        self._sources: dict[str, str | Path] = {**{name: name for name in shipped_models()}, **folders}
        self._device = device
        self._kept: dict[Hashable, Any] = {}
        self._lock = threading.RLock()

    @property
    def names(self) -> list[str]:
        """The names of all."""
        return list(self._sources)

    def get(self, name: str) -> Model:
        """Return a model. Raises ModelError if there is none of this name, or as `load` does."""
        source = self._source(name)

        def read() -> Model:
            pipeline = load(source).to(self._device)
            parts = (pipeline.tokenizer, pipeline.prior, pipeline.conditions.reader)
            return Model(name, pipeline, "-".join(part.fingerprint() for part in parts if part is not None))

        return self._kept_as(("model", name), read)

    def painter(self, name: str, precision: Precision) -> Painter:
        """Return a model ready to paint. Raises ModelError if it has no prior, ConfigError for what cannot be."""
        model = self.get(name)
        return self._kept_as(
            ("painter", name, precision), lambda: Painter(model.pipeline.painting_prior(), precision=precision)
        )

    def codec(self, name: str | None) -> Codec:
        """Return a codec of one model, or of all that ship. Raises as `load_codec` does."""
        source = None if name is None else self._source(name)
        return self._kept_as(("codec", name), lambda: load_codec(source, self._device))

    def _source(self, name: str) -> str | Path:
        if name not in self._sources:
            raise ModelError(f"there is no model of this name here: there are {', '.join(self._sources) or 'none'}")
        return self._sources[name]

    def _kept_as(self, key: Hashable, make: Callable[[], T]) -> T:
        with self._lock:
            if key not in self._kept:
                self._kept[key] = make()
            found: T = self._kept[key]
            return found
