"""Requests to the studio: each is answered as its route says, or refused in one line of JSON, and never 500.

An input's first byte chooses a route, its second, where a route takes files, what the rest is: a body as it is, JSON
whose fields are sent as a form with sound pictures, or a picture that is sent with sound fields. The app is called as a
server would, without a socket; a tiny model paints.
"""

from __future__ import annotations

import asyncio
import atexit
import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from fuzz_frames import sound_pictures
from fuzz_models import settled
from target import Target, changed, plain, scratch

from bisquit.autoencoder import AutoEncoderConfig
from bisquit.checkpoint import PRIOR_FILE, TOKENIZER_FILE, SavedPrior, save_prior, save_tokenizer
from bisquit.conditioning import Conditions
from bisquit.priors import RasterConfig, build_prior
from bisquit.quantizers import BSQConfig
from bisquit.studio import answers, editing, guard, painting, recipes, refusals, schemas, uploads
from bisquit.studio.app import create_app
from bisquit.studio.limits import Limits
from bisquit.studio.routes import files, looking
from bisquit.studio.routes import painting as painting_routes
from bisquit.studio.studio import StudioConfig
from bisquit.tokenizer import Tokenizer, TokenizerConfig
from bisquit.transformer import TransformerConfig

MODEL = "tiny"
JSON_ROUTES = ("sample", "sample/stream", "decode", "tokens/bits")
FORM_ROUTES = {
    "edit/inpaint": ("picture", "mask"),
    "edit/extend": ("picture",),
    "edit/vary": ("picture",),
    "edit/blend": ("first", "second"),
    "encode": ("picture",),
    "likelihood": ("picture",),
    "compress": ("picture",),
    "decompress": ("file",),
}
ROUTES = (*JSON_ROUTES, *FORM_ROUTES)
REFUSED = frozenset((400, 403, 404, 408, 413, 415, 422, 429))
BOUNDARY = "7e4c"
COSTLY = ("candidates", "effort", "left", "right", "top", "bottom", "n")
MOST_PICTURES = 4
"""What an input may ask for at once: more is only slower."""


class Answer(NamedTuple):
    """What a request was answered."""

    status: int
    kind: str
    body: bytes


@functools.cache
def runner() -> asyncio.Runner:
    """Return the loop that all requests are made on."""
    made = asyncio.Runner()
    atexit.register(made.close)
    return made


@functools.cache
def app() -> Any:
    """Return a studio with one model, whose worker has started."""
    folder = scratch() / "models" / MODEL
    tokenizer = settled(Tokenizer(TokenizerConfig(AutoEncoderConfig(1, 4, 1), BSQConfig(bits=3))))
    shape = RasterConfig(transformer=TransformerConfig(4, 1, 1, 4), condition_size=2)
    prior = settled(build_prior(shape, 3, (2, 3)))
    save_tokenizer(tokenizer, folder / TOKENIZER_FILE)
    conditions = Conditions(("ice", "sand"))
    save_prior(SavedPrior(prior, (2, 3), tokenizer.fingerprint(), conditions), folder / PRIOR_FILE)
    limits = Limits(body_mib=1, megapixels=0.01, timeout_s=8.0, gallery=0)
    made = create_app(StudioConfig(scratch() / "studio", models={MODEL: folder}, limits=limits), Path("nowhere"))
    made.app.app.state.studio.worker.start()
    return made


async def call(route: str, body: bytes, kind: str) -> Answer:
    """Make a request, and return what is answered."""
    status, heard, content_type = 0, bytearray(), ""
    parts = [{"type": "http.request", "body": body, "more_body": False}]
    gone = asyncio.Event()

    async def receive() -> dict[str, Any]:
        if parts:
            return parts.pop()
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        nonlocal status, content_type
        if message["type"] == "http.response.start":
            headers = {name.decode(): value.decode() for name, value in message["headers"]}
            status, content_type = message["status"], headers.get("content-type", "")
            assert "content-security-policy" in headers
        else:
            heard.extend(message.get("body", b""))

    headers = {"host": "127.0.0.1:8765", "content-type": kind, "content-length": str(len(body))}
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": f"/api/v1/{route}",
        "raw_path": f"/api/v1/{route}".encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 8765),
        "state": {},
    }
    try:
        await app()(scope, receive, send)
    finally:
        gone.set()
    return Answer(status, content_type, bytes(heard))


def form(fields: dict[str, Any], named: dict[str, bytes]) -> bytes:
    """Return a form's body."""
    parts = []
    for name, value in fields.items():
        text = (value if isinstance(value, str) else json.dumps(value)).encode("utf-8", "replace")
        said = json.dumps(name).encode()
        parts.append(b"Content-Disposition: form-data; name=" + said + b"\r\n\r\n" + text)
    for name, data in named.items():
        head = f'Content-Disposition: form-data; name="{name}"; filename="x"\r\nContent-Type: image/png\r\n\r\n'
        parts.append(head.encode() + data)
    mark = f"--{BOUNDARY}".encode()
    return b"".join(mark + b"\r\n" + part + b"\r\n" for part in parts) + mark + b"--\r\n"


def is_modest(fields: object) -> bool:
    """Whether what is asked for is no more than a moment's work."""
    if not isinstance(fields, dict):
        return True
    sizes = (fields.get(name, 0) for name in COSTLY)
    return all(not isinstance(size, int | float) or size <= MOST_PICTURES for size in sizes)


def check(data: bytes) -> None:
    """Make one request."""
    if len(data) < 2:
        return
    route = ROUTES[data[0] % len(ROUTES)]
    if route in JSON_ROUTES:
        body, kind = data[1:], "application/json"
        is_fit = is_modest(plain(body))
    else:
        kind = f"multipart/form-data; boundary={BOUNDARY}"
        body, is_fit = form_of(route, data[1] % 4, data[2:])
    if is_fit:
        check_answer(route, runner().run(call(route, body, kind)))


def form_of(route: str, way: int, rest: bytes) -> tuple[bytes, bool]:
    """Return the form that an input means, and whether it asks for no more than a moment's work."""
    sound = {name: sound_pictures()[0] for name in FORM_ROUTES[route]}
    if way == 0:
        return rest, not any(f'"{name}"'.encode() in rest for name in COSTLY)
    if way == 1:
        fields = plain(rest)
        if not isinstance(fields, dict):
            return b"", False
        return form(fields, sound), is_modest({name: number(value) for name, value in fields.items()})
    given = rest if way == 2 else changed(sound_pictures()[0], rest)
    return form({"model": MODEL}, dict.fromkeys(sound, given)), True


def check_answer(route: str, answer: Answer) -> None:
    """Fail unless an answer is what was asked for, or one line that says why not."""
    assert answer.status == 200 or answer.status in REFUSED, f"{route} answers {answer}"
    if answer.status != 200:
        said = json.loads(answer.body)
        assert list(said) == ["error"]
        assert said["error"]
        assert "\n" not in said["error"]
    elif answer.kind == "image/png":
        assert answer.body.startswith(b"\x89PNG")
    elif answer.kind == "application/json":
        json.loads(answer.body, parse_constant=lambda text: 1 / 0)


def number(value: object) -> object:
    """Return what a field's text means as a number; itself if it is none."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def seeds() -> Iterator[bytes]:
    """Yield requests to begin with."""
    asked: dict[str, dict[str, Any]] = {
        "sample": {"model": MODEL, "seed": 1, "n": 2, "temperature": 0.5, "top_k": 2, "answer": "json"},
        "sample/stream": {"model": MODEL, "class_name": "ice", "guidance": 2.0, "every": 3},
        "decode": {"model": MODEL, "tokens": [[0, 1, 2], [3, 4, 5]], "size": [2, 3]},
        "tokens/bits": {"model": MODEL, "tokens": [[7]], "row": 0, "column": 0},
        "edit/extend": {"model": MODEL, "left": 1, "right": 2},
        "edit/vary": {"model": MODEL, "share": 0.25, "answer": "json"},
        "edit/blend": {"model": MODEL, "band": 1},
        "compress": {"model": MODEL, "quality": 30, "effort": 0},
    }
    for place, route in enumerate(ROUTES):
        fields = asked.get(route, {"model": MODEL})
        if route in JSON_ROUTES:
            yield bytes([place]) + json.dumps(fields).encode()
            continue
        yield bytes([place, 1]) + json.dumps(fields).encode()
        yield bytes([place, 3])
        yield bytes([place, 3, 0, 0x80, 1])
    yield bytes([4, 0]) + form({"model": MODEL}, {"picture": sound_pictures()[0], "mask": sound_pictures()[0]})
    yield bytes([len(ROUTES) - 1, 2]) + b"bisq"


MODULES = (answers, editing, guard, painting, recipes, refusals, schemas, uploads, files, looking, painting_routes)
STUDIO = Target(check, seeds, MODULES, longest=2048)
