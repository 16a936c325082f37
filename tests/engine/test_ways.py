"""The native decoder along paths of the pictures' own, told and guided: the logits and pictures of PyTorch."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from tests.conftest import roughen
from tests.engine.driver import KERNELS, every_kernel, needs_engine
from torch import Tensor

from bisquit.engine import EnginePrior, IntegerPrior, native
from bisquit.errors import ConfigError
from bisquit.priors import AnyOrderConfig, AnyOrderPrior, CausalPrior, Path, RasterConfig, build_prior
from bisquit.priors.anyorder import draw_orders
from bisquit.sampling import SamplingConfig, sample
from bisquit.transformer import TransformerConfig

pytestmark = needs_engine

GRID, BITS, BATCH = (3, 5), 4, 7
SETTINGS = [
    SamplingConfig(),
    SamplingConfig(guidance=3.0),
    SamplingConfig(guidance=0.0, temperature=0.5),
    SamplingConfig(guidance=2.0, guidance_schedule="linear", top_p=0.8),
    SamplingConfig(guidance=4.0, guidance_schedule="cosine", top_k=5, temperature=0.0),
]


@dataclass(frozen=True)
class Told:
    """A prior and a batch of pictures, each told something else, and in its own order where that may be any."""

    kind: str

    @functools.cached_property
    def prior(self) -> CausalPrior:
        transformer = TransformerConfig(width=20, n_layers=2, n_heads=2, feed_forward=33)
        configs: dict[str, Any] = {"raster": RasterConfig, "any-order": AnyOrderConfig}
        config = configs[self.kind](transformer=transformer, neighbours=4, condition_size=3)
        prior = build_prior(config, BITS, GRID)
        assert isinstance(prior, CausalPrior)
        roughen(prior, 0)
        return prior.eval()

    @functools.cached_property
    def ways(self) -> dict[str, Path]:
        conditions = torch.randn(BATCH, 3, generator=torch.Generator().manual_seed(2))
        prior = self.prior
        with torch.no_grad():
            if isinstance(prior, AnyOrderPrior):
                along = prior.along(draw_orders(BATCH, GRID, generator=torch.Generator().manual_seed(3)))
                return {"path": prior.shown(along, conditions), "guide": prior.shown(along, 0 * conditions)}
            return {
                "path": prior.conditioned(conditions, BATCH),
                "guide": prior.conditioned(0 * conditions, BATCH),
            }

    def of(self, precision: str) -> CausalPrior | IntegerPrior:
        return IntegerPrior(self.prior) if precision == "int8" else self.prior


TOLD = {kind: Told(kind) for kind in ("raster", "any-order")}
every_kind = pytest.mark.parametrize("told", TOLD.values(), ids=TOLD)
every_precision = pytest.mark.parametrize("precision", ["float32", "int8"])
every_team = pytest.mark.parametrize("threads", [1, 2, 9])  # the last is a team for all pictures
every_setting = pytest.mark.parametrize("settings", SETTINGS, ids=str)


def tokens_of(batch: int = BATCH) -> Tensor:
    return torch.randint(2**BITS, (batch, *GRID), generator=torch.Generator().manual_seed(1))


def rows(ways: dict[str, Path], chosen: slice) -> dict[str, Path]:
    return {name: way.rows(chosen) for name, way in ways.items()}


@every_kernel
@every_team
@every_kind
def test_what_is_read_along_a_path_is_what_pytorch_reads(told: Told, threads: int, kernels: str):
    tokens, path = tokens_of(), told.ways["path"]
    integer = told.of("int8")
    exact = EnginePrior(integer, threads, kernels)
    assert torch.equal(exact.logits(tokens, path), integer.logits(tokens, path))
    engine = EnginePrior(told.prior, threads, kernels)
    with torch.no_grad():
        torch.testing.assert_close(engine.logits(tokens, path), told.prior.logits(tokens, path), rtol=0, atol=1e-4)
        wanted = told.prior.token_bits(tokens, path)
    torch.testing.assert_close(engine.token_bits(tokens, path), wanted, rtol=0, atol=1e-4)
    assert (engine.logits(tokens, path) != engine.logits(tokens)).any(dim=2).all()


@every_precision
@every_kind
def test_logits_token_by_token_along_a_path_are_those_of_all_at_once(told: Told, precision: str):
    engine, tokens, path = EnginePrior(told.of(precision), 2), tokens_of(), told.ways["path"]
    steps = tokens.flatten(1) if path.order is None else tokens.flatten(1).gather(1, path.order)
    state, last, found = engine.start(BATCH, path), None, []
    for step in range(engine.length):
        found.append(engine.next_logits(state, last))
        last = steps[:, step]
    atol = 0 if precision == "int8" else 1e-5
    torch.testing.assert_close(torch.stack(found, dim=1), engine.logits(tokens, path), rtol=0, atol=atol)


@every_kernel
@every_team
@every_precision
@every_setting
@every_kind
def test_pictures_along_paths_are_those_of_pytorch(
    told: Told, settings: SamplingConfig, precision: str, threads: int, kernels: str
):
    prior = told.of(precision)
    wanted = wanted_pictures(told, settings, precision)
    engine = EnginePrior(prior, threads, kernels)
    assert torch.equal(engine.paint(range(BATCH), seed=5, settings=settings, **told.ways), wanted)
    some = slice(2, 4)
    assert torch.equal(engine.paint([2, 3], seed=5, settings=settings, **rows(told.ways, some)), wanted[some])


@functools.cache
def wanted_pictures(told: Told, settings: SamplingConfig, precision: str) -> Tensor:
    return sample(told.of(precision), range(BATCH), seed=5, settings=settings, **told.ways)


@every_kind
@pytest.mark.parametrize("settings", SETTINGS[:2], ids=str)
def test_given_tokens_stay_along_a_path(told: Told, settings: SamplingConfig):
    given = tokens_of()
    given[:, :, 1:3] = -1
    engine, seen = EnginePrior(told.prior, 2), []
    painted = engine.paint(
        range(BATCH),
        seed=0,
        settings=settings,
        given=given,
        **told.ways,
        on_token=lambda done, tokens: seen.append(tokens),
    )
    assert torch.equal(painted, sample(told.prior, range(BATCH), seed=0, settings=settings, given=given, **told.ways))
    assert torch.equal(painted[given >= 0], given[given >= 0])
    assert torch.equal(seen[-1], painted)


@every_kind
def test_races_that_hang_on_float32_are_decided_as_pytorch_does(told: Told, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(native, "ENGINE_DOUBT", 1.0)  # many are then
    settings = SamplingConfig(guidance=2.0)
    for precision in ("float32", "int8"):
        wanted = wanted_pictures(told, settings, precision)
        engine = EnginePrior(told.of(precision), 2)
        assert torch.equal(engine.paint(range(BATCH), seed=5, settings=settings, **told.ways), wanted)


def test_one_way_may_be_shared_by_all():
    prior = TOLD["any-order"].prior
    assert isinstance(prior, AnyOrderPrior)
    with torch.no_grad():
        path = prior.along(torch.arange(14, -1, -1)[None])
    shared = Path(*(part.expand(BATCH, *part.shape[1:]) for part in path if part is not None))
    own = Path(*(part.repeat(BATCH, *[1] * (part.ndim - 1)) for part in path if part is not None))
    engine = EnginePrior(prior, 2)
    assert torch.equal(engine.logits(tokens_of(), shared), engine.logits(tokens_of(), own))
    assert torch.equal(engine.paint(range(BATCH), seed=0, path=shared), engine.paint(range(BATCH), seed=0, path=own))


@pytest.mark.parametrize(
    ("places", "around"),
    [
        ((BATCH + 1, 15, 20), (BATCH + 1, 15, 4)),
        ((BATCH, 14, 20), (BATCH, 15, 4)),
        ((BATCH, 15, 21), (BATCH, 15, 4)),
        ((BATCH, 15, 20), (BATCH, 15, 5)),
        ((BATCH, 15, 20), (1, 15, 4)),
        ((0, 15, 20), (0, 15, 4)),
    ],
    ids=str,
)
def test_a_path_of_another_shape_is_refused(places: tuple[int, ...], around: tuple[int, ...]):
    engine = EnginePrior(TOLD["raster"].prior, 1)
    path = Path(torch.zeros(places), torch.full(around, 15))
    with pytest.raises(ConfigError, match="places and around"):
        engine.logits(tokens_of(), path)
    with pytest.raises(ConfigError, match="places and around"):
        engine.start(BATCH, path)


@pytest.mark.parametrize("outside", [-1, 16, 3])
def test_a_path_that_looks_ahead_or_outside_is_refused(outside: int):
    engine = EnginePrior(TOLD["raster"].prior, 1)
    path = Path(torch.zeros(BATCH, 15, 20), torch.full((BATCH, 15, 4), 15))
    path.around[2, 3, 1] = outside
    with pytest.raises(ConfigError, match=f"holds {outside} at step 3"):
        engine.logits(tokens_of(), path)


def test_places_that_are_not_finite_are_refused():
    engine = EnginePrior(TOLD["raster"].prior, 1)
    path = Path(torch.full((1, 15, 20), torch.nan), torch.full((1, 15, 4), 15))
    with pytest.raises(ConfigError, match="not finite"):
        engine.logits(tokens_of(1), path)


@pytest.mark.parametrize("scales", [[1.0] * 14, [np.inf] * 15])
def test_scales_of_guidance_that_do_not_fit_are_refused(scales: list[float]):
    model = EnginePrior(TOLD["raster"].prior, 1)._model
    with pytest.raises(ValueError, match="scale"):
        native._native.Session(model, 2, 1, "", scales)


def test_a_session_that_has_begun_goes_its_way():
    model = EnginePrior(TOLD["raster"].prior, 1)._model
    session = native._native.Session(model, 2, 1)
    session.give(np.zeros((2, 15), dtype=np.int64))
    session.advance(1)
    with pytest.raises(ValueError, match="has begun"):
        session.go(np.zeros((1, 15, 20), dtype=np.float32), np.full((1, 15, 4), 15, dtype=np.int32))


def test_a_session_with_guides_does_not_decode():
    model = EnginePrior(TOLD["raster"].of("int8"), 1)._model
    session = native._native.Session(model, 2, 1, KERNELS[0], [2.0] * 15)
    with pytest.raises(ValueError, match="guides"):
        session.decode(lambda first, frequencies: np.zeros(len(frequencies), dtype=np.int64))
