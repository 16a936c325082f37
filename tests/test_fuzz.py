"""What fuzzing kept, and some inputs at random, for every reader of bytes from outside; and that harm is seen."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "fuzz"))

import fuzz
import target

RANDOM = 30


@pytest.fixture(scope="module", autouse=True)
def _leave_nothing() -> Iterator[None]:
    yield
    target.leave_nothing()


@pytest.mark.parametrize("name", fuzz.TARGETS)
def test_kept_inputs_do_no_harm(name: str) -> None:
    inputs = [path.read_bytes() for path in sorted((fuzz.CORPUS / name).iterdir())]
    assert len(inputs) >= 3
    for data in inputs:
        fuzz.TARGETS[name].check(data)


@pytest.mark.parametrize("name", fuzz.TARGETS)
def test_random_inputs_do_no_harm(name: str) -> None:
    assert fuzz.fuzz_at_random(name, RANDOM) > RANDOM


def test_memory_that_grows_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzz, "CRASHES", tmp_path)
    grown = target.Target(lambda data: None, lambda: [b"1"], ())
    one = fuzz.watched(grown, "grown")
    one(b"1")
    monkeypatch.setattr(fuzz, "peak_mb", lambda: 1e6)
    with pytest.raises(AssertionError, match="memory grew"):
        one(b"1")


def test_an_input_that_does_harm_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(fuzz, "CRASHES", tmp_path / "fuzz")
    one = fuzz.watched(target.Target(lambda data: 1 // len(data), lambda: [b"1"], ()), "division")
    one(b"1")
    assert not (tmp_path / "fuzz").exists()
    with pytest.raises(ZeroDivisionError):
        one(b"")
    (kept,) = (tmp_path / "fuzz").iterdir()
    assert kept.name.startswith("division-crash-")
    assert kept.read_bytes() == b""
    assert capsys.readouterr().err == f"{kept} does harm\n"


def test_what_a_reader_leaves_behind_is_found() -> None:
    with pytest.raises(AssertionError, match="left behind"), target.file_of(b"1", "x") as path:
        (path.parent / "y").touch()
    (target.scratch() / "files" / "y").unlink()
    with pytest.raises(AssertionError, match="was changed"), target.file_of(b"1", "x") as path:
        path.write_bytes(b"2")


def test_an_error_of_several_lines_is_found() -> None:
    target.one_line(ValueError("one line"))
    for text in ("", "two\nlines"):
        with pytest.raises(AssertionError):
            target.one_line(ValueError(text))


def test_changes_are_what_they_say() -> None:
    data = bytes(range(100))
    assert target.changed(data, b"") == data
    assert target.changed(data, bytes([0, 0, 1])) == bytes([1]) + data[1:]
    assert target.changed(data, bytes([1, 128, 0])) == data[:50]
    assert target.changed(data, bytes([3, 0, 5])) == data[5:]
    assert len(target.changed(data, bytes([2, 128, 3]))) == 103
