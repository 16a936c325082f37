"""Entropy coding: what is encoded is decoded, in the model's own bits, by the rules of docs/format.md alone."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from bisquit.codec.coding import Decoder, _as_floats, decode, encode, encode_intervals
from bisquit.engine import EnginePrior, IntegerPrior, engine_missing
from bisquit.engine.frequencies import TOTAL, frequencies
from bisquit.errors import CodecError, ModelError, TokenError

PICTURES = 5


@pytest.fixture(scope="module")
def prior(make_prior) -> IntegerPrior:
    return IntegerPrior(make_prior(bits=4, grid=(5, 7), neighbours=2))


@pytest.fixture(scope="module")
def tokens(prior: IntegerPrior) -> Tensor:
    return torch.randint(16, (PICTURES, *prior.grid), generator=torch.Generator().manual_seed(0))


def reference_decode(content: bytes, rows: Sequence[np.ndarray]) -> list[int]:
    """Decode as docs/format.md has it, in whole numbers of Python."""
    following = iter(content + bytes(16 + 8 * len(rows)))

    def word() -> int:
        return int.from_bytes([next(following) for _ in range(4)], "big")

    low, width = 0, 2**64 - 1
    point = word() << 32 | word()
    tokens = []
    for row in rows:
        unit = width // TOTAL
        part = (point - low) % 2**64 // unit
        ends = np.cumsum(row)
        token = int(np.searchsorted(ends, part, side="right"))
        tokens.append(token)
        low, width = (low + unit * int(ends[token] - row[token])) % 2**64, unit * int(row[token])
        if width < 2**32:
            low, width, point = low * 2**32 % 2**64, width * 2**32, (point * 2**32 + word()) % 2**64
    return tokens


def random_rows(generator: np.random.Generator, count: int, codes: int) -> list[np.ndarray]:
    """Frequencies of every kind: flat, peaked, and with tokens that have hardly a chance."""
    logits = generator.normal(size=(count, codes)) * generator.choice([0.1, 3, 30], size=(count, 1))
    return list(frequencies(torch.from_numpy(logits).float()))


def encode_rows(tokens: Sequence[int], rows: Sequence[np.ndarray]) -> bytes:
    """Encode each token under the frequencies of its row."""
    intervals = [(row[:token].sum(), row[token]) for token, row in zip(tokens, rows, strict=True)]
    return encode_intervals(np.array(tokens), np.array(intervals), len(rows[0]))


def test_frequencies_are_whole_and_sum_up() -> None:
    logits = torch.tensor([[0.0, 0, 0, 0], [200, 0, -300, 199], [-1e30, 1e30, 0, 0], [5, 5, 5, -5]])
    rows = frequencies(logits)
    assert rows.dtype == np.int64
    assert (rows.sum(axis=1) == TOTAL).all()
    assert (rows >= 1).all()
    assert rows[0].tolist() == [TOTAL // 4] * 4
    assert rows[2].tolist() == [1, TOTAL - 3, 1, 1]


def test_frequencies_are_the_chances_of_a_softmax() -> None:
    logits = torch.randn(100, 64, generator=torch.Generator().manual_seed(0)) * 3
    chances = torch.from_numpy(frequencies(logits)).double() / TOTAL
    wanted = logits.double().softmax(dim=1)
    assert (chances - wanted).abs().max() < 1e-4
    lost = (wanted * (wanted / chances).log2()).sum(dim=1)
    assert lost.max() < 1e-3


@pytest.mark.parametrize("batch", [1, 2, PICTURES])
def test_what_is_encoded_is_decoded_in_any_batch(prior: IntegerPrior, tokens: Tensor, batch: int) -> None:
    contents = encode(prior, tokens)
    parts = [contents[start : start + batch] for start in range(0, PICTURES, batch)]
    assert torch.equal(torch.cat([decode(prior, part) for part in parts]), tokens)
    assert [content for part in tokens.split(batch) for content in encode(prior, part)] == contents


@pytest.mark.skipif(engine_missing() is not None, reason="the engine is not built")
@pytest.mark.parametrize("threads", [1, 2])
def test_the_engine_gives_the_same_bytes(prior: IntegerPrior, tokens: Tensor, threads: int) -> None:
    engine = EnginePrior(prior, threads)
    contents = encode(engine, tokens)
    assert contents == encode(prior, tokens)
    assert torch.equal(decode(engine, contents), tokens)


def test_the_length_is_that_of_the_models_bits(prior: IntegerPrior, tokens: Tensor) -> None:
    bits = prior.token_bits(tokens).flatten(1).sum(dim=1)
    for content, of_picture in zip(encode(prior, tokens), bits.tolist(), strict=True):
        assert of_picture / 8 - 0.01 < len(content) < 1.01 * of_picture / 8 + 1


def test_the_definition_of_the_range_coder_is_enough_to_decode() -> None:
    generator = np.random.default_rng(0)
    for _ in range(300):
        rows = random_rows(generator, int(generator.integers(1, 40)), int(generator.choice([2, 16, 64])))
        tokens = [int(generator.choice(len(row), p=row / TOTAL)) for row in rows]
        tokens[0] = int(generator.integers(len(rows[0])))  # however unlikely
        content = encode_rows(tokens, rows)
        decoder = Decoder(content)
        assert [decoder.take(row) for row in _as_floats(np.stack(rows))] == tokens
        assert reference_decode(content, rows) == tokens
        ideal = -sum(np.log2(row[token] / TOTAL) for token, row in zip(tokens, rows, strict=True)) / 8
        assert len(content) < ideal + 1.5


@pytest.mark.parametrize("length", range(4, 12))
def test_a_carry_that_is_pending_at_the_end_comes_out(length: int) -> None:
    """Token 1 of these rows leads the coder to the border between two words, where a carry is held back."""
    parts = [(6121869, 1), (93, 256), (27114, 1), (6941289, 2), (7681269, 1), (3470644, 1), (16069877, 1)]
    rows = [np.array([below, own, TOTAL - below - own]) for below, own in parts]
    rows = (rows + [np.array([TOTAL // 2, 1, TOTAL - TOTAL // 2 - 1])] * 9)[:length]
    for last in (0, 1, 2):
        tokens = [1] * (length - 1) + [last]
        content = encode_rows(tokens, rows)
        decoder = Decoder(content)
        assert [decoder.take(row) for row in _as_floats(np.stack(rows))] == tokens
        assert reference_decode(content, rows) == tokens


def test_bytes_are_these_for_ever() -> None:
    """They are what lies on people's disks: neither a change here nor another constriction may change them."""
    rows = random_rows(np.random.default_rng(7), 30, 16)
    assert encode_rows([n % 16 for n in range(len(rows))], rows).hex() == GOLDEN


def test_whatever_the_bytes_the_end_is_tokens_or_an_error(prior: IntegerPrior, tokens: Tensor) -> None:
    generator = np.random.default_rng(0)
    content = encode(prior, tokens[:1])[0]
    for length in (0, 1, 3, len(content) - 1, len(content) + 9):
        noise = generator.bytes(length)
        with contextlib.suppress(CodecError):
            prior.check(decode(prior, [noise]))


def test_priors_in_floats_are_refused(make_prior) -> None:
    prior = make_prior()
    with pytest.raises(ModelError, match="int8"):
        encode(prior, torch.zeros(1, *prior.grid, dtype=torch.int64))
    with pytest.raises(ModelError, match="int8"):
        decode(prior, [b""])


def test_tokens_of_another_codebook_are_refused(prior: IntegerPrior) -> None:
    with pytest.raises(TokenError):
        encode(prior, torch.full((1, *prior.grid), 16))


GOLDEN = "000000101b4162674495b4927bb823509163e0e7af97e76d1de7d12a7304d8349d6443e655972d378e29c2"
