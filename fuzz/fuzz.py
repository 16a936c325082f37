"""Bytes from outside against all that reads them: each is read right, or is one clear error.

    python fuzz/fuzz.py [--seconds 60] [--only codec models ...] [--runs 1000000]
    python fuzz/fuzz.py --random 50000 [--seed 1]

The first is libFuzzer through atheris, guided by coverage, one target after another, with the inputs that it keeps in
fuzz/corpus/TARGET; the second mutates at random, without atheris, and so goes under sanitizers too. Models are tiny and
files lie in memory, so that millions of inputs are an hour's work. What an input means stands at the head of each
target's module. An input that does harm is written to build/fuzz, and its file is named. The last line is one JSON
object; it exits with an error if an input did harm.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import re
import resource
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import fuzz_codec
import fuzz_frames
import fuzz_models
import fuzz_studio
import fuzz_texts
import numpy as np
import torch
from target import Target, changed, leave_nothing

from bisquit.atomic import atomic_file

ROOT = Path(__file__).resolve().parent.parent
CORPUS = ROOT / "fuzz" / "corpus"
CRASHES = ROOT / "build" / "fuzz"
RECORD = ROOT / "docs" / "fuzzing.json"
PAGE = ROOT / "docs" / "fuzzing.md"
SLOWEST_S = 10
COMMANDS = {
    "guided": "python fuzz/fuzz.py --seconds SECONDS --only TARGET ... --record",
    "at random": "python fuzz/fuzz.py --random COUNT --only TARGET ... --seed SEED --record",
}
"""What a run of each way is begun with."""
TARGETS: dict[str, Target] = {
    "codec": fuzz_codec.TARGET,
    "models": fuzz_models.MODELS,
    "tokens": fuzz_models.TOKENS,
    "tables": fuzz_frames.TABLES,
    "pictures": fuzz_frames.PICTURES,
    "uploads": fuzz_frames.UPLOADS,
    "cache": fuzz_frames.CACHE,
    "captions": fuzz_texts.CAPTIONS,
    "runs": fuzz_texts.RUNS,
    "journals": fuzz_texts.JOURNALS,
    "studio": fuzz_studio.STUDIO,
}


def main() -> None:
    """Fuzz, and say how it went."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=TARGETS, default=[*TARGETS], help="targets, in place of all")
    parser.add_argument("--seconds", type=int, default=60, help="how long, over all targets")
    parser.add_argument("--runs", type=int, default=-1, help="inputs a target; without, as many as there is time for")
    parser.add_argument("--random", type=int, help="so many random inputs a target, without atheris")
    parser.add_argument("--seed", type=int, default=0, help="of random inputs")
    parser.add_argument("--record", action="store_true", help="add what was tried to docs/fuzzing.json and its page")
    options = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, dict[str, float]] = {}
    crashes = 0
    for name in options.only:
        begin = time.monotonic()
        if options.random is None:
            seconds = max(1, options.seconds // len(options.only))
            executions, has_crashed = fuzz_guided(name, seconds, options.runs)
        else:
            executions, has_crashed = fuzz_at_random(name, options.random, options.seed), False
        crashes += has_crashed
        found[name] = {"executions": executions, "seconds": round(time.monotonic() - begin)}
        if options.record:
            way = "guided by coverage" if options.random is None else f"at random, seed {options.seed}"
            add_to_record({"target": name, "way": way, **found[name], "crashes": int(has_crashed)})
        print(f"{name}: {executions:,} executions{', a crash' if has_crashed else ''}", flush=True)
    total = sum(int(one["executions"]) for one in found.values())
    print(json.dumps({"targets": found, "executions": total, "crashes": crashes}))
    sys.exit(crashes > 0)


def peak_mb() -> float:
    """Return the most memory that this process had, in 10**6 bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def watched(target: Target, name: str) -> Callable[[bytes], None]:
    """Return a target's check, which then also fails where memory grows beyond the target's bound.

    An input that does harm is written to CRASHES, for libFuzzer itself writes only those that kill the process.
    """
    for data in target.seeds():
        target.check(data)  # what is made once is made before the count begins
    before = peak_mb()

    def one(data: bytes) -> None:
        try:
            target.check(data)
            assert peak_mb() - before < target.most_growth_mb, "memory grew beyond bounds"
        except Exception:
            CRASHES.mkdir(parents=True, exist_ok=True)
            path = CRASHES / f"{name}-crash-{hashlib.sha256(data).hexdigest()[:16]}"
            path.write_bytes(data)
            print(f"{path} does harm", file=sys.stderr, flush=True)
            raise

    return one


def fuzz_at_random(name: str, count: int, seed: int = 0) -> int:
    """Check the seeds, and random changes to them; return how many inputs that were."""
    target = TARGETS[name]
    rng, inputs = np.random.default_rng(seed), list(target.seeds())
    one = watched(target, name)
    try:
        for number in range(count):
            data = inputs[rng.integers(len(inputs))]
            is_noise = number % 7 == 0
            rest = rng.bytes(rng.integers(300)) if is_noise else changed(data[1:], rng.bytes(3 * rng.integers(1, 5)))
            one(data[:1] + rest)
    finally:
        leave_nothing()
    return count + len(inputs)


def fuzz_guided(name: str, seconds: int, runs: int) -> tuple[int, bool]:
    """Run libFuzzer in a process of its own; return how many inputs it tried, and whether one did harm.

    That process ends as libFuzzer has it.
    """
    sys.stdout.flush()
    with tempfile.TemporaryFile() as said:
        child = os.fork()
        if child == 0:
            os.dup2(said.fileno(), 2)
            try:
                be_libfuzzer(name, seconds, runs)
            except Exception:
                traceback.print_exc()
                os._exit(1)
        _, status = os.waitpid(child, 0)
        said.seek(0)
        text = said.read().decode(errors="replace")
    if status:
        print(text[-8000:], file=sys.stderr)
    executed = re.findall(r"number_of_executed_units:\s+(\d+)", text) or re.findall(r"^#(\d+)", text, re.MULTILINE)
    return int(executed[-1]) if executed else 0, status != 0


def be_libfuzzer(name: str, seconds: int, runs: int) -> None:
    """Be the process that libFuzzer runs in; it exits by itself."""
    import atheris

    target, corpus = TARGETS[name], CORPUS / name
    one = watched(target, name)
    for function in target.functions():
        atheris.instrument_func(function)
    for folder in (corpus, CRASHES):
        folder.mkdir(parents=True, exist_ok=True)
    for data in target.seeds():
        (corpus / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)
    flags = [f"-runs={runs}", f"-max_total_time={seconds}", f"-max_len={target.longest}", f"-timeout={SLOWEST_S}"]
    flags += ["-print_final_stats=1", "-rss_limit_mb=4096", f"-artifact_prefix={CRASHES}/{name}-"]
    atheris.Setup([sys.argv[0], *flags, str(corpus)], one)
    atheris.Fuzz()


def add_to_record(run: dict[str, Any]) -> None:
    """Add what was tried of a target to the record, and write the page of all that is there."""
    made = {"date": date.today().isoformat(), "machine": f"{os.cpu_count()} cores, {platform.machine()}"}
    runs = [*(json.loads(RECORD.read_text()) if RECORD.exists() else []), {**run, **made}]
    for path, text in ((RECORD, json.dumps(runs, indent=1) + "\n"), (PAGE, page(runs))):
        with atomic_file(path) as partial:
            partial.write_text(text)


def page(runs: Sequence[dict[str, Any]]) -> str:
    """Return what was tried as a page, in Markdown."""

    def total(figure: str, target: str | None = None, way: str = "") -> int:
        chosen = (run for run in runs if target in (None, run["target"]) and run["way"].startswith(way))
        return sum(int(run[figure]) for run in chosen)

    def row(title: str, target: str | None) -> str:
        counts = [total("executions", target, way) for way in (*COMMANDS, "")]
        numbers = [*counts, total("crashes", target)]
        return f"| {title} | {' | '.join(f'{number:,}' for number in numbers)} |"

    rows = [row(f"`{name}`", name) for name in TARGETS] + [row("all", None)]
    commands = "\n".join(f"    {command}" for way, command in COMMANDS.items() if total("executions", way=way))
    days = sorted({run["date"] for run in runs})
    machines = ", ".join(sorted({run["machine"] for run in runs}))
    return f"""# Fuzzing

Bytes from outside, damaged and crafted, against all that reads any. What must hold of each input stands at the head of
its target's module, in `fuzz/`; what keeps harm away, and which test sees to it, in the table of `SECURITY.md`.

Counted from {days[0]} to {days[-1]}, on {machines}, by runs of

{commands}

Each run is in `docs/fuzzing.json`, with its target, its seconds and its day. An input at random is a change to a sound
one, or noise.

| target | guided by coverage | at random | in all | did harm |
| --- | --- | --- | --- | --- |
{chr(10).join(rows)}

## What was found, and is mended

Before this count began:

- A model's description of a few bytes asked for terabytes: its shape is compared with the weights that are there.
- Grids, pixels and bits of no fit size, and a pyramid of too many places, in such descriptions.
- JSON and TOML nested without end, which ended in a stack too deep.
- Bytes that a terminal would obey, quoted in an error: errors show what is printable.
- Records of runs and journals of painted sets that said nonsense.
- Lengths in an Arrow or Parquet file that lead out of it: memory beside the file would have been read.
- A column whose name is no text.
- An entry of the cache of frames whose parts do not agree.
- Sums of 32-bit lanes in the engine that overflow, which C++ leaves undefined, under weights of no sense; found by the
  sanitizers.

Their inputs are among those of `fuzz/corpus`, which the tests replay, or in tests of their own.
"""


if __name__ == "__main__":
    main()
