"""Laws of what is read: whatever settings, files of tokens and captions say, it is refused in one line or sound."""

from __future__ import annotations

import itertools
import json
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tests.conftest import roughen

from bisquit.augmenting import AugmentConfig
from bisquit.autoencoder import AutoEncoderConfig
from bisquit.captions import TRAITS, load_captions
from bisquit.codec import RateConfig
from bisquit.config import Settings
from bisquit.editing import EditConfig
from bisquit.errors import ConfigError, FrameError, TokenError
from bisquit.frames.recording import ImportConfig
from bisquit.presets import PRESETS
from bisquit.priors import PRIORS
from bisquit.quantizers import QUANTIZERS, BSQConfig
from bisquit.sampling import SamplingConfig
from bisquit.tokenizer import Tokenizer, TokenizerConfig
from bisquit.tokens import TokenSet, smallest_unsigned

few = settings(max_examples=20)
PATCH = 4
SEEDS = st.integers(0, 2**32)
DTYPES = [torch.int64, torch.uint8, torch.int8, torch.float32, torch.bfloat16, torch.bool]
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=5)
GRIDS = st.tuples(st.integers(1, 4), st.integers(1, 4))
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=5,
)
"""What JSON can say, and what Python's says beyond it: what is no number, or endless."""


@cache
def all_settings() -> list[Settings]:
    """Settings of each kind as they are by default, and all recipes."""
    kinds = (*QUANTIZERS, *PRIORS, AugmentConfig, EditConfig, ImportConfig, RateConfig, SamplingConfig)
    recipes = [(preset.tokenizer, preset.prior, preset.features) for preset in PRESETS.values()]
    return [*(kind() for kind in kinds), *itertools.chain(*recipes)]


def places(plain: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the way to each part of plain data, the whole left out."""
    inner = plain.items() if isinstance(plain, dict) else enumerate(plain) if isinstance(plain, list) else ()
    for key, value in inner:
        yield (*path, key)
        yield from places(value, (*path, key))


def changed(plain: Any, path: tuple[Any, ...], value: Any) -> Any:
    """Plain data with another value at the end of a way."""
    copy = json.loads(json.dumps(plain))
    part = copy
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = value
    return copy


@settings(max_examples=200)
@given(st.data())
def test_settings_with_any_change_are_refused_or_survive_plain_data(data: st.DataObject):
    sound = data.draw(st.sampled_from(all_settings()))
    plain = sound.to_dict()
    assert type(sound).from_dict(json.loads(json.dumps(plain))) == sound
    path = data.draw(st.sampled_from(list(places(plain))))
    try:
        found = type(sound).from_dict(changed(plain, path, data.draw(PLAIN)))
    except ConfigError:
        return
    assert type(sound).from_dict(json.loads(json.dumps(found.to_dict()))) == found


@cache
def tokenizer_of(bits: int) -> Tokenizer:
    tokenizer = Tokenizer(TokenizerConfig(AutoEncoderConfig(PATCH, 8, 1), BSQConfig(bits=bits))).eval()
    roughen(tokenizer, bits)
    return tokenizer


@st.composite
def token_sets(draw: st.DrawFn) -> TokenSet:
    bits, count, grid = draw(st.sampled_from([1, 3, 8, 9, 16, 17, 32])), draw(st.integers(1, 4)), draw(GRIDS)
    rng = np.random.default_rng(draw(SEEDS))
    classes = tuple(draw(st.lists(TEXTS, max_size=3, unique=True)))
    height, width = (PATCH * side - draw(st.integers(0, PATCH - 1)) for side in grid)
    return TokenSet(
        tokens=rng.integers(0, 2**bits, (count, *grid)).astype(smallest_unsigned(bits)),
        tokenizer=tokenizer_of(bits),
        frame_size=(height, width),
        classes=classes,
        labels=rng.integers(-1, len(classes), count),
        groups=draw(st.none() | st.just(rng.integers(0, 3, count))),
    )


@settings(max_examples=40)
@given(st.data(), token_sets())
def test_a_file_of_tokens_that_says_anything_else_is_refused_or_sound(data: st.DataObject, tokens: TokenSet):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.safetensors"
        tokens.save(path)
        with safe_open(path, "pt") as file:
            said = json.loads(file.metadata()["bisquit"])
        tensors = load_file(path)
        if data.draw(st.booleans()):
            said = changed(said, data.draw(st.sampled_from(list(places(said)))), data.draw(PLAIN))
        else:
            name = data.draw(st.sampled_from(["tokens", "labels", "groups"]))
            values = data.draw(st.lists(st.integers(-3, 9), min_size=1, max_size=len(tokens)))
            other = torch.tensor(values).to(data.draw(st.sampled_from(DTYPES)))
            tensors[name] = other.view(-1, 1, 1).expand(-1, *tokens.grid).contiguous() if name == "tokens" else other
        save_file(tensors, path, metadata={"bisquit": json.dumps(said)})
        try:
            found = TokenSet.load(path)
        except TokenError:
            return
    assert found.tokens.dtype == smallest_unsigned(found.bits)
    assert found.tokens.max() < 2**found.bits
    assert found.labels.dtype == np.int64
    assert found.labels.shape == (len(found),)
    assert ((found.labels >= -1) & (found.labels < len(found.classes))).all()
    assert all(isinstance(name, str) for name in found.classes)
    assert found.groups is None or (found.groups.dtype, found.groups.shape) == (np.int64, (len(found),))
    assert found.tokenizer.grid(*found.frame_size) == found.grid


SENTENCES = st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=5), max_size=3)


@st.composite
def caption_tables(draw: st.DrawFn) -> dict[str, dict[str, list[str]]]:
    keys = st.sampled_from([*TRAITS, "sentences", "held_back"])
    return draw(st.dictionaries(TEXTS, st.dictionaries(keys, SENTENCES, max_size=4), max_size=3))


def says_something(entry: dict[str, list[str]]) -> bool:
    """Whether a class has something to learn, and all of its sentences more than blanks."""
    texts = [text for of_key in entry.values() for text in of_key]
    return all(text.strip() for text in texts) and any(entry.get(key) for key in (*TRAITS, "sentences"))


def toml(table: dict[str, dict[str, list[str]]]) -> str:
    """A table as TOML, whose basic strings are those of JSON but for one character."""

    def quoted(value: Any) -> str:
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")

    lines = []
    for name, entry in table.items():
        lines += [f"[{quoted(name)}]", *(f"{key} = {quoted(of_key)}" for key, of_key in entry.items())]
    return "\n".join(lines)


@few
@given(caption_tables())
def test_a_table_of_captions_holds_what_was_written_or_is_refused_for_a_class_without(table: Any):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.toml"
        path.write_text(toml(table), encoding="utf-8")
        try:
            captions = load_captions(path)
        except FrameError:
            assert not all(map(says_something, table.values()))
            return
    assert list(captions.learnt) == list(table)
    for name, entry in table.items():
        given_sentences = list(dict.fromkeys(entry.get("sentences", [])))
        assert list(captions.of(name))[: len(given_sentences)] == given_sentences
        assert len(set(captions.of(name))) == len(captions.of(name)) > 0
        assert captions.held_back[name] == tuple(entry.get("held_back", ()))


@few
@given(st.text("[]{}=\"'#.,\\ \nab1\x00é", max_size=30))
def test_any_text_is_a_table_of_captions_or_refused(text: str):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.toml"
        path.write_text(text, encoding="utf-8")
        with suppress(FrameError):
            load_captions(path)
