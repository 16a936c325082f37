"""Recipes: what paints a picture again, to the bit, as plain data that lies beside it.

kind         sample, inpaint, extend, vary or blend
asked        the request, but for how many, the answer's form, and pictures that came with it
number       which of the pictures that were asked for together
inputs       pictures that came with it, by the SHA-256 of their PNGs in the gallery
fingerprint  the model's weights
bisquit      the version that painted
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Any, Literal

from pydantic import BaseModel

from bisquit.studio.models import Model
from bisquit.studio.refusals import Refusal
from bisquit.studio.schemas import Asked, Blend, Edit, Extend, Inpaint, SampleRequest, Vary

EDITS: dict[str, type[Edit]] = {"inpaint": Inpaint, "extend": Extend, "vary": Vary, "blend": Blend}


class Recipe(BaseModel):
    """What paints a picture again."""

    kind: Literal["sample", "inpaint", "extend", "vary", "blend"]
    asked: dict[str, Any]
    number: int
    inputs: dict[str, str]
    fingerprint: str
    bisquit: str

    def request(self) -> SampleRequest | Edit:
        """Return what was asked for, of an edit with as many pictures as come before this one."""
        if self.kind == "sample":
            return SampleRequest.model_validate(self.asked)
        return EDITS[self.kind].model_validate({**self.asked, "n": self.number + 1})


def recipe_of(asked: Asked, number: int, model: Model, inputs: dict[str, str] | None = None) -> Recipe:
    """Return the recipe of picture `number` of what was asked for. inputs: the digests of what came with it."""
    kind = next((kind for kind, cls in EDITS.items() if isinstance(asked, cls)), "sample")
    cls = EDITS.get(kind, Asked)
    fields = {name for name in cls.model_fields if name not in ("n", "answer", "keep")}
    return Recipe(
        kind=kind,  # type: ignore[arg-type]
        asked=asked.model_dump(include=fields, by_alias=True),
        number=number,
        inputs=inputs or {},
        fingerprint=model.fingerprint,
        bisquit=version("bisquit"),
    )


def check_same_model(recipe: Recipe, model: Model) -> None:
    """Raise Refusal if a model's weights are not those that a recipe was painted with."""
    if model.fingerprint != recipe.fingerprint:
        raise Refusal(409, f"the model {model.name} is not the one that painted this: its weights have changed")
