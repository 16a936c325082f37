"""What the benchmarks share: times in alternation, peak memory in a fresh process, the machine, the last line, a plot.

    times = alternate({"ours": paint, "theirs": generate}, rounds=5)  # each warmed up once, then in turn
    memory = peak_memory_mb(functools.partial(paint_once, "ours"))  # a function that a fresh process can import
    finish({"machine": machine(), "ours": times["ours"].summary(), "ours_peak_mb": memory})

Scripts import it as `measure`, for Python puts a script's own folder first in its path.
"""

from __future__ import annotations

import datetime
import gc
import json
import multiprocessing
import os
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

MB = 1e6


@dataclass(frozen=True)
class Timing:
    """How long something took, over some rounds."""

    median_s: float
    lowest_s: float
    highest_s: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Timing:
        """Return the timing of rounds that took these seconds."""
        return cls(statistics.median(seconds), min(seconds), max(seconds))

    def scaled(self, factor: float) -> Timing:
        """Return the timing of a share of the work, or of a multiple: `factor` times as much."""
        return Timing(self.median_s * factor, self.lowest_s * factor, self.highest_s * factor)

    def summary(self) -> dict[str, float]:
        """Return it as an object of a JSON line."""
        return {"median_s": self.median_s, "lowest_s": self.lowest_s, "highest_s": self.highest_s}


def alternate(sides: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, Timing]:
    """Time every side `rounds` times: once each to warm up, then in turn, every other round from last to first.

    So what changes on the machine meanwhile changes for all sides alike, and none is always behind the same other.
    """
    for run in sides.values():
        run()
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(rounds):
        for name in list(sides)[:: -1 if turn % 2 else 1]:
            gc.collect()
            begin = time.perf_counter()
            sides[name]()
            seconds[name].append(time.perf_counter() - begin)
    return {name: Timing.of(taken) for name, taken in seconds.items()}


@dataclass(frozen=True)
class Ran:
    """What a function did in a fresh process."""

    returned: Any
    """What it returned."""
    peak_mb: float
    """The most memory that the process had resident at once, in 10**6 bytes."""


def run_in_fresh_process(function: Callable[[], object]) -> Ran:
    """Run `function` in a process of its own.

    The function must be one that the process can import: of a module, not a lambda; functools.partial gives it
    arguments. Its memory is absolute: Python and all that is imported count, so state that of `do_nothing` beside it.
    """
    spawn = multiprocessing.get_context("spawn")  # a fork would begin with all that this process holds
    with ProcessPoolExecutor(max_workers=1, mp_context=spawn) as pool:
        return pool.submit(_run, function).result()


def peak_memory_mb(function: Callable[[], object]) -> float:
    """Return the most memory that a process has while it runs `function`: see `run_in_fresh_process`."""
    return run_in_fresh_process(function).peak_mb


def _run(function: Callable[[], object]) -> Ran:
    returned = function()
    status = Path("/proc/self/status")
    if status.exists():  # Linux's ru_maxrss is no less than that of the process which started this one
        high_water_mark = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return Ran(returned, int(high_water_mark.split()[1]) * 1024 / MB)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return Ran(returned, peak * (1 if sys.platform == "darwin" else 1024) / MB)


def do_nothing() -> None:
    """Let `peak_memory_mb` tell what the imports of a benchmark take by themselves."""


def machine(*packages: str) -> dict[str, Any]:
    """Describe what the figures were measured on: processor, cores, threads, versions of torch and `packages`, date."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "instruction_set": torch.backends.cpu.get_cpu_capability(),
        "omp_wait_policy": os.environ.get("OMP_WAIT_POLICY"),
        "load_before": os.getloadavg()[0],
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "versions": {name: metadata.version(name) for name in ("torch", *packages)},
        "date": datetime.date.today().isoformat(),
    }


def _processor() -> str:
    """Return the processor's name, with family and model where that is all that tells two of one name apart."""
    path = Path("/proc/cpuinfo")
    if not path.exists():
        return platform.processor() or platform.machine()
    fields: dict[str, str] = {}
    for line in path.read_text().splitlines():
        name, _, value = line.partition(":")
        fields.setdefault(name.strip(), value.strip())
    name = fields.get("model name", platform.machine())
    return f"{name} (family {fields['cpu family']}, model {fields['model']})" if "cpu family" in fields else name


def finish(result: Mapping[str, Any]) -> None:
    """Print the result as one JSON object on one line, the last that a benchmark prints; figures to 4 digits."""
    print(json.dumps(_rounded(result)), flush=True)


def _rounded(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


def plot_bars(path: Path, title: str, unit: str, groups: Mapping[str, Mapping[str, float]]) -> None:
    """Draw one panel of horizontal bars, on a log scale, for each group: {group: {side: value}}, into a PNG."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    height = 1.4 + 0.38 * max(len(group) for group in groups.values())
    figure, panels = plt.subplots(1, len(groups), figsize=(5.2 * len(groups), height), squeeze=False)
    for panel, (name, values) in zip(panels[0], groups.items(), strict=True):
        bars = panel.barh(list(values), list(values.values()), color="#4c72b0", log=True)
        panel.bar_label(bars, [f"{value:.3g}" for value in values.values()], padding=3)
        panel.set(title=name, xlabel=unit)
        panel.margins(x=0.25)
        panel.invert_yaxis()
        panel.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    plt.close(figure)
