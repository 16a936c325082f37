from __future__ import annotations

import functools
import json
import operator

import pytest
from measure import Timing, alternate, finish, run_in_fresh_process


def test_sides_are_warmed_up_and_then_run_in_alternating_order() -> None:
    order: list[str] = []
    times = alternate({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, rounds=3)
    assert "".join(order) == "ab" + "ab" + "ba" + "ab"
    assert list(times) == ["a", "b"]


def test_a_timing_is_the_median_between_its_extremes() -> None:
    assert Timing.of([5.0, 1.0, 3.0]) == Timing(median_s=3.0, lowest_s=1.0, highest_s=5.0)
    assert Timing(3.0, 1.0, 5.0).scaled(0.5) == Timing(1.5, 0.5, 2.5)


def test_a_fresh_process_reports_its_own_peak_memory_alone() -> None:
    held_here = b"x" * 800_000_000  # which a fork, and Linux's ru_maxrss, would count
    ran = run_in_fresh_process(functools.partial(operator.mul, b"x", 150_000_000))
    assert len(ran.returned) == 150_000_000
    assert 150 < ran.peak_mb < len(held_here) / 1e6


def test_the_last_line_is_json_with_four_digits(capsys: pytest.CaptureFixture[str]) -> None:
    finish({"seconds": 0.123456, "spread": [1.0, 2.000049], "rounds": 12345, "absent": None})
    last = capsys.readouterr().out.splitlines()[-1]
    assert json.loads(last) == {"seconds": 0.1235, "spread": [1.0, 2.0], "rounds": 12345, "absent": None}
