"""How pictures are answered: one PNG, a ZIP of several, or JSON with everything; and kept, if that was asked for."""

from __future__ import annotations

import base64
import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from starlette.responses import JSONResponse, Response

from bisquit.errors import ConfigError
from bisquit.frames import encode_png
from bisquit.studio.gallery import Gallery
from bisquit.studio.recipes import Recipe
from bisquit.studio.schemas import Answer, Painted, PaintedAnswer

PNG_TYPE, ZIP_TYPE = "image/png", "application/zip"
RECIPE_HEADER, ID_HEADER = "Bisquit-Recipe", "Bisquit-Id"
_EARLIEST = (1980, 1, 1, 0, 0, 0)  # so that the same pictures are the same bytes


@dataclass(frozen=True)
class Finished:
    """A picture as it is answered."""

    png: bytes
    size: tuple[int, int]
    recipe: Recipe
    tokens: np.ndarray | None = None
    """int64 (h, w), where it was made of nothing else."""
    id: str | None = None

    @property
    def painted(self) -> Painted:
        """All of it, for JSON."""
        tokens = None if self.tokens is None else self.tokens.tolist()
        return Painted(png=in_base64(self.png), recipe=self.recipe.model_dump(), id=self.id, tokens=tokens)


def check_answer(answer: Answer, n: int) -> None:
    """Raise ConfigError for an answer that so many pictures cannot have."""
    if answer == "png" and n > 1:
        raise ConfigError(f"answer is png, and {n} pictures are asked for: ask for json or zip, or for one picture")


def finish(
    frames: np.ndarray,
    recipes: Sequence[Recipe],
    tokens: np.ndarray | None = None,
    gallery: Gallery | None = None,
    inputs: Mapping[str, bytes] | None = None,
) -> list[Finished]:
    """Make PNGs of pictures, uint8 (n, H, W, 3), and keep them in a gallery if one is given.

    tokens: int64 (n, h, w). inputs: PNGs that the recipes name by their digests.
    """
    finished = []
    for i, (frame, recipe) in enumerate(zip(frames, recipes, strict=True)):
        png, size = encode_png(frame), (frame.shape[0], frame.shape[1])
        identity = None if gallery is None else gallery.add(png, size, recipe.model_dump(), inputs or {})
        finished.append(Finished(png, size, recipe, None if tokens is None else tokens[i], identity))
    return finished


def respond(finished: Sequence[Finished], answer: Answer) -> Response:
    """Return pictures in the form that was asked for; see `check_answer`."""
    if answer == "json":
        return JSONResponse(PaintedAnswer(pictures=[one.painted for one in finished]).model_dump())
    if answer == "zip" or len(finished) > 1:
        return Response(_zipped(finished), media_type=ZIP_TYPE)
    (one,) = finished
    headers = {RECIPE_HEADER: json.dumps(one.recipe.model_dump())} | ({ID_HEADER: one.id} if one.id else {})
    return Response(one.png, headers=headers, media_type=PNG_TYPE)


def in_base64(png: bytes) -> str:
    """Return bytes as JSON can hold them."""
    return base64.b64encode(png).decode("ascii")


def _zipped(finished: Sequence[Finished]) -> bytes:
    file = io.BytesIO()
    digits = len(str(len(finished) - 1))
    with zipfile.ZipFile(file, "w") as archive:  # PNGs do not get smaller
        for i, one in enumerate(finished):
            archive.writestr(zipfile.ZipInfo(f"{i:0{digits}d}.png", _EARLIEST), one.png)
        recipes = json.dumps([one.recipe.model_dump() for one in finished], indent=2)
        archive.writestr(zipfile.ZipInfo("recipes.json", _EARLIEST), recipes + "\n")
    return file.getvalue()
