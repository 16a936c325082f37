"""`--deterministic`: the same training gives the same weights, however many threads there are around it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from bisquit.errors import RunError
from bisquit.training.determinism import THREADS, deterministic


def state() -> tuple[bool, int, bool, bool]:
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.get_num_threads(),
        torch.backends.cuda.mem_efficient_sdp_enabled(),
        torch.backends.cuda.cudnn_sdp_enabled(),
    )


@pytest.mark.parametrize("stage", ["tokenizer", "prior"])
def test_two_runs_give_the_same_weights_whatever_threads_there_were(stage: str, train, watch, tmp_path: Path) -> None:
    within = []
    watch.before_step = lambda module: within.append(state())
    for name, threads in (("one", 1), ("other", 3)):
        torch.set_num_threads(threads)
        before = state()
        train(stage, tmp_path / name, deterministic=True, epochs=1)
        assert state() == before
    assert set(within) == {(True, THREADS, False, False)}
    model = f"{stage}.safetensors"
    assert (tmp_path / "one" / model).read_bytes() == (tmp_path / "other" / model).read_bytes()
    states = [torch.load(tmp_path / name / "last.ckpt", weights_only=True)["state_dict"] for name in ("one", "other")]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    """Leave the tests after this one the threads that it found."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_nothing_is_changed_where_it_is_not_wanted() -> None:
    before = state()
    with deterministic(False):
        assert state() == before


def test_what_cannot_be_deterministic_is_refused() -> None:
    before = state()
    x = torch.zeros(4)
    wanted = "cannot be deterministic on this device: put_ does not have"
    with pytest.raises(RunError, match=wanted), deterministic(True):
        x.put_(torch.tensor([1, 1]), torch.tensor([2.0, 3.0]))
    assert state() == before
    with pytest.raises(RuntimeError, match="the size of tensor"), deterministic(True):
        x.add_(torch.zeros(3))
