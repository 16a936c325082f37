"""Bits of tokens: packed and unpacked, in their order."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from bisquit.quantizers.bits import pack_bits, unpack_bits


@given(st.data())
def test_packing_is_the_sum_of_the_places_and_unpacking_its_inverse(data: st.DataObject):
    bits = data.draw(st.integers(1, 32))
    values = data.draw(st.lists(st.integers(0, 2**bits - 1), min_size=1, max_size=6))
    tokens = torch.tensor(values).view(-1, 1, 1)
    is_one = unpack_bits(tokens, bits)
    assert is_one.shape == (len(values), bits, 1, 1)
    written = ["".join("01"[bit] for bit in reversed(row)) for row in is_one.flatten(1).int().tolist()]
    assert [int(digits, base=2) for digits in written] == values
    assert torch.equal(pack_bits(is_one), tokens)
