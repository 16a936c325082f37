"""Hubs that are none: one to download from, by as much of HTTP as that takes, and one to upload to."""

from __future__ import annotations

import hashlib
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class FakeHub(ThreadingHTTPServer):
    """Serves the files of one repository, `me/castle`, at one commit; whoever asks for others gets 404."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        self.asked: list[str] = []


class _Handler(BaseHTTPRequestHandler):
    server: FakeHub

    def log_request(self, *given: Any) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        self.server.asked.append(self.path)
        if self.path.startswith("/api/models/me/castle"):
            files = [
                {"rfilename": name, "type": "file", "path": name, "size": len(data), "oid": "0" * 40}
                for name, data in self.server.files.items()
            ]
            is_tree = "/tree/" in self.path
            facts: Any = files if is_tree else {"id": "me/castle", "sha": COMMIT, "siblings": files}
            self._send(200, json.dumps(facts).encode(), "application/json")
            return
        name = self.path.rpartition("/")[2]
        if not self.path.startswith("/me/castle/resolve/") or name not in self.server.files:
            self._send(404, b"", "text/plain")
            return
        self._send(200, self.server.files[name], "application/octet-stream")

    def _send(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        if status == 404:
            self.send_header("X-Error-Code", "RepoNotFound")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


class FakeApi:
    """Takes what is uploaded."""

    taken: dict[str, Any]

    def create_repo(self, repository: str, **how: Any) -> str:
        FakeApi.taken = {"repository": repository, **how}
        return f"https://hub/{repository}"

    def create_branch(self, repository: str, **how: Any) -> None:
        FakeApi.taken |= {"branch_of": repository, **how}

    def upload_folder(self, *, folder_path: Path, **how: Any) -> None:
        FakeApi.taken |= {"files": {path.name for path in folder_path.iterdir()}, **how}
        FakeApi.taken["card"] = (folder_path / "README.md").read_text()
