"""Model files and files of tokens: each input is a sound model, or one clear error.

An input's first byte says what the rest is, its second, but for a whole file, which sound file it goes with: a whole
file; what a file says of itself, the JSON in its metadata; changes to that; its header, the JSON that names its
tensors; or changes to a whole file. What can be read must be the same when it is written and read again.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from target import Target, changed, file_of, one_line, scratch
from torch import nn

from bisquit import checkpoint, config, tokens
from bisquit.autoencoder import AutoEncoderConfig
from bisquit.checkpoint import SavedPrior, load_features, load_prior, load_tokenizer

from bisquit.checkpoint import save_features, save_prior, save_tokenizer  # isort: skip
from bisquit.conditioning import Conditions
from bisquit.errors import ModelError, TokenError
from bisquit.features import FeatureNetwork, FeatureNetworkConfig
from bisquit.fingerprint import fingerprint
from bisquit.priors import FlowConfig, MaskedConfig, PartsConfig, PyramidConfig, RasterConfig, build_prior
from bisquit.quantizers import BSQConfig, FSQConfig, PyramidBSQConfig, VQConfig
from bisquit.tokenizer import Tokenizer, TokenizerConfig
from bisquit.tokens import TokenSet
from bisquit.transformer import TransformerConfig

BITS, GRID = 2, (1, 2)
SMALL = TransformerConfig(2, 1, 1, 2)
NAME = "model.safetensors"


@dataclass(frozen=True)
class Kind:
    """A kind of file."""

    load: Callable[[Path], Any]
    save: Callable[[Any, Path], None]
    describe: Callable[[Any], object]
    """Names all that was read."""
    error: type[Exception]


TOKENIZER = Kind(load_tokenizer, save_tokenizer, Tokenizer.fingerprint, ModelError)
PRIOR = Kind(load_prior, save_prior, lambda saved: (saved.prior.fingerprint(), *saved[1:]), ModelError)
FEATURES = Kind(
    load_features,
    save_features,
    lambda network: (fingerprint(network.config.to_dict(), network), network.classes),
    ModelError,
)
TOKEN_SET = Kind(
    TokenSet.load,
    TokenSet.save,
    lambda found: (
        found.tokenizer.fingerprint(),
        found.frame_size,
        found.classes,
        *((array.dtype, array.tolist()) for array in (found.tokens, found.labels, found.groups) if array is not None),
    ),
    TokenError,
)


def settled(module: nn.Module) -> nn.Module:
    """Give a module small weights that are the same each time."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randint(-48, 49, parameter.shape, generator=generator) / 64)
    return module.eval()


def tokenizer_of(quantizer: Any) -> Any:
    """Return a tokenizer as small as they come."""
    return settled(Tokenizer(TokenizerConfig(AutoEncoderConfig(1, 2, 0), quantizer)))


def written(save: Callable[[Path], None]) -> bytes:
    """Return the bytes of a file."""
    path = scratch() / "sound.safetensors"
    save(path)
    return path.read_bytes()


@functools.cache
def sound_models() -> list[tuple[Kind, bytes]]:
    """Return sound files, of every kind that there is."""
    quantizers = BSQConfig(bits=BITS), FSQConfig(levels=(4,)), VQConfig(bits=BITS), PyramidBSQConfig(bits=BITS)
    tokenizers = [tokenizer_of(quantizer) for quantizer in quantizers]
    priors = [
        SavedPrior(settled(build_prior(settings, BITS, GRID)), (1, 2), "0" * 16, conditions)
        for settings, conditions in (
            (RasterConfig(transformer=SMALL, positions="none", condition_size=1), Conditions(("ice",))),
            (MaskedConfig(transformer=SMALL), Conditions()),
            (FlowConfig(transformer=SMALL), Conditions()),
            (PartsConfig(transformer=SMALL), Conditions()),
            (PyramidConfig(transformer=SMALL, scales=((1, 2),)), Conditions()),
        )
    ]
    features = settled(FeatureNetwork(FeatureNetworkConfig((8,), 1), ("ice", "sand")))
    kinds = [(TOKENIZER, one) for one in tokenizers] + [(PRIOR, one) for one in priors] + [(FEATURES, features)]
    files = [(kind, written(functools.partial(kind.save, one))) for kind, one in kinds]
    rounded = (torch.float16, torch.int8)
    return files + [
        (TOKENIZER, written(functools.partial(save_tokenizer, tokenizers[0], dtype=dtype))) for dtype in rounded
    ]


@functools.cache
def sound_tokens() -> list[tuple[Kind, bytes]]:
    """Return sound files of tokens."""
    tokenizer = tokenizer_of(BSQConfig(bits=BITS))
    sets = (
        TokenSet(np.zeros((1, 1, 2), np.uint8), tokenizer, (1, 2), ("ice",), np.zeros(1, np.int64), None),
        TokenSet(np.ones((2, 1, 1), np.uint8), tokenizer, (1, 1), (), np.full(2, -1), np.arange(2)),
    )
    return [(TOKEN_SET, written(one.save)) for one in sets]


def with_header(file: bytes, header: bytes) -> bytes:
    """Return a safetensors file with another header."""
    length = int.from_bytes(file[:8], "little")
    return len(header).to_bytes(8, "little") + header + file[8 + length :]


def header_of(file: bytes) -> bytes:
    """Return a safetensors file's header."""
    return file[8 : 8 + int.from_bytes(file[:8], "little")].rstrip()


def said_by(file: bytes) -> bytes:
    """Return what a file of ours says of itself."""
    return json.loads(header_of(file))["__metadata__"]["bisquit"].encode()


def saying(file: bytes, text: bytes) -> bytes:
    """Return a file of ours that says something else of itself."""
    header = json.loads(header_of(file))
    header["__metadata__"]["bisquit"] = text.decode("utf-8", "replace")
    return with_header(file, json.dumps(header).encode())


def check(data: bytes, sound: Callable[[], list[tuple[Kind, bytes]]]) -> None:
    """Read one input, and if it is sound write it and read that."""
    if len(data) < 2:
        return
    way, number, rest = data[0] % 5, data[1], data[2:]
    kind, file = sound()[number % len(sound())]
    if way == 0:
        given = rest
    elif way == 1:
        given = saying(file, rest)
    elif way == 2:
        given = saying(file, changed(said_by(file), rest))
    elif way == 3:
        given = with_header(file, rest)
    else:
        given = changed(file, rest)
    try:
        with file_of(given, NAME) as path:
            found = kind.load(path)
    except kind.error as error:
        one_line(error)
        assert given != file, f"a sound file is refused: {error}"
        return
    again = scratch() / "again.safetensors"
    kind.save(found, again)
    assert repr(kind.describe(kind.load(again))) == repr(kind.describe(found)), "it is not what it was"


def seeds(sound: Callable[[], list[tuple[Kind, bytes]]]) -> Iterator[bytes]:
    """Yield inputs to begin with: sound files as they are, and parts of them to be changed."""
    for number, (_, file) in enumerate(sound()):
        yield bytes([1, number]) + said_by(file)
        yield bytes([3, number]) + header_of(file)
        yield bytes([4, number])
    yield bytes([0, 0]) + sound()[0][1]
    yield bytes([2, 0, 0, 100, 1])


MODULES = (checkpoint, config, tokens)
MODELS = Target(functools.partial(check, sound=sound_models), functools.partial(seeds, sound_models), MODULES)
TOKENS = Target(functools.partial(check, sound=sound_tokens), functools.partial(seeds, sound_tokens), MODULES)
