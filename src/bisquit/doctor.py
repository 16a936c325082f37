"""What of bisquit works on this machine, and what the rest needs.

    metadata, PyTorch, engine, GPU, extras, frames, models ──checks──> Findings ──> `bisquit doctor`

Each check imports what it looks at itself, so that an installation that is broken in one place is examined in all
others. What is required, and what the extras bring, is read from the metadata that the package was installed with.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np
    from packaging.requirements import Requirement

State = Literal["works", "low", "missing", "fails"]

LOW_BYTES = 2 * 2**30
"""Less memory or disk than this is too little to train with."""
LEAST_PSNR_DB = 18.0
"""A frame that comes back from its tokens worse than this has not come back: the models that ship reach 23 and more."""

_TRIAL_MODEL = "seed"
_PAINTED_TOKENS = 8  # of the last row


@dataclass(frozen=True)
class Finding:
    """What was looked at, and how it is."""

    what: str
    state: State
    details: str
    remedy: str = ""
    """What to do about it, if something can be done."""
    is_core: bool = False
    """Whether bisquit is of no use without it."""


Check = Callable[[], Iterable[Finding]]


def examine() -> list[Finding]:
    """Look at everything; what raises is a finding that fails."""
    findings: list[Finding] = []
    for what, (check, is_core) in _CHECKS.items():
        try:
            findings += check()
        except Exception as error:  # a broken installation raises whatever it stumbles over
            said = " ".join(f"{type(error).__name__}: {error}".split())
            findings.append(Finding(what, "fails", said, "install bisquit anew" if is_core else "", is_core))
    return findings


def core_works(findings: Iterable[Finding]) -> bool:
    """Whether all works that bisquit is of no use without."""
    return all(finding.state == "works" for finding in findings if finding.is_core)


def _python() -> Iterator[Finding]:
    from packaging.specifiers import SpecifierSet

    version, wanted = platform.python_version(), importlib.metadata.metadata("bisquit")["Requires-Python"]
    fits = SpecifierSet(wanted).contains(version, prereleases=True)
    details = f"{version} on {platform.system()} {platform.machine()}"
    yield Finding("Python", "works" if fits else "fails", details, "" if fits else f"install Python {wanted}", True)


def _packages() -> Iterator[Finding]:
    required = list(_requirements(""))
    lacking = _lacking(required)
    details = "; ".join(lacking) or f"{len(required)} of {len(required)} are there"
    yield Finding("required packages", "fails" if lacking else "works", details, _pip("bisquit", lacking), True)


def _extras() -> Iterator[Finding]:
    for extra in importlib.metadata.metadata("bisquit").get_all("Provides-Extra") or ():
        lacking = _lacking(_requirements(extra))
        details = "; ".join(lacking) or ", ".join(requirement.name for requirement in _requirements(extra))
        yield Finding(f"extra {extra}", "missing" if lacking else "works", details, _pip(f"bisquit[{extra}]", lacking))


def _requirements(extra: str) -> Iterator[Requirement]:
    """Yield what an extra needs on this machine beside what is always needed, or, for no extra, that."""
    from packaging.requirements import Requirement

    for requirement in map(Requirement, importlib.metadata.requires("bisquit") or ()):
        marker = requirement.marker
        is_of_base = marker is None or marker.evaluate({"extra": ""})
        is_of_extra = marker is not None and not is_of_base and marker.evaluate({"extra": extra})
        if is_of_extra if extra else is_of_base:
            yield requirement


def _lacking(requirements: Iterable[Requirement]) -> list[str]:
    """Return what is not installed, or not in a version that fits, in words."""
    lacking = []
    for requirement in requirements:
        wanted = f"{requirement.name}{requirement.specifier}"
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            lacking.append(f"no {wanted}")
        else:
            if not requirement.specifier.contains(version, prereleases=True):
                lacking.append(f"{requirement.name} {version} is not {wanted}")
    return lacking


def _pip(what: str, lacking: list[str]) -> str:
    return f"pip install '{what}'" if lacking else ""


def _torch() -> Iterator[Finding]:
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    details = f"{torch.__version__}, threads: {torch.get_num_threads()} for {cores} cores"
    yield Finding("PyTorch", "works", details, is_core=True)


def _gpu() -> Iterator[Finding]:
    import torch

    if not torch.cuda.is_available():
        built = "whose driver is not found" if torch.version.cuda else "for which this PyTorch is not built"
        yield Finding("GPU", "missing", f"none, or one {built}: all runs on the CPU")
        return
    for index in range(torch.cuda.device_count()):
        memory = torch.cuda.get_device_properties(index).total_memory
        yield Finding("GPU", "works", f"cuda:{index}, {torch.cuda.get_device_name(index)}, {_gib(memory)}")


def _engine() -> Iterator[Finding]:
    from bisquit.engine import engine_missing, usable_kernels

    if (reason := engine_missing()) is not None:
        remedy = "install a C++ compiler, and bisquit anew; PyTorch paints until then, many times slower"
        yield Finding("native engine", "missing", reason, remedy)
    else:
        yield Finding("native engine", "works", f"kernels: {', '.join(usable_kernels())}")


def _frames() -> Iterator[Finding]:
    from bisquit.frames import BUNDLED, load_frames

    with tempfile.TemporaryDirectory() as cache:  # so that they are decoded now
        frames = load_frames(BUNDLED, cache=Path(cache))
        details = f"{len(frames)} of {len(frames.classes)} classes, {frames.height} x {frames.width}"
    yield Finding("bundled frames", "works", details, is_core=True)


def _models() -> Iterator[Finding]:
    from bisquit.generate import load, load_feature_network, shipped_models

    names = shipped_models()
    for name in names:
        load(name)
    load_feature_network()
    yield Finding("shipped models", "works", ", ".join([*names, "features"]), is_core=True)


def _round_trip() -> Iterator[Finding]:
    """Send a frame through its tokens."""
    import numpy as np

    from bisquit.generate import load

    pipeline, frame = load(_TRIAL_MODEL), _trial_frame()
    back = pipeline.decode(pipeline.encode(frame), pipeline.frame_size)
    psnr_db = float(-10 * np.log10(np.mean(np.square((frame.astype(np.float64) - back) / 255))))
    state: State = "works" if psnr_db >= LEAST_PSNR_DB else "fails"
    details = f"a frame comes back from its tokens at {psnr_db:.1f} dB"
    yield Finding("self-test: tokens", state, details, "" if state == "works" else "install bisquit anew", True)


def _painting() -> Iterator[Finding]:
    """Paint the last tokens of a frame by PyTorch and by the engine, and compare; and the engine's exact integers."""
    import torch

    from bisquit.engine import EnginePrior, IntegerPrior, engine_missing
    from bisquit.generate import load
    from bisquit.painting import Painter
    from bisquit.priors import RasterPrior

    pipeline, what = load(_TRIAL_MODEL), "self-test: painting"
    prior = pipeline.prior
    assert isinstance(prior, RasterPrior)
    tokens = torch.from_numpy(pipeline.encode(_trial_frame()))
    given = tokens.clone()
    given[:, -1, -_PAINTED_TOKENS:] = -1
    painted = Painter(prior, "torch").paint([0], seed=0, given=given)
    if engine_missing() is not None:
        yield Finding(what, "works", "PyTorch paints", is_core=True)
        return
    same = torch.equal(painted, Painter(prior, "engine").paint([0], seed=0, given=given))
    integer = IntegerPrior(prior)
    exact = torch.equal(integer.logits(tokens), EnginePrior(integer).logits(tokens))
    details = (
        f"engine and PyTorch paint {'the same tokens' if same else 'different tokens'}; "
        f"in int8 their logits are {'the same' if exact else 'different'} to the last bit"
    )
    remedy = "" if same and exact else "pass --backend torch, and report this with the output of bisquit doctor --json"
    yield Finding(what, "works" if same and exact else "fails", details, remedy, True)


def _trial_frame() -> np.ndarray:
    """Return a bundled frame, uint8 (1, H, W, 3)."""
    from bisquit.frames import BUNDLED, load_frames

    with tempfile.TemporaryDirectory() as cache:
        return load_frames(f"{BUNDLED}:valid", cache=Path(cache))[:1]


def _disk() -> Iterator[Finding]:
    from bisquit.frames.cache import cache_folder

    for what, folder in (("disk for caches", cache_folder()), ("disk here", Path.cwd())):
        existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
        remedy = "set BISQUIT_CACHE to a folder with room" if "cache" in what else "work in a folder with room"
        if not os.access(existing, os.W_OK):
            yield Finding(what, "fails", f"{existing} cannot be written to", remedy)
        else:
            yield _room(what, shutil.disk_usage(existing).free, f" in {folder}", remedy)


def _memory() -> Iterator[Finding]:
    free = [count for count in (_machine_memory(), _group_memory()) if count is not None]
    if free:
        yield _room("memory", min(free), "", "close other programs, or train with a smaller --batch-size")


def _room(what: str, free_bytes: int, where: str, remedy: str) -> Finding:
    is_low = free_bytes < LOW_BYTES
    return Finding(what, "low" if is_low else "works", f"{_gib(free_bytes)} free{where}", remedy if is_low else "")


def _machine_memory() -> int | None:
    """Return the bytes of memory that programs can have, None where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)


def _group_memory() -> int | None:
    """Return the bytes that this control group, such as a container, has left; None where it has no limit."""
    group = Path("/sys/fs/cgroup")
    try:
        return int((group / "memory.max").read_text()) - int((group / "memory.current").read_text())
    except (OSError, ValueError):  # no such group, or "max"
        return None


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"


_CHECKS: dict[str, tuple[Check, bool]] = {
    "Python": (_python, True),
    "required packages": (_packages, True),
    "PyTorch": (_torch, True),
    "native engine": (_engine, False),
    "GPU": (_gpu, False),
    "bundled frames": (_frames, True),
    "shipped models": (_models, True),
    "self-test: tokens": (_round_trip, True),
    "self-test: painting": (_painting, True),
    "extras": (_extras, False),
    "disk": (_disk, False),
    "memory": (_memory, False),
}
