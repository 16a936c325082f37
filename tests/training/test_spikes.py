"""Spikes of the loss: what is one and what is none, and that a run tells of them and is not changed by it."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

from bisquit.errors import RunStopped
from bisquit.training import spikes
from bisquit.training.data import Batches
from bisquit.training.modules import PriorModule
from bisquit.training.spikes import LossSpikes


def falling(steps: int, seed: int = 0, noise: float = 0.1) -> np.ndarray:
    """Return losses as a training has them: from 10 down to 2, noisier while they are high."""
    generator = np.random.default_rng(seed)
    smooth = 2 + 8 * np.exp(-np.arange(steps) / 300)
    return smooth * (1 + noise * generator.normal(size=steps))


def begun(losses: np.ndarray) -> list[int]:
    """Return the steps with which a spike begins."""
    watch = LossSpikes()
    return [step for step, loss in enumerate(losses) if watch.begins(float(loss))]


@pytest.mark.parametrize("noise", [0.0, 0.01, 0.1, 0.2])
def test_a_falling_noisy_loss_has_no_spike(noise: float) -> None:
    assert [begun(falling(2000, seed, noise)) for seed in range(2)] == [[], []]


def test_planted_spikes_are_seen_and_no_other_step() -> None:
    losses = falling(2000)
    losses[[10, 500, 501, 502, 1500]] *= [50, 3, 40, 3, 4]
    assert begun(losses) == [500, 1500]  # the first is in the warm-up; three steps are one spike


def test_a_loss_that_stays_high_is_told_of_once_and_then_usual() -> None:
    losses = np.full(1000, 2.0)
    losses[400:] = 3.0
    losses[900] = 6.0
    assert begun(losses) == [400, 900]


def test_what_is_not_finite_is_left_to_the_guard() -> None:
    losses = falling(300)
    losses[[50, 200]] = np.nan, np.inf
    assert begun(losses) == []


@pytest.fixture
def spike(monkeypatch: pytest.MonkeyPatch) -> int:
    """The step whose loss is a thousand times what it would be; eight steps are then enough to compare it with."""
    whole = PriorModule.training_step

    def training_step(module: PriorModule, batch: Tensor, batch_idx: int) -> Tensor:
        return whole(module, batch, batch_idx) * (1000 if module.global_step == 12 else 1)

    monkeypatch.setattr(PriorModule, "training_step", training_step)
    monkeypatch.setattr(spikes, "WINDOW", 8)
    return 12


@pytest.mark.parametrize("stops", [[], [10, 14]], ids=["in one go", "resumed"])
def test_a_run_names_the_step_and_its_pictures_and_counts(
    train, watch, data, spike: int, caplog, tmp_path: Path, stops: list[int]
) -> None:
    """Resumed after step 11, it remembers the losses before; after step 15, what it has counted."""
    for stop in stops:
        watch.stop_at(stop)
        with pytest.raises(RunStopped):
            train("prior", tmp_path, resume=True)
    watch.stop_at()
    train("prior", tmp_path, resume=True)
    (told,) = [record.getMessage() for record in caplog.records if "is usual" in record.getMessage()]
    named = re.fullmatch(r"the loss is \S+ at step 13, of pictures (.*) of the training set: \S+ is usual", told)
    assert named is not None
    wanted = Batches((len(data.tokens.tokens), len), (1, len), 4, seed=0).indices(spike).tolist()
    assert [*map(int, named[1].split(", "))] == wanted
    events = EventAccumulator(str(tmp_path / "logs"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("train/loss_spikes")] == [(19, 1.0)]


def test_a_run_that_is_not_watched_is_the_same_run(
    train, watch, spike: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    train("prior", tmp_path / "watched")
    watched = watch.losses.copy()
    watch.losses.clear()
    monkeypatch.setattr(LossSpikes, "on_train_batch_end", lambda *arguments: None)
    train("prior", tmp_path / "unwatched")
    assert watch.losses == watched
    models = {(tmp_path / name / "prior.safetensors").read_bytes() for name in ("watched", "unwatched")}
    assert len(models) == 1
