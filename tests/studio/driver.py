"""What the tests of the studio share: pictures as files, a worker that is held up, and requests that break off."""

from __future__ import annotations

import asyncio
import io
import json
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from PIL import Image
from starlette.testclient import TestClient
from starlette.types import Message

from bisquit.studio.guard import Guard
from bisquit.studio.metrics import Measured
from bisquit.studio.studio import Studio
from bisquit.studio.worker import Job

API = "/api/v1"
SIZE = (19, 30)
GRID = (5, 8)
MODEL = "tiny"
HOST = "127.0.0.1:8765"


def studio_of(app: Any) -> Studio:
    """Return the studio within an app."""
    assert isinstance(app, Measured)
    guard = app.app
    assert isinstance(guard, Guard)
    return guard.app.state.studio


def frame(seed: int = 0, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Return a picture of noise, uint8 (H, W, 3)."""
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def encoded(pixels: np.ndarray, kind: str = "PNG") -> bytes:
    """Return a picture as a file."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def decoded(data: bytes) -> np.ndarray:
    """Return a file's picture, uint8 (H, W, 3)."""
    return np.array(Image.open(io.BytesIO(data)).convert("RGB"))


def upload(**files: bytes) -> dict[str, tuple[str, bytes]]:
    """Return files as a request sends them."""
    return {name: (f"{name}.bin", data) for name, data in files.items()}


@contextmanager
def held_up(studio: Studio) -> Iterator[threading.Event]:
    """Keep the worker busy until the block ends, or until the event that is yielded is set."""
    gate, began = threading.Event(), threading.Event()

    def run(jobs: Sequence[Job]) -> Sequence[None]:
        began.set()
        assert gate.wait(30)
        return [None]

    studio.submit(Job(run, None))
    assert began.wait(10)
    try:
        yield gate
    finally:
        gate.set()


def until(holds: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait until something holds."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it never came to hold"
        time.sleep(0.005)


def events(client: TestClient, asked: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Return the events of a stream."""
    found = []
    with client.stream("POST", f"{API}/sample/stream", json=asked) as answer:
        assert answer.status_code == 200, answer.read()
        assert answer.headers["content-type"].startswith("text/event-stream")
        name = ""
        for line in answer.iter_lines():
            if line.startswith("event: "):
                name = line.removeprefix("event: ")
            elif line.startswith("data: "):
                found.append((name, json.loads(line.removeprefix("data: "))))
    return found


async def call(
    app: Any, path: str, body: AsyncIterator[bytes], gone: asyncio.Event, headers: dict[str, str] | None = None
) -> list[Message]:
    """Send a body piece by piece, go when the event is set, and return what was answered."""
    sent: list[Message] = []
    given = {"host": HOST, "content-type": "application/json"} | (headers or {})

    async def receive() -> Message:
        try:
            piece = await anext(body)
        except StopAsyncIteration:
            await gone.wait()
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": piece, "more_body": piece != b""}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in given.items()],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 8765),
    }
    await app(scope, receive, send)
    return sent


async def pieces(*parts: bytes) -> AsyncIterator[bytes]:
    """Yield the parts of a body, and its end."""
    for part in (*parts, b""):
        yield part
