"""What models make of pictures: tokens and back, what each bit of one does, and how likely each is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import numpy as np
from fastapi import APIRouter, Form, Request
from starlette.responses import Response

from bisquit.errors import ShapeError, TokenError
from bisquit.evaluation import bits_map_picture
from bisquit.evaluation.views import surprise
from bisquit.frames import encode_png, fit_frame
from bisquit.studio.answers import PNG_TYPE, in_base64
from bisquit.studio.models import Model
from bisquit.studio.refusals import Refusal
from bisquit.studio.routes import BUSY, FILES, PNG, USUAL
from bisquit.studio.schemas import (
    BitsAnswer,
    BitsRequest,
    Flip,
    LikelihoodAnswer,
    ModelAnswer,
    ModelsAnswer,
    PictureForm,
    TokensAnswer,
    TokensRequest,
)
from bisquit.studio.studio import InStudio, Studio, aside
from bisquit.studio.uploads import decode_upload

Check = Callable[..., None]
MULTIPART = "multipart/form-data"

router = APIRouter(tags=["looking"], responses={**USUAL})


@router.get("/models")
async def models(studio: InStudio) -> ModelsAnswer:
    """List the models that can be asked, and what each can do."""
    return ModelsAnswer(models=[_described(await aside(studio.models.get, name)) for name in studio.models.names])


@router.post("/encode", responses={**BUSY, **FILES})
async def encode(
    asked: Annotated[PictureForm, Form(media_type=MULTIPART)], request: Request, studio: InStudio
) -> TokensAnswer:
    """Turn a picture of any size into tokens."""
    model, frame = await _model(studio, asked.model), await _picture(asked, studio)
    tokens = await studio.compute(request, lambda _: model.pipeline.encode(frame[None])[0])
    size = list(frame.shape[:2])
    return TokensAnswer(model=model.name, tokens=tokens.tolist(), bits=model.pipeline.tokenizer.bits, size=size)


@router.post("/decode", response_class=Response, responses={**BUSY, **PNG})
async def decode(asked: TokensRequest, request: Request, studio: InStudio) -> Response:
    """Turn tokens into a picture."""
    model = await _model(studio, asked.model)
    tokens, size = _tokens(asked, model, studio), _size(asked, model)
    frame = await studio.compute(request, lambda _: model.pipeline.decode(tokens[None], size)[0])
    return Response(await aside(encode_png, frame), media_type=PNG_TYPE)


@router.post("/tokens/bits", responses={**BUSY})
async def bits(asked: BitsRequest, request: Request, studio: InStudio) -> BitsAnswer:
    """Flip each bit of one token, and show what that does to the picture."""
    model = await _model(studio, asked.model)
    tokens, size = _tokens(asked, model, studio), _size(asked, model)
    if asked.row >= tokens.shape[0] or asked.column >= tokens.shape[1]:
        raise ShapeError(f"row {asked.row}, column {asked.column} is outside of {tokens.shape[0]} x {tokens.shape[1]}")
    token, n_bits = int(tokens[asked.row, asked.column]), model.pipeline.tokenizer.bits

    def flipped(check: Check) -> list[np.ndarray]:
        frames = []
        for changed in (0, *(1 << bit for bit in range(n_bits))):
            check()
            other = tokens.copy()
            other[asked.row, asked.column] ^= changed
            frames.append(model.pipeline.decode(other[None], size)[0])
        return frames

    frames = await studio.compute(request, flipped)
    return await aside(_flips, token, frames)


def _flips(token: int, frames: list[np.ndarray]) -> BitsAnswer:
    """Describe pictures, uint8 (H, W, 3): that of a token, and those with its bits flipped."""
    first, *others = frames
    flips = [
        Flip(
            bit=bit,
            token=token ^ 1 << bit,
            mean_change=float(np.abs(frame.astype(np.int64) - first).mean()),
            png=in_base64(encode_png(frame)),
        )
        for bit, frame in enumerate(others)
    ]
    return BitsAnswer(token=token, png=in_base64(encode_png(first)), flips=flips)


@router.post("/likelihood", responses={**BUSY, **FILES})
async def likelihood(
    asked: Annotated[PictureForm, Form(media_type=MULTIPART)], request: Request, studio: InStudio
) -> LikelihoodAnswer:
    """Say how many bits each token of a picture costs. It is cropped and resized to the model's pictures first."""
    model, frame = await _model(studio, asked.model), await _picture(asked, studio)
    prior = model.pipeline.painting_prior()
    fitted = fit_frame(frame, model.pipeline.frame_size) if model.pipeline.frame_size else frame

    def judged(_: Check) -> tuple[np.ndarray, np.ndarray]:
        tokens = model.pipeline.encode(fitted[None])
        return tokens[0], surprise(prior, tokens)[0]

    tokens, costs = await studio.compute(request, judged)
    png = await aside(lambda: encode_png(bits_map_picture(costs, prior.bits)))
    return LikelihoodAnswer(
        model=model.name,
        bits=costs.astype(np.float64).round(4).tolist(),
        total_bits=float(costs.sum(dtype=np.float64)),
        tokens=tokens.tolist(),
        png=in_base64(png),
    )


async def _model(studio: Studio, name: str) -> Model:
    return await aside(studio.models.get, name)


async def _picture(asked: PictureForm, studio: Studio) -> np.ndarray:
    return await aside(decode_upload, await asked.picture.read(), "picture", studio.limits.pixels)


def _tokens(asked: TokensRequest, model: Model, studio: Studio) -> np.ndarray:
    """Return tokens, int64 (h, w). Raises ShapeError or TokenError if they are none, Refusal if they are too many."""
    widths = {len(row) for row in asked.tokens}
    if len(widths) != 1 or widths == {0}:
        raise ShapeError("tokens are no grid: all rows must be of one length, at least 1")
    tokenizer = model.pipeline.tokenizer
    if len(asked.tokens) * widths.pop() * tokenizer.patch_size**2 > studio.limits.pixels:
        raise Refusal(413, f"these tokens are of more than {studio.limits.pixels:,} pixels")
    if any(not 0 <= token < tokenizer.codebook_size for row in asked.tokens for token in row):
        raise TokenError(f"a token is outside of the codebook: this model's are in [0, {tokenizer.codebook_size})")
    return np.array(asked.tokens, dtype=np.int64)


def _size(asked: TokensRequest, model: Model) -> tuple[int, int] | None:
    """Return the size to crop to: what is asked for, else that of the model's pictures if it is of so many tokens."""
    if asked.size is not None:
        return asked.size[0], asked.size[1]
    prior, grid = model.pipeline.prior, (len(asked.tokens), len(asked.tokens[0]))
    return model.pipeline.frame_size if prior is not None and tuple(prior.grid) == grid else None


def _described(model: Model) -> ModelAnswer:
    pipeline = model.pipeline
    prior = pipeline.prior
    return ModelAnswer(
        name=model.name,
        paints=prior is not None,
        prior=None if prior is None else str(prior.config.to_dict()["kind"]),
        classes=list(pipeline.conditions.classes),
        reads_words=pipeline.conditions.reader is not None,
        size=list(pipeline.frame_size) if pipeline.frame_size else None,
        grid=None if prior is None else list(prior.grid),
        bits=pipeline.tokenizer.bits,
        patch_size=pipeline.tokenizer.patch_size,
        fingerprint=model.fingerprint,
    )
