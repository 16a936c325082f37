"""How soon the studio answers, and how it bears many clients: a real one, over HTTP, on this machine.

    python benchmarks/studio.py [--model low] [--clients 200] [--seconds 60]

First one picture is watched again and again: the seconds from asking until its first part came, and until it was done.
Then pictures a second, one client that asks for one picture after another, so that nothing is ever batched. Then many
clients at once, each asking for a picture, waiting as long as it is told to when the queue is full, and asking again;
the studio's memory is noted meanwhile. It exits with an error if any request got another answer than a picture or 429,
or none. Clients and studio share the cores. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
from measure import MB, Timing, finish, machine

START_S = 120
LONGEST_S = 150
"""Within which an answer must come: beyond the time that the studio gives itself."""
PARTS_EVERY = 1
"""Tokens after which a part may be shown; they come row by row."""
WAIT_S = 1.0
"""How long a client waits at most after a 429, whatever it is told, so that the queue is always full."""


@dataclass
class Answers:
    """What clients got."""

    statuses: Counter[int] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    """What went wrong where no answer came."""
    seconds: list[float] = field(default_factory=list)
    """How long each picture took, from asking to its last byte."""


def main() -> None:
    """Measure all of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="low")
    parser.add_argument("--precision", default="int8", choices=["float32", "int8"])
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--rounds", type=int, default=20, help="pictures that are watched")
    options = parser.parse_args()
    asked = {"model": options.model, "precision": options.precision, "temperature": 1.0}
    with studio() as (address, process):
        result = asyncio.run(measure(address, process, asked, options))
    print(
        f"first part after {result['first_part_s']['median_s']:.2f} s, picture after"
        f" {result['picture_s']['median_s']:.2f} s; {result['alone_per_s']:.1f} pictures a second one by one,"
        f" {result['together_per_s']:.1f} for {options.clients} clients"
    )
    finish({**asked, "clients": options.clients, **result, "machine": machine("fastapi", "uvicorn")})
    sys.exit(bool(result["lost"] or set(result["statuses"]) - {"200", "429"}))


async def measure(
    address: str, process: subprocess.Popen[bytes], asked: dict[str, Any], options: argparse.Namespace
) -> dict[str, Any]:
    """Return every figure."""
    limits = httpx2.Limits(max_connections=options.clients)
    async with httpx2.AsyncClient(base_url=f"{address}/api/v1", timeout=LONGEST_S, limits=limits) as client:
        await ready(client, process)
        watched = [await watch(client, {**asked, "seed": seed, "every": PARTS_EVERY}) for seed in range(options.rounds)]
        first, done = zip(*watched[1:], strict=True)  # the first one loads the model
        alone = await crowd(client, asked, 1, min(options.seconds, 20))
        memory: list[float] = []
        noting = asyncio.create_task(note_memory(process.pid, memory))
        begin = time.perf_counter()
        together = await crowd(client, asked, options.clients, options.seconds)
        seconds = time.perf_counter() - begin
        noting.cancel()
    alone_per_s = len(alone.seconds) / sum(alone.seconds)
    together_per_s = len(together.seconds) / seconds
    return {
        "first_part_s": Timing.of(first).summary(),
        "picture_s": Timing.of(done).summary(),
        "alone_per_s": alone_per_s,
        "together_per_s": together_per_s,
        "times": together_per_s / alone_per_s,
        "statuses": {str(status): count for status, count in (alone.statuses + together.statuses).items()},
        "lost": alone.lost + together.lost,
        "waited_s": Timing.of(together.seconds).summary(),
        "memory_mb": {"after a tenth": memory[len(memory) // 10], "at the end": memory[-1], "most": max(memory)},
    }


async def watch(client: httpx2.AsyncClient, asked: dict[str, Any]) -> tuple[float, float]:
    """Return after how many seconds the first part of a picture came, and the picture."""
    begin, first = time.perf_counter(), 0.0
    async with client.stream("POST", "/sample/stream", json=asked) as answer:
        answer.raise_for_status()
        async for line in answer.aiter_lines():
            if line == "event: partial" and not first:
                first = time.perf_counter() - begin
            if line == "event: error":
                raise SystemExit(f"the studio could not paint: {await anext(answer.aiter_lines())}")
    return first, time.perf_counter() - begin


async def crowd(client: httpx2.AsyncClient, asked: dict[str, Any], clients: int, seconds: float) -> Answers:
    """Have clients ask again and again; each ends with the answer to what it asked last before the time was up."""
    answers, end = Answers(), time.perf_counter() + seconds

    async def one(number: int) -> None:
        seed = number
        while time.perf_counter() < end:
            begin = time.perf_counter()
            try:
                answer = await client.post("/sample", json={**asked, "seed": seed})
            except httpx2.HTTPError as error:
                answers.lost.append(f"{type(error).__name__}: {error}")
                continue
            answers.statuses[answer.status_code] += 1
            if answer.status_code == 429:
                await asyncio.sleep(min(float(answer.headers["Retry-After"]), WAIT_S))
            elif answer.status_code == 200:
                answers.seconds.append(time.perf_counter() - begin)
                seed += clients

    await asyncio.gather(*map(one, range(clients)))
    return answers


async def note_memory(process: int, memory: list[float]) -> None:
    """Note a process' resident memory, in 10**6 bytes, ten times a second, until this is cancelled. Linux only."""
    while True:
        status = Path(f"/proc/{process}/status").read_text().splitlines()
        memory.append(int(next(line for line in status if line.startswith("VmRSS:")).split()[1]) * 1024 / MB)
        await asyncio.sleep(0.1)


async def ready(client: httpx2.AsyncClient, process: subprocess.Popen[bytes]) -> None:
    """Wait until the studio answers."""
    end = time.monotonic() + START_S
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(httpx2.TransportError):
            if (await client.get("/models")).is_success:
                return
        await asyncio.sleep(0.2)
    raise SystemExit("the studio does not answer")


@contextlib.contextmanager
def studio() -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Run a studio; yield its address and its process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "bisquit", "studio", "--port", str(port), "--data", folder]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            yield f"http://127.0.0.1:{port}", process
        finally:
            process.terminate()
            process.wait(30)


if __name__ == "__main__":
    main()
