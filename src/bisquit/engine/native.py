"""The native decoder behind the interface of every sequential prior.

    CausalPrior  ──arrays──> Model, packed ──> Session: a batch of pictures, their ways, their memory, their randomness
    IntegerPrior ──┘                              │  advance(until): threads decode, and race for the tokens
                                                  └─ races too close for float32 come back, and are decided here

The engine is built when bisquit is installed, from native/. Where it could not be, `engine_missing` says why, and
PyTorch does the work.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from bisquit.engine.frequencies import Choose
from bisquit.engine.integer import IntegerPrior, score_unit
from bisquit.errors import ConfigError, ModelError, ShapeError
from bisquit.priors import CausalPrior, Path, SequentialPrior
from bisquit.priors.base import to_grid, to_steps
from bisquit.priors.causal import CausalConfig
from bisquit.sampling import (
    OnToken,
    SamplingConfig,
    Seeds,
    both_ways,
    check_given,
    guided_logits,
    gumbel,
    picture_seeds,
    race,
    require_finite,
)

try:
    from bisquit.engine import _native
except ImportError as error:
    _MISSING: str | None = str(error)
else:
    _MISSING = None

if TYPE_CHECKING:
    from bisquit.engine._native import Session


# What `bisquit.sampling.DOUBT` is to PyTorch's logits: the engine's, of the models that ship, are off by up to 1.3e-5.
ENGINE_DOUBT = 5e-5


def engine_missing() -> str | None:
    """Return why the native engine cannot be used, None if it can."""
    return _MISSING


def usable_kernels() -> list[str]:
    """Return the kinds of kernels that this processor can run, fastest first. Raises ConfigError if none is built."""
    _require_engine()
    return _native.kernels()


class EnginePrior(SequentialPrior):
    """A causal prior in the native decoder, on the CPU: the same model, many times faster.

    Given an `IntegerPrior` it decodes in int8, and gives that prior's logits to the last bit; given a `CausalPrior`, in
    float32, to rounding.
    """

    config: CausalConfig

    def __init__(self, prior: CausalPrior | IntegerPrior, threads: int | None = None, kernels: str = "") -> None:
        """Pack a prior's weights as they are now. threads: PyTorch's number by default; kernels: the fastest.

        Raises ConfigError if the engine is not built, ModelError if weights are not finite.
        """
        super().__init__()
        _require_engine()
        self.config, self.bits, self.grid = prior.config, prior.bits, prior.grid
        self.prior = prior
        self.threads = threads or torch.get_num_threads()
        self.kernels = kernels
        transformer = prior.config.transformer
        is_int8 = isinstance(prior, IntegerPrior)
        try:
            self._model = _native.Model(
                is_int8=is_int8,
                width=transformer.width,
                n_layers=transformer.n_layers,
                n_heads=transformer.n_heads,
                feed_forward=transformer.feed_forward,
                codebook=self.codebook_size,
                length=self.length,
                neighbours=prior.config.neighbours,
                score_unit=score_unit(transformer.head_width),
                epsilon=prior.norm.epsilon if isinstance(prior, IntegerPrior) else prior.transformer.norm.eps,
                arrays=integer_arrays(prior) if isinstance(prior, IntegerPrior) else _float_arrays(prior),
            )
        except ValueError as error:
            raise ModelError(f"the engine cannot take this prior: {error}") from error

    @torch.no_grad()
    def paint(
        self,
        numbers: Sequence[int],
        *,
        seed: Seeds,
        settings: SamplingConfig | None = None,
        given: Tensor | None = None,
        path: Path | None = None,
        guide: Path | None = None,
        on_token: OnToken | None = None,
    ) -> Tensor:
        """Paint pictures as `bisquit.sampling.sample` does: the same tokens, by the same rules.

        on_token is called after as many tokens as a row of the grid has.
        """
        settings = settings or SamplingConfig()
        scales = settings.guidance_scales(self.length) if settings.guidance != 1 else []
        session = self._session(len(numbers), both_ways(settings, path, guide), scales)
        session.seed(np.array([own % 2**32 for own in picture_seeds(seed, numbers)], dtype=np.uint32))
        if given is not None:
            check_given(given, self, len(numbers))
            flat = to_steps(given, path)
            session.give(flat.clamp_min(0).numpy(), (flat >= 0).to(torch.uint8).numpy())
        stride = self.grid[1] if on_token else self.length
        contest = _native.Race(
            temperature=settings.temperature,
            top_k=min(settings.top_k, self.codebook_size),  # which is an int of C++
            top_p=settings.top_p,
            min_p=settings.min_p,
            doubt=ENGINE_DOUBT,
        )
        for end in range(stride, self.length + 1, stride):
            while doubts := session.advance(end, contest):
                require_finite(session.is_finite)
                for picture in doubts:
                    ways = [way and way.rows(slice(picture, picture + 1)) for way in (path, guide)]
                    session.decide(picture, self._decide(session, picture, settings, *ways))
            require_finite(session.is_finite)
            if on_token:
                on_token(end, self._tokens(session, path))
        return self._tokens(session, path)

    def _decide(
        self, session: Session, picture: int, settings: SamplingConfig, path: Path | None, guide: Path | None
    ) -> int:
        """Return the token that a picture should have taken, of a race that was too close for float32."""
        words = torch.from_numpy(session.words(picture).astype(np.int64)).view(-1, 2)
        uniform = (((words[:, 0] & 0x1FFFFF) << 32) | words[:, 1]).double() * 2.0**-53  # as `Noise` draws it
        if isinstance(self.prior, IntegerPrior):  # whose logits are exact
            logits = torch.from_numpy(session.logits(picture))[None]  # guided, where there are guides
        else:
            tokens = to_grid(torch.from_numpy(session.tokens[picture])[None], path, self.grid)
            logits = guided_logits(self._exact, tokens, session.done(picture) - 1, settings, path, guide)
        return int(race(logits, gumbel(uniform)[None], settings).tokens)

    @functools.cached_property
    def _exact(self) -> SequentialPrior:
        return self.prior.exact().eval()

    @torch.no_grad()
    def logits(self, tokens: Tensor, path: Path | None = None) -> Tensor:
        """Return the logits (B, h w, codebook) of each token of (B, h, w) given those before it.

        Raises ModelError if they are not finite.
        """
        return torch.from_numpy(self._read(self._model.read_logits, tokens, path))

    def exact(self) -> SequentialPrior:
        """Return what decides close races: the prior's own way, in PyTorch."""
        return self.prior.exact()

    def start(self, batch: int, path: Path | None = None) -> EngineState:
        """Return an empty state for `batch` sequences."""
        return EngineState(self._session(batch, path), batch)

    def next_logits(self, state: EngineState, last: Tensor | None) -> Tensor:
        """Return the logits (B, codebook) of the next token given the last, (B,) int64 or None at the first step."""
        if state.length >= self.length:
            raise ShapeError(f"a picture has {self.length} tokens, and all are there")
        self.check_last(last, state.length, state.batch)
        if last is not None:
            state.session.take(last.numpy())
        state.length += 1
        state.session.advance(state.length)
        return torch.from_numpy(state.session.all_logits())

    @torch.no_grad()
    def token_bits(self, tokens: Tensor, path: Path | None = None) -> Tensor:
        """Return how many bits each token of (B, h, w) costs, as float32 (B, h, w).

        Raises ModelError if logits are not finite.
        """
        return to_grid(torch.from_numpy(self._read(self._model.read_bits, tokens, path)), path, self.grid)

    def intervals(self, tokens: Tensor) -> np.ndarray:
        """Return where tokens (B, h, w) lie among their frequencies, int64 (B, h w, 2): `frequencies.intervals`.

        Raises ModelError if logits are not finite, or not in integers.
        """
        self._require_int8()
        return self._read(self._model.read_intervals, tokens)

    def decode(self, batch: int, choose: Choose) -> Tensor:
        """Return tokens, int64 (B, h, w), each chosen by its frequencies.

        Raises ModelError as `intervals` does, and what `choose` does.
        """
        self._require_int8()
        session = self._session(batch)
        session.decode(choose)
        require_finite(session.is_finite)
        return self._tokens(session)

    def _require_int8(self) -> None:
        if not isinstance(self.prior, IntegerPrior):
            raise ModelError(f"frequencies are those of a prior in integers, not of a {type(self.prior).__name__}")

    def _read(self, read: Callable[..., np.ndarray], tokens: Tensor, path: Path | None = None) -> np.ndarray:
        """Return what the engine finds in tokens (B, h, w)."""
        self.check(tokens)
        try:
            return read(to_steps(tokens, path).numpy(), self.threads, self.kernels, *_way_arrays(path))
        except ValueError as error:
            raise ConfigError(str(error)) from error
        except OverflowError as error:
            raise ModelError(str(error)) from error

    def _session(self, batch: int, path: Path | None = None, scales: Sequence[float] = ()) -> Session:
        """Return a session of pictures along a path, that of their guides behind if there are scales of guidance."""
        try:
            session = _native.Session(self._model, batch, self.threads, self.kernels, list(scales))
            if path is not None:
                session.go(*_way_arrays(path))
        except ValueError as error:
            raise ConfigError(str(error)) from error
        return session

    def _tokens(self, session: Session, path: Path | None = None) -> Tensor:
        return to_grid(torch.from_numpy(session.tokens), path, self.grid)


class EngineState:
    """A session and how many of its steps are done."""

    def __init__(self, session: Session, batch: int) -> None:
        self.session, self.batch, self.length = session, batch, 0


def _way_arrays(path: Path | None) -> tuple[np.ndarray, ...]:
    """Return a path as the engine takes it, its places and what is around; nothing for the model's own way."""
    if path is None:
        return ()
    places, around = path.places.detach(), path.around
    if places.stride(0) == around.stride(0) == 0:  # one way for all
        places, around = places[:1], around[:1]
    return places.float().cpu().contiguous().numpy(), around.to("cpu", torch.int32).contiguous().numpy()


def _float_arrays(prior: CausalPrior) -> dict[str, np.ndarray]:
    """Return a prior's weights under the engine's names."""
    arrays = {
        "embedding": prior.embedding.weight,
        "start_vector": prior.start_vector,
        "place": prior.places(),
        "head.weight": prior.head.weight,
        "head.bias": prior.head.bias,
        "norm.weight": prior.transformer.norm.weight,
        "norm.bias": prior.transformer.norm.bias,
    }
    if prior.neighbours:
        arrays["neighbours"] = torch.stack(list(prior.neighbours.parameters()))  # (neighbours, codebook + 1, width)
    if prior.angles is not None:
        arrays["turn"] = torch.stack((prior.angles.cos(), prior.angles.sin()))
    names = {"attention.qkv": "qkv", "attention.out": "out", "mlp.0": "up", "mlp.2": "down"}
    for name, parameter in prior.transformer.blocks.named_parameters(prefix="blocks"):
        _, layer, rest = name.split(".", 2)  # blocks, 0, attention.qkv.weight
        part, _, kind = rest.rpartition(".")
        arrays[f"blocks.{layer}.{names.get(part, part)}.{kind}"] = parameter
    found = {name: array.detach().float().cpu().contiguous().numpy() for name, array in arrays.items()}
    if prior.neighbours:
        found["around"] = prior.around.to("cpu", torch.int32).contiguous().numpy()
    return found


def integer_arrays(model: nn.Module) -> dict[str, np.ndarray]:
    """Return the codes, steps and tables of a model in integers under the engine's names, which are its own."""
    found = {}
    for name, array in model.state_dict().items():
        if not array.numel():
            continue
        dtype = torch.int8 if name.endswith(".codes") else torch.int32 if name == "around" else array.dtype
        found[name] = array.to("cpu", dtype).contiguous().numpy()
    return found


def _require_engine() -> None:
    if _MISSING is not None:
        raise ConfigError(f"the native engine is not built here ({_MISSING}): install a C++ compiler, and bisquit anew")
