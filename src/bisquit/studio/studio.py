"""The studio's state: its models, its worker, its gallery, its runs; and how a route waits for the worker."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Request
from starlette.concurrency import run_in_threadpool

from bisquit.errors import ConfigError
from bisquit.studio.gallery import Gallery
from bisquit.studio.limits import MOST_PICTURES, Limits
from bisquit.studio.metrics import Metrics
from bisquit.studio.models import Models
from bisquit.studio.refusals import Refusal
from bisquit.studio.runs import Runs
from bisquit.studio.worker import Job, QueueFull, Stopped, Worker, stop_if_cancelled

T = TypeVar("T")
CLIENT_GONE = 499
"""The status that is logged for a request whose client did not wait."""


@dataclass(frozen=True)
class StudioConfig:
    """What a studio is started with."""

    data: Path
    """The folder of the gallery; nothing is written elsewhere."""
    runs: Path | None = None
    """The folder below which training runs are."""
    models: Mapping[str, Path] = field(default_factory=dict)
    """Folders of further models, by the names that they are served under."""
    hosts: tuple[str, ...] = ()
    """Names that it may be called by, beside this machine's own."""
    device: str = "cpu"
    limits: Limits = field(default_factory=Limits)


class Studio:
    """All that routes share."""

    def __init__(self, config: StudioConfig) -> None:
        """Open a studio; its worker is not started yet. Raises ConfigError if its folders cannot be used."""
        if config.runs is not None and not config.runs.is_dir():
            raise ConfigError(f"{config.runs} is no folder: --runs names the one below which runs are")
        self.limits, self.metrics = config.limits, Metrics()
        self.models = Models(config.models, config.device)
        self.gallery = Gallery(config.data, config.limits.gallery)
        self.runs = Runs(config.runs)
        self.worker = Worker(config.limits.waiting, MOST_PICTURES, self.metrics.on_run)
        self.metrics.watch(lambda: self.worker.waiting)

    def submit(self, job: Job) -> Job:
        """Have a job wait for the worker. Raises Refusal 429 if too many wait."""
        try:
            return self.worker.submit(job)
        except QueueFull as error:
            raise Refusal(429, str(error), {"Retry-After": str(error.retry_after_s)}) from error

    async def result(self, request: Request, job: Job) -> Any:
        """Wait for a job, and return its result or raise what it raised.

        It is given up, and a Refusal raised, when the time is up or the client goes.
        """
        self.submit(job)
        future = asyncio.wrap_future(job.future)
        gone = asyncio.ensure_future(_gone(request))
        try:
            await asyncio.wait((future, gone), timeout=self.limits.timeout_s, return_when=asyncio.FIRST_COMPLETED)
            if future.done():
                return future.result()
            if gone.done():
                raise Refusal(CLIENT_GONE, "the client is gone")
            raise self.late()
        except Stopped as error:
            raise Refusal(503, "the studio is closing") from error
        finally:
            gone.cancel()
            self.worker.cancel(job)
            future.cancel()

    async def compute(self, request: Request, function: Callable[[Callable[..., None]], T]) -> T:
        """Have the worker call a function, and return what it does.

        The function takes one that stops it if nobody waits any more, to be called now and then with anything.
        """

        def run(jobs: Sequence[Job]) -> Sequence[T]:
            return [function(lambda *_: stop_if_cancelled(jobs))]

        found: T = await self.result(request, Job(run, None))
        return found

    def late(self) -> Refusal:
        """Return what is said when the time is up."""
        return Refusal(504, f"this took more than {self.limits.timeout_s:g} s, and was given up")


async def _gone(request: Request) -> None:
    """Return when the client goes."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def studio_of(request: Request) -> Studio:
    """Return the studio that a request is made to."""
    studio: Studio = request.app.state.studio
    return studio


InStudio = Annotated[Studio, Depends(studio_of)]
aside = run_in_threadpool
"""Runs what takes a while, but is not the worker's, beside the loop."""
