"""`bisquit studio`: what it is started with, and what it says where it cannot be."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from starlette.testclient import TestClient
from tests.cli.driver import Run, Trained

PORT = 8765


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, dict[str, Any]]]:
    """The apps that would have been served, and how."""
    found: list[tuple[Any, dict[str, Any]]] = []

    def run(self: uvicorn.Server) -> None:
        found.append((self.config.app, {"host": self.config.host, "port": self.config.port}))

    monkeypatch.setattr(uvicorn.Server, "run", run)
    return found


def test_the_studio_is_served_here_with_what_it_was_given(
    run: Run, trained: Trained, tmp_path: Path, served: list[tuple[Any, dict[str, Any]]]
):
    done = run("studio", "--data", tmp_path / "data", "--model", trained.model, "--runs", trained.model.parent)
    assert done.status == 0, done.err
    assert f"http://127.0.0.1:{PORT}" in done.out
    ((app, how),) = served
    assert (how["host"], how["port"]) == ("127.0.0.1", PORT)
    with TestClient(app, base_url=f"http://127.0.0.1:{PORT}") as client:
        answer = client.post("/api/v1/sample", json={"model": "model", "keep": True})
        assert answer.status_code == 200
        assert {run["name"] for run in client.get("/api/v1/runs").json()["runs"]} == {"model", "tokenizer"}
    assert (tmp_path / "data" / "pictures" / f"{answer.headers['bisquit-id']}.png").is_file()


def test_limits_and_hosts_are_flags(run: Run, tmp_path: Path, served: list[tuple[Any, dict[str, Any]]]):
    flags = ("--body-mib", "1", "--allow-host", "studio.local", "--host", "0.0.0.0", "--port", "80")
    assert run("studio", "--data", tmp_path, *flags).status == 0
    ((app, how),) = served
    assert (how["host"], how["port"]) == ("0.0.0.0", 80)
    with TestClient(app, base_url="http://studio.local") as client:
        assert client.get("/healthz").status_code == 200
        answer = client.post("/api/v1/encode", content=bytes(2**20 + 1))
        assert (answer.status_code, answer.json()) == (413, {"error": "the body has more than 1 MiB"})


def test_the_gallery_has_a_place_by_default(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, served: list[Any]
):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert run("studio").status == 0
    assert (tmp_path / "bisquit" / "studio" / "gallery.sqlite").is_file()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--runs", "no/such/folder"), "is no folder"),
        (("--model", "best"), "ships with bisquit"),
        (("--model", "a/one", "--model", "b/one"), "the same name"),
        (("--waiting", "0"), "waiting is 0"),
        (("--port", "0"), "--port"),
    ],
    ids=str,
)
def test_what_cannot_be_is_said_in_one_line(
    run: Run, tmp_path: Path, served: list[Any], flags: tuple[str, ...], said: str
):
    done = run("studio", "--data", tmp_path, *flags)
    assert done.status == 2
    assert said in done.err
    assert done.err.count("\n") == 1
    assert not served


@pytest.mark.parametrize("package", ["fastapi", "uvicorn", "prometheus_client"])
def test_without_the_extra_one_line_says_what_to_install(run: Run, monkeypatch: pytest.MonkeyPatch, package: str):
    for name in [name for name in sys.modules if name.startswith("bisquit.studio.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    done = run("studio")
    assert done.status == 2
    assert f"the studio needs {package}, which is not installed: pip install 'bisquit[studio]'" in done.err
    assert done.err.count("\n") == 1
