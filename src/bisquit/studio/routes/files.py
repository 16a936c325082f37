"""Pictures as files of a few hundred bytes, and back."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Form, Request
from starlette.responses import Response

from bisquit.codec import RateConfig, archive
from bisquit.errors import CodecError
from bisquit.frames import encode_png
from bisquit.studio.answers import PNG_TYPE
from bisquit.studio.refusals import Refusal
from bisquit.studio.routes import BUSY, FILES, PNG, USUAL, problems
from bisquit.studio.schemas import CompressForm, DecompressForm
from bisquit.studio.studio import InStudio, aside
from bisquit.studio.uploads import decode_upload

BISQ_TYPE = "application/octet-stream"
MULTIPART = "multipart/form-data"
BISQ: dict[int | str, dict[str, Any]] = {
    200: {"content": {BISQ_TYPE: {"schema": {"type": "string", "format": "binary"}}}, "description": "A picture file."}
}

router = APIRouter(tags=["files"], responses={**USUAL, **BUSY})


@router.post("/compress", response_class=Response, responses={**BISQ, **FILES})
async def compress(
    asked: Annotated[CompressForm, Form(media_type=MULTIPART)], request: Request, studio: InStudio
) -> Response:
    """Compress a picture of the size of the models' pictures to a file as `bisquit compress` makes it."""
    rate = RateConfig(asked.quality, asked.target_bytes, asked.target_psnr, asked.effort)
    frame = await aside(decode_upload, await asked.picture.read(), "picture", studio.limits.pixels)
    (data,) = await studio.compute(
        request, lambda check: studio.models.codec(asked.model).compress(frame[None], rate, check)
    )
    headers = {"Content-Disposition": 'attachment; filename="picture.bisq"'}
    return Response(data, headers=headers, media_type=BISQ_TYPE)


@router.post("/decompress", response_class=Response, responses={**PNG, **problems(415)})
async def decompress(
    asked: Annotated[DecompressForm, Form(media_type=MULTIPART)], request: Request, studio: InStudio
) -> Response:
    """Decompress a single picture."""
    data = await asked.file.read()
    if data.startswith(archive.MAGIC):
        raise CodecError("this is an archive: take its pictures out with `bisquit archive get`, and send one")
    if len(data) > archive.LARGEST_FILE:
        raise Refusal(413, f"file has {len(data):,} bytes: a compressed picture has {archive.LARGEST_FILE:,} at most")
    (frame,) = await studio.compute(request, lambda check: studio.models.codec(asked.model).decompress([data], check))
    return Response(await aside(encode_png, frame), media_type=PNG_TYPE)
