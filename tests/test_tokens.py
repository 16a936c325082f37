"""Token files: what a tokenizer made of a set of frames, complete in themselves."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from bisquit.checkpoint import save_tokenizer
from bisquit.errors import ShapeError, TokenError
from bisquit.quantizers import default_quantizer, quantizer_kinds
from bisquit.tokens import TokenSet, smallest_unsigned, tokenize


@pytest.fixture
def tokens(make_tokenizer, make_noise) -> TokenSet:
    return tokenize(make_tokenizer(), make_noise(6))


@pytest.fixture
def token_file(tokens: TokenSet, tmp_path: Path) -> Path:
    tokens.save(tmp_path / "tokens.safetensors")
    return tmp_path / "tokens.safetensors"


def rewrite(path: Path, tensors: dict[str, torch.Tensor | None], **changes: Any) -> None:
    """Change tensors and parts of the description of a file; None takes one away."""
    with safe_open(path, framework="pt") as file:
        description = json.loads(file.metadata()["bisquit"]) | changes
    kept = {name: value for name, value in (load_file(path) | tensors).items() if value is not None}
    text = json.dumps({key: value for key, value in description.items() if value is not None})
    save_file(kept, path, metadata={"bisquit": text})


def refusal(path: Path) -> str:
    with pytest.raises(TokenError) as error:
        TokenSet.load(path)
    message = str(error.value)
    assert "\n" not in message
    assert str(path) in message
    return message


@pytest.mark.parametrize("batch_size", [1, 4, 6, 100])
def test_tokens_are_in_the_order_of_the_frames_whatever_the_batch(make_tokenizer, make_noise, batch_size: int):
    tokenizer, frames = make_tokenizer(), make_noise(6)
    shuffled = frames.subset([4, 0, 5, 1, 3, 2])
    wanted = np.concatenate([tokenizer.encode(torch.from_numpy(frames[i : i + 1])) for i in (4, 0, 5, 1, 3, 2)])
    made = tokenize(tokenizer, shuffled, batch_size=batch_size)
    np.testing.assert_array_equal(made.tokens, wanted)
    assert made.labels.tolist() == shuffled.labels.tolist()
    assert made.groups is not None
    assert made.groups.tolist() == [2, 0, 2, 0, 1, 1]


@pytest.mark.parametrize("kind", quantizer_kinds())
def test_a_set_is_tokenized_as_its_frames_are_by_every_quantizer(make_tokenizer, make_noise, kind: str):
    tokenizer, frames = make_tokenizer(quantizer=default_quantizer(kind, 6)), make_noise(6)
    tokens = tokenize(tokenizer, frames)
    np.testing.assert_array_equal(tokens.tokens, tokenizer.encode(torch.from_numpy(frames[:])))
    assert tokens.bits == 6
    assert len(np.unique(tokens.tokens)) > 4


@pytest.mark.parametrize("kind", quantizer_kinds())
def test_a_file_gives_back_a_tokenizer_of_every_quantizer(make_tokenizer, make_noise, tmp_path: Path, kind: str):
    made = tokenize(make_tokenizer(quantizer=default_quantizer(kind, 6)), make_noise(3))
    made.save(tmp_path / "t")
    loaded = TokenSet.load(tmp_path / "t")
    assert loaded.tokenizer.config == made.tokenizer.config
    remade = [each.tokenizer.decode(each.batch(slice(None)), each.frame_size) for each in (made, loaded)]
    assert torch.equal(*remade)


def test_the_number_of_threads_changes_no_token_and_stays(make_tokenizer, make_noise):
    threads = torch.get_num_threads()
    tokenizer, frames = make_tokenizer(width=32, bits=10), make_noise(9, height=32, width=48)
    try:
        made = []
        for number in (1, 2, 3):
            torch.set_num_threads(number)
            made.append(tokenize(tokenizer, frames, batch_size=4).tokens)
            assert torch.get_num_threads() == number
    finally:
        torch.set_num_threads(threads)
    np.testing.assert_array_equal(made[1], made[0])
    np.testing.assert_array_equal(made[2], made[0])


def test_tokens_come_with_what_is_known_of_the_frames(make_tokenizer, make_noise):
    tokenizer, frames = make_tokenizer(patch_size=5, bits=4), make_noise(3, height=11, width=8)
    made = tokenize(tokenizer, frames)
    assert len(made) == 3
    assert (made.grid, made.bits, made.frame_size) == ((3, 2), 4, (11, 8))
    assert made.classes == frames.classes
    assert made.tokenizer is tokenizer


@pytest.mark.parametrize("groups", [True, False])
def test_a_file_gives_back_all_that_was_saved(make_tokenizer, make_noise, tmp_path: Path, groups: bool):
    made = tokenize(make_tokenizer(bits=9, depth=2), make_noise(5))
    if not groups:
        made = replace(made, groups=None)
    made.save(tmp_path / "t")
    loaded = TokenSet.load(tmp_path / "t")
    assert loaded.tokens.dtype == made.tokens.dtype
    np.testing.assert_array_equal(loaded.tokens, made.tokens)
    np.testing.assert_array_equal(loaded.labels, made.labels)
    assert loaded.labels.dtype == np.int64
    if groups:
        np.testing.assert_array_equal(loaded.groups, made.groups)
    else:
        assert loaded.groups is None
    assert (loaded.frame_size, loaded.classes) == (made.frame_size, made.classes)
    assert loaded.tokenizer.fingerprint() == made.tokenizer.fingerprint()


def test_the_tokenizer_in_the_file_turns_tokens_into_frames(tokens: TokenSet, token_file: Path):
    loaded = TokenSet.load(token_file)
    remade = loaded.tokenizer.decode(loaded.batch(slice(None)), loaded.frame_size)
    assert torch.equal(remade, tokens.tokenizer.decode(tokens.batch(slice(None)), tokens.frame_size))
    assert not loaded.tokenizer.training


def test_a_batch_is_of_the_type_that_models_take(tokens: TokenSet):
    batch = tokens.batch(np.array([4, 1]))
    assert batch.dtype == torch.int64
    np.testing.assert_array_equal(batch.numpy(), tokens.tokens[[4, 1]])


@pytest.mark.parametrize(
    ("bits", "dtype"), [(1, "uint8"), (8, "uint8"), (9, "uint16"), (16, "uint16"), (17, "uint32"), (32, "uint32")]
)
def test_tokens_are_of_the_smallest_type_that_holds_their_bits(
    make_tokenizer, make_noise, tmp_path: Path, bits: int, dtype: str
):
    assert smallest_unsigned(bits) == np.dtype(dtype)
    tokenizer = make_tokenizer(bits=bits)
    frames = make_noise(4)
    made = tokenize(tokenizer, frames)
    made.save(tmp_path / "t")
    loaded = TokenSet.load(tmp_path / "t")
    assert loaded.tokens.dtype == np.dtype(dtype)
    assert torch.equal(loaded.batch(slice(None)), tokenizer.encode(torch.from_numpy(frames[:])))


def test_mirrored_copies_come_behind_with_their_labels(make_tokenizer, make_noise):
    tokenizer, frames = make_tokenizer(), make_noise(5)
    made = tokenize(tokenizer, frames, batch_size=2, mirrored=True)
    flipped = torch.from_numpy(frames[:]).flip(2)
    np.testing.assert_array_equal(made.tokens[:5], tokenize(tokenizer, frames).tokens)
    np.testing.assert_array_equal(made.tokens[5:], tokenizer.encode(flipped))
    assert made.labels.tolist() == 2 * frames.labels.tolist()
    assert made.groups is not None
    assert made.groups.tolist() == 2 * frames.groups.tolist()


def test_progress_counts_frames(make_tokenizer, make_noise):
    told: list[tuple[int, int]] = []
    tokenize(make_tokenizer(), make_noise(5), batch_size=2, progress=lambda *counts: told.append(counts))
    assert told == [(2, 5), (4, 5), (5, 5)]


def test_no_frames_are_refused(make_tokenizer, make_noise):
    with pytest.raises(ShapeError, match="no frames"):
        tokenize(make_tokenizer(), make_noise(3).subset([]))


def test_a_missing_file_is_named(tmp_path: Path):
    assert "is not there" in refusal(tmp_path / "tokens.safetensors")


@pytest.mark.parametrize("share", [0.0, 0.5, 0.999])
def test_a_file_cut_short_is_damaged(token_file: Path, share: float):
    content = token_file.read_bytes()
    token_file.write_bytes(content[: int(share * len(content))])
    assert "cut or damaged" in refusal(token_file)


def test_a_tokenizer_is_no_token_file(make_tokenizer, tmp_path: Path):
    save_tokenizer(make_tokenizer(), tmp_path / "t")
    assert "holds a tokenizer, not tokens" in refusal(tmp_path / "t")


def test_another_format_version_is_named(token_file: Path):
    rewrite(token_file, {}, format=7)
    assert "format version 7" in refusal(token_file)


@pytest.mark.parametrize("missing", ["config", "fingerprint", "frame_size", "classes"])
def test_a_description_that_lacks_a_part_is_refused(token_file: Path, missing: str):
    rewrite(token_file, {}, **{missing: None})
    assert missing in refusal(token_file)


@pytest.mark.parametrize("missing", ["tokens", "labels", "tokenizer.quantizer.up.weight"])
def test_a_file_that_lacks_a_tensor_is_refused(token_file: Path, missing: str):
    rewrite(token_file, {missing: None})
    refusal(token_file)


@pytest.mark.parametrize(
    ("tensors", "changes", "why"),
    [
        ({"labels": torch.zeros(5, dtype=torch.int64)}, {}, "do not fit together"),
        ({"tokens": torch.zeros(6, 6, dtype=torch.uint8)}, {}, "do not fit together"),
        ({"tokens": torch.zeros(6, 3, 2, dtype=torch.uint8)}, {}, "do not fit together"),
        ({}, {"frame_size": [8, 13]}, "do not fit together"),
        ({"tokens": torch.full((6, 2, 3), 8, dtype=torch.uint8)}, {}, "outside of the codebook of 8"),
        ({"tokenizer.quantizer.up.bias": torch.zeros(8)}, {}, "not the one that its fingerprint names"),
        ({}, {"frame_size": ["high", "wide"]}, "whole numbers"),
        ({}, {"frame_size": [8, float("inf")]}, "whole numbers"),
        ({"labels": torch.full((6,), 2)}, {}, "do not fit together"),
        ({"labels": torch.full((6,), -2)}, {}, "do not fit together"),
        ({"labels": torch.zeros(6)}, {}, "do not fit together"),
        ({"groups": torch.zeros(5, dtype=torch.int64)}, {}, "do not fit together"),
        ({"tokens": torch.full((6, 2, 3), -1)}, {}, "do not fit together"),
    ],
    ids=[
        "labels",
        "flat",
        "grid",
        "frame size",
        "codebook",
        "weights",
        "no numbers",
        "endless",
        "no such class",
        "less than unknown",
        "labels of another type",
        "races",
        "tokens of another type",
    ],
)
def test_parts_that_do_not_belong_together_are_refused(
    token_file: Path, tensors: dict[str, torch.Tensor], changes: dict[str, Any], why: str
):
    rewrite(token_file, tensors, **changes)
    assert why in refusal(token_file)
