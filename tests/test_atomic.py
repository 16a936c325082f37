"""Files and folders that are there whole or not at all."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from bisquit.atomic import PARTIAL, atomic_file, atomic_folder

FAILURES = [OSError("disk full"), KeyboardInterrupt(), SystemExit(1)]


def write_half_a_file(target: Path, failure: BaseException) -> None:
    with atomic_file(target) as partial:
        partial.write_text("half")
        raise failure


def write_half_a_folder(target: Path, failure: BaseException) -> None:
    with atomic_folder(target) as partial:
        (partial / "a").write_text("half")
        raise failure


def test_a_file_appears_when_it_is_whole(tmp_path: Path):
    target = tmp_path / "new" / "folder" / "a.txt"
    with atomic_file(target) as partial:
        partial.write_text("whole")
        assert not target.exists()
    assert target.read_text() == "whole"
    assert list(target.parent.iterdir()) == [target]


def test_a_partial_file_has_the_suffix_and_the_folder_of_its_target(tmp_path: Path):
    with atomic_file(tmp_path / "a.png") as partial:
        assert partial.suffix == ".png"
        assert partial.name.startswith(PARTIAL)
        assert partial.parent == tmp_path


@pytest.mark.parametrize("failure", FAILURES, ids=repr)
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path, failure: BaseException):
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(type(failure)):
        write_half_a_file(target, failure)
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_target_that_cannot_be_replaced_leaves_nothing_behind(tmp_path: Path):
    target = tmp_path / "folder"
    (target / "full").mkdir(parents=True)
    with pytest.raises(OSError, match="folder"), atomic_file(target) as partial:
        partial.write_text("a")
    assert list(tmp_path.iterdir()) == [target]


def test_a_file_is_as_readable_as_any_other(tmp_path: Path):
    mask = os.umask(0o027)
    try:
        with atomic_file(tmp_path / "a") as partial:
            partial.write_text("a")
        with atomic_folder(tmp_path / "b"):
            pass
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(mask)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640
    assert stat.S_IMODE((tmp_path / "b").stat().st_mode) == 0o750


def test_a_folder_appears_when_it_is_whole(tmp_path: Path):
    target = tmp_path / "new" / "folder"
    with atomic_folder(target) as partial:
        (partial / "a").write_text("1")
        (partial / "b").write_text("2")
        assert not target.exists()
    assert sorted(path.name for path in target.iterdir()) == ["a", "b"]
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("failure", FAILURES, ids=repr)
def test_a_failure_leaves_no_folder(tmp_path: Path, failure: BaseException):
    with pytest.raises(type(failure)):
        write_half_a_folder(tmp_path / "folder", failure)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_another_process_made_meanwhile_stays(tmp_path: Path):
    target = tmp_path / "folder"
    with atomic_folder(target) as partial:
        (partial / "a").write_text("ours")
        target.mkdir()
        (target / "a").write_text("theirs")
    assert (target / "a").read_text() == "theirs"
    assert list(tmp_path.iterdir()) == [target]


def test_a_folder_does_not_replace_a_file(tmp_path: Path):
    target = tmp_path / "folder"
    target.write_text("a file")
    with pytest.raises(OSError, match="folder"), atomic_folder(target):
        pass
    assert target.read_text() == "a file"
    assert list(tmp_path.iterdir()) == [target]
