"""Killing at random moments finds what is lost, and nothing where nothing is."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import faults
import pytest
from faults import (
    TROUBLES,
    Case,
    Ended,
    Found,
    Told,
    Trouble,
    digest,
    fill_disk,
    is_told,
    page,
    run,
    start_twice,
    tried,
    unreadable,
    vanish,
    within,
)

from bisquit.atomic import atomic_file
from bisquit.errors import FrameError
from bisquit.locks import held

PAUSES, PAUSE_S = 8, 0.02


def nothing(folder: Path) -> None:
    """Prepare nothing."""


def slowly(write: Callable[[Path, str], object]) -> Callable[[Path], None]:
    """Return work that writes a JSON file anew and anew, a bit longer each time."""

    def work(folder: Path) -> None:
        for count in range(PAUSES):
            write(folder / "out.json", json.dumps([0] * (count + 1)))
            time.sleep(PAUSE_S)

    return work


def whole(path: Path, text: str) -> None:
    """Write a file as a command should."""
    with atomic_file(path) as partial:
        partial.write_text(text)


def in_place(path: Path, text: str) -> None:
    """Write a file so that it is half there for long."""
    path.write_text(text[:-1])
    time.sleep(10 * PAUSE_S)
    path.write_text(text)


SOUND = Case("sound", nothing, slowly(whole), slowly(whole), digest)


def test_nothing_is_lost_by_what_writes_whole_files():
    found = tried(SOUND, 8, troubles=())
    assert found.lost == []
    assert found.went_on == 8
    assert found.kills > 0 or found.seconds > 2 * PAUSES * PAUSE_S  # while others worked, it took longer than usual
    assert found.seconds >= PAUSES * PAUSE_S


def test_a_file_that_was_half_there_is_found():
    lost = tried(replace(SOUND, name="in place", start=slowly(in_place), go_on=slowly(in_place)), 8, troubles=()).lost
    assert any("half there: out.json" in one for one in lost)


def test_what_does_not_come_out_as_it_should_is_found():
    found = tried(replace(SOUND, go_on=lambda folder: whole(folder / "out.json", "[1]")), 4, troubles=())
    assert found.went_on == 0
    assert all("is not what it makes when nothing stops it" in one for one in found.lost)


def test_what_was_there_before_and_is_gone_is_found():
    found = tried(replace(SOUND, holds=lambda folder: (folder / "before").exists()), 4, troubles=())
    assert all("what was there before" in one for one in found.lost)
    kept = replace(SOUND, prepare=lambda folder: (folder / "before").touch(), holds=lambda f: (f / "before").exists())
    assert tried(kept, 4, troubles=()).lost == []


def test_a_command_that_cannot_go_on_is_found_with_its_last_words(tmp_path: Path):
    def refuse(folder: Path) -> None:
        raise ValueError("never again")

    found = tried(replace(SOUND, go_on=refuse), 2, troubles=())
    assert [one.split(": ", 1)[1] for one in found.lost] == ["ValueError: never again"] * 2
    with pytest.raises(Ended, match="never again"):
        run(refuse, tmp_path)


def test_what_a_killed_process_started_dies_with_it(tmp_path: Path):
    def start_another(folder: Path) -> None:
        import subprocess
        import sys

        subprocess.run(
            [
                sys.executable,
                "-c",
                "import pathlib, sys, time; time.sleep(1); pathlib.Path(sys.argv[1]).touch()",
                folder / "late",
            ],
            check=True,
        )

    assert run(start_another, tmp_path, kill_after_s=0.3)
    time.sleep(1.5)
    assert not (tmp_path / "late").exists()


def test_hidden_files_are_not_looked_at(tmp_path: Path):
    (tmp_path / ".partial-x.json").write_text("{")
    assert unreadable(tmp_path) == []
    before = digest(tmp_path)
    (tmp_path / ".log").write_text("more")
    assert digest(tmp_path) == before
    (tmp_path / "x.json").write_text("{")
    assert [one.split(":")[0] for one in unreadable(tmp_path)] == ["x.json"]
    assert digest(tmp_path) != before


def test_the_page_has_a_row_for_each_command():
    text = page({"sound": Found(0.25, kills=3, went_on=4, told={"full disk": 2, "second process": 1})}, 100, 10)
    assert "| sound | 0.2 | 3 | 4 | 2 | 0 | 0 | 0 | 1 | nothing |" in text


def test_trouble_is_told_and_nothing_is_lost_by_what_writes_whole_files():
    found = tried(SOUND, 2, 2)
    assert found.lost == []
    assert found.told["read-only folder"] == 2
    assert found.told["jumping clock"] == 0
    assert found.told.keys() == {trouble.name for trouble in TROUBLES}


class Smallest(random.Random):
    """Draws the least of all there is."""

    def uniform(self, a: float, b: float) -> float:
        return a


SMALL = Trouble("full disk", within(lambda folder, moments: fill_disk(folder, Smallest())))


def test_what_is_half_there_after_trouble_is_found(tmp_path: Path):
    case = replace(SOUND, start=lambda folder: (folder / "out.json").write_text("[0, 0, 0]"))
    with pytest.raises(Ended, match=r"half there: out\.json"):
        is_told(case, tmp_path, SMALL, random.Random(0), "")


def test_an_end_in_trouble_that_is_not_told_is_found(tmp_path: Path):
    case = replace(SOUND, start=lambda folder: 1 / 0)
    with pytest.raises(Ended, match="ZeroDivisionError") as raised:
        is_told(case, tmp_path, SMALL, random.Random(0), "")
    assert not isinstance(raised.value, Told)


def test_only_what_the_command_line_tells_in_one_line_is_told(tmp_path: Path):
    def fail(folder: Path) -> None:
        raise OSError(28, "No space left on device", "x")

    with pytest.raises(Told, match="No space left"):
        run(fail, tmp_path)


def test_what_hangs_is_ended_and_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(faults, "LONGEST_S", 0.2)
    with pytest.raises(Ended, match=r"SIGKILL, after 0\.2 s"):
        run(lambda folder: time.sleep(60), tmp_path)


def test_an_input_that_vanished_is_there_again_afterwards(tmp_path: Path):
    def read(folder: Path) -> None:
        for _ in range(PAUSES):
            (folder / "in" / "a.txt").read_text()
            time.sleep(PAUSE_S)

    (tmp_path / "common").mkdir()
    (tmp_path / "common" / "a.txt").write_text("a")
    (tmp_path / "in").symlink_to(tmp_path / "common")
    with pytest.raises(Told, match="No such file"):
        vanish(replace(SOUND, start=read), tmp_path, Smallest())
    assert (tmp_path / "in" / "a.txt").read_text() == "a"


def test_the_second_of_two_processes_is_told_who_holds_the_folder(tmp_path: Path):
    def hold(folder: Path) -> None:
        with held(folder / "out"):
            time.sleep(10 * PAUSE_S)

    with pytest.raises(Told, match="in use by process"):
        start_twice(replace(SOUND, start=hold), tmp_path, Smallest())

    def refuse(folder: Path) -> None:
        raise FrameError("not I")

    with pytest.raises(Ended, match="neither of two goes on: FrameError: not I; FrameError: not I"):
        start_twice(replace(SOUND, start=refuse), tmp_path, Smallest())
