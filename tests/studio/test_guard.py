"""The door: hosts, origins, bodies, headers and pages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient
from tests.studio.driver import API, HOST, MODEL, call

from bisquit.studio.app import create_app
from bisquit.studio.guard import Guard
from bisquit.studio.limits import Limits
from bisquit.studio.studio import Studio


@pytest.mark.parametrize("host", ["127.0.0.1:8765", "localhost:8765", "LOCALHOST", "[::1]:8765", "127.0.0.1"])
def test_this_machine_is_known_by_its_names(client: TestClient, host: str):
    assert client.get("/healthz", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8765", "127.0.0.1.evil.example", "localhost.", "a@localhost", "", "localhost:1:2"],
)
def test_other_hosts_are_refused_everywhere(client: TestClient, host: str):
    for path in ("/", "/healthz", "/metrics", "/openapi.json", f"{API}/models", f"{API}/gallery"):
        answer = client.get(path, headers={"host": host})
        assert answer.status_code == 403
        assert "host is not known" in answer.json()["error"]


def test_a_host_that_is_allowed_is_known():
    guard = Guard(None, ["Studio.local"], Limits())  # type: ignore[arg-type]
    assert "studio.local" in guard.hosts


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://127.0.0.1:9999", "http://localhost:8765", ""]
)
def test_foreign_origins_are_refused(client: TestClient, studio: Studio, origin: str):
    answer = client.post(f"{API}/sample", json={"model": MODEL}, headers={"origin": origin})
    assert answer.status_code == 403
    assert list(answer.json()) == ["error"]
    assert client.get(f"{API}/gallery", headers={"origin": origin}).status_code == 403


def test_its_own_origin_is_let_in(client: TestClient):
    answer = client.post(f"{API}/sample", json={"model": MODEL}, headers={"origin": f"http://{HOST}"})
    assert answer.status_code == 200
    assert "access-control-allow-origin" not in answer.headers


def test_pages_of_other_sites_may_link_here_but_not_ask(client: TestClient):
    foreign = {"sec-fetch-site": "cross-site"}
    assert client.get("/", headers=foreign).status_code != 403
    assert client.get(f"{API}/runs", headers=foreign).status_code == 403
    assert client.get(f"{API}/runs", headers={"sec-fetch-site": "same-origin"}).status_code == 200


@pytest.mark.parametrize("path", ["/", "/healthz", f"{API}/runs", "/no/such/page", f"{API}/gallery/x"])
def test_every_answer_keeps_to_itself(client: TestClient, path: str):
    for answer in (client.get(path), client.get(path, headers={"host": "evil.example"})):
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "json" in answer.headers["content-type"]


def test_a_bug_is_one_line_too(client: TestClient, studio: Studio, monkeypatch: pytest.MonkeyPatch):
    def fails(name: str) -> None:
        raise RuntimeError("a secret in a traceback")

    monkeypatch.setattr(studio.models, "get", fails)
    answer = client.get(f"{API}/models")
    assert answer.status_code == 500
    assert list(answer.json()) == ["error"]
    assert "secret" not in answer.text
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_a_body_that_says_it_is_too_large_is_not_read(make_config):
    read: list[int] = []

    async def body() -> AsyncIterator[bytes]:
        read.append(1)
        yield b" " * 1000

    headers = {"content-length": str(10**9)}
    sent = asyncio.run(call(create_app(make_config()), f"{API}/sample", body(), asyncio.Event(), headers))
    assert sent[0]["status"] == 413
    assert read == []


@pytest.mark.parametrize("path", ["sample", "encode", "decompress"])
def test_a_body_that_does_not_say_so_is_counted(make_config, path: str):
    read: list[int] = []

    async def body() -> AsyncIterator[bytes]:
        yield b'--x\r\nContent-Disposition: form-data; name="picture"; filename="a"\r\n\r\n'
        while True:
            read.append(2**16)
            yield b" " * 2**16

    headers = {"content-type": "application/json" if path == "sample" else "multipart/form-data; boundary=x"}
    sent = asyncio.run(call(create_app(make_config(body_mib=1)), f"{API}/{path}", body(), asyncio.Event(), headers))
    assert sent[0]["status"] == 413
    assert b'{"error": "the body has more than 1 MiB"}' in sent[1]["body"]
    assert sum(read) <= 2**20 + 2**16


def test_a_body_that_does_not_come_is_not_waited_for(make_config):
    async def body() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.sleep(30)

    sent = asyncio.run(call(create_app(make_config(upload_s=0.1)), f"{API}/sample", body(), asyncio.Event()))
    assert sent[0]["status"] == 408


def test_pages_are_served_and_nothing_beside_them(open_studio, tmp_path: Path):
    pages = tmp_path / "pages"
    pages.mkdir()
    (pages / "index.html").write_text("<title>studio</title>")
    (pages / "app.js").write_text("1")
    (tmp_path / "secret.txt").write_text("secret")
    client = open_studio(pages)
    answer = client.get("/")
    assert answer.text == "<title>studio</title>"
    assert answer.headers["content-type"].startswith("text/html")
    assert "script-src 'self'" in answer.headers["content-security-policy"]
    assert client.get("/app.js").text == "1"
    assert client.get("/healthz").json()["status"] == "ok"
    for path in (
        "/../secret.txt",
        "/%2e%2e/secret.txt",
        "/..%2fsecret.txt",
        "/..%5csecret.txt",
        "/%00",
    ):
        answer = client.get(path)
        assert answer.status_code in (400, 404), path
        assert list(answer.json()) == ["error"]


def test_there_is_no_page_that_loads_scripts_from_elsewhere(client: TestClient):
    assert client.get("/docs").status_code == 404
    assert client.get("/redoc").status_code == 404
    assert client.get("/openapi.json").json()["info"]["title"] == "bisquit studio"
