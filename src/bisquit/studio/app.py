"""The app: routes, guard and pages put together, and the server that runs it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path
from socket import socket

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from bisquit.studio.guard import Guard
from bisquit.studio.metrics import Measured
from bisquit.studio.refusals import add_handlers
from bisquit.studio.routes import USUAL, files, gallery, looking, painting, runs
from bisquit.studio.studio import InStudio, Studio, StudioConfig, aside

PREFIX = "/api/v1"
PAGES = Path(__file__).parent / "static"
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
CONNECTIONS = 256


class Health(BaseModel):
    """That the studio is there."""

    status: str
    bisquit: str
    waiting: int


def create_app(config: StudioConfig, pages: Path = PAGES) -> ASGIApp:
    """Return the studio as an ASGI app. pages: the folder that is served at /, if it is there.

    Raises ConfigError if a folder cannot be used, and for a model's name that is taken.
    """
    return _app_of(Studio(config), config, pages)


def _app_of(studio: Studio, config: StudioConfig, pages: Path) -> ASGIApp:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        studio.worker.start()
        yield
        studio.worker.stop()

    app = FastAPI(
        title="bisquit studio",
        version=version("bisquit"),
        description="Pictures as short sequences of binary tokens: painted, changed, looked into, stored.",
        docs_url=None,  # those pages load scripts from elsewhere
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.studio = studio
    add_handlers(app)
    for module in (painting, looking, files, gallery, runs):
        app.include_router(module.router, prefix=PREFIX)
    _add_signs_of_life(app)
    if (pages / "index.html").is_file():
        app.mount("/", StaticFiles(directory=pages, html=True))
    return Measured(Guard(app, config.hosts, config.limits), studio.metrics)


def _add_signs_of_life(app: FastAPI) -> None:
    """Add what those ask who watch over the studio."""

    @app.get("/healthz", tags=["health"], responses={**USUAL})
    async def healthz(studio: InStudio) -> Health:
        """Say that the studio is there, and how many requests wait."""
        return Health(status="ok", bisquit=version("bisquit"), waiting=studio.worker.waiting)

    text = {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "Prometheus's text format."}

    @app.get("/metrics", tags=["health"], response_class=Response, responses={**USUAL, 200: text})
    async def metrics(studio: InStudio) -> Response:
        """Return what the studio has done so far, for Prometheus."""
        return Response(studio.metrics.text(), media_type=METRICS_TYPE)


class Server(uvicorn.Server):
    """A server that gives up what the worker does before it waits for requests to end."""

    def __init__(self, config: uvicorn.Config, studio: Studio) -> None:
        super().__init__(config)
        self._studio = studio

    async def shutdown(self, sockets: list[socket] | None = None) -> None:
        """Have every request that waits be answered, and end."""
        await aside(self._studio.worker.stop)
        await super().shutdown(sockets)


def serve(config: StudioConfig, host: str, port: int) -> None:
    """Serve the studio until it is interrupted. Raises as `create_app` does."""
    studio = Studio(config)
    settings = uvicorn.Config(
        _app_of(studio, config, PAGES),
        host=host,
        port=port,
        log_level="warning",
        server_header=False,
        limit_concurrency=CONNECTIONS,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=10,
    )
    Server(settings, studio).run()
