"""Shards are streamed: each picture once an epoch, in an order that does not depend on what was read before."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tests.training.conftest import sharded

from bisquit.errors import ConfigError, TokenError
from bisquit.frames import FrameSet
from bisquit.processes import Part
from bisquit.streaming import StreamedTokens
from bisquit.tokenizer import Tokenizer
from bisquit.tokens import TokenSet, tokenize
from bisquit.training import PriorRecipe, TrainingConfig, data, train_prior
from bisquit.training.data import Batches

COUNT = 23  # shards of five, and one of three


@pytest.fixture(scope="module")
def frames(make_noise) -> FrameSet:
    return make_noise(COUNT)


@pytest.fixture(scope="module")
def tokenizer(make_tokenizer) -> Tokenizer:
    return make_tokenizer(bits=4)


@pytest.fixture(scope="module")
def whole(frames: FrameSet, tokenizer: Tokenizer) -> TokenSet:
    return tokenize(tokenizer, frames)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory, frames: FrameSet, tokenizer: Tokenizer) -> str:
    return sharded(tmp_path_factory.mktemp("streaming"), tokenizer, frames)


def batches(tokens: StreamedTokens, batch_size: int = 4) -> Batches:
    valid = (1, torch.from_numpy)
    return Batches((len(tokens), tokens.batch), valid, batch_size, seed=0, order=tokens.order(0))


def test_it_is_the_set_that_the_shards_hold(url: str, whole: TokenSet):
    tokens, every = StreamedTokens(url), np.random.default_rng(0).permutation(COUNT)
    assert (len(tokens), tokens.grid, tokens.frame_size) == (COUNT, whole.grid, whole.frame_size)
    assert tokens.classes == whole.classes
    assert tokens.tokenizer.fingerprint() == whole.tokenizer.fingerprint()
    assert torch.equal(tokens.batch(every), whole.batch(every))
    assert np.array_equal(tokens.labels_of(every), whole.labels[every])


@pytest.mark.parametrize("block_pictures", [1, 5, 10, 1000])
def test_an_epoch_has_each_picture_once_in_an_order_of_its_own(url: str, block_pictures: int):
    order = StreamedTokens(url, block_pictures).order(seed=3)
    epochs = [order(epoch, 0, COUNT).tolist() for epoch in range(3)]
    assert all(sorted(epoch) == list(range(COUNT)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert StreamedTokens(url, block_pictures).order(seed=4)(0, 0, COUNT).tolist() != epochs[0]


def test_pictures_of_several_shards_are_mixed_within_a_block(url: str):
    first = StreamedTokens(url, block_pictures=10).order(0)(0, 0, 8)
    assert len(set(first // 5)) == 2
    assert first.tolist() != sorted(first.tolist())


def test_the_batch_of_a_step_does_not_depend_on_the_steps_before(url: str):
    in_turn = batches(StreamedTokens(url, 10))
    wanted = [in_turn.train_batch(step) for step in range(12)]
    for step in (7, 3, 11, 0):
        assert torch.equal(batches(StreamedTokens(url, 10)).train_batch(step), wanted[step])


def test_processes_have_parts_of_the_very_batch(url: str, monkeypatch: pytest.MonkeyPatch):
    wanted = [batches(StreamedTokens(url, 10)).train_batch(step) for step in range(7)]
    parts = []
    for index in range(2):
        monkeypatch.setattr(data, "own_part", lambda index=index: Part(index, 2))
        parts.append(batches(StreamedTokens(url, 10)))
    for step, batch in enumerate(wanted):
        assert torch.equal(torch.cat([part.train_batch(step) for part in parts]), batch)


def test_two_blocks_at_most_are_held_and_each_shard_is_read_once_an_epoch(url: str, monkeypatch: pytest.MonkeyPatch):
    read: list[int] = []
    tokens = StreamedTokens(url, block_pictures=10)
    read_shard = tokens._shards.__class__.read
    monkeypatch.setattr(
        tokens._shards.__class__, "read", lambda self, one: (read.append(one), read_shard(self, one))[1]
    )
    steps = batches(tokens)
    for step in range(steps.steps_per_epoch):
        steps.train_batch(step)
        assert tokens._read.cache_info().currsize <= 4
    assert sorted(read) == list(range(5))


def test_some_of_the_shards_can_be_named(url: str, whole: TokenSet):
    tokens = StreamedTokens(f"{url}/*-000000[05].parquet")
    assert torch.equal(tokens.batch(np.arange(10)), whole.batch(slice(10)))
    with pytest.raises(TokenError, match="names none of the 5 shards"):
        StreamedTokens(f"{url}/7*.parquet")


def test_shards_that_are_not_all_there_are_refused(tmp_path: Path, frames: FrameSet, tokenizer: Tokenizer):
    folder = Path(sharded(tmp_path, tokenizer, frames))
    tokens = StreamedTokens(str(folder))
    first = min(folder.glob("*.parquet"))
    first.write_bytes(max(folder.glob("*.parquet")).read_bytes())
    with pytest.raises(TokenError, match="has changed since"):
        tokens.batch(np.arange(3))
    first.write_bytes(b"PAR1")
    with pytest.raises(TokenError, match="is no shard of tokens"):
        StreamedTokens(str(folder))
    first.unlink()
    with pytest.raises(TokenError, match="has 4 of 5 shards"):
        StreamedTokens(str(folder))
    with pytest.raises(ConfigError, match="block_pictures is 0"):
        StreamedTokens(str(folder), 0)


def test_streamed_classes_are_not_balanced(url: str, tmp_path: Path):
    tokens = StreamedTokens(url)
    recipe = PriorRecipe(training=TrainingConfig(balance_classes=True))
    with pytest.raises(ConfigError, match="balance_classes is True"):
        train_prior(recipe, tokens, tokens, tmp_path)
