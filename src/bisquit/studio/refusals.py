"""What goes wrong, as one line of JSON: {"error": "..."}, never a traceback.

A `Refusal` has a status of its own; a `BisquitError` of the library is 422; anything else is a bug, 500, and is logged.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from bisquit.errors import BisquitError

_MOST_CHARACTERS = 500


class Refusal(HTTPException):
    """A request that is refused, with its HTTP status and one line that says why."""

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status, message, headers)


def problem(status: int, message: str, headers: Mapping[str, str] | None = None) -> Response:
    """Return the answer that says what is wrong, in one line."""
    line = " ".join(message.split())[:_MOST_CHARACTERS]
    return Response(json.dumps({"error": line}), status, headers, media_type="application/json")


def add_handlers(app: FastAPI) -> None:
    """Have an app answer every exception by one line."""

    @app.exception_handler(HTTPException)
    def refused(request: Request, error: HTTPException) -> Response:
        return problem(error.status_code, str(error.detail), error.headers)

    @app.exception_handler(BisquitError)
    def impossible(request: Request, error: BisquitError) -> Response:
        return problem(422, str(error))

    @app.exception_handler(RequestValidationError)
    def unfit(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"] if part != "body")
        return problem(422, f"{place}: {first['msg']}" if place else str(first["msg"]))

    @app.exception_handler(Exception)
    def failed(request: Request, error: Exception) -> Response:
        return problem(500, "something in the studio failed: its log tells more")
