"""A run that is stopped and resumed is, to the last digit, the run that was never stopped."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from bisquit.errors import RunStopped
from bisquit.training.modules import StageModule

STEPS = 20  # two epochs of ten


class Outcome(NamedTuple):
    """What a run leaves behind."""

    losses: list[tuple[int, float]]
    model: bytes
    weights: dict[str, dict[str, Tensor]]
    """The averaged weights and those of the last step."""


def outcome(out: Path, stage: str, losses: list[tuple[int, float]]) -> Outcome:
    state = torch.load(out / "last.ckpt", weights_only=True)
    assert state["global_step"] == STEPS
    weights = {key: state[key] for key in ("state_dict", "current_model_state")}
    return Outcome(list(losses), (out / f"{stage.split()[0]}.safetensors").read_bytes(), weights)


def assert_equal(ours: Outcome, wanted: Outcome) -> None:
    assert ours.losses == wanted.losses
    assert ours.model == wanted.model
    for key, weights in wanted.weights.items():
        assert ours.weights[key].keys() == weights.keys()
        assert all(torch.equal(ours.weights[key][name], value) for name, value in weights.items()), key


@pytest.fixture(params=["tokenizer", "prior", "prior on frames", "prior on shards", "prior that is told", "features"])
def stage(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def never_stopped(stage: str, train, watch, tmp_path: Path) -> Outcome:
    train(stage, tmp_path / "never-stopped")
    wanted = outcome(tmp_path / "never-stopped", stage, watch.losses)
    assert [step for step, _ in wanted.losses] == list(range(STEPS))
    watch.losses.clear()
    return wanted


@pytest.mark.parametrize(
    "stops",
    [[0], [3, 6], [9], [10, 14], [8, 9, 18, 19]],
    ids=["first step", "twice in an epoch", "end of an epoch", "later epoch", "before and at each end"],
)
def test_a_stopped_run_goes_on_as_if_it_had_not_been(
    stage: str, never_stopped: Outcome, train, watch, tmp_path: Path, stops: list[int]
):
    for stop in stops:
        watch.stop_at(stop)
        with pytest.raises(RunStopped, match=f"after step {stop + 1} of {STEPS}") as stopped:
            train(stage, tmp_path / "run", resume=True)
        assert stopped.value.signal_number == signal.SIGINT
        assert "\n" not in str(stopped.value)
    watch.stop_at()
    train(stage, tmp_path / "run", resume=True)
    assert_equal(outcome(tmp_path / "run", stage, watch.losses), never_stopped)


@pytest.mark.parametrize("stage", ["tokenizer of vectors"], indirect=True)
def test_a_codebook_goes_on_as_if_it_had_not_been_stopped(
    stage: str, never_stopped: Outcome, train, watch, tmp_path: Path
):
    for stop in (3, 14):  # vectors have then been idle for different numbers of steps
        watch.stop_at(stop)
        with pytest.raises(RunStopped):
            train(stage, tmp_path / "run", resume=True)
    watch.stop_at()
    train(stage, tmp_path / "run", resume=True)
    assert never_stopped.weights["current_model_state"]["tokenizer.quantizer.idle_steps"].any()
    assert_equal(outcome(tmp_path / "run", stage, watch.losses), never_stopped)


def test_a_run_that_was_killed_goes_on_from_the_last_saved_state(
    stage: str, never_stopped: Outcome, train, watch, tmp_path: Path
):
    def fail(module: StageModule) -> None:
        if module.global_step == 13:
            raise MemoryError

    watch.before_step = fail
    every_step = {"checkpoint_minutes": 1e-9}
    with pytest.raises(MemoryError):
        train(stage, tmp_path / "run", **every_step)
    assert torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)["global_step"] == 13
    watch.stop_at()
    train(stage, tmp_path / "run", resume=True, **every_step)
    assert_equal(outcome(tmp_path / "run", stage, watch.losses), never_stopped)


def test_what_other_code_draws_does_not_matter(stage: str, never_stopped: Outcome, train, watch, tmp_path: Path):
    torch.manual_seed(123)
    watch.stop_at(4)
    with pytest.raises(RunStopped):
        train(stage, tmp_path / "run")
    torch.rand(7)
    watch.stop_at()
    train(stage, tmp_path / "run", resume=True)
    assert_equal(outcome(tmp_path / "run", stage, watch.losses), never_stopped)


def test_a_run_that_waits_for_a_lower_loss_is_as_patient_after_a_stop(train, watch, set_valid_losses, tmp_path: Path):
    set_valid_losses([2.0, 1.0, 1.5, 1.5, 0.5])
    patience = {"epochs": 5, "early_stopping_epochs": 2}
    for stop in (24, 33):
        watch.stop_at(stop)
        with pytest.raises(RunStopped):
            train("prior", tmp_path / "run", resume=True, **patience)
    watch.stop_at()
    train("prior", tmp_path / "run", resume=True, **patience)
    assert watch.steps == list(range(40))


def test_a_resumed_run_does_not_put_a_worse_model_in_place_of_a_better_one(
    train, watch, set_valid_losses, tmp_path: Path
):
    set_valid_losses([1.0, 2.0])
    watch.stop_at(14)
    with pytest.raises(RunStopped):
        train("prior", tmp_path)
    kept = (tmp_path / "prior.safetensors").read_bytes()
    watch.stop_at()
    train("prior", tmp_path, resume=True)
    assert watch.steps == list(range(STEPS))
    assert (tmp_path / "prior.safetensors").read_bytes() == kept


def test_a_run_stopped_at_the_step_that_ends_its_patience_takes_no_further_one(
    train, watch, set_valid_losses, tmp_path: Path
):
    set_valid_losses([1.0, 1.5, 1.5, 0.5])
    patience = {"epochs": 4, "early_stopping_epochs": 2}
    watch.stop_at(29)
    with pytest.raises(RunStopped):
        train("prior", tmp_path / "run", **patience)
    watch.stop_at()
    train("prior", tmp_path / "run", resume=True, **patience)
    assert watch.steps == list(range(30))


def test_a_terminated_run_can_be_resumed_too(train, watch, tmp_path: Path):
    watch.stop_at(4, number=signal.SIGTERM)
    with pytest.raises(RunStopped) as stopped:
        train("prior", tmp_path / "run")
    assert stopped.value.signal_number == signal.SIGTERM
    watch.stop_at()
    train("prior", tmp_path / "run", resume=True)
    assert watch.steps == list(range(STEPS))


def test_a_second_request_stops_at_once_and_the_last_saved_state_stays(train, watch, tmp_path: Path):
    def ask_twice(module: StageModule) -> None:
        if module.global_step == 12:
            for _ in range(2):
                signal.raise_signal(signal.SIGINT)

    watch.before_step = ask_twice
    with pytest.raises(RunStopped, match="stopped at once"):
        train("prior", tmp_path / "run")
    watch.stop_at()
    train("prior", tmp_path / "run", resume=True)
    assert watch.steps == [*range(12), *range(10, 20)]


def test_the_time_that_is_left_is_sensible_right_after_a_resume(
    train, watch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    watch.stop_at(14)
    with pytest.raises(RunStopped):
        train("prior", tmp_path / "run")
    watch.stop_at()
    capsys.readouterr()
    train("prior", tmp_path / "run", resume=True)
    first = capsys.readouterr().err.splitlines()[0]
    assert "step 16/20" in first
    assert first.endswith(", 0.0 min left")
