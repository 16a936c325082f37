"""How the processes that train together are started and watched."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from bisquit.errors import ConfigError, RunError
from bisquit.training import launch as launching
from bisquit.training.launch import LOST, Processes, launch

TOLD = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT")


def command(folder: Path, body: str) -> list[str]:
    """Return a command that does something, given its `rank` and the folder."""
    begin = "import json, os, pathlib, signal, sys, time; rank = int(os.environ['RANK'])"
    return [sys.executable, "-c", f"{begin}; folder = pathlib.Path({str(folder)!r}); {body}"]


@pytest.fixture(autouse=True)
def no_processes_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in TOLD:
        monkeypatch.delenv(name, raising=False)


def test_each_process_is_told_which_it_is(tmp_path: Path):
    body = f"(folder / str(rank)).write_text(json.dumps({{name: os.environ[name] for name in {TOLD!r}}}))"
    assert launch(command(tmp_path, body), Processes(devices=3)) == 0
    told = [json.loads((tmp_path / str(rank)).read_text()) for rank in range(3)]
    assert [(of["RANK"], of["LOCAL_RANK"]) for of in told] == [("0", "0"), ("1", "1"), ("2", "2")]
    assert {(of["WORLD_SIZE"], of["LOCAL_WORLD_SIZE"], of["MASTER_ADDR"]) for of in told} == {("3", "3", "127.0.0.1")}
    assert len({of["MASTER_PORT"] for of in told}) == 1


def test_the_second_machine_s_processes_come_behind_those_of_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name, value in (("MASTER_ADDR", "first"), ("MASTER_PORT", "1234"), ("GROUP_RANK", "1")):
        monkeypatch.setenv(name, value)
    body = "(folder / str(rank)).write_text(os.environ['WORLD_SIZE'] + os.environ['MASTER_ADDR'])"
    assert launch(command(tmp_path, body), Processes(devices=2, nodes=2)) == 0
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"2": "4first", "3": "4first"}


def test_other_machines_of_which_nothing_is_told_are_refused():
    with pytest.raises(ConfigError, match="MASTER_ADDR, MASTER_PORT, GROUP_RANK"):
        launch([sys.executable], Processes(nodes=2))


def test_what_the_others_say_of_an_error_of_their_own_is_said(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    body = "rank == 1 and (sys.stderr.write('no disk here\\n'), sys.exit(2)); time.sleep(0.3)"
    assert launch(command(tmp_path, body), Processes(devices=2)) == 2
    assert capfd.readouterr().err == "no disk here\n"


def test_an_error_of_all_is_said_once(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    assert launch(command(tmp_path, "sys.stderr.write('no\\n'); sys.exit(2)"), Processes(devices=3)) == 2
    assert capfd.readouterr().err == "no\n"


def test_a_process_that_dies_ends_the_others_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(launching, "GRACE_S", 0.2)
    body = "(folder / str(rank)).write_text(str(os.getpid())); rank == 1 and os.kill(os.getpid(), 9); time.sleep(60)"
    began = time.monotonic()
    with pytest.raises(RunError, match="process 1 of 2 was killed by SIGKILL: the same command with --resume goes on"):
        launch(command(tmp_path, body), Processes(devices=2))
    assert time.monotonic() - began < 20
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "0").read_text()), 0)


def test_those_that_lost_a_process_do_not_hide_which_it_was(tmp_path: Path):
    body = f"rank == 1 and os.kill(os.getpid(), 9); sys.exit({LOST})"
    with pytest.raises(RunError, match="process 1 of 2 was killed by SIGKILL"):
        launch(command(tmp_path, body), Processes(devices=2))


def test_all_start_again_as_often_as_is_asked_for_and_go_on_then(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    body = "tries = len(sys.argv); (folder / f'{rank}-{tries}').touch(); rank and os.kill(os.getpid(), 9)"
    with pytest.raises(RunError, match="process 1 of 2"):
        launch([*command(tmp_path, body), "train"], Processes(devices=2, restarts=2))
    assert {path.name for path in tmp_path.iterdir() if path.name.startswith("1")} == {"1-2", "1-3"}  # with --resume
    assert capfd.readouterr().err.count("all start again") == 2


def test_an_error_that_would_come_again_starts_nothing_again(tmp_path: Path):
    body = "(folder / f'{time.monotonic_ns()}').touch(); sys.exit(2)"
    assert launch(command(tmp_path, body), Processes(devices=1, restarts=3)) == 2
    assert len([*tmp_path.iterdir()]) == 1


def test_a_request_to_stop_is_passed_on(tmp_path: Path):
    body = "signal.signal(signal.SIGTERM, lambda *_: sys.exit(143)); (folder / str(rank)).touch(); time.sleep(60)"

    def stop() -> None:
        while len([*tmp_path.iterdir()]) < 2:
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGTERM)

    stopper = threading.Thread(target=stop)
    stopper.start()
    assert launch(command(tmp_path, body), Processes(devices=2)) == 143
    stopper.join()


def test_settings_out_of_range_are_refused():
    for settings, wanted in (
        ({"devices": 0}, "devices is 0"),
        ({"nodes": 0}, "nodes is 0"),
        ({"restarts": -1}, "restarts is -1"),
        ({"nodes": 2, "restarts": 1}, "torchrun"),
    ):
        with pytest.raises(ConfigError, match=wanted):
            Processes(**settings)
