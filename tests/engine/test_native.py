"""The native decoder: the logits and pictures of the PyTorch priors, on any kernels and threads, whatever it gets."""

from __future__ import annotations

import copy
import functools
import math
import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.engine.driver import KERNELS, Case, cases, every_kernel, needs_engine
from torch import Tensor

from bisquit.engine import EnginePrior, IntegerPrior, native
from bisquit.engine.frequencies import TOTAL
from bisquit.engine.native import _float_arrays, integer_arrays
from bisquit.errors import ConfigError, ModelError, ShapeError, TokenError
from bisquit.priors import RasterPrior, SequentialPrior
from bisquit.sampling import SamplingConfig, picture_seed, sample, sequential

pytestmark = needs_engine

CASES = cases((0.5, 0.5, 1e-3, 0.5, 0.0))
PAINTED = Case(grid=(3, 4), width=20, bits=4)
AMONG_NEIGHBOURS = replace(PAINTED, neighbours=4)
SETTINGS = [
    SamplingConfig(),
    SamplingConfig(top_k=3),
    SamplingConfig(top_p=0.7),
    SamplingConfig(min_p=0.2),
    SamplingConfig(temperature=0.8, top_k=5, top_p=0.9, min_p=0.05),
    SamplingConfig(temperature=0.0),
    SamplingConfig(temperature=0.0, top_k=2),
    SamplingConfig(temperature=0.3),
    SamplingConfig(temperature=3.0),
    SamplingConfig(temperature=3.0, top_p=0.5),
]

every_case = pytest.mark.parametrize("case", CASES, ids=str)
every_setting = pytest.mark.parametrize("settings", SETTINGS, ids=str)
every_picture = pytest.mark.parametrize("case", [PAINTED, AMONG_NEIGHBOURS], ids=["alone", "among-neighbours"])
every_precision = pytest.mark.parametrize("precision", ["float32", "int8"])


@functools.cache
def torch_prior(case: Case, precision: str) -> RasterPrior | IntegerPrior:
    return IntegerPrior(case.prior()) if precision == "int8" else case.prior()


@functools.cache
def exact_logits(case: Case) -> Tensor:
    with torch.no_grad():
        return case.prior().double().logits(case.tokens())


@functools.cache
def wanted_pictures(case: Case, precision: str, settings: SamplingConfig) -> Tensor:
    return sample(torch_prior(case, precision), range(20), seed=5, settings=settings)


def head_of(prior: RasterPrior, weight: float, bias: float) -> RasterPrior:
    """The prior with a head of these numbers alone."""
    with torch.no_grad():
        prior.head.weight.fill_(weight)
        prior.head.bias.fill_(bias)
    return prior


# Logits.


@every_kernel
@every_case
def test_logits_are_those_of_float64_as_closely_as_pytorchs(case: Case, kernels: str):
    wanted, scale = exact_logits(case), exact_logits(case).abs().max().clamp_min(1)
    with torch.no_grad():
        pytorchs_error = (torch_prior(case, "float32").logits(case.tokens()) - wanted).abs().max()
    error = (EnginePrior(case.prior(), case.threads, kernels).logits(case.tokens()) - wanted).abs().max()
    assert error < 1e-4
    assert error < 1e-5 * scale + 5 * pytorchs_error


@every_precision
@every_kernel
@every_case
def test_logits_token_by_token_are_those_of_all_at_once(case: Case, precision: str, kernels: str):
    engine, tokens = EnginePrior(torch_prior(case, precision), case.threads, kernels), case.tokens()
    atol = 0 if precision == "int8" else 1e-5 * max(1, float(exact_logits(case).abs().max()))
    torch.testing.assert_close(token_by_token(engine, tokens), engine.logits(tokens), rtol=0, atol=atol)


@every_kernel
@every_case
def test_intervals_and_frequencies_are_those_of_pytorch(case: Case, kernels: str):
    prior, tokens = torch_prior(case, "int8"), case.tokens()
    engine = EnginePrior(prior, case.threads, kernels)
    wanted = prior.intervals(tokens)
    np.testing.assert_array_equal(engine.intervals(tokens), wanted)
    seen = np.zeros(wanted.shape[:2], dtype=np.int64)

    def choose(first: int, frequencies: np.ndarray) -> np.ndarray:
        """Take the given tokens, and compare what is said of them."""
        rows = slice(first, first + len(frequencies))
        step = seen[first].sum()
        chosen = tokens.flatten(1)[rows, step].numpy()
        before, own = wanted[rows, step].T
        assert (frequencies.sum(axis=1) == TOTAL).all()
        assert (np.take_along_axis(frequencies, chosen[:, None], 1)[:, 0] == own).all()
        assert ([row[:token].sum() for row, token in zip(frequencies, chosen, strict=True)] == before).all()
        seen[rows, step] = 1
        return chosen

    assert torch.equal(engine.decode(case.batch, choose), tokens)
    assert seen.all()


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("batch", [1, 2, 20])
def test_what_a_chooser_raises_comes_out_and_ends_it(batch: int, threads: int):
    case = Case(grid=(5, 7))
    engine = EnginePrior(torch_prior(case, "int8"), threads)
    calls = []

    def choose(first: int, frequencies: np.ndarray) -> np.ndarray:
        calls.append(first)
        if len(calls) > 10:
            raise KeyError(first)
        return np.zeros(len(frequencies), dtype=np.int64)

    with pytest.raises(KeyError):
        engine.decode(batch, choose)
    assert len(calls) == 11


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (np.full(3, 8), "token 8 is outside of the codebook of 8"),
        (np.full(3, -1), "token -1 is outside"),
        (np.zeros(4, np.int64), r"must return int64 \(3,\)"),
        (np.zeros(3), r"must return int64 \(3,\)"),
        (np.zeros((3, 1), np.int64), r"must return int64 \(3,\)"),
        (None, r"must return int64 \(3,\)"),
    ],
)
def test_choices_that_are_no_tokens_are_refused(wrong: Any, said: str):
    engine = EnginePrior(torch_prior(Case(), "int8"), threads=1)
    with pytest.raises(ValueError, match=said):
        engine.decode(3, lambda first, frequencies: wrong)


def zeros(first: int, frequencies: np.ndarray) -> np.ndarray:
    return np.zeros(len(frequencies), dtype=np.int64)


def test_a_session_decodes_from_its_beginning_once():
    model = EnginePrior(torch_prior(Case(), "int8"))._model
    begun = seeded(model, batch=2)
    begun.advance(1)
    assert_refused(lambda: begun.decode(zeros), "has begun")
    ended = seeded(model, batch=2)
    with pytest.raises(ZeroDivisionError):
        ended.decode(lambda first, frequencies: 1 // 0)
    assert_refused(lambda: ended.advance(2), "has ended")


def test_a_team_outlives_a_chooser_that_takes_its_time():
    case = Case(grid=(5, 7), width=64, n_heads=4)
    engine = EnginePrior(torch_prior(case, "int8"), threads=3)
    tokens = case.tokens()[:1].flatten()
    steps = iter(range(len(tokens)))

    def choose(first: int, frequencies: np.ndarray) -> np.ndarray:
        time.sleep(0.003)
        return tokens[None, next(steps)].numpy()

    assert torch.equal(engine.decode(1, choose).flatten(), tokens)


def test_frequencies_are_those_of_integers_alone():
    engine, tokens = EnginePrior(Case().prior()), Case().tokens()
    with pytest.raises(ModelError, match="in integers"):
        engine.intervals(tokens)
    with pytest.raises(ModelError, match="in integers"):
        engine.decode(1, zeros)


@every_kernel
@every_case
def test_costs_are_those_of_float64(case: Case, kernels: str):
    tokens = case.tokens()
    wanted = -exact_logits(case).log_softmax(dim=-1).gather(2, tokens.flatten(1)[..., None]) / math.log(2)
    bits = EnginePrior(case.prior(), case.threads, kernels).token_bits(tokens)
    assert bits.dtype == torch.float32
    torch.testing.assert_close(bits.double(), wanted.view(tokens.shape), rtol=1e-5, atol=2e-4)


@every_kernel
@every_precision
@pytest.mark.parametrize("batch", [1, 3])
def test_a_picture_has_the_same_bits_on_any_number_of_threads(precision: str, batch: int, kernels: str):
    """Three pictures on two threads are two groups: then only the integers are the same bits."""
    case = Case(grid=(5, 7), width=24, n_heads=3, feed_forward=100, bits=7, batch=batch, neighbours=3)
    wanted = EnginePrior(torch_prior(case, precision), threads=1, kernels=kernels).logits(case.tokens())
    atol = 0 if precision == "int8" else 1e-5
    for threads in (2, 3, 4, 7):
        engine = EnginePrior(torch_prior(case, precision), threads, kernels)
        assert torch.equal(engine.logits(case.tokens()), wanted)
        torch.testing.assert_close(token_by_token(engine, case.tokens()), wanted, rtol=0, atol=atol)


def token_by_token(engine: EnginePrior, tokens: Tensor) -> Tensor:
    """Return the logits (B, h w, codebook) of tokens (B, h, w), one step after another."""
    state, last, steps = engine.start(len(tokens)), None, []
    for step in range(engine.length):
        steps.append(engine.next_logits(state, last))
        last = tokens.flatten(1)[:, step]
    return torch.stack(steps, dim=1)


def test_by_default_it_has_as_many_threads_as_pytorch():
    assert EnginePrior(Case().prior()).threads == torch.get_num_threads()


@every_precision
def test_states_do_not_mix(precision: str):
    prior = torch_prior(Case(), precision)
    engine = EnginePrior(prior, threads=1)
    tokens = [torch.full((batch, 2, 3), fill) for batch, fill in ((1, 2), (3, 5))]
    states = [engine.start(len(given)) for given in tokens]
    with torch.no_grad():
        for step in range(engine.length):
            for state, given in zip(states, tokens, strict=True):
                logits = engine.next_logits(state, given.flatten(1)[:, step - 1] if step else None)
                torch.testing.assert_close(logits, prior.logits(given)[:, step], rtol=0, atol=1e-5)


def test_weights_are_taken_as_they_are():
    prior, tokens = Case().prior(), Case().tokens()
    engine = EnginePrior(prior)
    before = engine.logits(tokens)
    head_of(prior, 0.0, 0.0)
    assert torch.equal(engine.logits(tokens), before)
    assert not EnginePrior(prior).logits(tokens).any()


def test_tokens_may_lie_anywhere_in_memory():
    engine = EnginePrior(Case().prior(), threads=1)
    spread = torch.zeros(2, 3, 3, dtype=torch.int64).transpose(0, 2)[:, :2].transpose(1, 2)[..., :1].expand(3, 2, 3)
    spread = spread.contiguous().transpose(1, 2).contiguous().transpose(1, 2)
    assert not spread.is_contiguous()
    assert torch.equal(engine.token_bits(spread), engine.token_bits(spread.contiguous()))
    repeated = torch.tensor([[[1, 2, 3], [4, 5, 6]]]).expand(3, 2, 3)
    assert torch.equal(engine.token_bits(repeated), engine.token_bits(repeated.contiguous()))


# Pictures.


@every_kernel
@every_precision
@every_setting
@pytest.mark.parametrize("threads", [1, 2])
def test_pictures_are_those_of_pytorch(settings: SamplingConfig, precision: str, kernels: str, threads: int):
    engine = EnginePrior(torch_prior(PAINTED, precision), threads, kernels)
    wanted = wanted_pictures(PAINTED, precision, settings)
    for numbers in (range(20), range(7, 10), [11]):
        assert torch.equal(engine.paint(numbers, seed=5, settings=settings), wanted[list(numbers)])


@every_kernel
@every_precision
@pytest.mark.parametrize(
    "case",
    [
        Case(bits=1),
        Case("rotary", (9, 9), 8, bits=6),
        Case("none", (1, 1), 6, bits=11),
        Case("none", (5, 3), 20, bits=5, neighbours=1),
        Case("rotary", (4, 5), 8, bits=3, neighbours=3),
        Case("learned", (4, 4), 35, n_heads=5, bits=6, neighbours=4),
    ],
    ids=str,
)
def test_pictures_of_other_sizes_are_those_of_pytorch(case: Case, precision: str, kernels: str):
    settings = SamplingConfig(top_p=0.9)
    painted = EnginePrior(torch_prior(case, precision), threads=1, kernels=kernels).paint(
        range(20), seed=5, settings=settings
    )
    assert torch.equal(painted, wanted_pictures(case, precision, settings))


@every_picture
@every_precision
@every_setting
def test_pictures_are_the_same_whoever_decides(
    case: Case, settings: SamplingConfig, precision: str, monkeypatch: pytest.MonkeyPatch
):
    """With so much doubt, PyTorch decides most races: each must be the one that the engine has run."""
    wanted = wanted_pictures(case, precision, settings)
    monkeypatch.setattr(native, "ENGINE_DOUBT", 5.0)
    monkeypatch.setattr(sequential, "DOUBT", 5.0)
    for threads, kernels in enumerate(KERNELS, start=1):
        engine, decided = EnginePrior(torch_prior(case, precision), threads, kernels), []
        decide = engine._decide

        def counted(*arguments: Any, decide: Any = decide, decided: list[Any] = decided) -> int:
            decided.append(arguments)
            return decide(*arguments)

        monkeypatch.setattr(engine, "_decide", counted)
        assert torch.equal(engine.paint(range(6), seed=5, settings=settings), wanted[:6])
        assert len(decided) > 20
        assert torch.equal(engine.paint([13], seed=5, settings=settings), wanted[13:14])


@every_precision
@every_kernel
def test_ties_are_decided_as_pytorch_does(precision: str, kernels: str):
    prior = head_of(Case().prior(), 0.0, 1.0)
    model = IntegerPrior(prior) if precision == "int8" else prior
    for settings in (SamplingConfig(temperature=0.0), SamplingConfig(top_k=2), SamplingConfig(top_p=0.5)):
        painted = EnginePrior(model, kernels=kernels).paint(range(4), seed=0, settings=settings)
        assert torch.equal(painted, sample(model, range(4), seed=0, settings=settings))


@every_precision
@pytest.mark.parametrize(
    "settings",
    [
        SamplingConfig(temperature=1e-30),
        SamplingConfig(temperature=1e30, top_k=1),
        SamplingConfig(temperature=3e38, top_k=1),
        SamplingConfig(temperature=1e300, top_p=0.5, min_p=1.0),
        SamplingConfig(top_k=2**40),
        SamplingConfig(top_p=1e-300),
        SamplingConfig(min_p=1.0),
        SamplingConfig(min_p=1e-300),
    ],
    ids=str,
)
def test_settings_at_their_ends_are_heard_as_pytorch_hears_them(settings: SamplingConfig, precision: str):
    prior = torch_prior(PAINTED, precision)
    painted = EnginePrior(prior).paint(range(20), seed=5, settings=settings)
    assert torch.equal(painted, wanted_pictures(PAINTED, precision, settings))


def test_pictures_are_those_of_their_numbers_and_seed():
    engine = EnginePrior(Case().prior(), threads=1)
    whole = engine.paint(range(20), seed=3)
    assert torch.equal(engine.paint([4, 19, 1], seed=3), whole[[4, 19, 1]])
    assert torch.equal(engine.paint([2**40], seed=-1), sample(Case().prior(), [2**40], seed=-1))
    assert not torch.equal(engine.paint(range(20), seed=4), whole)


def test_dropout_is_off_while_painting(monkeypatch: pytest.MonkeyPatch):
    prior = Case().prior()
    wanted = sample(prior, range(20), seed=0)
    for module in prior.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.5
    monkeypatch.setattr(native, "ENGINE_DOUBT", 0.5)
    assert torch.equal(EnginePrior(prior.train()).paint(range(20), seed=0), wanted)


def test_sampling_from_the_engine_token_by_token_gives_the_same_pictures():
    prior = Case().prior()
    assert torch.equal(sample(EnginePrior(prior), range(6), seed=2), sample(prior, range(6), seed=2))


@every_picture
@every_precision
@every_setting
def test_given_tokens_stay_and_the_others_are_painted_after_them(case: Case, settings: SamplingConfig, precision: str):
    prior = torch_prior(case, precision)
    given = torch.randint(-16, 16, (20, 3, 4), generator=torch.Generator().manual_seed(0)).clamp_min(-1)
    before = given.clone()
    wanted = sample(prior, range(20), seed=5, settings=settings, given=given)
    for threads, kernels in enumerate(KERNELS, start=1):
        engine = EnginePrior(prior, threads, kernels)
        painted = engine.paint(range(20), seed=5, settings=settings, given=given)
        assert torch.equal(painted[given >= 0], given[given >= 0])
        assert torch.equal(painted, wanted)
    assert torch.equal(given, before)


@every_precision
def test_pictures_that_are_given_in_full_come_back(precision: str):
    prior, tokens = torch_prior(PAINTED, precision), PAINTED.tokens()
    assert torch.equal(EnginePrior(prior).paint(range(3), seed=0, given=tokens), tokens)


def test_nothing_given_changes_nothing():
    engine = EnginePrior(torch_prior(PAINTED, "float32"))
    painted = engine.paint(range(20), seed=5, given=torch.full((20, 3, 4), -1))
    assert torch.equal(painted, wanted_pictures(PAINTED, "float32", SamplingConfig()))


def test_given_tokens_that_do_not_fit_are_refused():
    engine = EnginePrior(Case().prior())
    with pytest.raises(ShapeError, match="1 pictures are given for 2"):
        engine.paint(range(2), seed=0, given=torch.zeros(1, 2, 3, dtype=torch.int64))
    with pytest.raises(ShapeError, match=r"\(B, 2, 3\)"):
        engine.paint([0], seed=0, given=torch.zeros(1, 3, 2, dtype=torch.int64))
    with pytest.raises(ShapeError, match="int32"):
        engine.paint([0], seed=0, given=torch.zeros(1, 2, 3, dtype=torch.int32))
    with pytest.raises(TokenError, match="8"):
        engine.paint([0], seed=0, given=torch.full((1, 2, 3), 8))
    with pytest.raises(TokenError, match="-2"):
        engine.paint([0], seed=0, given=torch.full((1, 2, 3), -2))


@every_precision
@pytest.mark.parametrize("doubt", [1e-4, 0.5])
def test_each_row_is_told_with_all_so_far(precision: str, doubt: float, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(native, "ENGINE_DOUBT", doubt)
    told: list[tuple[int, Tensor]] = []
    engine = EnginePrior(torch_prior(PAINTED, precision), threads=1)
    painted = engine.paint(range(20), seed=5, on_token=lambda done, tokens: told.append((done, tokens.clone())))
    assert torch.equal(painted, wanted_pictures(PAINTED, precision, SamplingConfig()))
    assert [done for done, _ in told] == [4, 8, 12]
    for done, tokens in told:
        assert torch.equal(tokens.flatten(1)[:, :done], painted.flatten(1)[:, :done])
        assert not tokens.flatten(1)[:, done:].any()


def test_painting_draws_nothing_from_the_global_generator():
    engine, before = EnginePrior(Case().prior()), torch.get_rng_state()
    engine.paint(range(2), seed=0)
    assert torch.equal(torch.get_rng_state(), before)


def test_an_error_while_painting_is_passed_on():
    def stop(done: int, tokens: Tensor) -> None:
        raise KeyboardInterrupt

    engine = EnginePrior(Case().prior(), threads=2)
    with pytest.raises(KeyboardInterrupt):
        engine.paint(range(4), seed=0, on_token=stop)
    assert torch.equal(engine.paint(range(4), seed=0), sample(Case().prior(), range(4), seed=0))


def test_the_engines_pictures_are_as_likely_as_the_priors_own(seed_prior: RasterPrior):
    """In float32 they are the same pictures; those of int8 cost the float32 prior as many bits, up to chance."""
    numbers = range(12)
    floats = EnginePrior(seed_prior)
    bits = [
        floats.token_bits(EnginePrior(model).paint(numbers, seed=0)).double().sum(dim=(1, 2))
        for model in (seed_prior, IntegerPrior(seed_prior))
    ]
    gap, deviation = (bits[1] - bits[0]).mean(), (bits[0].var() + bits[1].var()).sqrt()
    assert gap.abs() < 3 * deviation / len(numbers) ** 0.5


def test_the_seed_models_picture_is_pytorchs(seed_prior: RasterPrior):
    assert torch.equal(EnginePrior(seed_prior).paint([0], seed=0), sample(seed_prior, [0], seed=0))


# What is not finite.


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_weights_that_are_not_finite_are_refused(value: float):
    case = Case(neighbours=1)
    for name, _ in case.prior().named_parameters():
        prior = case.prior()
        with torch.no_grad():
            prior.get_parameter(name).view(-1)[-1] = value
        with pytest.raises(ModelError, match="holds a number that is not finite"):
            EnginePrior(prior)


@every_precision
@pytest.mark.parametrize("scale", [1e10, 1e20, 1e30, 1e37])
@pytest.mark.parametrize("part", ["", "qkv", "mlp", "embedding", "neighbours", "positions", "norm", "head"])
def test_what_overflows_is_an_error_where_it_is_one_in_pytorch(part: str, scale: float, precision: str):
    prior = Case(neighbours=1 if part == "neighbours" else 0).prior()
    with torch.no_grad():
        for name, parameter in prior.named_parameters():
            if part in name:
                parameter.mul_(scale)
    model = IntegerPrior(prior) if precision == "int8" else prior
    is_finite = bool(model.token_bits(torch.zeros(3, 2, 3, dtype=torch.int64)).isfinite().all())
    for kernels in KERNELS:
        engine = EnginePrior(model, threads=2, kernels=kernels)
        if is_finite:
            assert engine.token_bits(torch.zeros(3, 2, 3, dtype=torch.int64)).isfinite().all()
            engine.paint(range(3), seed=0)
        else:
            with pytest.raises(ModelError, match="not finite"):
                engine.token_bits(torch.zeros(3, 2, 3, dtype=torch.int64))
            with pytest.raises(ModelError, match="not finite"):
                engine.paint(range(3), seed=0)


@every_setting
@pytest.mark.parametrize("bias", [3.3e38, -3.3e38])
def test_a_race_of_logits_without_bounds_chooses_a_token_of_the_codebook(bias: float, settings: SamplingConfig):
    """A codebook of 8 does not fill a vector: none of the lanes beside it may win."""
    model = EnginePrior(head_of(Case().prior(), 0.0, bias))._model
    for kernels in KERNELS:
        session = seeded(model, 3, kernels=kernels)
        for step in range(1, 7):
            session.advance(step, race_of(settings))
            assert 0 <= session.tokens.min() <= session.tokens.max() < 8


# The random numbers.


def seeded(model: Any, batch: int = 1, threads: int = 1, kernels: str = "") -> Any:
    session = native._native.Session(model, batch, threads, kernels)
    session.seed(np.array([picture_seed(0, i) % 2**32 for i in range(batch)], dtype=np.uint32))
    return session


def race_of(settings: SamplingConfig, doubt: float = 1e-4) -> Any:
    return native._native.Race(settings.temperature, settings.top_k, settings.top_p, settings.min_p, doubt)


def run(session: Any, until: int, settings: SamplingConfig) -> None:
    """Go on until a step; a race in doubt is left as the engine has run it."""
    while doubts := session.advance(until, race_of(settings)):
        for picture in doubts:
            session.decide(picture, int(session.tokens[picture, session.done(picture) - 1]))


@every_kernel
@pytest.mark.parametrize("bits", [1, 3, 10])
def test_the_words_of_a_race_are_those_of_a_torch_generator(bits: int, kernels: str):
    case = Case(bits=bits)
    session = seeded(EnginePrior(case.prior())._model, batch=3, kernels=kernels)
    generators = [torch.Generator().manual_seed(picture_seed(0, i)) for i in range(3)]
    for step in range(1, 7):
        while session.advance(step, race_of(SamplingConfig())):
            for i in range(3):
                session.decide(i, 0)
        for i, generator in enumerate(generators):
            words = session.words(i).astype(np.uint64).reshape(-1, 2)
            uniform = (((words[:, 0] << np.uint64(32)) | words[:, 1]) & np.uint64(2**53 - 1)) * 2.0**-53
            wanted = torch.rand(2**bits, generator=generator, dtype=torch.float64)
            np.testing.assert_array_equal(uniform, wanted.numpy())


@every_kernel
def test_winners_follow_the_chances(kernels: str):
    """Those that the engine finds, for no race is decided by PyTorch."""
    logits = torch.tensor([0.0, 1.0, -1.0, 2.0, 0.5, 0.5, -0.5, 1.5])
    prior = head_of(Case(grid=(40, 50)).prior(), 0.0, 0.0)
    with torch.no_grad():
        prior.head.bias.copy_(logits)
    session = seeded(EnginePrior(prior)._model, batch=8, kernels=kernels)
    run(session, 2000, SamplingConfig())
    expected = 16_000 * logits.softmax(0).numpy()
    counts = np.bincount(session.tokens.ravel(), minlength=8)
    assert ((counts - expected) ** 2 / expected).sum() < 24.3  # of 7 degrees of freedom: once in a thousand times


# What does not fit.


@functools.cache
def arrays_of(precision: str) -> dict[str, np.ndarray]:
    prior = Case(neighbours=3).prior()
    return integer_arrays(IntegerPrior(prior)) if precision == "int8" else _float_arrays(prior)


def pack(precision: str = "float32", arrays: dict[str, Any] | None = None, **changed: Any) -> Any:
    """Pack the prior of `Case(neighbours=3)` with something changed; an array of None is left out."""
    described = dict.fromkeys(("length",), 6) | {"width": 8, "n_layers": 2, "n_heads": 2, "feed_forward": 12}
    described |= {
        "codebook": 8,
        "neighbours": 3,
        "score_unit": 0.72,
        "epsilon": 1e-5,
        "is_int8": precision == "int8",
        **changed,
    }
    found = {name: x for name, x in (arrays_of(precision) | (arrays or {})).items() if x is not None}
    return native._native.Model(**described | changed, arrays=found)


def assert_refused(act: Callable[[], Any], *words: str) -> None:
    with pytest.raises((ValueError, TypeError, MemoryError)) as error:
        act()
    for word in words:
        assert word in str(error.value)


@every_precision
def test_every_array_must_be_there(precision: str):
    pack(precision)
    for name in arrays_of(precision):
        assert_refused(functools.partial(pack, precision, {name: None}), f"{name} is missing")


@every_precision
def test_every_array_must_have_its_shape(precision: str):
    for name, array in arrays_of(precision).items():
        for changed in (array[:-1], np.concatenate((array, array[:1])), array[None], array.ravel()[:0]):
            wrong = np.ascontiguousarray(changed)
            assert_refused(functools.partial(pack, precision, {name: wrong}), f"{name} is (", "must be (")


@every_precision
def test_every_array_must_have_its_type_and_be_contiguous(precision: str):
    for name, array in arrays_of(precision).items():
        other = np.float32 if array.dtype == np.int8 else np.int8
        integer = np.int64 if array.dtype == np.int32 else np.int32
        for dtype in (other, integer, np.float64, np.uint8, ">f4", object):
            assert_refused(functools.partial(pack, precision, {name: np.zeros(array.shape, dtype)}), name)
        spread = np.zeros((*array.shape, 2), array.dtype)[..., 0]
        assert_refused(functools.partial(pack, precision, {name: spread}), name, "contiguous")
        assert_refused(functools.partial(pack, precision, {name: array.tolist()}), name)


@every_precision
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_every_number_must_be_finite(precision: str, value: float):
    for name, array in arrays_of(precision).items():
        if array.dtype == np.float32:
            wrong = array.copy()
            wrong.flat[-1] = value
            assert_refused(functools.partial(pack, precision, {name: wrong}), name, "not finite")


def test_codes_of_minus_128_are_refused():
    codes = arrays_of("int8")["blocks.1.up.codes"].copy()
    codes[-1, -1] = -128
    assert_refused(lambda: pack("int8", {"blocks.1.up.codes": codes}), "blocks.1.up.codes holds -128")


@pytest.mark.parametrize("step", range(6))
def test_neighbours_are_steps_before_or_none(step: int):
    def among(value: int) -> Any:
        around = arrays_of("int8")["around"].copy()
        around[step, 2] = value
        return pack("int8", {"around": around})

    for value in (*range(step), 6):
        among(value)
    for value in (*range(step, 6), -1, 7, 8, 2**31 - 1, -(2**31)):
        assert_refused(functools.partial(among, value), f"around holds {value} at step {step}", "or 6 where")


@pytest.mark.parametrize("neighbours", [-1, 1, 2, 4, 64, 65, 2**31 - 1, 2**31, 1.5, "3", None])
def test_numbers_of_neighbours_that_the_arrays_do_not_have_are_refused(neighbours: Any):
    assert_refused(lambda: pack(neighbours=neighbours), "neighbours")


def test_turns_must_fit_the_heads():
    turn = np.zeros((2, 6, 2), np.float32)
    pack(arrays={"turn": turn})
    assert_refused(lambda: pack(arrays={"turn": turn[:, :5].copy()}), "turn is (2, 5, 2)", "(2, 6, 2)")
    assert_refused(lambda: pack(arrays={"turn": np.full_like(turn, np.nan)}), "turn", "not finite")
    assert_refused(lambda: pack(n_heads=8, arrays={"turn": turn[:, :, :0].copy()}), "turn")


@pytest.mark.parametrize("name", ["width", "n_layers", "n_heads", "feed_forward", "codebook", "length"])
@pytest.mark.parametrize("value", [0, -1, -(2**31), 2**31 - 1, 2**31, 2**64, 1.5, "8", None])
def test_sizes_out_of_range_are_refused(name: str, value: Any):
    assert_refused(lambda: pack(**{name: value}), name)


@every_precision
@pytest.mark.parametrize("name", ["width", "n_layers", "feed_forward", "codebook", "length"])
def test_sizes_that_the_arrays_do_not_have_are_refused(precision: str, name: str):
    for value in (4, 16, 64, 512):
        assert_refused(functools.partial(pack, precision, **{name: value}))


@pytest.mark.parametrize("n_heads", [3, 5, 6, 7])
def test_heads_that_do_not_divide_the_width_are_refused(n_heads: int):
    assert_refused(lambda: pack(n_heads=n_heads), f"n_heads is {n_heads}", "divide the width 8")


@pytest.mark.parametrize("name", ["score_unit", "epsilon"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 0.0, -1.0, 1e300, "1", None])
def test_numbers_out_of_range_are_refused(name: str, value: Any):
    assert_refused(lambda: pack(**{name: value}), name)


@pytest.fixture
def session() -> Any:
    """Return a session of two pictures of six tokens of a codebook of eight."""
    return seeded(pack(), batch=2)


@pytest.mark.parametrize("batch", [0, -1, 65537, 10**9, 2**31, 2**64, 1.5, None])
def test_batches_out_of_range_are_refused(batch: Any):
    model = pack()
    assert_refused(lambda: native._native.Session(model, batch, 1), "batch")


@pytest.mark.parametrize("threads", [0, -1, 1025, 10**6, 2**31, 1.5, None])
def test_threads_out_of_range_are_refused(threads: Any):
    model = pack()
    assert_refused(lambda: native._native.Session(model, 1, threads), "threads")


@pytest.mark.parametrize("kernels", ["neon", "AVX2", "avx2 ", "\0", "x" * 10_000, None, 2])
def test_kernels_that_there_are_not_are_refused(kernels: Any):
    model = pack()
    assert_refused(lambda: native._native.Session(model, 1, 1, kernels), "kernels")


def test_a_session_needs_a_model():
    assert_refused(lambda: native._native.Session(None, 1, 1))
    assert_refused(lambda: native._native.Session({"width": 8}, 1, 1))


@pytest.mark.skipif("libasan" in os.environ.get("LD_PRELOAD", ""), reason="the sanitizer takes all addresses")
def test_more_memory_than_there_is_is_an_error():
    resource = pytest.importorskip("resource", reason="needs limits on memory, which are POSIX's")
    statm = Path("/proc/self/statm")
    if not statm.exists():
        pytest.skip("needs Linux, which says how much memory a process has")
    model = EnginePrior(Case(grid=(20, 20), width=64).prior())._model
    before, in_use = resource.getrlimit(resource.RLIMIT_AS), int(statm.read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (in_use + 2**27, before[1]))
    try:
        with pytest.raises(MemoryError):
            native._native.Session(model, 65536, 1)  # of 26 GB
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
    assert native._native.Session(model, 1, 1).is_finite


def test_a_session_keeps_its_model():
    session = seeded(pack())
    wanted = seeded(pack())
    for each in (session, wanted):
        run(each, 6, SamplingConfig())
    np.testing.assert_array_equal(session.tokens, wanted.tokens)


def test_many_threads_are_slow_but_right():
    prior = Case().prior()
    assert torch.equal(EnginePrior(prior, threads=40).paint([0], seed=0), sample(prior, [0], seed=0))


@pytest.mark.parametrize("shape", [(0, 6), (1, 6), (3, 6), (2, 5), (2, 7), (2, 0), (6, 2), (12,), (1, 2, 6), ()])
def test_tokens_of_another_shape_are_refused(session: Any, shape: tuple[int, ...]):
    assert_refused(lambda: session.give(np.zeros(shape, np.int64)), "tokens")
    known = np.ones(shape, np.uint8)
    assert_refused(lambda: session.give(np.zeros((2, 6), np.int64), known))


@pytest.mark.parametrize("token", [-1, 8, 31, 2**31, 2**32, -(2**63), 2**63 - 1])
@pytest.mark.parametrize("known", [None, 1, 0])
def test_tokens_outside_of_the_codebook_are_refused_even_where_they_are_not_known(
    session: Any, token: int, known: int | None
):
    tokens = np.zeros((2, 6), np.int64)
    tokens[1, 4] = token
    mask = None if known is None else np.full((2, 6), known, np.uint8)
    assert_refused(lambda: session.give(tokens, mask), f"token {token} is outside of the codebook of 8")


def test_what_is_no_array_is_refused(session: Any):
    for wrong in (None, 3, "tokens", [[0] * 6] * 2, np.zeros((2, 6), object)):
        assert_refused(functools.partial(session.give, wrong))
        assert_refused(functools.partial(session.seed, wrong))


def test_arrays_of_other_integers_and_strides_are_taken_as_numpy_converts_them(session: Any):
    tokens = np.arange(24).reshape(2, 12)[:, ::2] % 8
    for given in (tokens, np.asfortranarray(tokens), tokens.astype(np.uint8), tokens.astype(np.int32)):
        session.give(given)
        np.testing.assert_array_equal(session.tokens, tokens)


@pytest.mark.parametrize("count", [0, 1, 3, 1000])
def test_seeds_for_another_batch_are_refused(session: Any, count: int):
    assert_refused(lambda: session.seed(np.zeros(count, np.uint32)), f"{count} seeds for 2 pictures")


@pytest.mark.parametrize("until", [-1, 7, 2**31 - 1, -(2**31), 2**40, 1.5, None])
def test_steps_out_of_range_are_refused(session: Any, until: Any):
    assert_refused(lambda: session.advance(until), "until")
    assert_refused(lambda: session.advance(until, race_of(SamplingConfig())), "until")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", -1.0),
        ("temperature", -1e38),
        ("temperature", math.nan),
        ("top_k", -1),
        ("top_k", 2**31),
        ("top_p", 1.5),
        ("top_p", -1.0),
        ("top_p", math.nan),
        ("min_p", -0.1),
        ("min_p", 1.5),
        ("min_p", math.nan),
        ("doubt", -1e-4),
        ("doubt", math.nan),
        ("temperature", "hot"),
        ("top_k", None),
    ],
)
def test_races_out_of_range_are_refused(session: Any, name: str, value: Any):
    fields = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "doubt": 1e-4, name: value}
    assert_refused(lambda: session.advance(1, native._native.Race(**fields)), name)


@pytest.mark.parametrize("picture", [-1, 2, 2**31 - 1, -(2**31), 2**40, None])
def test_pictures_that_there_are_not_are_refused(session: Any, picture: Any):
    session.advance(1)
    for act in (session.logits, session.words, session.done, lambda picture: session.decide(picture, 0)):
        assert_refused(functools.partial(act, picture), "picture")


@pytest.mark.parametrize("token", [-1, 8, 31, 2**31, -(2**63), 2**70, 1.5, None])
def test_no_other_token_can_be_decided(session: Any, token: Any):
    session.advance(1)
    assert_refused(lambda: session.decide(0, token), "token")


def test_nothing_is_decided_before_the_first_step(session: Any):
    assert_refused(lambda: session.decide(0, 0), "picture 0 has no token yet")


def test_a_session_that_has_not_begun_shows_nothing(session: Any):
    assert session.done(0) == 0
    assert session.is_finite
    for found in (session.tokens, session.logits(1), session.words(1)):
        assert not found.any()
    assert session.advance(0) == []
    assert session.tokens.shape == (2, 6)


def test_a_session_does_not_go_back(session: Any):
    session.advance(4)
    session.advance(2)
    assert session.done(0) == session.done(1) == 4
    session.advance(6)
    session.advance(6)
    assert session.done(0) == 6


def test_what_was_read_stays_as_it_was(session: Any):
    run(session, 1, SamplingConfig())
    read = session.tokens, session.logits(0), session.words(0)
    kept = copy.deepcopy(read)
    run(session, 6, SamplingConfig())
    del session
    for now, before in zip(read, kept, strict=True):
        np.testing.assert_array_equal(now, before)


def test_pictures_in_doubt_wait_until_they_are_decided(session: Any):
    assert session.advance(6, race_of(SamplingConfig(), doubt=100.0)) == [0, 1]
    assert session.done(0) == 1
    session.decide(1, 7)
    session.decide(0, 3)
    assert session.advance(1) == []
    assert session.tokens[:, 0].tolist() == [3, 7]


def test_a_model_cannot_be_used_before_it_is_made():
    blank = native._native.Model.__new__(native._native.Model)
    with pytest.warns(RuntimeWarning, match="uninitialized"), pytest.raises(TypeError):
        native._native.Session(blank, 1, 1)


# Steps, by way of the prior.


def test_steps_are_given_the_tokens_before_them_and_nothing_else():
    engine = EnginePrior(Case().prior())
    state, tokens = engine.start(2), torch.zeros(2, dtype=torch.int64)
    with pytest.raises(ShapeError, match=r"^step 0 was given tokens \(2,\): it takes None$"):
        engine.next_logits(state, tokens)
    engine.next_logits(state, None)
    with pytest.raises(ShapeError, match=r"^step 1 was given no tokens: it takes those before it, \(2,\)$"):
        engine.next_logits(state, None)
    with pytest.raises(ShapeError, match=r"^step 1 was given tokens \(1,\)"):
        engine.next_logits(state, tokens[:1])
    for _ in range(5):
        engine.next_logits(state, tokens)
    with pytest.raises(ShapeError, match="6 tokens, and all are there"):
        engine.next_logits(state, tokens)


def test_threads_and_kernels_out_of_range_are_configuration_errors():
    with pytest.raises(ConfigError, match="threads is -1"):
        EnginePrior(Case().prior(), threads=-1).paint([0], seed=0)
    with pytest.raises(ConfigError, match="no kernels 'mmx'"):
        EnginePrior(Case().prior(), kernels="mmx").token_bits(Case().tokens())


def test_tokens_that_do_not_fit_the_prior_are_refused():
    engine = EnginePrior(Case().prior())
    for act in (engine.logits, engine.token_bits):
        with pytest.raises(ShapeError, match=r"\(B, 2, 3\)"):
            act(torch.zeros(1, 3, 2, dtype=torch.int64))
        with pytest.raises(TokenError, match="8"):
            act(torch.full((1, 2, 3), 8))


# Python's threads.


def in_threads(count: int, act: Callable[[int], None]) -> list[BaseException]:
    raised: list[BaseException] = []

    def guarded(i: int) -> None:
        try:
            act(i)
        except BaseException as error:
            raised.append(error)

    threads = [threading.Thread(target=guarded, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return raised


def test_one_prior_paints_in_many_threads_at_once():
    prior: SequentialPrior = Case(grid=(5, 7)).prior()
    engine, wanted = EnginePrior(prior, threads=2), sample(prior, range(8), seed=0)
    painted: dict[int, Tensor] = {}
    assert not in_threads(4, lambda i: painted.update({i: engine.paint([2 * i, 2 * i + 1], seed=0)}))
    assert torch.equal(torch.cat([painted[i] for i in range(4)]), wanted)


def test_a_session_shared_by_threads_refuses_or_is_right():
    model = EnginePrior(Case(grid=(20, 20), width=64).prior())._model
    session, alone = seeded(model, batch=4), seeded(model, batch=4)
    run(alone, 400, SamplingConfig())

    def use(_: int) -> None:
        for until in range(0, 401, 8):
            run(session, until, SamplingConfig())
            session.tokens  # noqa: B018

    for error in in_threads(4, use):
        assert isinstance(error, RuntimeError)
        assert str(error) == "the session is in use by another thread"
    run(session, 400, SamplingConfig())
    np.testing.assert_array_equal(session.tokens, alone.tokens)
