"""The routes of /api/v1, a module for each kind of thing that can be asked."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from bisquit.studio.schemas import Problem


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return how a route may refuse, for the OpenAPI document."""
    content = {"application/json": {"schema": Problem.model_json_schema()}}
    return {status: {"content": content, "description": HTTPStatus(status).phrase} for status in statuses}


USUAL = problems(400, 403, 408, 413, 422, 500)
"""How every route may refuse."""
BUSY = problems(429, 503, 504)
"""How those may that wait for the worker."""
FILES = problems(415)
"""How those may that take pictures."""
PNG: dict[int | str, dict[str, Any]] = {
    200: {"content": {"image/png": {"schema": {"type": "string", "format": "binary"}}}, "description": "A PNG."}
}
