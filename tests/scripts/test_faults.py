"""Killing at random moments finds what is lost, and nothing where nothing is."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from faults import TROUBLES, Case, Ended, Told, Trouble, digest, fill_disk, is_told, page, run, tried, unreadable

from bisquit.atomic import atomic_file

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
    assert found.kills > 0
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
    text = page({"sound": tried(SOUND, 1, troubles=())})
    assert "| sound | 0." in text
    assert "| nothing |" in text


def test_trouble_is_told_and_nothing_is_lost_by_what_writes_whole_files():
    found = tried(SOUND, 2)
    assert found.lost == []
    assert found.told["read-only folder"] == 2
    assert found.told["jumping clock"] == 0
    assert found.told.keys() == {trouble.name for trouble in TROUBLES}


class Smallest(random.Random):
    """Draws the least of all there is."""

    def uniform(self, a: float, b: float) -> float:
        return a


SMALL = Trouble("full disk", lambda folder, moments: fill_disk(folder, Smallest()))


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
