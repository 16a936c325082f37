"""Pictures that are painted: new ones, new ones that are watched, and parts of given ones."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Depends, Form, Request
from fastapi.sse import EventSourceResponse, ServerSentEvent
from starlette.datastructures import UploadFile
from starlette.responses import Response

from bisquit.errors import BisquitError
from bisquit.frames import encode_png
from bisquit.studio.answers import check_answer, finish, in_base64, respond
from bisquit.studio.editing import edit_job
from bisquit.studio.gallery import digest
from bisquit.studio.painting import Part, Pictures, paint_job
from bisquit.studio.recipes import recipe_of
from bisquit.studio.routes import BUSY, FILES, USUAL
from bisquit.studio.schemas import (
    BlendForm,
    Edit,
    ExtendForm,
    InpaintForm,
    PaintedAnswer,
    SampleRequest,
    StreamRequest,
    VaryForm,
)
from bisquit.studio.studio import InStudio, Studio, aside
from bisquit.studio.uploads import decode_upload
from bisquit.studio.worker import Job

MULTIPART = "multipart/form-data"
_BINARY = {"schema": {"type": "string", "format": "binary"}}
PICTURES: dict[int | str, dict[str, Any]] = {
    200: {
        "model": PaintedAnswer,
        "content": {"image/png": _BINARY, "application/zip": _BINARY},
        "description": "The pictures, in the form that `answer` asked for. With a PNG, `Bisquit-Recipe` is its recipe "
        "and `Bisquit-Id` its name in the gallery, if it is kept.",
    }
}

router = APIRouter(tags=["painting"], responses={**USUAL, **BUSY})


@router.post("/sample", response_class=Response, responses=PICTURES)
async def sample(asked: SampleRequest, request: Request, studio: InStudio) -> Response:
    """Paint new pictures. Picture i of a seed is the same however many are asked for, and whoever else asks."""
    check_answer(asked.answer, asked.n)
    job = await aside(paint_job, studio.models, asked, range(asked.n), None)
    painted: Pictures = await studio.result(request, job)
    model = studio.models.get(asked.model)
    recipes = [recipe_of(asked, number, model) for number in range(asked.n)]
    gallery = studio.gallery if asked.keep else None
    return respond(await aside(finish, painted.frames, recipes, painted.tokens, gallery), asked.answer)


@dataclass(frozen=True)
class _Watch:
    """A picture that is being painted, and what is heard of it: parts, and None at its end."""

    asked: StreamRequest
    job: Job
    heard: asyncio.Queue[Part | None]


async def _watch(asked: StreamRequest, studio: InStudio) -> _Watch:
    """Have a picture painted. What is refused is so here, before the stream begins."""
    loop, heard = asyncio.get_running_loop(), asyncio.Queue[Part | None]()

    def tell(part: Part | None) -> None:
        loop.call_soon_threadsafe(heard.put_nowait, part)

    job = await aside(paint_job, studio.models, asked, range(1), tell)
    job.future.add_done_callback(lambda _: tell(None))
    return _Watch(asked, studio.submit(job), heard)


@router.post("/sample/stream", response_class=EventSourceResponse)
async def stream(watch: Annotated[_Watch, Depends(_watch)], studio: InStudio) -> AsyncIterator[ServerSentEvent]:
    """Paint picture 0 of a seed, and tell of it as server-sent events.

    `queued` {ahead}, once: how many requests come first. `partial` {done, total, png, tokens, chances}, now and then:
    the picture so far, its tokens, -1 where none is yet, and the chance that the model gave each, null where it has
    none. `picture`, at the end: as /sample answers it in JSON. `error` {error}, in place of that.
    """
    until = time.monotonic() + studio.limits.timeout_s
    try:
        yield ServerSentEvent(event="queued", data={"ahead": watch.job.ahead})
        while (part := await asyncio.wait_for(watch.heard.get(), until - time.monotonic())) is not None:
            yield ServerSentEvent(event="partial", data=await aside(_partial, part))
        yield ServerSentEvent(event="picture", data=await _finished(watch, studio))
    except TimeoutError:
        yield ServerSentEvent(event="error", data={"error": studio.late().detail})
    except BisquitError as error:
        yield ServerSentEvent(event="error", data={"error": str(error)})
    finally:
        studio.worker.cancel(watch.job)


def _partial(part: Part) -> dict[str, Any]:
    chances = None
    if part.chances is not None:
        rows = zip(part.chances.astype(float).round(6).tolist(), part.tokens.tolist(), strict=True)
        chances = [[chance if token >= 0 else None for chance, token in zip(*row, strict=True)] for row in rows]
    return {
        "done": part.done,
        "total": part.total,
        "png": in_base64(encode_png(part.frame)),
        "tokens": part.tokens.tolist(),
        "chances": chances,
    }


async def _finished(watch: _Watch, studio: Studio) -> dict[str, Any]:
    painted: Pictures = watch.job.future.result()
    recipe = recipe_of(watch.asked, 0, studio.models.get(watch.asked.model))
    gallery = studio.gallery if watch.asked.keep else None
    (one,) = await aside(finish, painted.frames, [recipe], painted.tokens, gallery)
    return one.painted.model_dump()


@router.post("/edit/inpaint", response_class=Response, responses={**PICTURES, **FILES})
async def inpaint(asked: Annotated[InpaintForm, Form(media_type=MULTIPART)], request: Request, studio: InStudio) -> Any:
    """Paint what a mask covers; all else stays as it is, to the bit."""
    return await _edit(asked, request, studio)


@router.post("/edit/extend", response_class=Response, responses={**PICTURES, **FILES})
async def extend(asked: Annotated[ExtendForm, Form(media_type=MULTIPART)], request: Request, studio: InStudio) -> Any:
    """Paint what lies beyond a picture's sides."""
    return await _edit(asked, request, studio)


@router.post("/edit/vary", response_class=Response, responses={**PICTURES, **FILES})
async def vary(asked: Annotated[VaryForm, Form(media_type=MULTIPART)], request: Request, studio: InStudio) -> Any:
    """Paint a picture of the model's size anew, but for a share of its tokens."""
    return await _edit(asked, request, studio)


@router.post("/edit/blend", response_class=Response, responses={**PICTURES, **FILES})
async def blend(asked: Annotated[BlendForm, Form(media_type=MULTIPART)], request: Request, studio: InStudio) -> Any:
    """Join the left half of one picture to the right half of another, with a band between them painted."""
    return await _edit(asked, request, studio)


async def _edit(asked: Edit, request: Request, studio: Studio) -> Response:
    check_answer(asked.answer, asked.n)
    pixels: dict[str, np.ndarray] = {}
    for name in asked.inputs:
        upload = getattr(asked, name)
        assert isinstance(upload, UploadFile)
        pixels[name] = await aside(decode_upload, await upload.read(), name, studio.limits.pixels)
    job = await aside(edit_job, studio.models, asked, pixels, studio.limits.pixels)
    frames: np.ndarray = await studio.result(request, job)
    pngs = {name: await aside(encode_png, frame) for name, frame in pixels.items()} if asked.keep else {}
    digests = {name: digest(png) for name, png in pngs.items()}
    model = studio.models.get(asked.model)
    recipes = [recipe_of(asked, number, model, digests) for number in range(asked.n)]
    gallery = studio.gallery if asked.keep else None
    inputs = {digest(png): png for png in pngs.values()}
    return respond(await aside(finish, frames, recipes, None, gallery, inputs), asked.answer)
