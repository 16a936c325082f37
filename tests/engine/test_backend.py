"""Which way to compute a prior is taken, what is refused, and what happens where the engine was not built."""

from __future__ import annotations

import logging
import os
from typing import Any

import pytest
import torch
from tests.engine.driver import Case, needs_engine
from torch import Tensor, nn

from bisquit.engine import (
    BACKENDS,
    PRECISIONS,
    EnginePrior,
    GraphedPrior,
    IntegerPrior,
    backend,
    engine_missing,
    native,
    paint,
    prepare,
    usable_kernels,
)
from bisquit.errors import ConfigError
from bisquit.priors import Path, RasterPrior, SequentialPrior
from bisquit.sampling import SamplingConfig, sample


class OtherPrior(SequentialPrior):
    """A sequential prior that is no transformer: all tokens are as likely, whatever stands before them."""

    def __init__(self) -> None:
        super().__init__()
        self.bits, self.grid = 2, (1, 3)
        self.level = nn.Parameter(torch.zeros(4))

    def logits(self, tokens: Tensor, path: Path | None = None) -> Tensor:
        return self.level.expand(*tokens.flatten(1).shape, 4)

    def start(self, batch: int, path: Path | None = None) -> int:
        return batch

    def next_logits(self, state: int, last: Tensor | None) -> Tensor:
        return self.level.expand(state, 4)


@pytest.fixture
def without_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the engine look as if it had not been built."""
    monkeypatch.setattr(native, "_MISSING", "no module named _native")
    backend._say_once.cache_clear()


def refusal(prior: SequentialPrior, *choice: Any) -> str:
    with pytest.raises(ConfigError) as error:
        prepare(prior, *choice)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.skipif(not os.environ.get("BISQUIT_REQUIRE_ENGINE"), reason="BISQUIT_REQUIRE_ENGINE is not set")
def test_the_engine_is_built_where_it_is_required():
    assert engine_missing() is None
    assert usable_kernels()[-1] == "baseline"


@needs_engine
@pytest.mark.parametrize(
    ("choice", "form", "inner"),
    [
        (("auto", "float32"), EnginePrior, RasterPrior),
        (("auto", "int8"), EnginePrior, IntegerPrior),
        (("engine", "float32"), EnginePrior, RasterPrior),
        (("engine", "int8"), EnginePrior, IntegerPrior),
        (("torch", "float32"), RasterPrior, None),
        (("torch", "int8"), IntegerPrior, None),
    ],
    ids=str,
)
def test_each_choice_takes_its_way_on_a_cpu(choice: Any, form: type, inner: type | None):
    prior = Case().prior()
    prepared = prepare(prior, *choice)
    assert type(prepared) is form
    assert inner is None or type(prepared.prior) is inner
    assert (prepared.bits, prepared.grid, prepared.config) == (prior.bits, prior.grid, prior.config)


@needs_engine
def test_the_engine_in_float32_is_the_default():
    prepared = prepare(Case().prior())
    assert isinstance(prepared, EnginePrior)
    assert isinstance(prepared.prior, RasterPrior)


@pytest.mark.parametrize("backend", BACKENDS)
def test_bfloat16_is_refused_on_a_cpu(backend: str):
    assert "bfloat16 is for PyTorch on a GPU" in refusal(Case().prior(), backend, "bfloat16")


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_the_engine_is_refused_for_a_model_elsewhere(precision: str):
    assert "the model is on meta" in refusal(Case().prior().to("meta"), "engine", precision)


def test_names_that_there_are_not_are_refused():
    assert refusal(Case().prior(), "tensorrt") == "backend is tensorrt: it must be one of auto, torch, engine"
    assert refusal(Case().prior(), "torch", "int4") == "precision is int4: it must be one of float32, int8, bfloat16"


@pytest.mark.parametrize("backend", ["auto", "torch"])
def test_another_prior_stays_as_it_is(backend: str):
    prior = OtherPrior()
    assert prepare(prior, backend) is prior


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_what_is_for_raster_priors_is_refused_for_another(backend: str, precision: str):
    if backend == "engine" or precision != "float32":
        assert "not for a OtherPrior" in refusal(OtherPrior(), backend, precision)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_each_choice_takes_its_way_on_a_gpu():
    prior = Case().prior().cuda()
    assert type(prepare(prior)) is type(prepare(prior, "torch", "bfloat16")) is GraphedPrior
    assert type(prepare(prior, "torch")) is RasterPrior
    assert type(prepare(prior, "auto", "int8")) is IntegerPrior
    assert "pass backend torch or auto" in refusal(prior, "engine")


# Without the engine.


@pytest.mark.usefixtures("without_engine")
def test_pytorch_computes_where_the_engine_is_missing_and_says_so_once(caplog: pytest.LogCaptureFixture):
    prior = Case().prior()
    with caplog.at_level(logging.DEBUG, logger="bisquit"):
        assert prepare(prior) is prior
        assert isinstance(prepare(prior, "auto", "int8"), IntegerPrior)
        prepare(Case(bits=2).prior())
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("bisquit", logging.WARNING)
    assert record.getMessage() == (
        "bisquit: the native engine is not built here (no module named _native): "
        "PyTorch computes instead, many times slower"
    )


@pytest.mark.usefixtures("without_engine")
def test_nothing_is_said_where_pytorch_was_asked_for(caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.DEBUG, logger="bisquit"):
        prepare(Case().prior(), "torch")
        prepare(Case().prior(), "torch", "int8")
        prepare(OtherPrior())
    assert not caplog.records


@pytest.mark.usefixtures("without_engine")
def test_asking_for_the_missing_engine_is_an_error_that_says_what_to_do():
    message = "the native engine is not built here (no module named _native): install a C++ compiler, and bisquit anew"
    for precision in ("float32", "int8"):
        assert refusal(Case().prior(), "engine", precision) == message
    with pytest.raises(ConfigError) as error:
        usable_kernels()
    assert str(error.value) == message


# Painting.


def told(prior: SequentialPrior, **arguments: Any) -> tuple[Tensor, list[int]]:
    """The pictures that a prior paints, and after how many tokens they were told of."""
    steps: list[int] = []
    return paint(prior, range(3), seed=1, on_token=lambda done, _: steps.append(done), **arguments), steps


@pytest.mark.parametrize("precision", ["float32", "int8"])
@pytest.mark.parametrize("settings", [SamplingConfig(), SamplingConfig(temperature=0.7, top_k=3)], ids=str)
def test_every_backend_paints_the_same_pictures(precision: str, settings: SamplingConfig):
    prior = Case().prior()
    given = torch.tensor([[[-1, 5, -1], [-1, -1, 2]]]).expand(3, 2, 3)
    wanted = told(prepare(prior, "torch", precision), settings=settings, given=given)[0]
    assert (wanted[:, 0, 1] == 5).all()
    assert (wanted[:, 1, 2] == 2).all()
    assert torch.equal(told(prepare(prior, "auto", precision), settings=settings, given=given)[0], wanted)
    if precision == "float32":
        assert torch.equal(told(GraphedPrior(prior, torch.float32), settings=settings, given=given)[0], wanted)


@needs_engine
def test_each_prior_paints_by_its_own_loop():
    prior = Case().prior()
    wanted = sample(prior, range(3), seed=1)
    for form, steps in (
        (prior, [1, 2, 3, 4, 5, 6]),
        (EnginePrior(prior), [3, 6]),
        (GraphedPrior(prior, torch.float32), [1, 2, 3, 4, 5, 6]),
    ):
        painted, found = told(form)
        assert torch.equal(painted, wanted)
        assert found == steps


def test_a_prior_without_a_loop_of_its_own_is_sampled():
    painted, steps = told(OtherPrior())
    assert torch.equal(painted, sample(OtherPrior(), range(3), seed=1))
    assert steps == [1, 2, 3]
