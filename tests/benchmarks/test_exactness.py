"""The benchmark of exactness: what it compares, and that a difference shows."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import exactness
import pytest

from bisquit.engine import engine_missing

pytestmark = pytest.mark.skipif(engine_missing() is not None, reason="needs the engine")


def test_slow_ways_take_fewer_frames() -> None:
    assert exactness.Way("engine", 2, 64, "avx2").frames(2066, 128) == 2066
    assert exactness.Way("engine", 2, 64, exactness.PLAIN).frames(2066, 128) == 128
    assert exactness.Way("torch", 1, 64).frames(100, 128) == 100
    assert exactness.Way("torch", 2, 1).frames(2066, 128) == 16


def test_a_hash_tells_where_parts_end() -> None:
    assert exactness.hashed([b"ab", b"c"]) != exactness.hashed([b"a", b"bc"])
    assert len(exactness.hashed([b"a"] * 33)) == 3


def test_other_bytes_or_pixels_are_differences() -> None:
    wanted = {"bytes": ["a", "b"], "pixels": ["c", "d"], "searched": ["e"]}
    assert exactness.differences(wanted, wanted) == 0
    assert exactness.differences({"bytes": ["a"], "pixels": ["x"], "searched": ["e"]}, wanted) == 1
    assert exactness.differences({"bytes": ["b", "a"], "pixels": ["c", "d"], "searched": ["f"]}, wanted) == 3


def test_a_change_of_what_was_kept_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    record = tmp_path / "exactness.json"
    monkeypatch.setattr(exactness, "usable_kernels", lambda: ["baseline"])
    monkeypatch.setattr(exactness, "ways", lambda: [exactness.Way("engine", 1, 2, "baseline")])
    arguments = ["exactness.py", "--frames", "bundled:valid", "--count", "1", "--only", "seed", "--record", str(record)]
    monkeypatch.setattr(sys, "argv", arguments)

    def run() -> tuple[int, dict]:
        with pytest.raises(SystemExit) as stopped:
            exactness.main()
        return int(stopped.value.code), json.loads(capsys.readouterr().out.splitlines()[-1])

    status, result = run()
    assert status == 0
    (row,) = result["ways"]
    assert row["frames"] == 1
    assert row["differences"] == 0
    assert abs(row["beyond"]) < 0.01
    kept = json.loads(record.read_text())
    (digests,) = kept.values()
    digests["pixels"] = ["0" * 16]
    record.write_text(json.dumps(kept))
    status, result = run()
    assert status == 1
    assert result["ways"][0]["differences"] == 1
