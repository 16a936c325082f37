"""New pictures: orders with the same settings are painted as one batch, each of its own seed and condition.

orders ──seeds, numbers, conditions──Painter──> tokens ──tokenizer──> pictures, those of each order
                                        └──tokens so far──> who watches
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bisquit.priors import SequentialPrior
from bisquit.studio.models import Model, Models
from bisquit.studio.schemas import SampleRequest, StreamRequest
from bisquit.studio.worker import Job, stop_if_cancelled

SHOWING = 1.0
"""The most time that showing a picture may take before it is done, in that which painting takes."""


@dataclass(frozen=True)
class Part:
    """A picture that is being painted, or is done."""

    done: int
    """Tokens so far."""
    total: int
    frame: np.ndarray
    """uint8 (H, W, 3): grey where nothing is painted yet, or coarse."""
    tokens: np.ndarray
    """int64 (h, w): -1 where none is yet."""
    chances: np.ndarray | None
    """float (h, w): the chance that the model gave each token, given those before it; None if it cannot say."""


OnPart = Callable[[Part], None]


@dataclass(frozen=True)
class PaintOrder:
    """Pictures of a seed, and who watches the first of them."""

    numbers: range
    seed: int
    condition: Tensor | None
    """(condition_size,)."""
    on_part: OnPart | None = None
    every: int = 1
    """Fewest tokens between two parts that are shown."""


@dataclass(frozen=True)
class Pictures:
    """What was painted: uint8 (n, H, W, 3), and its tokens, int64 (n, h, w)."""

    frames: np.ndarray
    tokens: np.ndarray


def paint_job(models: Models, asked: SampleRequest | StreamRequest, numbers: range, on_part: OnPart | None) -> Job:
    """Return the job of pictures of a seed. Raises BisquitError for a model, class or prompt that there is not."""
    model, settings = models.get(asked.model), asked.settings
    model.pipeline.painting_prior()
    condition = model.pipeline.condition(asked.class_name, asked.prompt)
    every = asked.every if isinstance(asked, StreamRequest) else 1

    def run(jobs: Sequence[Job]) -> Sequence[Pictures]:
        painter = models.painter(asked.model, asked.precision)
        orders: list[PaintOrder] = [job.order for job in jobs]
        numbers = [number for order in orders for number in order.numbers]
        seeds = [order.seed for order in orders for _ in order.numbers]
        told = [order.condition for order in orders for _ in order.numbers if order.condition is not None]
        watched = [_Watched(model, painter.bits, order) for order in orders]
        starts = np.cumsum([0, *(len(order.numbers) for order in orders)])

        def on_tokens(done: int, tokens: Tensor) -> None:
            stop_if_cancelled(jobs)
            for job, watch, start in zip(jobs, watched, starts.tolist(), strict=False):
                if job.order.on_part is not None and not job.is_cancelled:
                    watch.show(done, tokens[start : start + 1])

        tokens = painter.paint(
            numbers,
            seed=seeds,
            settings=settings,
            condition=torch.stack(told) if told else None,
            on_tokens=on_tokens,
        ).numpy()
        frames = model.pipeline.decode(tokens, model.pipeline.frame_size)
        return list(map(Pictures, np.split(frames, starts[1:-1]), np.split(tokens, starts[1:-1])))

    group = ("paint", asked.model, asked.precision, settings, condition is None)
    return Job(run, PaintOrder(numbers, asked.seed, condition, on_part, every), group, len(numbers))


class _Watched:
    """Shows an order's first picture as it is painted, now and then."""

    def __init__(self, model: Model, bits: Callable[[Tensor, Tensor | None], Tensor], order: PaintOrder) -> None:
        self._model, self._bits, self._order, self._shown = model, bits, order, 0
        self._begun, self._showing_s = time.perf_counter(), 0.0

    def show(self, done: int, tokens: Tensor) -> None:
        """Show tokens (1, h, w) of which so many are done, unless too few are new, or it would hold up the painting."""
        prior, order, begun = self._model.pipeline.painting_prior(), self._order, time.perf_counter()
        is_behind = self._showing_s > SHOWING * (begun - self._begun - self._showing_s)
        if order.on_part is None or (done < prior.length and (is_behind or done - self._shown < order.every)):
            return
        self._shown = done
        chances = None
        if isinstance(prior, SequentialPrior):  # each token depends on those before it alone, so that any may follow
            chances = (-self._bits(tokens.clamp_min(0), order.condition)[0]).exp2().numpy()
        frame = self._model.pipeline.tokenizer.decode_partial(tokens, self._model.pipeline.frame_size)
        order.on_part(Part(done, prior.length, frame[0].cpu().numpy(), tokens[0].numpy(), chances))
        self._showing_s += time.perf_counter() - begun
