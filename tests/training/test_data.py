"""Batches as a pure function of the step."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from bisquit.training.data import Batches, Labelled, StepLoader, balancing_weights


def make_batches(
    train: int = 11, valid: int = 5, batch_size: int = 4, seed: int = 0, valid_batch_size: int = 2
) -> Batches:
    """Batches of the numbers 0 to train - 1, and 100 to 99 + valid."""
    return Batches(
        train=(train, lambda indices: torch.from_numpy(indices)),
        valid=(valid, lambda indices: torch.from_numpy(100 + indices)),
        batch_size=batch_size,
        seed=seed,
        valid_batch_size=valid_batch_size,
    )


def epoch(batches: Batches, number: int) -> list[int]:
    steps = range(number * batches.steps_per_epoch, (number + 1) * batches.steps_per_epoch)
    return np.concatenate([batches.indices(step) for step in steps]).tolist()


def test_an_epoch_is_the_whole_set_in_another_order():
    batches = make_batches(train=12)
    assert batches.steps_per_epoch == 3
    assert sorted(epoch(batches, 0)) == list(range(12))
    assert epoch(batches, 0) != list(range(12))


def test_pictures_that_fill_no_batch_sit_out_and_come_again():
    batches = make_batches(train=11)
    assert batches.steps_per_epoch == 2
    seen = [epoch(batches, number) for number in range(20)]
    assert all(len(set(order)) == 8 for order in seen)
    assert set().union(*seen) == set(range(11))


def test_every_epoch_and_every_seed_has_an_order_of_its_own():
    orders = [epoch(make_batches(train=12, seed=seed), number) for seed in (0, 1) for number in range(3)]
    assert len({tuple(order) for order in orders}) == 6


def test_the_batch_of_a_step_does_not_depend_on_the_steps_before():
    in_turn, jumping = make_batches(), make_batches()
    wanted = {step: in_turn.indices(step).tolist() for step in range(6)}
    assert {step: jumping.indices(step).tolist() for step in (5, 0, 3, 3, 1, 4, 2)} == wanted


def test_weights_say_how_often_a_picture_is_drawn():
    labels = np.array([0] * 9 + [1] * 2 + [-1])
    batches = Batches((12, torch.from_numpy), (5, torch.from_numpy), 4, 0, weights=balancing_weights(labels))
    drawn = np.concatenate([epoch(batches, number) for number in range(300)])
    shares = np.bincount(labels[drawn] + 1) / len(drawn)
    assert shares == pytest.approx([1 / 3] * 3, abs=0.03)
    assert batches.indices(4).tolist() == batches.indices(4).tolist() != batches.indices(5).tolist()


def test_the_global_generator_has_no_say():
    torch.manual_seed(0)
    here = epoch(make_batches(), 0)
    torch.manual_seed(1)
    assert epoch(make_batches(), 0) == here


def test_a_batch_is_never_larger_than_the_set():
    batches = make_batches(train=3, batch_size=64)
    assert (batches.batch_size, batches.steps_per_epoch) == (3, 1)
    assert sorted(epoch(batches, 0)) == [0, 1, 2]


@pytest.mark.parametrize("step", [0, 3, 4])
def test_the_training_loader_goes_on_from_the_trainers_step(step: int):
    batches = make_batches(train=12)
    batches.trainer = SimpleNamespace(global_step=step)
    loader = batches.train_dataloader()
    assert len(loader) == 3
    assert [batch.tolist() for batch in loader] == [batches.indices(step + i).tolist() for i in range(3)]


def test_the_valid_loader_gives_the_whole_set_in_order():
    loader = make_batches(valid=5, valid_batch_size=2).val_dataloader()
    assert len(loader) == 3
    assert [batch.tolist() for batch in loader] == [[100, 101], [102, 103], [104]]
    assert torch.cat(list(loader)).tolist() == [100, 101, 102, 103, 104]


def test_a_loader_is_one_batch_ahead_and_no_more():
    asked: list[int] = []

    def load(step: int) -> Tensor:
        asked.append(step)
        return torch.tensor(step)

    loader = iter(StepLoader(load, steps=4, first=lambda: 7))
    assert next(loader).item() == 7
    assert set(asked) <= {7, 8}
    assert [batch.item() for batch in loader] == [8, 9, 10]
    assert asked == [7, 8, 9, 10]


def test_an_error_while_fetching_is_raised_where_the_batch_is_used():
    def load(step: int) -> Tensor:
        if step == 1:
            raise OSError("frames are gone")
        return torch.tensor(step)

    loader = iter(StepLoader(load, steps=3, first=lambda: 0))
    assert next(loader).item() == 0
    with pytest.raises(OSError, match="frames are gone"):
        next(loader)


def test_pictures_can_come_with_their_classes():
    def fetch(indices: np.ndarray) -> Labelled:
        return Labelled(torch.from_numpy(indices), torch.from_numpy(10 * indices))

    batches = Batches(train=(8, fetch), valid=(3, fetch), batch_size=4, seed=0, valid_batch_size=2)
    batches.trainer = SimpleNamespace(global_step=1)
    for step, batch in enumerate(batches.train_dataloader(), start=1):
        assert batch.pictures.tolist() == batches.indices(step).tolist()
        assert batch.labels.tolist() == (10 * batches.indices(step)).tolist()
    assert [batch.labels.tolist() for batch in batches.val_dataloader()] == [[0, 10], [20]]
