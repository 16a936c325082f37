"""Models on disk: safetensors files that carry their own configuration.

A model is a folder with `tokenizer.safetensors` and, once a prior is trained, `prior.safetensors`, and perhaps a card,
`README.md`; a feature network, by which models are judged, is a folder with `features.safetensors`. The metadata of
each file holds, under the key `bisquit`, JSON with the format's version, the part's kind and its configuration; the
prior's names the fingerprint of the tokenizer that its tokens come from. Nothing in these files is ever run.

Weights are written as float32, as float16, or as int8, in half of float16's bytes: then each row of a matrix has a step
of its own, in a tensor beside it, as the integer engine rounds it, and what is no matrix is float16.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from bisquit.atomic import atomic_file, scratch_in
from bisquit.conditioning import Conditions
from bisquit.config import parse_settings
from bisquit.engine.arithmetic import to_codes
from bisquit.errors import ConfigError, ModelError
from bisquit.features import FeatureNetwork, FeatureNetworkConfig
from bisquit.priors import Prior, PriorConfig, build_prior
from bisquit.text import Reader
from bisquit.tokenizer import Tokenizer, TokenizerConfig

FORMAT_VERSION = 1
TOKENIZER_FILE = "tokenizer.safetensors"
PRIOR_FILE = "prior.safetensors"
FEATURES_FILE = "features.safetensors"
CARD_FILE = "README.md"
STEP = ".step"
"""Behind a matrix's name: the steps of its rows."""
READER_WEIGHT, READER_BIAS = "reader.weight", "reader.bias"
"""What a prior that knows words has beside its own weights, as float32."""

MOST_TOKENS = 2**14
"""Tokens of a picture of a prior that is read, at most."""
MOST_PIXELS = 2**20
"""Rows and columns of its frames."""
MOST_BITS = 32
MOST_BESIDE = 2**26
"""Numbers that a model has beside its weights: tables of places, masks."""

Module = TypeVar("Module", bound=nn.Module)

_ARTICLES = {"tokenizer": "a tokenizer", "prior": "a prior", "features": "a feature network", "tokens": "tokens"}


def save_tokenizer(tokenizer: Tokenizer, path: str | os.PathLike[str], dtype: torch.dtype = torch.float32) -> None:
    """Write a tokenizer to one file, its weights as `dtype`."""
    write_tensors(path, _weights(tokenizer, dtype), {"part": "tokenizer", "config": tokenizer.config.to_dict()})


def load_tokenizer(path: str | os.PathLike[str]) -> Tokenizer:
    """Read what `save_tokenizer` wrote; weights become float32. Raises ModelError on anything else."""
    tensors, description = read_tensors(path, "tokenizer")
    return build_tokenizer(description.get("config"), tensors, path)


def build_tokenizer(config: Any, tensors: Mapping[str, Tensor], path: str | os.PathLike[str]) -> Tokenizer:
    """Return the tokenizer of a configuration and weights read from `path`. Raises ModelError if they do not fit."""
    settings = _settings(TokenizerConfig, config, path)
    return _built(lambda: Tokenizer(settings), tensors, path).eval()


class SavedPrior(NamedTuple):
    """A prior as it is read from a file, and what it belongs to."""

    prior: Prior
    frame_size: tuple[int, int]
    """(H, W) of the frames whose tokens it was trained on."""
    tokenizer: str
    """The fingerprint of the tokenizer that made them."""
    conditions: Conditions = Conditions()
    """What it can be asked for."""


def save_prior(saved: SavedPrior, path: str | os.PathLike[str], dtype: torch.dtype = torch.float32) -> None:
    """Write a prior and what it belongs to to one file, its weights as `dtype`."""
    prior = saved.prior
    description = {
        "part": "prior",
        "config": prior.config.to_dict(),
        "bits": prior.bits,
        "grid": list(prior.grid),
        "frame_size": list(saved.frame_size),
        "tokenizer": saved.tokenizer,
    }
    tensors, (classes, reader) = _weights(prior, dtype), (saved.conditions.classes, saved.conditions.reader)
    if classes:
        description["conditions"] = {"classes": list(classes), "text_encoder": reader.encoder if reader else ""}
    if reader:
        tensors |= {READER_WEIGHT: reader.weight, READER_BIAS: reader.bias}
    write_tensors(path, tensors, description)


def load_prior(path: str | os.PathLike[str]) -> SavedPrior:
    """Read what `save_prior` wrote. Raises ModelError on anything else."""
    tensors, description = read_tensors(path, "prior")
    try:
        height, width = whole_numbers(description["frame_size"], 2, MOST_PIXELS)
        rows, columns = whole_numbers(description["grid"], 2, MOST_TOKENS)
        if rows * columns > MOST_TOKENS:
            raise ValueError(f"a grid of {rows} x {columns} has more than {MOST_TOKENS:,} tokens")
        (bits,) = whole_numbers([description["bits"]], 1, MOST_BITS)
        config = _settings(PriorConfig, description.get("config"), path)
        conditions = _conditions(description.get("conditions", {}), tensors)
        prior = _built(lambda: build_prior(config, bits, (rows, columns)), tensors, path)
        if conditions.size != prior.condition_size:
            raise ModelError(
                f"{path}: its prior takes conditions of {prior.condition_size} numbers, "
                f"but its classes are {conditions.size}"
            )
        return SavedPrior(prior.eval(), (height, width), str(description["tokenizer"]), conditions)
    except (KeyError, TypeError, ValueError, ConfigError) as error:
        raise ModelError(f"{path} describes no prior that this version can build: {error}") from error


def _conditions(description: Mapping[str, Any], tensors: dict[str, Tensor]) -> Conditions:
    """Return what a prior can be asked for; what reads words is taken out of the file's tensors."""
    classes, encoder = description.get("classes", []), description.get("text_encoder", "")
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise TypeError("its classes are no names")
    reader = Reader(encoder, tensors.pop(READER_WEIGHT), tensors.pop(READER_BIAS)) if encoder else None
    return Conditions(tuple(classes), reader)


def save_features(network: FeatureNetwork, path: str | os.PathLike[str], dtype: torch.dtype = torch.float32) -> None:
    """Write a feature network to one file, its weights as `dtype`."""
    description = {"part": "features", "config": network.config.to_dict(), "classes": list(network.classes)}
    write_tensors(path, _weights(network, dtype), description)


def load_features(path: str | os.PathLike[str]) -> FeatureNetwork:
    """Read what `save_features` wrote; weights become float32. Raises ModelError on anything else."""
    tensors, description = read_tensors(path, "features")
    config = _settings(FeatureNetworkConfig, description.get("config"), path)
    classes = description.get("classes")
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise ModelError(f"{path} names no classes")
    try:
        return _built(lambda: FeatureNetwork(config, tuple(classes)), tensors, path).eval()
    except ConfigError as error:
        raise ModelError(f"{path} describes no feature network that this version can build: {error}") from error


def write_tensors(path: str | os.PathLike[str], tensors: Mapping[str, Tensor], description: Mapping[str, Any]) -> None:
    """Write tensors and their description to a safetensors file, whole or not at all. Raises ModelError if it fails."""
    text = json.dumps({"format": FORMAT_VERSION, **description})
    try:
        with atomic_file(path) as partial, scratch_in(partial.parent) as scratch:
            whole = scratch / partial.name
            save_file(dict(tensors), whole, metadata={"bisquit": text})  # by a temporary file of its own
            whole.replace(partial)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} cannot be written: {error}") from error


def read_tensors(path: str | os.PathLike[str], part: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a safetensors file of ours that holds `part`: its tensors and its description.

    Raises ModelError if there is no such file, if it is cut or no safetensors file, of another format version, or of
    another part.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelError(f"{path} is not there: expected a file with {_ARTICLES[part]}")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            description = json.loads(metadata["bisquit"])
            version, found = description["format"], description["part"]
            if version != FORMAT_VERSION:
                raise ModelError(f"{path} is of format version {version}: this bisquit reads version {FORMAT_VERSION}")
            if found != part:
                raise ModelError(f"{path} holds {_ARTICLES.get(found, found)}, not {_ARTICLES[part]}")
            return {name: file.get_tensor(name) for name in file.keys()}, description  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} cannot be read as safetensors, cut or damaged: {error}") from error
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ModelError(f"{path} is a safetensors file, but none that bisquit wrote") from error


def _weights(module: nn.Module, dtype: torch.dtype) -> dict[str, Tensor]:
    weights = {name: value.detach().cpu() for name, value in module.state_dict().items()}
    if dtype != torch.int8:
        return {name: value.to(dtype).contiguous() for name, value in weights.items()}
    tensors = {}
    for name, value in weights.items():
        if not value.isfinite().all() or (value.ndim < 2 and not value.half().isfinite().all()):
            raise ModelError(f"{name} has weights that are not finite, or too large: they cannot be rounded")
        if value.ndim < 2:
            tensors[name] = value.half()
            continue
        rows = to_codes(value.float().flatten(1))
        tensors[name] = rows.codes.to(torch.int8).view(value.shape)
        tensors[name + STEP] = rows.step[:, 0]
    return tensors


class _Bounded(TorchFunctionMode):
    """Within it, not more than so many numbers are made anew; what would be the first beyond raises ModelError."""

    makers: ClassVar = {torch.arange, torch.empty, torch.full, torch.ones, torch.rand, torch.randn, torch.zeros}

    def __init__(self, numbers: int, message: str) -> None:
        super().__init__()
        self.left, self.message = numbers, message

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in self.makers:
            self.left -= func(*args, **kwargs | {"device": "meta"}).numel()  # its shape, without memory
            if self.left < 0:
                raise ModelError(self.message)
        return func(*args, **kwargs)


def _built(build: Callable[[], Module], tensors: Mapping[str, Tensor], path: str | os.PathLike[str]) -> Module:
    """Return what `build` makes, with the weights read from `path`.

    A description of some bytes can be of a model of terabytes: so not more is made of it than the weights are, and what
    goes with them. Raises ModelError if they do not fit.
    """
    unfit = f"{path}: weights and configuration do not fit together"
    weights = dict(tensors)
    try:
        for name, codes in tensors.items():
            if codes.dtype == torch.int8:
                weights[name] = codes * weights.pop(name + STEP).view(codes.shape[:1] + (1,) * (codes.ndim - 1))
        with _Bounded(sum(value.numel() for value in weights.values()) + MOST_BESIDE, unfit):
            module = build()
        module.load_state_dict({name: value.float() for name, value in weights.items()})
    except (KeyError, RuntimeError) as error:
        raise ModelError(unfit) from error
    return module


def whole_numbers(said: Any, count: int, most: int) -> tuple[int, ...]:
    """Return so many numbers, each from 1 to `most`. Raises ValueError if that is not what was said."""
    are_fit = isinstance(said, list) and all(type(one) is int and 0 < one <= most for one in said)
    if not are_fit or len(said) != count:
        raise ValueError(f"{said} should be {count} whole numbers from 1 to {most:,}")
    return tuple(said)


def _settings(kind: Any, data: Any, path: str | os.PathLike[str]) -> Any:
    if not isinstance(data, dict):
        raise ModelError(f"{path} holds no configuration")
    try:
        return parse_settings(kind, data)
    except ConfigError as error:
        raise ModelError(f"{path}: {error}") from error
