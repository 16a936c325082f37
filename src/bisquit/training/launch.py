"""The processes that train together: how they are started on this machine, find one another, and are watched.

Each is the same command once more. What the environment tells it is what PyTorch's own `torchrun` would: RANK, of
WORLD_SIZE processes on all machines; LOCAL_RANK, of LOCAL_WORLD_SIZE on this one; GROUP_RANK, the machine's number;
MASTER_ADDR and MASTER_PORT, where the first process waits for the others. So a command that `torchrun` starts is one of
several processes too, and joins them in the same way.

If one dies, the others cannot go on. All are then ended, and all start again from the last saved state as often as is
asked for; else the run ends, and `--resume` goes on from that state.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import IO, Any

import torch
from torch import distributed as group

from bisquit.config import Settings, require
from bisquit.errors import ConfigError, ProcessLost, RunError

POLL_S = 0.05
GRACE_S = 10.0  # that processes have to end once another one has
EXPECTED = (0, 2, 130, 143)  # how a command ends by itself: done, refused in one line, stopped by either signal
LOST = 75
"""The status of a process that cannot go on because another one was lost, which is for the launching one to say."""


@dataclass(frozen=True)
class Processes(Settings):
    """How many processes train together."""

    devices: int = 1
    """Processes on this machine that train together, one for each GPU if it has any."""
    nodes: int = 1
    """Machines that train together: the same command on each, told by MASTER_ADDR, MASTER_PORT and GROUP_RANK."""
    restarts: int = 0
    """How often to start all processes again from the last saved state because one of them died."""

    def __post_init__(self) -> None:
        require(self.devices >= 1, "devices", self.devices, "at least 1")
        require(self.nodes >= 1, "nodes", self.nodes, "at least 1")
        require(self.restarts >= 0, "restarts", self.restarts, "at least 0")
        gpus = torch.cuda.device_count()
        require(not gpus or self.devices <= gpus, "devices", self.devices, f"at most {gpus}, the GPUs of this machine")
        is_elsewhere = self.nodes > 1 and self.restarts > 0
        require(not is_elsewhere, "restarts", self.restarts, "0 with several --nodes, which torchrun can restart")

    @property
    def count(self) -> int:
        """Processes on all machines."""
        return self.devices * self.nodes


def is_process_of_many() -> bool:
    """Whether this process has been started as one of those that train together."""
    return "WORLD_SIZE" in os.environ


def is_of_torchrun() -> bool:
    """Whether it was `torchrun` that started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


@contextmanager
def joined() -> Iterator[None]:
    """Be one of the processes that train together while the block runs, if this process was started as one.

    Raises ProcessLost if another process is lost meanwhile.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or group.is_initialized():
        yield
        return
    has_gpu = torch.cuda.is_available()
    if has_gpu:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    try:
        group.init_process_group("cpu:gloo,cuda:nccl" if has_gpu else "gloo")
        yield
    except (group.DistError, RuntimeError) as error:
        if not isinstance(error, group.DistError) and "gloo" not in str(error) and "NCCL" not in str(error):
            raise
        raise ProcessLost(
            "another process of this training was lost: the same command with --resume goes on from the saved state"
        ) from error
    finally:
        if group.is_initialized():
            group.destroy_process_group()


def launch(command: Sequence[str], processes: Processes) -> int:
    """Run a command as the processes of this machine, again where one dies and that is asked for; return its status.

    The first process's output is this one's; of the others only what they say of an error that is theirs alone. SIGINT
    and SIGTERM are passed on. Raises RunError if a process dies and none of the restarts is left, and ConfigError if
    there are other machines and the environment does not tell of them.
    """
    for left in range(processes.restarts, -1, -1):
        ended = _run_all(command, processes)
        if ended.status in EXPECTED:
            return ended.status
        lost = f"process {ended.number} of {processes.count} {_reason(ended.status)}"
        if not left:
            raise RunError(f"{lost}: the same command with --resume goes on from the last saved state")
        sys.stderr.write(f"{lost}: all start again from the last saved state\n")
        command = [*command, *(() if "--resume" in command else ("--resume",))]
    raise AssertionError("the last attempt returns or raises")


@dataclass(frozen=True)
class _Ended:
    """How the processes ended: the number of the one that decides, and its status."""

    number: int
    status: int


def _run_all(command: Sequence[str], processes: Processes) -> _Ended:
    """Run a command as the processes of this machine, until all have ended."""
    first, environment = _environment(processes)
    with ExitStack() as stack:
        started: list[subprocess.Popen[bytes]] = []
        said: list[IO[bytes] | None] = []
        stack.enter_context(_passed_on(started))
        for local in range(processes.devices):
            said.append(stack.enter_context(tempfile.TemporaryFile()) if local else None)
            own = {"RANK": str(first + local), "LOCAL_RANK": str(local)}
            started.append(
                subprocess.Popen(
                    command,
                    env=environment | own,
                    stdout=subprocess.DEVNULL if local else None,
                    stderr=said[local],
                    start_new_session=True,  # so that a terminal's Ctrl-C reaches them by this process alone
                )
            )
            stack.callback(_end, started[-1])
        local = _first_to_fail(started)
        status = started[local].returncode
        error = said[local]
        if error is not None and status > 0:
            error.seek(0)
            sys.stderr.write(error.read().decode(errors="replace"))
        return _Ended(first + local, status)


def _environment(processes: Processes) -> tuple[int, dict[str, str]]:
    """Return the number of this machine's first process, and what all of its processes are told."""
    told = dict(os.environ)
    if processes.nodes > 1:
        missing = [name for name in ("MASTER_ADDR", "MASTER_PORT", "GROUP_RANK") if not told.get(name)]
        if missing:
            raise ConfigError(
                f"nodes is {processes.nodes}: set {', '.join(missing)}, the first machine's address, a port of it that "
                "is free, and this machine's number from 0"
            )
    else:
        told |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port()), "GROUP_RANK": "0"}
    told |= {"WORLD_SIZE": str(processes.count), "LOCAL_WORLD_SIZE": str(processes.devices)}
    told.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes.devices)))
    return int(told["GROUP_RANK"]) * processes.devices, told


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def _passed_on(started: Sequence[subprocess.Popen[bytes]]) -> Iterator[None]:
    """Pass SIGINT and SIGTERM on to processes while the block runs."""

    def pass_on(number: int, frame: FrameType | None) -> None:
        for process in started:
            process.send_signal(number)

    handlers: dict[int, Any] = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _first_to_fail(started: Sequence[subprocess.Popen[bytes]]) -> int:
    """Wait until all processes have ended; return the number of the one whose end explains it.

    Once one has failed the others wait for it in vain. Those that do not end within a while are ended, and do not
    count. Of the others, one that was killed explains most, then one that broke, then one that says what is wrong, and
    least one that but lost another.
    """
    while not any(process.poll() for process in started):
        if all(process.poll() == 0 for process in started):
            return 0
        time.sleep(POLL_S)
    deadline = time.monotonic() + GRACE_S
    while time.monotonic() < deadline and any(process.poll() is None for process in started):
        time.sleep(POLL_S)
    failed = {local: process.returncode for local, process in enumerate(started) if process.returncode}
    return min(failed, key=lambda local: (failed[local] == LOST, failed[local] in EXPECTED, failed[local] > 0, local))


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process that has not ended by itself."""
    if process.poll() is None:
        process.kill()
    process.wait()


def _reason(status: int) -> str:
    """Say how a process ended."""
    if status == LOST:
        return "lost another one"
    if status >= 0:
        return f"ended with status {status}"
    try:
        return f"was killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"was killed by signal {-status}"
