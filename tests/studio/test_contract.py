"""The OpenAPI document and the answers agree, whatever is asked; and a real server does what the app does."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
import uvicorn
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from starlette.testclient import TestClient
from tests.studio.driver import API, MODEL, held_up, studio_of, until

from bisquit.generate import load, load_codec
from bisquit.studio import models
from bisquit.studio.app import Server, create_app
from bisquit.studio.studio import Studio, StudioConfig

EXAMPLES = 3
CHECKS = [
    schemathesis.checks.not_a_server_error,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
]
ROUTES = {
    ("GET", "/healthz"),
    ("GET", "/metrics"),
    ("POST", f"{API}/sample"),
    ("POST", f"{API}/sample/stream"),
    *(("POST", f"{API}/edit/{kind}") for kind in ("inpaint", "extend", "vary", "blend")),
    *(("POST", f"{API}/{path}") for path in ("encode", "decode", "tokens/bits", "likelihood")),
    *(("POST", f"{API}/{path}") for path in ("compress", "decompress")),
    ("GET", f"{API}/models"),
    ("GET", f"{API}/gallery"),
    ("GET", f"{API}/gallery/{{id}}"),
    ("DELETE", f"{API}/gallery/{{id}}"),
    ("GET", f"{API}/gallery/{{id}}/picture"),
    ("POST", f"{API}/gallery/{{id}}/again"),
    ("GET", f"{API}/runs"),
    ("GET", f"{API}/runs/curves"),
    ("GET", f"{API}/runs/picture"),
}


def test_every_route_is_described(client: TestClient):
    document = client.get("/openapi.json").json()
    found = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    assert found == ROUTES
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            assert operation["description"], (method, path)
            problem = operation["responses"]["422"]["content"]["application/json"]["schema"]
            assert list(problem["properties"]) == ["error"]


@pytest.fixture
def tiny_studio(model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, dict[str, Any]]:
    """An app, not started, of which every model is the tiny one, and its OpenAPI document."""
    monkeypatch.setattr(models, "shipped_models", lambda: ["best"])
    monkeypatch.setattr(models, "load", lambda source: load(model_folder))
    monkeypatch.setattr(models, "load_codec", lambda source, device: load_codec(model_folder))
    app = create_app(StudioConfig(tmp_path / "data"))
    return app, TestClient(app, base_url="http://localhost").get("/openapi.json").json()


def test_answers_are_as_the_document_says(tiny_studio: tuple[Any, dict[str, Any]]):
    app, document = tiny_studio
    schema = schemathesis.openapi.from_dict(document)
    schema.app = app
    asked = 0
    for found in schema.get_all_operations():
        operation = found.ok()

        @given(case=operation.as_strategy())
        @settings(
            max_examples=EXAMPLES,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        def ask(case: schemathesis.Case) -> None:
            nonlocal asked
            asked += 1
            case.call_and_validate(base_url="http://localhost", checks=CHECKS)

        ask()
    assert asked >= len(ROUTES)


@pytest.fixture
def served(make_config) -> Iterator[tuple[int, Studio]]:
    """A studio on a real port."""
    app = create_app(make_config())
    server = Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error"), studio_of(app))
    thread = threading.Thread(target=server.run)
    thread.start()
    until(lambda: server.started)
    yield server.servers[0].sockets[0].getsockname()[1], studio_of(app)
    server.should_exit = True
    thread.join(15)


def test_a_gigabyte_is_refused_unread(served: tuple[int, Studio]):
    connection = http.client.HTTPConnection("127.0.0.1", served[0], timeout=10)
    connection.putrequest("POST", f"{API}/encode")
    connection.putheader("Content-Length", str(2**30))
    connection.putheader("Content-Type", "multipart/form-data; boundary=x")
    connection.endheaders(b"--x\r\n")
    answer = connection.getresponse()
    assert answer.status == 413
    assert json.loads(answer.read()) == {"error": "the body has more than 16 MiB"}
    connection.close()


@pytest.mark.parametrize("path", ["sample", "sample/stream"])
def test_a_client_that_hangs_up_leaves_the_queue(served: tuple[int, Studio], path: str):
    port, studio = served
    body = json.dumps({"model": MODEL}).encode()
    head = f"POST {API}/{path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
    with held_up(studio):
        with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
            connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            until(lambda: studio.worker.waiting == 1)
        until(lambda: studio.worker.waiting == 0)


def test_what_waits_is_answered_when_the_studio_closes(make_config):
    app = create_app(make_config())
    studio = studio_of(app)
    server = Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error"), studio)
    thread = threading.Thread(target=server.run)
    thread.start()
    until(lambda: server.started)
    port = server.servers[0].sockets[0].getsockname()[1]
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    with held_up(studio):
        headers = {"Content-Type": "application/json"}
        connection.request("POST", f"{API}/sample", json.dumps({"model": MODEL}), headers)
        until(lambda: studio.worker.waiting == 1)
        server.should_exit = True
        answer = connection.getresponse()
        assert answer.status == 503
        assert json.loads(answer.read()) == {"error": "the studio is closing"}
    thread.join(15)
    assert not thread.is_alive()
    connection.close()
