"""Several processes train what one would, and go on as if they had not been stopped."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from tests.training.several import CASES, KILLED_AT, RESUMED, SHARDED, STEPS, Measured, load, measure, state

from bisquit.errors import ConfigError
from bisquit.training import FeaturesRecipe, TokenizerRecipe, TrainingConfig
from bisquit.training.data import Batches
from bisquit.training.launch import Processes, launch

ALONE = ("parts", "pyramid", "masked", "flow")  # of what is resumed; tests/training/test_resume.py has the others
DRIVER = [sys.executable, "-m", "tests.training.several"]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Measured]:
    """What one process does."""
    return measure(tmp_path_factory.mktemp("alone"), ALONE)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Measured]]:
    """What each of two processes does."""
    folder = tmp_path_factory.mktemp("both")
    assert launch([*DRIVER, "measure", str(folder)], Processes(devices=2)) == 0
    return [load(folder / f"{index}.pt") for index in range(2)]


def assert_near(ours: torch.Tensor, wanted: torch.Tensor, tolerance: float) -> None:
    assert float((ours - wanted).norm() / wanted.norm()) < tolerance


@pytest.mark.parametrize("case", CASES)
def test_the_gradient_of_two_processes_is_that_of_one(case: str, alone, both):
    wanted = alone[f"{case}, still"]
    assert len(wanted.gradients) == STEPS
    for measured in both:
        ours = measured[f"{case}, still"]
        assert_near(ours.gradients[0], wanted.gradients[0], 1e-5)
        assert all(map(torch.equal, ours.gradients, both[0][f"{case}, still"].gradients))


@pytest.mark.parametrize("case", CASES)
def test_the_losses_of_two_processes_are_those_of_one(case: str, alone, both):
    wanted = alone[f"{case}, still"]
    for measured in both:
        ours = measured[f"{case}, still"]
        assert ours.losses[0] == pytest.approx(wanted.losses[0], rel=1e-5)
        assert ours.losses == pytest.approx(wanted.losses, rel=1e-3)  # later steps start from weights that were rounded
        assert ours.valid_loss == pytest.approx(wanted.valid_loss, rel=1e-3)


def assert_equal(ours: Measured, wanted: Measured) -> None:
    assert len(wanted.losses) == STEPS
    assert ours.losses == wanted.losses
    assert ours.weights.keys() == wanted.weights.keys()
    assert all(torch.equal(ours.weights[name], value) for name, value in wanted.weights.items())


@pytest.mark.parametrize("case", ALONE)
def test_a_prior_that_was_stopped_goes_on_as_if_it_had_not_been(case: str, alone):
    assert_equal(alone[f"{case}, stopped"], alone[f"{case}, dropping"])


@pytest.mark.parametrize("case", SHARDED)
def test_a_prior_that_two_processes_divide_is_that_of_one_though_it_was_stopped(case: str, alone, both):
    wanted = alone[f"{case}, still"]
    for measured in both:
        ours = measured[f"{case}, sharded"]
        assert len(ours.losses) == STEPS
        assert ours.losses == pytest.approx(wanted.losses, rel=1e-3)
        assert ours.valid_loss == pytest.approx(wanted.valid_loss, rel=1e-3)
        for step in (0, STEPS - 1):
            assert_near(ours.gradients[step], wanted.gradients[step], 1e-4)


@pytest.mark.parametrize("recipe", [TokenizerRecipe, FeaturesRecipe])
def test_what_is_not_a_prior_is_not_divided(recipe: type):
    with pytest.raises(ConfigError, match="sharded is True"):
        recipe(training=TrainingConfig(sharded=True))


@pytest.mark.parametrize("case", RESUMED)
def test_two_processes_of_which_one_was_asked_to_stop_go_on_as_if_it_had_not_been(case: str, both):
    for measured in both:
        assert_equal(measured[f"{case}, stopped"], measured[f"{case}, dropping"])


def test_each_of_two_processes_drops_out_something_else(alone, both):
    still, dropping = (alone["masked, still"], both[0]["masked, dropping"])
    assert still.losses[0] != pytest.approx(dropping.losses[0], rel=1e-3)
    assert both[0]["masked, dropping"].losses == both[1]["masked, dropping"].losses  # of the whole batch


def test_when_a_process_dies_all_start_again_and_the_run_is_as_if_none_had(
    both, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    assert launch([*DRIVER, "die-once", str(tmp_path)], Processes(devices=2, restarts=1)) == 0
    said = [line for line in capfd.readouterr().err.splitlines() if not line.startswith("epoch ")]
    assert said == ["process 1 of 2 was killed by SIGKILL: all start again from the last saved state"]
    wanted = both[0]["raster, dropping"]
    valid_loss, weights = state(tmp_path / "run")
    assert valid_loss == wanted.valid_loss
    assert all(torch.equal(weights[name], value) for name, value in wanted.weights.items())
    assert 0 < KILLED_AT < STEPS


def test_a_batch_that_processes_cannot_divide_is_refused(monkeypatch: pytest.MonkeyPatch):
    from bisquit.processes import Part
    from bisquit.training import data

    monkeypatch.setattr(data, "own_part", lambda: Part(0, 3))
    with pytest.raises(ConfigError, match="4 pictures: 3 processes"):
        Batches((8, torch.from_numpy), (1, torch.from_numpy), batch_size=4, seed=0)
