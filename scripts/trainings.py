"""What studies of many trainings share: `bisquit` commands that go on where they stopped, and a folder for each run.

plan ──work_through──> runs/<study>/<run>/seed-<k>/     run            bisquit's own folder
                                                        seconds.json   of all its commands together
                                                        figures.json   what was measured: it is done
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import date
from importlib.metadata import version
from pathlib import Path
from statistics import fmean
from typing import Any, Protocol, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from bisquit.atomic import atomic_file
from bisquit.errors import BisquitError
from bisquit.frames.listing import PARQUET_SUFFIX, list_files
from bisquit.record import RECORD_FILE, RunRecord
from bisquit.tokens import TokenSet

ROOT = Path(__file__).resolve().parent.parent
FIGURES_FILE = "figures.json"

Figures = Mapping[tuple[str, int], Mapping[str, Any]]
"""What was measured of a run, by its name and seed."""


class Named(Protocol):
    """A run, whose name is that of its folder."""

    @property
    def name(self) -> str:
        """The name."""


Run = TypeVar("Run", bound=Named)


def study_parser(description: str | None, name: str) -> argparse.ArgumentParser:
    """Return a parser with the flags that studies of this name share: frames, and where runs and the page are kept."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", required=True, help="frames to train on")
    parser.add_argument("--valid-frames", required=True, help="frames of other races to measure on")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / name, help="where the runs are kept")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs", help="where the page and its images go")
    return parser


def require_counts(parser: argparse.ArgumentParser, options: argparse.Namespace, *names: str) -> None:
    """Exit as a parser does unless each of these options is at least 1, or not given."""
    for name in names:
        value = getattr(options, name)
        if value is not None and value < 1:
            parser.error(f"--{name.replace('_', '-')} is {value}: it must be at least 1")


class CommandFailedError(Exception):
    """A `bisquit` command that ended with an error; what it said is on the screen."""


def bisquit(*arguments: str | Path) -> None:
    """Run one command, printed as a person would type it.

    Raises CommandFailedError if it fails, and exits as it did if it was stopped. A stop is the command's to heed: it
    saves its state, for which this waits.
    """
    words = [str(argument) for argument in arguments]
    print("$ bisquit", shlex.join(words), flush=True)
    with subprocess.Popen([sys.executable, "-m", "bisquit", *words]) as process:
        handlers = {
            signal.SIGINT: signal.signal(signal.SIGINT, lambda *_: None),  # the terminal sends it to both
            signal.SIGTERM: signal.signal(signal.SIGTERM, lambda *_: process.terminate()),
        }
        try:
            status = process.wait()
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
    if status < 0 or status >= 128:
        sys.exit(status if status > 0 else 128 - status)
    if status:
        raise CommandFailedError(shlex.join(words))


def train(stage: str, folder: Path, *flags: str | Path) -> float:
    """Train the run in `folder / "run"` to its end, or go on with it; return the seconds of all its commands."""
    clock = folder / "seconds.json"
    seconds = json.loads(clock.read_text()) if clock.exists() else 0.0
    if (folder / "run" / RECORD_FILE).exists() and RunRecord.load(folder / "run").finished:
        return seconds
    begin = time.monotonic()
    try:
        bisquit("train", stage, *flags, "--out", folder / "run", "--resume")
    finally:
        seconds += time.monotonic() - begin
        save_json(seconds, clock)
    return seconds


def work_through(
    runs: Sequence[Run],
    seeds: int,
    hours: float,
    *,
    is_done: Callable[[Run, int], bool],
    finish: Callable[[Run, int], None],
    write: Callable[[Run], None],
) -> list[str]:
    """Finish run after run of seed after seed, and write after each; return the names of those that failed.

    None is begun after so many hours.
    """
    deadline = time.monotonic() + 3600 * hours
    failed = []
    for seed, run in ((seed, run) for seed in range(seeds) for run in runs):
        if is_done(run, seed):
            continue
        if time.monotonic() > deadline:
            print(f"{hours:g} hours are over: the same command goes on")
            break
        try:
            finish(run, seed)
        except (CommandFailedError, BisquitError) as error:
            print(f"failed: {error}", file=sys.stderr)
            failed.append(f"{run.name}, seed {seed}")
            continue
        write(run)
    if failed:
        print(f"failed, and tried again by the same command: {'; '.join(failed)}", file=sys.stderr)
    return failed


def hold_to(wanted: Mapping[str, Any], runs: Path) -> None:
    """Note what all runs share in their folder, and exit with 1 if the runs there share something else."""
    path = runs / "budget.json"
    if path.exists() and (found := json.loads(path.read_text())) != wanted:
        sys.exit(f"{runs} holds runs of another budget, {found}, not {wanted}: pass the same or another --runs")
    save_json(wanted, path)


def save_json(content: Any, path: Path) -> None:
    """Write plain data, whole or not at all."""
    with atomic_file(path) as partial:
        partial.write_text(json.dumps(content, indent=2) + "\n")


def gather(runs: Path) -> Figures:
    """Return the figures of all runs in a folder that are finished."""
    found = {}
    for path in sorted(runs.glob(f"*/seed-*/{FIGURES_FILE}")):
        seed = int(path.parent.name.removeprefix("seed-"))
        found[path.parent.parent.name, seed] = json.loads(path.read_text())
    return found


def keep_record(record: Path, budget: Mapping[str, Any], runs: Path) -> None:
    """Write the figures of all runs in a folder that are finished to one file, from which another checkout goes on."""
    found: dict[str, dict[str, Any]] = {}
    for (name, seed), figures in gather(runs).items():
        found.setdefault(name, {})[str(seed)] = figures
    save_json({"budget": budget, "runs": found}, record)


def recall(record: Path, budget: Mapping[str, Any], runs: Path) -> None:
    """Take what a record knows of runs whose folders are not there. Exits with 1 if it is of another budget."""
    if not record.exists():
        return
    kept = json.loads(record.read_text())
    if kept["budget"] != budget:
        sys.exit(f"{record} is of another budget, {kept['budget']}: pass the same, or other --runs and --docs")
    for name, seeds in kept["runs"].items():
        for seed, figures in seeds.items():
            path = runs / name / f"seed-{seed}" / FIGURES_FILE
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                save_json(figures, path)


def nested_rows(frames: int, count: int) -> np.ndarray:
    """Return which `count` of all frames a share is: spread at random, the smaller share first in the larger."""
    return np.random.default_rng(0).permutation(frames)[:count]


def taken(tokens: TokenSet, rows: np.ndarray) -> TokenSet:
    """Return some of the pictures of a set, in this order, as often as they are named."""
    groups = None if tokens.groups is None else tokens.groups[rows]
    return replace(tokens, tokens=tokens.tokens[rows], labels=tokens.labels[rows], groups=groups)


def parquet_files(source: str) -> tuple[Path, ...]:
    """Return the files of a source if they are Parquet files, else none."""
    return tuple(path for path in list_files(source).tables if path.suffix == PARQUET_SUFFIX)


def write_frames(source: str, rows: np.ndarray, path: Path) -> None:
    """Write some rows of Parquet files, counted through all of them, to one file. Pictures keep their bytes."""
    parts, first = [], 0
    for file in parquet_files(source):
        table = pq.read_table(file)
        inside = np.sort(rows[(rows >= first) & (rows < first + table.num_rows)])
        parts.append(table.take(inside - first))
        first += table.num_rows
    with atomic_file(path) as partial:
        pq.write_table(pa.concat_tables(parts), partial, row_group_size=100, compression="zstd")


def spread(numbers: Sequence[float], form: str) -> str:
    """Return the mean of the seeds, and from which to which they go if there are several that differ as written."""
    lowest, highest = form.format(min(numbers)), form.format(max(numbers))
    mean = form.format(fmean(numbers))
    return mean if lowest == highest else f"{mean} ({lowest} to {highest})"


def filled(text: str) -> str:
    """Return a paragraph in lines of a page's width."""
    return textwrap.fill(text, width=120, break_long_words=False, break_on_hyphens=False)


def machine() -> dict[str, Any]:
    """Return, as plain data, on what figures were made."""
    return {
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "torch": version("torch"),
        "date": date.today().isoformat(),
    }


def made_on() -> str:
    """Return when and on what a page was made, as it is said there."""
    today = f"{date.today():%d %B %Y}"
    return f"Made on {today}, on {os.cpu_count()} cores ({platform.machine()}), PyTorch {version('torch')}, by"
