"""The cache of decoded frames: made once, found again, remade when damaged, clear when it cannot be written."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bisquit.errors import FrameError
from bisquit.frames import decode, load_frames, write_frame
from bisquit.frames.cache import cache_folder


@pytest.fixture
def source(tmp_path, make_frames, write_parquet) -> Path:
    return write_parquet(
        tmp_path / "data" / "a.parquet", make_frames(4), track=["x", "y", "x", None], race=[1, 1, 2, 2]
    )


@pytest.fixture
def decoded(monkeypatch):
    """The names of the pictures that are decoded during the test."""
    names: list[str] = []
    decode_picture = decode.decode_picture

    def counted(encoded, name, size=None):
        names.append(name)
        return decode_picture(encoded, name, size)

    monkeypatch.setattr(decode, "decode_picture", counted)
    return names


def entries(cache: Path) -> list[Path]:
    return sorted((cache / "frames").iterdir())


def test_second_load_decodes_nothing_and_gives_the_same(source, decoded):
    first = load_frames(source)
    assert len(decoded) == 4
    second = load_frames(source)
    assert len(decoded) == 4
    np.testing.assert_array_equal(first[:], second[:])
    assert (first.names, first.classes, first.skipped) == (second.names, second.classes, second.skipped)
    assert first.labels.tolist() == second.labels.tolist()
    assert first.groups.tolist() == second.groups.tolist()


def test_changed_source_and_another_size_make_entries_of_their_own(source, cache, make_frames, write_parquet):
    load_frames(source)
    assert load_frames(source, size=(3, 3)).height == 3
    load_frames(source, skip_bad=True)  # nothing is broken, so it is the first entry
    write_parquet(source, make_frames(2, seed=1))
    np.testing.assert_array_equal(load_frames(source)[:], make_frames(2, seed=1))
    assert len(entries(cache)) == 3


def test_what_was_read_with_broken_frames_skipped_is_not_served_to_those_who_skip_none(cache, make_frames, tmp_path):
    for i, frame in enumerate(make_frames(3)):
        write_frame(frame, tmp_path / "frames" / f"{i}.png")
    (tmp_path / "frames" / "1.png").write_text("no picture")
    assert load_frames(tmp_path / "frames", skip_bad=True).skipped == ("1.png",)
    with pytest.raises(FrameError, match=r"1\.png"):
        load_frames(tmp_path / "frames")
    assert len(load_frames(tmp_path / "frames", skip_bad=True)) == 2


def test_change_of_time_alone_makes_a_new_entry(source, cache):
    load_frames(source)
    os.utime(source, ns=(0, 1))
    load_frames(source)
    assert len(entries(cache)) == 2


@pytest.mark.parametrize("name", ["pixels.npy", "frames.json"])
@pytest.mark.parametrize("damage", ["cut", "gone", "rubbish"])
def test_damaged_entry_is_made_anew(source, cache, make_frames, decoded, name, damage):
    load_frames(source)
    (entry,) = entries(cache)
    content = (entry / name).read_bytes()
    (entry / name).unlink()  # a copy that is still mapped must not change under its reader
    if damage != "gone":
        (entry / name).write_bytes(content[: len(content) // 2] if damage == "cut" else b"rubbish")
    np.testing.assert_array_equal(load_frames(source)[:], make_frames(4))
    assert len(decoded) == 8
    assert entries(cache) == [entry]
    load_frames(source)
    assert len(decoded) == 8


def test_entry_whose_two_files_disagree_is_made_anew(source, cache, decoded):
    load_frames(source)
    (entry,) = entries(cache)
    known = json.loads((entry / "frames.json").read_text())
    (entry / "frames.json").write_text(json.dumps(known | {"shape": [3, 6, 9, 3]}))
    assert len(load_frames(source)) == 4
    assert len(decoded) == 8


def test_cache_folder_is_that_of_the_argument_the_variable_or_the_system(source, tmp_path, monkeypatch):
    load_frames(source, cache=tmp_path / "other")
    assert len(entries(tmp_path / "other")) == 1
    assert cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("BISQUIT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert cache_folder() == Path("/xdg/bisquit")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "bisquit"


def test_unwritable_cache_says_to_set_the_variable(source, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(FrameError, match=r"cannot write the frame cache in .*: set BISQUIT_CACHE"):
        load_frames(source, cache=tmp_path / "file" / "cache")


def test_full_disk_is_one_clear_error_and_leaves_nothing(source, cache):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (256, hard))  # no file may grow beyond this
    try:
        with pytest.raises(FrameError, match=r"cannot write the frame cache in .*: set BISQUIT_CACHE"):
            load_frames(source)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert entries(cache) == []


def test_broken_frame_leaves_nothing_in_the_cache(tmp_path, cache, make_frames, write_parquet):
    with pytest.raises(FrameError):
        load_frames(write_parquet(tmp_path / "a.parquet", [*make_frames(3), b"text"]))
    assert entries(cache) == []


def test_two_processes_at_once_make_one_good_entry(source, cache, make_frames):
    script = "import sys; from bisquit.frames import load_frames; print(int(load_frames(sys.argv[1])[:].sum()))"
    command = [sys.executable, "-c", script, str(source)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    sums = [int(process.communicate()[0]) for process in processes]
    assert sums == [int(make_frames(4).sum())] * 2
    assert len(entries(cache)) == 1


def test_frames_lie_on_the_disk_and_what_is_taken_is_a_copy(source, make_frames):
    loaded = load_frames(source)
    taken = loaded[:]
    taken[:] = 0
    np.testing.assert_array_equal(loaded[:], make_frames(4))
    base = loaded.pixels
    while base.base is not None and not isinstance(base, np.memmap):
        base = base.base
    assert isinstance(base, np.memmap)


def test_progress_counts_every_frame_and_is_silent_for_a_cached_set(source):
    seen: list[tuple[int, int]] = []
    load_frames(source, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
    load_frames(source, progress=lambda done, total: seen.append((done, total)))
    assert len(seen) == 4


def test_only_a_few_pictures_are_held_at_a_time(monkeypatch, make_frames, encode):
    monkeypatch.setattr(decode, "_n_cores", lambda: 2)
    picture = encode(make_frames(1)[0])
    ahead = 0

    class Counted(list):
        def __iter__(self):
            nonlocal ahead
            for record in super().__iter__():
                ahead += 1
                yield record

    records = Counted(decode.Record(decode.Known(str(index), None, None), picture) for index in range(100))
    most = 0
    for _ in decode.decode_records(records, None, decode.BadFrames(skip=False)):
        most = max(most, ahead)
        ahead -= 1
    assert ahead == 0
    assert most <= 2 * 8 + 1
