"""Pictures that workers paint are those that one process paints, whatever asks for them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from tests.conftest import roughen

from bisquit.augmenting import AugmentConfig, Painted, paint_chunks
from bisquit.conditioning import Conditions
from bisquit.errors import ConditionError, ConfigError
from bisquit.frames import FrameSet
from bisquit.generate import Pipeline, load
from bisquit.priors import KINDS, SequentialPrior, build_prior
from bisquit.sampling import SamplingConfig
from bisquit.transformer import TransformerConfig

ray = pytest.importorskip("ray", reason="the extra ray is not installed")
pytest.importorskip("ray.data")
pytestmark = pytest.mark.filterwarnings("ignore::Warning:ray")  # of Ray about its own use of itself

TINY = TransformerConfig(width=8, n_layers=1, n_heads=2, feed_forward=12)


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    """This machine is a cluster of enough cores for all workers of these tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        ray.init(num_cpus=8, include_dashboard=False, log_to_driver=False, logging_level="error")
        yield
        ray.shutdown()


@pytest.fixture(scope="module", params=["raster", "masked"])
def model(request: pytest.FixtureRequest, make_tokenizer) -> Pipeline:
    prior = build_prior(KINDS[request.param](transformer=TINY, condition_size=2), 3, (2, 3))
    roughen(prior, 1)
    return Pipeline(make_tokenizer(), prior, (7, 12), Conditions(("ice", "sand")))


@pytest.fixture(scope="module")
def many(model: Pipeline) -> Iterator[Pipeline]:
    """The same model with two workers."""
    from bisquit.on_ray import PipelineOnRay

    pipeline = PipelineOnRay(model, workers=2)
    yield pipeline
    for worker in pipeline._workers:
        ray.kill(worker)


def test_samples_are_the_same_in_any_batch(model: Pipeline, many: Pipeline):
    asked = ["ice", "sand", "sand", "ice", "sand", "ice", "ice"]
    settings = SamplingConfig(guidance=2.0)
    wanted = model.sample(7, seed=3, settings=settings, class_name=asked)
    told: list[tuple[int, int]] = []
    for batch_size in (64, 2):
        found = many.sample(
            7,
            seed=3,
            settings=settings,
            class_name=asked,
            batch_size=batch_size,
            progress=lambda done, total: told.append((done, total)),
        )
        np.testing.assert_array_equal(found, wanted)
    assert told == [(24, 42), (42, 42), (12, 42), (24, 42), (36, 42), (42, 42)]
    np.testing.assert_array_equal(many.sample(1, seed=3), model.sample(1, seed=3))


def test_pictures_that_augment_and_what_is_known_of_them_are_the_same(model: Pipeline, many: Pipeline):
    if not isinstance(model.prior, SequentialPrior):
        pytest.skip("a prior without likelihood augments nothing")
    real = FrameSet(model.sample(9, seed=9), np.arange(9), tuple("abcdefghi"), (), np.full(9, -1), None)

    def painted(pipeline: Pipeline) -> list[Painted]:
        chunks = paint_chunks(pipeline, "sand", AugmentConfig(per_class=9), seed=5, real=real, backend="torch")
        return [picture for chunk in chunks for picture in chunk.pictures]

    found, wanted = painted(many), painted(model)
    assert len(found) == 9
    assert [one.provenance() for one in found] == [one.provenance() for one in wanted]
    np.testing.assert_array_equal([one.frame for one in found], [one.frame for one in wanted])


def test_a_worker_that_dies_costs_no_picture(model: Pipeline, many: Pipeline):
    wanted = model.sample(6, seed=1)
    many.sample(1)  # they have begun
    ray.kill(many._workers[0], no_restart=False)
    np.testing.assert_array_equal(many.sample(6, seed=1), wanted)


def test_what_one_machine_refuses_is_refused_in_the_same_words(model: Pipeline, many: Pipeline):
    def refusal(pipeline: Pipeline, settings: SamplingConfig) -> str:
        with pytest.raises(ConfigError) as error:
            pipeline.sample(3, settings=settings)
        return str(error.value)

    unheard = SamplingConfig(solver="heun")
    assert refusal(many, unheard) == refusal(model, unheard)
    with pytest.raises(ConditionError):
        many.sample(3, class_name="lava")
    with pytest.raises(ConditionError, match="2 pictures are asked for, and 3"):
        many.sample(3, class_name=["ice", "sand"])


def test_a_model_that_ships_paints_the_same_pixels_whatever_threads_workers_have():
    from bisquit.on_ray import PipelineOnRay

    model, threads = load("small"), torch.get_num_threads()
    many = PipelineOnRay(model, workers=2)
    try:
        torch.set_num_threads(2)  # the convolutions of a decoder then round otherwise than by one
        np.testing.assert_array_equal(many.sample(12, seed=3), model.sample(12, seed=3))
    finally:
        torch.set_num_threads(threads)


def test_no_workers_are_refused(model: Pipeline):
    from bisquit.on_ray import PipelineOnRay

    with pytest.raises(ConfigError, match="workers is 0"):
        PipelineOnRay(model, workers=0)
