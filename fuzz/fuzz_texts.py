"""Texts that people and programs leave behind: tables of captions, records of runs, journals of painted sets, states.

    captions   a TOML table
    runs       first byte: run.json, changes to a sound one, the state that a run goes on from, changes to a sound one
    journals   first byte: the journal of a set, or changes to a sound one

Each is read as what it is, or is one clear error.
"""

from __future__ import annotations

import functools
import io
import json
from collections.abc import Iterator

import torch
from target import Target, changed, file_of, one_line

from bisquit import captions, config, painted_set, record
from bisquit.augmenting import Count
from bisquit.captions import TRAITS, load_captions
from bisquit.errors import FrameError, RunError
from bisquit.presets import PRESETS
from bisquit.record import RECORD_FILE, RunRecord
from bisquit.training import run

ASKED = {"classes": ["ice"], "seed": 0}
CLASSES = 5


def check_captions(data: bytes) -> None:
    """Read one input as a table: all that is learnt are sentences, and as many as its size allows."""
    try:
        with file_of(data, "table.toml") as path:
            found = load_captions(path)
    except FrameError as error:
        one_line(error)
        return
    assert found.learnt.keys() == found.held_back.keys()
    for sentences in found.learnt.values():
        assert sentences
        assert len(set(sentences)) == len(sentences)
        assert all(isinstance(sentence, str) and sentence.strip() for sentence in sentences)
    assert len(found.fingerprint()) == 16


def caption_seeds() -> Iterator[bytes]:
    """Yield tables to begin with."""
    traits = "".join(f"{trait} = ['a', 'b']\n" for trait in TRAITS)
    yield f"[ice]\n{traits}sentences = ['a lake', \"b\"]\nheld_back = ['x']\n".encode()
    yield b"[sand]\nsentences = ['''dunes''']\n[ice]\nground = [\"\"]\n"
    yield b"a = 1979-05-27T07:32:00Z\n[[b.c]]\nd = {e = [0x1, 1e9, inf]}\n"


@functools.cache
def sound_record() -> bytes:
    """Return a sound run.json."""
    recipe = PRESETS["demo"].tokenizer.to_dict()
    return json.dumps(RunRecord("tokenizer", None, recipe, {"frames": 1}, "float32", {"torch": "2"}).to_dict()).encode()


@functools.cache
def sound_state() -> bytes:
    """Return what of a state is read before Lightning reads it."""
    file = io.BytesIO()
    torch.save({"global_step": 7, "state_dict": {"weight": torch.ones(2)}}, file)
    return file.getvalue()


def check_run(data: bytes) -> None:
    """Read one input as a run's record, or as its state."""
    if not data:
        return
    way, rest = data[0] % 4, data[1:]
    if way < 2:
        check_record(rest if way == 0 else changed(sound_record(), rest))
    else:
        check_state(rest if way == 2 else changed(sound_state(), rest))


def check_record(data: bytes) -> None:
    """Read a record; what can be read is the same when it is written and read again."""
    try:
        with file_of(data, RECORD_FILE) as path:
            found = RunRecord.load(path.parent)
    except RunError as error:
        one_line(error)
        return
    with file_of(json.dumps(found.to_dict()).encode(), RECORD_FILE) as path:
        again = RunRecord.load(path.parent)
    assert repr(again) == repr(found)


def check_state(data: bytes) -> None:
    """Read a state's step; nothing in it is run."""
    try:
        with file_of(data, "last.ckpt") as path:
            step = run._saved_step(path)
    except RunError as error:
        one_line(error)
        return
    assert isinstance(step, int)


def run_seeds() -> Iterator[bytes]:
    """Yield records and states to begin with."""
    yield b"\0" + sound_record()
    yield b"\1"
    yield b"\1\0\x40\1"
    yield b"\2" + sound_state()
    yield b"\3"
    yield b"\3\0\x40\1"


@functools.cache
def sound_journal() -> bytes:
    """Return a sound journal."""
    lines = (ASKED, {"track": "ice", "count": {"painted": 4, "taken": 2, "copies": 0}, "rows": []})
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


def check_journal(data: bytes) -> None:
    """Read one input as a journal: a set goes on after its last whole line."""
    if not data:
        return
    journal = data[1:] if data[0] % 2 == 0 else changed(sound_journal(), data[1:])
    whole = journal[: journal.rfind(b"\n") + 1]
    try:
        with file_of(whole, painted_set.JOURNAL) as path:
            if not whole:
                return
            begun = painted_set._begun(path, ASKED)
    except FrameError as error:
        one_line(error)
        return
    assert all(isinstance(name, str) and isinstance(count, Count) for name, count in begun.items())


def journal_seeds() -> Iterator[bytes]:
    """Yield journals to begin with."""
    yield b"\0" + sound_journal()
    yield b"\1"
    yield b"\1\0\x40\1"


CAPTIONS = Target(check_captions, caption_seeds, (captions,))
RUNS = Target(check_run, run_seeds, (record, config, run))
JOURNALS = Target(check_journal, journal_seeds, (painted_set,))
