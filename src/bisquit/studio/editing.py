"""Pictures changed: holes filled, sides extended, parts varied, two joined."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bisquit.editing import EditConfig, Editor, mask_of
from bisquit.errors import ConfigError, ShapeError
from bisquit.studio.models import Models
from bisquit.studio.refusals import Refusal
from bisquit.studio.schemas import Blend, Edit, Extend, Inpaint, Vary
from bisquit.studio.worker import Job, stop_if_cancelled


def edit_job(models: Models, asked: Edit, inputs: Mapping[str, np.ndarray], most_pixels: int) -> Job:
    """Return the job of an edit; its result is uint8 (n, H, W, 3).

    inputs: the pictures, uint8 (H, W, 3), by their names. Raises BisquitError for a model, class or prompt that there
    is not and for an edit that cannot be, and Refusal for one that makes too large a picture.
    """
    _check(asked, inputs, most_pixels)
    model = models.get(asked.model)
    model.pipeline.painting_prior()
    model.pipeline.condition(asked.class_name, asked.prompt)

    def run(jobs: Sequence[Job]) -> Sequence[np.ndarray]:
        editor = Editor(
            model.pipeline,
            edit=EditConfig(candidates=asked.candidates),
            settings=asked.settings,
            class_name=asked.class_name,
            prompt=asked.prompt,
            precision=asked.precision,
        )
        return [_edited(editor, asked, inputs, jobs)]

    return Job(run, asked, size=asked.n)


def _check(asked: Edit, inputs: Mapping[str, np.ndarray], most_pixels: int) -> None:
    if isinstance(asked, Inpaint) and inputs["mask"].shape != inputs["picture"].shape:
        sizes = [f"{one.shape[0]} x {one.shape[1]}" for one in (inputs["mask"], inputs["picture"])]
        raise ShapeError(f"the mask is {sizes[0]}, the picture {sizes[1]}: a mask is of its picture's size")
    if isinstance(asked, Extend):
        if not asked.left + asked.right + asked.top + asked.bottom:
            raise ConfigError("nothing is to be added: pass left, right, top or bottom, in pixels")
        height = inputs["picture"].shape[0] + asked.top + asked.bottom
        width = inputs["picture"].shape[1] + asked.left + asked.right
        if height * width > most_pixels:
            raise Refusal(413, f"the picture would be {height} x {width}: {most_pixels:,} pixels are the most")


def _edited(editor: Editor, asked: Edit, inputs: Mapping[str, np.ndarray], jobs: Sequence[Job]) -> np.ndarray:
    how: dict[str, Any] = {"n": asked.n, "seed": asked.seed, "progress": lambda *_: stop_if_cancelled(jobs)}
    match asked:
        case Inpaint():
            return editor.inpaint(inputs["picture"], mask_of(inputs["mask"]), **how)
        case Extend():
            return editor.extend(inputs["picture"], asked.left, asked.right, asked.top, asked.bottom, **how)
        case Vary():
            return editor.vary(inputs["picture"], asked.share, **how)
        case Blend():
            return editor.join(inputs["first"], inputs["second"], asked.band, **how)
        case _:
            raise TypeError(f"{type(asked).__name__} is no edit")
