"""The Bjontegaard delta: known curves give known numbers, and what cannot be compared is refused."""

from __future__ import annotations

import numpy as np
import pytest

from bisquit.errors import ConfigError
from bisquit.evaluation.rate_distortion import Curve, Setting, bd_rate


def curve(factor: float = 1.0, shift_db: float = 0.0, points: int = 9) -> Curve:
    """A codec that doubles its bytes for each 3 dB, from 22 dB at 128 bytes to 31 dB at 1,024."""
    rates = np.geomspace(128, 1024, points)
    return Curve([Setting(factor * rate, 22 + 3 * np.log2(rate / 128) + shift_db) for rate in rates])


@pytest.mark.parametrize("factor", [0.5, 0.75, 1.0, 1.1])
def test_as_many_times_the_bytes_everywhere(factor: float) -> None:
    assert bd_rate(curve(factor), [curve()], 200, 800) == pytest.approx(factor - 1, abs=1e-3)


def test_three_decibels_more_are_half_the_bytes() -> None:
    assert bd_rate(curve(shift_db=3.0), [curve()], 257, 800) == pytest.approx(-0.5, abs=1e-3)


def test_the_best_of_the_others_counts_at_each_quality() -> None:
    low, high = curve(points=9), curve(0.8, points=9)
    better_below = Curve([Setting(100, 22), Setting(200, 25), Setting(2000, 25.1)])
    assert bd_rate(curve(), [low, high], 200, 800) == pytest.approx(1 / 0.8 - 1, abs=1e-3)
    mixed = bd_rate(curve(), [low, better_below], 150, 800)
    assert 0 < mixed < 0.28  # 256 bytes for 200 up to 25 dB, then nothing


def test_settings_that_others_beat_do_not_count() -> None:
    with_bad = Curve([Setting(300, 20), *[Setting(r, 22 + 3 * np.log2(r / 128)) for r in (128, 256, 512, 1024)]])
    assert bd_rate(with_bad, [curve()], 200, 800) == pytest.approx(0, abs=1e-3)


def test_what_the_codec_does_not_reach_is_said() -> None:
    short = Curve([Setting(100, 22), Setting(300, 26)])
    with pytest.raises(ConfigError, match="add a setting"):
        bd_rate(short, [curve()], 200, 800)
    with pytest.raises(ConfigError, match="no quality between"):
        bd_rate(curve(), [curve()], 5000, 8000)
    for settings in ([Setting(100, 22)], [Setting(0, 22), Setting(9, 23)], [Setting(5, 22), Setting(9, np.inf)]):
        with pytest.raises(ConfigError, match="two settings at least"):
            Curve(settings)


def test_a_codec_whose_first_setting_is_good_already_pays_its_bytes() -> None:
    ours = Curve([Setting(400, 29), Setting(800, 33)])
    expected = np.mean([np.log(400 / rate) for rate in np.geomspace(200, 640, 4000)])  # the others' 29 dB take 645
    assert bd_rate(ours, [curve()], 200, 640) == pytest.approx(np.expm1(expected), abs=0.01)
