"""The door: which requests come in, and what their answers forbid a browser to do.

A page of another site can make a browser send requests here, and with a name that it lets point here (DNS rebinding)
read the answers too. So the host must be one that is known, and an origin, where the browser names one, this very one.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bisquit.studio.limits import MIB, Limits
from bisquit.studio.refusals import Refusal, problem

LOCAL_HOSTS = ("127.0.0.1", "localhost", "[::1]")
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "font-src 'self'",
        "img-src 'self' data: blob:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:\d{1,5})?")
_PAGES = ("/", "/index.html")
"""What a link on another site may lead to."""


class Guard:
    """ASGI middleware that lets in what is from here, and bounds the bytes and the seconds of bodies."""

    def __init__(self, app: ASGIApp, hosts: Iterable[str], limits: Limits) -> None:
        """Guard an app. hosts: the names that it may be called by, beside this machine's own."""
        self.app, self.limits = app, limits
        self.hosts = frozenset(host.lower() for host in (*LOCAL_HOSTS, *hosts))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        headers = Headers(scope=scope)
        if (reason := self._foreign(headers, scope["path"])) is not None:
            await problem(403, reason)(scope, receive, send_guarded)
        elif _length(headers) > self.limits.body_bytes:
            await problem(413, self._too_large())(scope, receive, send_guarded)
        else:
            await self.app(scope, self._bounded(receive), send_guarded)

    def _foreign(self, headers: Headers, path: str) -> str | None:
        """Say why a request is not from here; None if it is."""
        host = headers.get("host", "").lower()
        found = _HOST.fullmatch(host)
        if found is None or found[1] not in self.hosts:
            return "this host is not known here: start the studio with --allow-host to call it by another name"
        origin = headers.get("origin")
        if origin is not None and origin.lower() not in (f"http://{host}", f"https://{host}"):
            return "requests from pages of another origin are refused"
        if headers.get("sec-fetch-site") in ("cross-site", "same-site") and path not in _PAGES:
            return "requests from pages of another site are refused"
        return None

    def _bounded(self, receive: Receive) -> Receive:
        """Return a `receive` that raises a Refusal for a body that is too large, or comes too slowly."""
        total, is_whole = 0, False

        async def receive_bounded() -> Message:
            nonlocal total, is_whole
            if is_whole:  # what may come now is that the client goes
                return await receive()
            try:
                message = await asyncio.wait_for(receive(), self.limits.upload_s)
            except TimeoutError as error:
                raise Refusal(408, f"no part of the body came for {self.limits.upload_s:g} s") from error
            total += len(message.get("body", b""))
            is_whole = not message.get("more_body", False)
            if total > self.limits.body_bytes:
                raise Refusal(413, self._too_large())
            return message

        return receive_bounded

    def _too_large(self) -> str:
        return f"the body has more than {self.limits.body_bytes / MIB:g} MiB"


def _length(headers: Headers) -> int:
    """Return how long a body says it is; 0 if it does not."""
    said = headers.get("content-length", "")
    return int(said) if said.isascii() and said.isdecimal() and len(said) < 20 else 0
