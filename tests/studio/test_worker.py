"""The worker: a bounded queue, groups that run together, and work that nobody waits for any more."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from starlette.testclient import TestClient
from tests.studio.driver import API, HOST, MODEL, call, held_up, pieces, studio_of, until

from bisquit.painting import Painter
from bisquit.studio.app import create_app
from bisquit.studio.worker import Job, QueueFull, Stopped, Worker, stop_if_cancelled


@pytest.fixture
def worker():
    """A worker of two jobs in wait, which is stopped at the end."""
    made = Worker(most_waiting=2, most_together=4, on_run=lambda *_: None)
    made.start()
    yield made
    made.stop()


def doubled(jobs: Sequence[Job]) -> list[int]:
    return [2 * job.order for job in jobs]


def test_work_is_done_and_its_errors_are_handed_over(worker: Worker):
    def fails(jobs: Sequence[Job]) -> list[int]:
        raise ZeroDivisionError("by nothing")

    failed = worker.submit(Job(fails, None))
    with pytest.raises(ZeroDivisionError, match="by nothing"):
        failed.future.result(5)
    assert worker.submit(Job(doubled, 21)).future.result(5) == 42  # it goes on after that


def test_a_full_queue_says_when_to_come_back(worker: Worker):
    gate = threading.Event()
    running = worker.submit(Job(lambda jobs: [gate.wait(10)], None))
    until(lambda: running.future.running())
    waiting = [worker.submit(Job(doubled, order)) for order in (1, 2)]
    with pytest.raises(QueueFull) as full:
        worker.submit(Job(doubled, 3))
    assert 1 <= full.value.retry_after_s <= 60
    assert [job.ahead for job in waiting] == [0, 1]
    worker.cancel(waiting[0])  # which makes room at once
    third = worker.submit(Job(doubled, 3))
    gate.set()
    assert (waiting[1].future.result(5), third.future.result(5)) == (4, 6)
    assert waiting[0].future.cancelled()


def test_what_runs_together_stops_once_nobody_waits_for_any(worker: Worker):
    began, stopped = threading.Event(), threading.Event()

    def run(jobs: Sequence[Job]) -> list[None]:
        assert len(jobs) == 2
        began.set()
        try:
            while True:
                stop_if_cancelled(jobs)
        except Stopped:
            stopped.set()
            raise

    gate = threading.Event()
    worker.submit(Job(lambda jobs: [gate.wait(10)], None))
    until(lambda: worker.waiting == 0)
    first, second = worker.submit(Job(run, 1, "group")), worker.submit(Job(run, 2, "group"))
    gate.set()
    assert began.wait(5)
    worker.cancel(first)
    assert not stopped.wait(0.1)
    worker.cancel(second)
    assert stopped.wait(5)


def test_stopping_gives_up_what_waits_and_what_runs():
    worker, began = Worker(4, 4, lambda *_: None), threading.Event()

    def run(jobs: Sequence[Job]) -> list[None]:
        began.set()
        while True:
            stop_if_cancelled(jobs)

    worker.start()
    jobs = [worker.submit(Job(run, None)), worker.submit(Job(doubled, 1))]
    assert began.wait(5)
    worker.stop()
    for job in jobs:
        with pytest.raises(Stopped):
            job.future.result(5)
    with pytest.raises(QueueFull):
        worker.submit(Job(doubled, 1))


@pytest.mark.parametrize("path", ["sample", "sample/stream"])
def test_too_many_requests_are_told_when_to_come_back(open_studio, path: str):
    client = open_studio(waiting=1)
    studio = studio_of(client.app)
    with held_up(studio):
        waiting = studio.submit(Job(doubled, 1))
        answer = client.post(f"{API}/{path}", json={"model": MODEL})
        assert answer.status_code == 429
        assert 1 <= int(answer.headers["retry-after"]) <= 60
        assert "the queue is full" in answer.json()["error"]
        assert client.get("/healthz").json()["waiting"] == 1  # those that need no model are answered
        assert client.get(f"{API}/gallery").status_code == 200
    assert waiting.future.result(5) == 2
    assert client.post(f"{API}/{path}", json={"model": MODEL}).status_code == 200


def test_a_request_that_takes_too_long_is_given_up(open_studio):
    client = open_studio(timeout_s=0.2)
    studio = studio_of(client.app)
    with held_up(studio):
        answer = client.post(f"{API}/sample", json={"model": MODEL})
        assert answer.status_code == 504
        assert "more than 0.2 s" in answer.json()["error"]
        with client.stream("POST", f"{API}/sample/stream", json={"model": MODEL}) as stream:
            text = "".join(stream.iter_lines())
        assert "event: error" in text
        assert "more than 0.2 s" in text
        assert studio.worker.waiting == 0


@pytest.mark.parametrize("path", ["sample", "sample/stream"])
def test_a_client_that_goes_leaves_the_queue(make_config, path: str):
    app = create_app(make_config())
    studio = studio_of(app)
    studio.worker.start()

    async def leave() -> list[Any]:
        gone = asyncio.Event()
        body = pieces(json.dumps({"model": MODEL}).encode())
        task = asyncio.create_task(call(app, f"{API}/{path}", body, gone))
        while studio.worker.waiting == 0:
            await asyncio.sleep(0.005)
        gone.set()
        return await asyncio.wait_for(task, 10)

    with held_up(studio):
        asyncio.run(leave())
        assert studio.worker.waiting == 0  # while the worker is still busy
    studio.worker.stop()


@pytest.mark.parametrize("path", ["sample", "sample/stream"])
def test_painting_stops_when_its_client_goes(make_config, monkeypatch: pytest.MonkeyPatch, path: str):
    app = create_app(make_config())
    studio = studio_of(app)
    studio.worker.start()
    began, stopped = threading.Event(), threading.Event()

    def paint(self: Painter, numbers: Sequence[int], *, on_tokens: Any, **how: Any) -> None:
        tokens = torch.full((len(numbers), *self.prior.grid), -1)
        try:
            while True:
                on_tokens(1, tokens)
                began.set()
        except Stopped:
            stopped.set()
            raise

    monkeypatch.setattr(Painter, "paint", paint)

    async def leave() -> None:
        gone = asyncio.Event()
        body = pieces(json.dumps({"model": MODEL, "every": 40}).encode() if "stream" in path else b'{"model": "tiny"}')
        task = asyncio.create_task(call(app, f"{API}/{path}", body, gone))
        await asyncio.to_thread(began.wait, 10)
        assert not stopped.is_set()
        gone.set()
        await asyncio.wait_for(task, 10)

    asyncio.run(leave())
    assert stopped.wait(10)
    studio.worker.stop()


def test_what_is_counted_is_told(client: TestClient):
    for _ in range(2):
        client.post(f"{API}/sample", json={"model": MODEL, "n": 2})
    client.get("/no/such/page", headers={"host": HOST})
    client.request("BREW", "/healthz")
    text = client.get("/metrics").text
    assert "bisquit_runs_total 2.0" in text
    assert "bisquit_pictures_total 4.0" in text
    assert 'method="POST",route="/sample",status="200"} 2.0' in text
    assert 'route="other",status="404"} 1.0' in text
    assert 'method="other"' in text
    assert "BREW" not in text
    assert "bisquit_waiting 0.0" in text
