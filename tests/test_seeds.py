"""Seeds from seeds."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from bisquit.seeds import derive_seed

INTEGERS = st.integers(-(2**63), 2**64)


@given(INTEGERS, st.lists(INTEGERS | st.text(), max_size=3))
def test_a_seed_is_one_that_torch_takes(seed: int, purpose: list[int | str]):
    derived = derive_seed(seed, *purpose)
    assert 0 <= derived < 2**63
    torch.Generator().manual_seed(derived)


def test_seeds_stay_the_same_from_version_to_version():
    assert derive_seed(0, "picture", 0) == 5111851220507896309
    assert derive_seed(7) == 3390981726289711890


def test_other_purposes_give_other_seeds():
    purposes = [(), ("order",), ("order", 0), ("order", 1), ("step", 0), ("step", "0"), ("order0",), (0, "order"), (0,)]
    seeds = {derive_seed(seed, *purpose) for seed in (0, 1, 10, -1) for purpose in purposes}
    assert len(seeds) == 4 * len(purposes)


def test_numbers_of_numpy_are_numbers():
    assert derive_seed(np.int64(3), "picture", np.int32(5)) == derive_seed(3, "picture", 5)
