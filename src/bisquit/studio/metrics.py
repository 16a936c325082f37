"""What the studio has done so far, as Prometheus reads it at /metrics."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_BATCHES = (1, 2, 4, 8, 16, 32, 64)
_METHODS = ("GET", "HEAD", "POST", "DELETE", "OPTIONS")


class Metrics:
    """Counters of one studio."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        own: dict[str, Any] = {"registry": self.registry}
        self.requests = Counter("bisquit_requests", "Requests answered", ("method", "route", "status"), **own)
        self.seconds = Histogram("bisquit_request_seconds", "Seconds until the answer's end", ("route",), **own)
        self.runs = Counter("bisquit_runs", "Times that the worker ran", **own)
        self.run_seconds = Counter("bisquit_run_seconds", "Seconds for which the worker ran", **own)
        self.pictures = Counter("bisquit_pictures", "Pictures that the worker made or took", **own)
        self.together = Histogram("bisquit_run_jobs", "Requests answered by one run", buckets=_BATCHES, **own)
        self._waiting = Gauge("bisquit_waiting", "Requests that wait for the worker", **own)

    def watch(self, waiting: Callable[[], int]) -> None:
        """Read from a function how many requests wait."""
        self._waiting.set_function(waiting)

    def on_run(self, jobs: int, pictures: int, seconds: float) -> None:
        """Count a run of the worker."""
        self.runs.inc()
        self.run_seconds.inc(seconds)
        self.pictures.inc(pictures)
        self.together.observe(jobs)

    def text(self) -> bytes:
        """Return all in Prometheus's text format."""
        return generate_latest(self.registry)


class Measured:
    """ASGI middleware that counts requests by the route that answered them."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and count it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status = time.monotonic(), 500

        async def send_watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, send_watched)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            method = scope["method"] if scope["method"] in _METHODS else "other"
            self.metrics.requests.labels(method, route, str(status)).inc()
            self.metrics.seconds.labels(route).observe(time.monotonic() - began)
