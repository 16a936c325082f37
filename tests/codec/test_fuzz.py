"""What fuzzing kept, again, and some inputs at random: each is the right picture or one clear error."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[2] / "fuzz"))

import fuzz_codec


def test_kept_inputs_do_no_harm() -> None:
    inputs = [path.read_bytes() for path in sorted(fuzz_codec.CORPUS.iterdir())]
    assert len(inputs) > 20
    for data in inputs:
        fuzz_codec.check(data)


def test_random_inputs_do_no_harm() -> None:
    runs, _ = fuzz_codec.fuzz_at_random(2000)
    assert runs > 2000


def test_the_seeds_reach_what_they_are_for() -> None:
    """Sound files decode and sound archives are read, so that changes to them start from there."""
    files, pictures = fuzz_codec.sound()
    for file, picture in zip(files, pictures, strict=True):
        decoded = fuzz_codec.decoded(file)
        assert decoded is not None
        assert np.array_equal(decoded, picture)
    assert [file for _, file in fuzz_codec.read_archive(fuzz_codec.sound_archive())] == files


def test_a_wrong_picture_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The check fails where a damaged file is decoded as if it were sound, and on an error that is not the codec's."""
    monkeypatch.setattr(fuzz_codec, "decoded", lambda file: np.zeros((8, 12, 3), np.uint8))
    with pytest.raises(AssertionError):
        fuzz_codec.check(bytes([2, 0, 0, 100, 7]))

    def fail(file: bytes) -> None:
        raise ValueError("not ours")

    monkeypatch.setattr(fuzz_codec, "decoded", fail)
    with pytest.raises(ValueError, match="not ours"):
        fuzz_codec.check(b"\0bq")


def test_changes_are_what_they_say() -> None:
    data = bytes(range(100))
    assert fuzz_codec.changed(data, b"") == data
    assert fuzz_codec.changed(data, bytes([0, 0, 1])) == bytes([1]) + data[1:]
    assert fuzz_codec.changed(data, bytes([1, 128, 0])) == data[:50]
    assert fuzz_codec.changed(data, bytes([3, 0, 5])) == data[5:]
    assert len(fuzz_codec.changed(data, bytes([2, 128, 3]))) == 103
