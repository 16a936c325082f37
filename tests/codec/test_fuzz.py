"""The fuzzing of the codec finds what it is for; `tests/test_fuzz.py` gives it what fuzzing kept."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[2] / "fuzz"))

import fuzz_codec


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
