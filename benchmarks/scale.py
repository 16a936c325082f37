"""What two processes, and two workers, are worth; and what a set of frames costs that no memory holds: docs/scale.md.

    python benchmarks/scale.py [--frames 1000000] [--rounds 5] [--steps 20] [--no-write]

Each process has one thread. Training: steps of the `seed` prior, by one process and by two with the same batch, in
alternation. Tokenizing: pieces of synthetic frames by the `seed` tokenizer, by one worker of Ray and by two, in
alternation. Then so many synthetic frames become shards in one process, whose memory is sampled. The last line is one
JSON object; the page is written from it.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch import Tensor, nn

from bisquit.atomic import atomic_file
from bisquit.generate import load
from bisquit.presets import get_preset
from bisquit.priors import Prior, build_prior
from bisquit.processes import own_part
from bisquit.shards import begin, in_this_process, tokenize_piece, tokenize_shards
from bisquit.tokenizer import Tokenizer
from bisquit.training.launch import joined

PAGE = Path(__file__).parents[1] / "docs" / "scale.md"
SIZE = (100, 150)
PIECE = 500
MIB = 2**20
BILLION = 10**9


class Loss(nn.Module):
    """A prior whose pass is its loss, as PyTorch's wrapper for several processes wants it."""

    def __init__(self, prior: Prior) -> None:
        super().__init__()
        self.prior = prior

    def forward(self, tokens: Tensor) -> Tensor:
        return self.prior.loss(tokens)


def main() -> None:
    """Measure, write the page, and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=1_000_000, help="how many to make shards of in bounded memory")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20, help="of training in a round")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--ray-frames", type=int, default=4000, help="that Ray's workers tokenize in a round")
    parser.add_argument("--no-write", action="store_true", help="leave docs/scale.md as it is")
    parser.add_argument("--as-process", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    if options.as_process:
        train_as_process(options.steps, options.batch_size)
        return
    found = {
        "command": "make bench-scale" + (f' ARGS="{" ".join(sys.argv[1:])}"' if sys.argv[1:] else ""),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}",
        "date": date.today().isoformat(),
        "training": compare_processes(options),
        "ray": compare_workers(options),
        "shards": bounded_memory(options.frames),
    }
    found["billion"] = billion(found)
    if not options.no_write:
        with atomic_file(PAGE) as partial:
            partial.write_text(page(found))
    print(json.dumps(found))


def train_as_process(steps: int, batch_size: int) -> None:
    """Train as one of the processes, and have the first say how many pictures a second all of them took."""
    torch.set_num_threads(1)
    with joined():
        part = own_part()
        torch.manual_seed(0)
        model: nn.Module = Loss(build_prior(get_preset("seed").prior.prior, 10, (20, 30)))
        if part.count > 1:
            model = nn.parallel.DistributedDataParallel(model)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        tokens = torch.randint(1024, (batch_size // part.count, 20, 30))
        seconds = []
        for _ in range(steps + 1):
            begin = time.perf_counter()
            model(tokens).backward()
            optimizer.step()
            optimizer.zero_grad()
            seconds.append(time.perf_counter() - begin)
        if part.index == 0:
            print(json.dumps(batch_size / statistics.median(seconds[1:])))  # the first makes what the others keep


def compare_processes(options: argparse.Namespace) -> dict[str, float]:
    """Return pictures a second of one process and of two, medians over rounds in alternation, and their ratio."""
    command = [sys.executable, __file__, "--as-process", "--steps", str(options.steps)]
    command += ["--batch-size", str(options.batch_size)]
    launcher = (
        "import sys; from bisquit.training.launch import launch, Processes; "
        "sys.exit(launch(sys.argv[2:], Processes(devices=int(sys.argv[1]))))"
    )
    rates: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(options.rounds):
        for count, found in rates.items():
            done = subprocess.run(
                [sys.executable, "-c", launcher, str(count), *command], check=True, stdout=subprocess.PIPE, text=True
            )
            found.append(float(done.stdout.splitlines()[-1]))
    one, two = (statistics.median(rates[count]) for count in (1, 2))
    return {"one_per_s": one, "two_per_s": two, "ratio": two / one}


def compare_workers(options: argparse.Namespace) -> dict[str, float] | None:
    """Return frames a second of one worker of Ray and of two, likewise; None where Ray is not installed."""
    try:
        import ray
    except ImportError:
        return None
    from bisquit.on_ray import OnRay

    tokenizer = seed_tokenizer()
    rates: dict[int, list[float]] = {1: [], 2: []}
    with tempfile.TemporaryDirectory() as folder:
        write_frames(Path(folder), options.ray_frames)
        ray.init(num_cpus=3, include_dashboard=False, log_to_driver=False, logging_level="error")
        for number in range(options.rounds):
            for count, found in rates.items():
                work = begin(tokenizer, f"{folder}/*.parquet", f"{folder}/{number}-{count}", SIZE, PIECE)
                ends: list[float] = []
                tokenize_shards(tokenizer, work, OnRay(count), lambda done, total, ends=ends: ends.append(time.time()))
                # From the first shard's end: before it, workers start.
                found.append(PIECE * (len(ends) - 1) / (ends[-1] - ends[0]))
        ray.shutdown()
    one, two = (statistics.median(rates[count]) for count in (1, 2))
    return {"one_per_s": one, "two_per_s": two, "ratio": two / one}


def bounded_memory(frames: int) -> dict[str, Any]:
    """Return how fast so many frames become shards in this process, and the most memory that it held meanwhile."""
    torch.set_num_threads(1)
    tokenizer = seed_tokenizer()
    with tempfile.TemporaryDirectory() as folder:
        at_most = min(frames, 20 * PIECE)
        write_frames(Path(folder), at_most)
        work = begin(tokenizer, f"{folder}/*.parquet", f"{folder}/out", SIZE, PIECE)
        tokenize_piece(tokenizer, work, work.pieces[0])
        seconds = done = 0.0
        stored = 0
        with sampled_memory() as sampled:
            while done < frames:  # the same files again and again: the disk need not hold them all
                begin_s = time.perf_counter()
                done += sum(in_this_process(tokenizer, work))
                seconds += time.perf_counter() - begin_s
                stored = sum(path.stat().st_size for path in Path(folder, "out").glob("*.parquet"))
        read = sum(path.stat().st_size for path in Path(folder).glob("*.parquet"))
    return {
        "frames": done,
        "frames_per_s": done / seconds,
        "first_mib": sampled[0] / MIB,
        "tenths_mib": [max(tenth) / MIB for tenth in np.array_split(sampled, 10)],
        "bytes_read_a_frame": read / at_most,
        "bytes_stored_a_frame": stored / at_most,
    }


def billion(found: dict[str, Any]) -> dict[str, float]:
    """Return what a billion frames cost at the measured rates, on paper."""
    shards, training = found["shards"], found["training"]
    return {
        "tokenizing_core_hours": BILLION / shards["frames_per_s"] / 3600,
        "frames_tb": BILLION * shards["bytes_read_a_frame"] / 1e12,
        "tokens_tb": BILLION * shards["bytes_stored_a_frame"] / 1e12,
        "epoch_core_hours": BILLION / training["one_per_s"] / 3600,
    }


@contextmanager
def sampled_memory(interval_s: float = 0.2) -> Iterator[list[int]]:
    """Yield the bytes that this process holds, sampled while the block runs; the first before it."""
    ended = threading.Event()
    sampled = [held_bytes()]

    def sample() -> None:
        while not ended.wait(interval_s):
            sampled.append(held_bytes())

    sampler = threading.Thread(target=sample)
    sampler.start()
    try:
        yield sampled
    finally:
        ended.set()
        sampler.join()
        sampled.append(held_bytes())


def held_bytes() -> int:
    """Return the resident memory of this process; Linux alone tells it so."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def seed_tokenizer() -> Tokenizer:
    """Return the tokenizer of the model `seed`."""
    return load("seed").tokenizer


def write_frames(folder: Path, count: int) -> None:
    """Write synthetic frames, smooth ones with some noise, to Parquet files of a few pieces each."""
    rng = np.random.default_rng(0)
    for number, first in enumerate(range(0, count, 4 * PIECE)):
        pictures = []
        for _ in range(first, min(count, first + 4 * PIECE)):
            small = Image.fromarray(rng.integers(0, 256, (10, 15, 3), dtype=np.uint8))
            file = io.BytesIO()
            small.resize(SIZE[::-1], Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
            pictures.append(file.getvalue())
        pq.write_table(pa.table({"image": pictures}), folder / f"{number:05d}.parquet", row_group_size=PIECE)


def page(found: dict[str, Any]) -> str:
    """Return the page of what was found."""
    training, ray, shards, costs = (found[name] for name in ("training", "ray", "shards", "billion"))
    rows = [("a training step of the `seed` prior, pictures a second", training)]
    rows += [("tokenizing by Ray's workers, frames a second", ray)] if ray else []
    lines = [f"| {name} | {of['one_per_s']:,.1f} | {of['two_per_s']:,.1f} | {of['ratio']:.2f} |" for name, of in rows]
    return f"""# Scale

Written by `{found["command"]}` on {found["date"]}; {found["machine"]}. Medians over rounds in alternation, each process
with one thread. How to train with several processes: [training with several processes](training-on-many.md).

## Two against one

| what | one | two | ratio |
| --- | --- | --- | --- |
{chr(10).join(lines)}

## A set that no memory holds

`bisquit shards` took {shards["frames"]:,.0f} synthetic frames of {SIZE[0]} x {SIZE[1]} pixels at
{shards["frames_per_s"]:,.0f} a second. The process held {shards["first_mib"]:,.0f} MiB before, and at most, in each
tenth of the time, {", ".join(f"{mib:,.0f}" for mib in shards["tenths_mib"])} MiB.

## A billion frames, on paper

At these rates, on cores such as these:

- tokenizing takes {costs["tokenizing_core_hours"]:,.0f} core hours, reads {costs["frames_tb"]:.1f} TB of frames and
  leaves {costs["tokens_tb"]:.2f} TB of tokens;
- an epoch of the `seed` prior over their tokens takes {costs["epoch_core_hours"]:,.0f} core hours.
"""


if __name__ == "__main__":
    main()
