"""What ships: a decoder of its own is one over the same tokens."""

from __future__ import annotations

import pytest
import ship_model
import torch

from bisquit.quantizers import VQConfig


@pytest.mark.parametrize(
    ("name", "alike"),
    [
        ("autoencoder.encoder.1.weight", False),
        ("quantizer.down.bias", False),
        ("quantizer.up.bias", True),
        ("autoencoder.decoder.1.weight", True),
    ],
)
def test_only_what_leads_to_tokens_must_be_equal(make_tokenizer, name: str, alike: bool) -> None:
    one, other = make_tokenizer(), make_tokenizer()
    with torch.no_grad():
        other.state_dict()[name].flatten()[0].add_(1)
    assert ship_model.encode_alike(one, other) is alike


def test_a_codebook_leads_to_tokens(make_tokenizer) -> None:
    one, other = (make_tokenizer(quantizer=VQConfig(bits=4)) for _ in range(2))
    other.quantizer.idle_steps += 1
    assert ship_model.encode_alike(one, other)
    with torch.no_grad():
        other.quantizer.codebook[0, 0] += 1
    assert not ship_model.encode_alike(one, other)
