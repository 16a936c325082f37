"""The codec's benchmark: what it keeps, how it compares, and what it shows."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("pillow_jxl", reason="needs the extra bench")

from other_codecs import OTHER_CODECS, OtherCodec

import codec


@pytest.fixture
def frames(make_noise) -> np.ndarray:
    smooth = np.add.outer(np.arange(100), np.arange(150))[None, :, :, None] + np.array([0, 40, 90])
    noise = make_noise(3, 100, 150)[:]
    return ((3 * smooth + noise) // 4 % 256).astype(np.uint8)


@pytest.mark.parametrize("other", OTHER_CODECS, ids=lambda other: other.name)
def test_others_fall_in_bytes_with_quality_and_scale(other: OtherCodec, frames: np.ndarray) -> None:
    low, high = (len(other.encode(frames[0], quality, 1)) for quality in (other.qualities[0], other.qualities[-1]))
    assert len(other.encode(frames[0], other.qualities[0], 3)) < low < high
    for scale in (1, 3):
        data = other.encode(frames[0], other.qualities[-1], scale)
        assert 0 < other.payload(data) <= len(data)
        back = other.decode(data, (100, 150)).astype(np.float64)
        assert back.shape == (100, 150, 3)
        assert np.abs(back - frames[0]).mean() < 40


def test_a_setting_is_measured_once(frames: np.ndarray, tmp_path) -> None:
    calls = []

    def store(batch: np.ndarray) -> codec.Stored:
        calls.append(len(batch))
        return codec.Stored([b"12345"] * len(batch), [3] * len(batch), batch)

    point, ours = codec.Point("any", "any-1", "", store), codec.Point(codec.OURS, f"{codec.OURS}-old", "", store)
    path = tmp_path / "docs" / "record.json"
    record = codec.Record(path, frames, [point, ours])
    first = record.measured(point)
    assert (first["file_bytes"], first["payload_bytes"]) == (5, 3)
    assert first["ssim"] == pytest.approx(1)
    assert record.measured(point) == first
    assert record.measured(ours) == first
    assert calls == [3, 3]
    kept = codec.Record(path, frames, [ours])
    assert kept.measured(point) == first
    assert kept.measured(ours) == first
    assert calls == [3, 3]
    assert set(codec.Record(path, frames).settings) == {"any-1"}
    codec.Record(path, frames[:2], [point]).measured(point)
    assert calls == [3, 3, 2]


def result(size: float, psnr: float) -> codec.Result:
    return {"file_bytes": size, "payload_bytes": size - 10, "psnr_db": psnr, "ssim": psnr / 40, "ms_ssim": psnr / 30}


def test_settings_that_another_size_beats_go_no_further(frames: np.ndarray, tmp_path) -> None:
    def point(scale: int, size: int, noise: int) -> codec.Point:
        def store(batch: np.ndarray) -> codec.Stored:
            return codec.Stored([bytes(size)] * len(batch), [size - 10] * len(batch), batch ^ noise)

        return codec.Point("any", f"{size}-of-1-{scale}", f"any {scale}", store)

    whole = [point(1, 500, 31), point(1, 600, 15), point(1, 700, 7), point(1, 1300, 3), point(1, 2000, 1)]
    half = [point(2, 200, 63), point(2, 400, 31), point(2, 580, 15), point(2, 900, 7)]
    worth = codec.worth_measuring([*whole, *half], codec.Record(tmp_path / "trial.json", frames))
    assert worth == [whole[1], whole[2], whole[3], half[0], half[1], half[2]]


def test_rates_are_against_each_and_the_best_of_all() -> None:
    results = {
        codec.OURS: {"a": result(100, 20), "b": result(500, 30)},
        "double": {"a": result(200, 20), "b": result(1000, 30)},
        "worse": {"a": result(400, 20), "b": result(2000, 30)},
    }
    rates = codec.bd_rates(results, "psnr_db")
    assert rates["double"] == pytest.approx(-0.5)
    assert rates["worse"] == pytest.approx(-0.75)
    assert rates["the best of all"] == pytest.approx(-0.5)
    assert rates["the best of all, payloads"] < -0.5


def test_a_best_that_is_not_reached_has_no_rate(capsys: pytest.CaptureFixture[str]) -> None:
    results = {
        codec.OURS: {"a": result(100, 20), "b": result(300, 22)},
        "other": {"a": result(200, 20), "b": result(700, 30)},
    }
    assert codec.bd_rates(results, "psnr_db")["other"] is None
    assert "add a setting" in capsys.readouterr().out
    assert codec.percent(None) == "—"
    assert codec.percent(-0.256) == "−25.6%"


def test_pictures_are_shown_at_no_fewer_bytes() -> None:
    frame = np.zeros((2, 2, 3), np.uint8)
    tries = [
        codec.Stored([b"1" * size], [size], np.full((1, 2, 2, 3), level, np.uint8))
        for size, level in ((10, 1), (30, 9), (20, 7), (40, 8), (90, 2))
    ]
    assert codec.nearest_above(tries, 0, 15, frame)[0, 0, 0] == 7
    assert codec.nearest_above(tries, 0, 50, frame)[0, 0, 0] == 2
    assert codec.nearest_above(tries, 0, 99, frame)[0, 0, 0] == 2
