"""The gallery: pictures that were kept."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from fastapi import APIRouter, Path, Query, Request
from starlette.responses import Response

from bisquit.frames import encode_png
from bisquit.studio.answers import PNG_TYPE
from bisquit.studio.editing import edit_job
from bisquit.studio.gallery import Entry
from bisquit.studio.painting import paint_job
from bisquit.studio.recipes import Recipe, check_same_model
from bisquit.studio.refusals import Refusal
from bisquit.studio.routes import BUSY, PNG, USUAL, problems
from bisquit.studio.schemas import GalleryAnswer, Kept, SampleRequest
from bisquit.studio.studio import InStudio, Studio, aside
from bisquit.studio.uploads import decode_upload

SAME_HEADER = "Bisquit-Same"
Id = Annotated[str, Path(pattern="^[0-9a-f]{32}$", description="A picture's name in the gallery.")]

router = APIRouter(prefix="/gallery", tags=["gallery"], responses={**USUAL, **problems(404)})


@router.get("")
async def page(
    studio: InStudio,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    before: Annotated[str | None, Query(pattern="^[0-9a-f]{32}$")] = None,
) -> GalleryAnswer:
    """List pictures, the latest first; `next` of one page is `before` of the next."""
    try:
        found = await aside(studio.gallery.page, limit, before)
    except KeyError as error:
        raise _missing() from error
    return GalleryAnswer(pictures=[_kept(entry) for entry in found.entries], next=found.next, total=found.total)


@router.get("/{id}")
async def get(id: Id, studio: InStudio) -> Kept:  # noqa: A002
    """Say what is known of a picture: its size and its recipe."""
    return _kept(await _entry(studio, id))


@router.get("/{id}/picture", response_class=Response, responses={**PNG})
async def picture(id: Id, studio: InStudio) -> Response:  # noqa: A002
    """Return a picture."""
    await _entry(studio, id)
    return Response(await aside(studio.gallery.png, id), media_type=PNG_TYPE)


@router.delete("/{id}", status_code=204)
async def delete(id: Id, studio: InStudio) -> None:  # noqa: A002
    """Remove a picture, and what it alone was made of."""
    try:
        await aside(studio.gallery.delete, id)
    except KeyError as error:
        raise _missing() from error


@router.post("/{id}/again", response_class=Response, responses={**PNG, **BUSY, **problems(409)})
async def again(id: Id, request: Request, studio: InStudio) -> Response:  # noqa: A002
    """Paint a picture once more by its recipe. `Bisquit-Same` says whether it came out the same, byte for byte."""
    recipe = Recipe.model_validate((await _entry(studio, id)).recipe)
    asked = recipe.request()
    check_same_model(recipe, await aside(studio.models.get, asked.model))
    if isinstance(asked, SampleRequest):
        numbers = range(recipe.number, recipe.number + 1)
        frame = (await studio.result(request, await aside(paint_job, studio.models, asked, numbers, None))).frames[0]
    else:
        inputs = {name: await _input(studio, digest) for name, digest in recipe.inputs.items()}
        job = await aside(edit_job, studio.models, asked, inputs, studio.limits.pixels)
        frame = (await studio.result(request, job))[-1]
    png = await aside(encode_png, frame)
    is_same = png == await aside(studio.gallery.png, id)
    return Response(png, headers={SAME_HEADER: str(is_same).lower()}, media_type=PNG_TYPE)


async def _input(studio: Studio, digest: str) -> np.ndarray:
    return await aside(decode_upload, await aside(studio.gallery.input, digest), "input", studio.limits.pixels)


async def _entry(studio: Studio, identity: str) -> Entry:
    try:
        return await aside(studio.gallery.get, identity)
    except KeyError as error:
        raise _missing() from error


def _missing() -> Refusal:
    return Refusal(404, "the gallery has no picture of this name")


def _kept(entry: Entry) -> Kept:
    return Kept(id=entry.id, created=entry.created, height=entry.height, width=entry.width, recipe=entry.recipe)
