"""The search for better tokens: less cost, the same on every machine, and targets met."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest
import torch

from bisquit.codec import Codec, CodecModel, RateConfig, Rung, coding, search
from bisquit.codec.rate import BEST_QUALITY, ROUNDS, Try, furthest, most_error, trades
from bisquit.engine import EnginePrior, EngineTokenizer, IntegerPrior, IntegerTokenizer, engine_missing
from bisquit.errors import ConfigError
from bisquit.frames import load_frames
from bisquit.generate import load
from bisquit.quantizers import BSQConfig, FSQConfig, QuantizerConfig, VQConfig

needs_engine = pytest.mark.skipif(engine_missing() is not None, reason="the engine is not built here")


@pytest.fixture(scope="module")
def frames() -> torch.Tensor:
    return torch.from_numpy(load_frames("bundled:valid")[::40][:4])


@pytest.fixture(scope="module")
def codec() -> Codec:
    model = load("seed")
    return Codec([Rung(CodecModel(model.tokenizer, model.prior, model.frame_size))])


def squared_error(tokenizer: search.AnyTokenizer, tokens: torch.Tensor, frames: torch.Tensor) -> np.ndarray:
    decoded = tokenizer.decode(tokens, (frames.shape[1], frames.shape[2]))
    return (decoded.double() - frames.double()).square().flatten(1).sum(dim=1).numpy()


@needs_engine
def test_a_search_lowers_error_and_bytes_together(frames: torch.Tensor) -> None:
    model = load("seed")
    tokenizer = EngineTokenizer(IntegerTokenizer(model.tokenizer))
    prior = EnginePrior(IntegerPrior(model.prior))
    nearest = tokenizer.encode(frames)

    def costs(tokens: torch.Tensor) -> np.ndarray:
        return np.array([squared_error(tokenizer, tokens, frames).sum(), sum(map(len, coding.encode(prior, tokens)))])

    first = costs(nearest)
    for trade, (error, size) in {0.0: (0.9, 1.3), 1600.0: (0.9, 1.05), 8000.0: (1.1, 0.8)}.items():
        got = costs(search.improve(tokenizer, prior, frames, nearest, np.full(len(frames), trade), 2))
        assert got[0] < error * first[0]
        assert got[1] < size * first[1]


@pytest.mark.parametrize("grid", [(2, 3), (1, 1), (7, 4)])
@pytest.mark.parametrize(
    "config", [BSQConfig(bits=1), BSQConfig(bits=4), FSQConfig((8, 2)), VQConfig(bits=4, code_width=3)]
)
def test_every_way_of_computing_finds_the_same_tokens(
    make_tokenizer, make_prior, make_noise, grid: tuple[int, int], config: QuantizerConfig
) -> None:
    tokenizer = IntegerTokenizer(make_tokenizer(quantizer=config))
    prior = IntegerPrior(make_prior(bits=config.bits, grid=grid, neighbours=2))
    frames = torch.from_numpy(make_noise(5, 4 * grid[0] - 1, 4 * grid[1])[:])
    nearest, trade = tokenizer.encode(frames), np.array([0.0, 100.0, 1e3, 1e4, 1e5])
    wanted = search.improve(tokenizer, prior, frames, nearest, trade, 2)
    assert wanted.shape == nearest.shape
    assert wanted.dtype == torch.int64
    alone = [search.improve(tokenizer, prior, frames[i, None], nearest[i, None], trade[i, None], 2) for i in range(5)]
    assert torch.equal(torch.cat(alone), wanted)
    if engine_missing() is None:
        engines = EngineTokenizer(tokenizer, threads=3), EnginePrior(prior, threads=2)
        assert torch.equal(search.improve(*engines, frames, nearest, trade, 2), wanted)


def test_no_sweeps_change_nothing(make_tokenizer, make_prior, make_noise) -> None:
    tokenizer, prior = IntegerTokenizer(make_tokenizer()), IntegerPrior(make_prior())
    frames = torch.from_numpy(make_noise(2)[:])
    nearest = tokenizer.encode(frames)
    assert search.improve(tokenizer, prior, frames, nearest, np.zeros(2), 0) is nearest


@pytest.mark.parametrize("most", [1, 9])
def test_the_cheapest_code_is_that_of_all_tried_one_by_one(most: int) -> None:
    """The quadratic model written out as a sum over channels, for every code."""
    rng = np.random.default_rng(0)
    channels, cells = 3, (2, 2, 2)
    table = rng.integers(-most, most + 1, (8, channels)).astype(np.float64)
    tokens = rng.integers(0, 8, cells)
    slopes = rng.integers(-50, 50, (*cells, channels)).astype(np.float64)
    curvature = rng.integers(0, 12, (2, channels)).astype(np.float64)
    prices = rng.integers(0, 60, (*cells, 8)).astype(np.float64)
    got = search._cheapest(tokens, slopes, curvature, prices, table)
    for b, i, j in itertools.product(*map(range, cells)):
        costs = []
        for code in range(8):
            steps = table[code] - table[tokens[b, i, j]]
            cost = sum(steps[k] * slopes[b, i, j, k] for k in range(channels)) + prices[b, i, j, code]
            cost += sum(steps[k] ** 2 * curvature[b, k] for k in range(channels))
            costs.append(cost)
        assert got[b, i, j] == int(np.argmin(costs))


@pytest.mark.parametrize("grid", [(1, 1), (2, 9), (12, 13), (20, 30)])
@pytest.mark.parametrize("config", [BSQConfig(bits=4), BSQConfig(bits=10), FSQConfig((8, 4, 2)), VQConfig(bits=4)])
def test_curvature_is_measured_along_every_channel(
    make_tokenizer, make_noise, monkeypatch: pytest.MonkeyPatch, grid: tuple[int, int], config: QuantizerConfig
) -> None:
    """Of a decoder that adds up what the steps of a patch are worth: then it is exact, whatever is moved."""
    tokenizer = IntegerTokenizer(make_tokenizer(quantizer=config))
    p, channels = tokenizer.patch_size, len(tokenizer.codebook.spread)
    frames = torch.from_numpy(make_noise(2, p * grid[0], p * grid[1])[:])
    worth = np.arange(1, channels + 1)

    def decode(vectors: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        levels = vectors.numpy().astype(np.int64) @ worth
        return torch.from_numpy(np.repeat(levels.repeat(p, 1).repeat(p, 2)[..., None], 3, axis=3))

    monkeypatch.setattr(tokenizer, "decode_vectors", decode)
    got = search._Pictures(tokenizer, frames).curvature(tokenizer.encode(frames))
    assert np.array_equal(got, np.tile(3.0 * p**2 * worth**2, (2, 1)))


def test_parts_of_one_are_as_fine_as_vectors_are_long() -> None:
    parts = [search.Exact.of(np.array([[1.0, -top]])).parts for top in (1, 2, 3, 64, 127)]
    assert parts == [1, 4, 16, 4096, 16384]
    exact = search.Exact.of(np.array([[2.0]]))
    assert exact.slopes(np.array([0.1, 0.2, -7.4])).tolist() == [0, 0.25, -7.5]


@pytest.mark.parametrize(("top", "channels"), [(1, 10), (1, 32), (127, 8), (127, 5000)])
def test_sums_are_exact_in_any_order_however_steep_the_error(top: int, channels: int) -> None:
    rng = np.random.default_rng(0)
    table = rng.integers(-top, top + 1, (32, channels)).astype(np.float64)
    table[0] = top
    exact, cells = search.Exact.of(table), (1, 2, 2)
    slopes = exact.slopes(rng.normal(0, 1e30, (*cells, channels)) * rng.choice([1, 1e-25], (*cells, channels)))
    curvature = exact.curvatures(np.abs(rng.normal(0, 1e30, (1, channels)) * rng.choice([1, 1e-25], (1, channels))))
    assert np.abs(slopes).max() == exact.largest_slope > 1e6 / channels
    linear = slopes - 2 * table[3] * curvature[0]
    for values, of in ((linear, table), (curvature, np.square(table))):
        wanted = [[sum(map(Fraction, row * code)) for code in of] for row in values.reshape(-1, channels)]
        order = rng.permutation(channels)
        for got in (values @ of.T, values[..., order] @ of[:, order].T):
            assert (got.reshape(-1, len(of)) == np.array(wanted, dtype=object)).all()


@needs_engine
def test_targets_are_met(codec: Codec, frames: torch.Tensor, caplog: pytest.LogCaptureFixture) -> None:
    pictures = frames.numpy()
    plain = codec.compress(pictures, RateConfig(effort=1))
    wanted = max(map(len, plain))
    files = codec.compress(pictures, RateConfig(target_bytes=wanted, effort=1))
    assert max(map(len, files)) <= wanted
    best = codec.compress(pictures, RateConfig(quality=BEST_QUALITY, effort=1))
    for file, of_best in zip(files, best, strict=True):
        assert len(file) > 0.95 * wanted or file == of_best

    files = codec.compress(pictures, RateConfig(target_psnr=23.5, effort=1))
    errors = (np.stack(codec.decompress(files)).astype(np.float64) - pictures).reshape(len(files), -1)
    psnr = 10 * np.log10(255**2 / np.square(errors).mean(axis=1))
    assert (psnr >= 23.5).all()
    assert psnr.min() < 24
    assert not caplog.records


@needs_engine
def test_a_target_out_of_reach_is_named(codec: Codec, frames: torch.Tensor, caplog: pytest.LogCaptureFixture) -> None:
    pictures = frames.numpy()[:1]
    for rate, quality in ((RateConfig(target_bytes=20, effort=1), 0), (RateConfig(target_psnr=60, effort=1), 100)):
        caplog.clear()
        assert codec.compress(pictures, rate) == codec.compress(pictures, RateConfig(quality=quality, effort=1))
        assert [record.getMessage() for record in caplog.records] == [
            "1 of 1 pictures miss the target: no quality of this codec meets it"
        ]


@needs_engine
def test_quality_orders_error(codec: Codec, frames: torch.Tensor) -> None:
    pictures = frames.numpy()
    sizes, errors = [], []
    for quality in (0, 50, 100):
        files = codec.compress(pictures, RateConfig(quality=quality))
        sizes.append(sum(map(len, files)))
        errors.append(np.square(np.stack(codec.decompress(files)).astype(np.float64) - pictures).sum())
    assert sizes == sorted(sizes)
    assert errors == sorted(errors, reverse=True)


def test_pictures_that_do_not_fit_into_memory_come_out_the_same(make_tokenizer, make_prior, make_noise) -> None:
    codec, frames = Codec([Rung(CodecModel(make_tokenizer(), make_prior(), None, "torch"))]), make_noise(5)[:]
    seen: list[float] = []
    wanted = codec.compress(frames, RateConfig(target_bytes=11, effort=1), lambda done, of: seen.append(done / of))
    assert seen == sorted(seen)
    assert 0.4 < seen[-1] <= 1
    codec.models[0].at_once = 2
    assert codec.compress(frames, RateConfig(target_bytes=11, effort=1)) == wanted


@pytest.mark.parametrize("count", [0, 1, 7])
def test_furthest_finds_the_last_good_step_of_each(count: int) -> None:
    rng = np.random.default_rng(1)
    last = rng.integers(-1, BEST_QUALITY + 1, count)
    rounds = []

    def attempt(pictures: np.ndarray, steps: np.ndarray) -> list[Try]:
        rounds.append(len(pictures))
        return [Try(bytes([step]), bool(step <= last[i])) for i, step in zip(pictures, steps, strict=True)]

    found = furthest(count, attempt)
    assert [tried.data[0] for tried in found] == [max(step, 0) for step in last]
    assert [tried.is_good for tried in found] == [step >= 0 for step in last]
    assert len(rounds) <= ROUNDS


def test_trades_are_whole_and_fall_with_quality() -> None:
    of_all = trades(np.arange(101))
    assert of_all[0] == 2**14
    assert of_all[16] == 2**13
    assert (of_all == np.rint(of_all)).all()
    assert (np.diff(of_all) < 0).all()


def test_most_error_is_that_of_the_psnr() -> None:
    assert most_error(20.0, 100) == round(100 * 255**2 / 100)


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"quality": -1}, "quality"),
        ({"quality": 101}, "quality"),
        ({"effort": 10}, "effort"),
        ({"target_bytes": 0}, "target_bytes"),
        ({"target_bytes": 300, "effort": 0}, "effort"),
        ({"target_psnr": float("nan")}, "target_psnr"),
        ({"target_bytes": 300, "target_psnr": 25.0}, "target_psnr"),
    ],
)
def test_what_cannot_be_asked_is_named(settings: dict[str, float], field: str) -> None:
    with pytest.raises(ConfigError, match=field):
        RateConfig(**settings)  # type: ignore[arg-type]
