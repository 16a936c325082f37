"""The raster prior on a GPU: a step of fixed shapes over a static cache, captured into a CUDA graph and replayed.

    host      token ──copy──> last       number of the step ──fill──> step           a copy <── logits (B, codebook)
                                │                                       │                         │
    device    [ embedding[last], or the start ── + neighbours + place[step] ── blocks ── norm ── head ]    one graph

A small model is bound by the launches of its kernels, about a dozen a layer; a graph launches all of a step at once.
What may not change in a graph does not: addresses (all that outlives a step is allocated before the capture), shapes
(attention reads the cache up to a reach that doubles as it fills up, a graph for each reach) and decisions (what
depends on the step is looked up on the device). On other devices the same step runs eagerly, to the same logits.
The capture follows https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs.
"""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

import torch
from torch import Tensor

from bisquit.config import require
from bisquit.errors import ConfigError, ShapeError
from bisquit.priors import Path, RasterPrior, SequentialPrior
from bisquit.sampling import Noise, OnToken, SamplingConfig, Seeds, check_given, race, require_finite, sample
from bisquit.transformer import StaticCache

WARM_UP_STEPS = 3  # before a capture: libraries make their handles and workspaces at first use, which no graph may hold


class GraphedPrior(SequentialPrior):
    """A raster prior's weights in `dtype`, for steps that a GPU takes at one launch each. It is for use, not training.

    In float32, pictures are those of the raster prior. In bfloat16 they are others, as likely, and may change with the
    batch and the device: logits are then off by far more than what `bisquit.sampling` calls a doubt.
    """

    def __init__(self, prior: RasterPrior, dtype: torch.dtype = torch.bfloat16) -> None:
        """Copy a prior, to where it is; it is left as it is. Raises ConfigError if the type is not one of floats."""
        super().__init__()
        require(dtype.is_floating_point, "dtype", dtype, "a type of floats, such as torch.bfloat16")
        self.config, self.bits, self.grid = prior.config, prior.bits, prior.grid
        self.inner = copy.deepcopy(prior).to(dtype).requires_grad_(False)
        if prior.angles is not None:
            self.inner.angles = prior.angles.clone()  # up to tens of radians: bfloat16 has no digits left for a turn
        self.eval()
        self._idle: dict[int, list[Buffers]] = {}  # those of each batch size that no state uses

    def logits(self, tokens: Tensor, path: Path | None = None) -> Tensor:
        """Return the logits (B, h w, codebook) of each token of (B, h, w) given those before it, in one pass."""
        way = path and path.to(self.device, self.inner.start_vector.dtype)
        return _at_least_float32(self.inner.logits(tokens, way))

    @torch.inference_mode(False)  # buffers made in inference mode could not be used outside of it
    @torch.no_grad()
    def start(self, batch: int, path: Path | None = None) -> GraphedState:
        """Return an empty state for `batch` sequences. Buffers and graphs of a state that is gone are used again.

        Raises ConfigError for a path: what a graph adds at each step is the prior's own.
        """
        if path is not None:
            raise ConfigError("a captured step goes the prior's own way: paint along a path with the prior itself")
        idle = self._idle.setdefault(batch, [])
        buffers = idle.pop() if idle else Buffers(self.inner, batch)
        buffers.clear(self.inner)
        state = GraphedState(buffers, self._idle)
        weakref.finalize(state, idle.append, buffers)
        return state

    @torch.inference_mode(False)
    @torch.no_grad()
    def next_logits(self, state: GraphedState, last: Tensor | None) -> Tensor:
        """Return the logits (B, codebook), float32, of the next token given the last, (B,) int64; None at the first.

        Nothing in it waits for the device. Raises ShapeError if the state is full, or older than a move or conversion
        of the prior, or if `last` does not fit it.
        """
        buffers, cache = state.buffers, state.buffers.cache
        if state.idle is not self._idle:
            raise ShapeError("the prior was moved or converted after this state was made: start another")
        step = cache.length
        cache.prepare_step()
        self.check_last(last, step, len(buffers.last))
        if last is not None:
            buffers.last.copy_(last)
        if cache.reach not in buffers.replays:
            buffers.replays[cache.reach] = captured(partial(self._step, buffers), buffers.stream, buffers.pool)
        buffers.replays[cache.reach]()
        cache.length = step + 1  # a replay runs no Python, a warm-up runs it too often
        return buffers.logits.clone()

    def _step(self, buffers: Buffers) -> None:
        """Do a step's work on the device. It may be done several times over."""
        cache, inner = buffers.cache, self.inner
        x = torch.where(cache.step == 0, inner.start_vector, inner.embedding(buffers.last))
        if inner.neighbours:
            before = (cache.step - 1).clamp_min(0)  # the first step writes what none reads and the second writes anew
            buffers.tokens.index_copy_(1, before, buffers.last.unsqueeze(1))
            around = inner.around.index_select(0, cache.step).squeeze(0)
            x = inner.add_neighbours(x, buffers.tokens.index_select(1, around))
        x = x + buffers.places.index_select(0, cache.step)
        angles = None if inner.angles is None else inner.angles.index_select(0, cache.step)
        x = inner.transformer(x.unsqueeze(1), causal=True, rotary=angles, cache=cache)
        buffers.logits.copy_(inner.head(x[:, 0]))

    @torch.no_grad()
    def paint(
        self,
        numbers: Sequence[int],
        *,
        seed: Seeds,
        settings: SamplingConfig | None = None,
        given: Tensor | None = None,
        on_token: OnToken | None = None,
    ) -> Tensor:
        """Paint pictures as `bisquit.sampling.sample` does, with the races on the device too.

        `sample` fetches the logits of each token, and waits for the device as often; here the end alone is waited for,
        or with `on_token` each token. Noise is sent ahead, a row of the grid at a time. In float32, a picture in which
        a race was in doubt is painted again by `sample`, so that all are the pictures that it paints; in other types,
        what is in doubt stays. Raises what `sample` does.
        """
        settings = settings or SamplingConfig()
        given = check_given(given, self, len(numbers))
        device, row = self.inner.start_vector.device, self.grid[1]
        tokens = given.to(device, copy=True).clamp_(min=0)
        flat, is_given = tokens.view(len(numbers), self.length), given.flatten(1).to(device) >= 0
        is_doubtful, is_finite = torch.zeros_like(is_given), torch.ones_like(is_given)
        noise = Noise(seed, numbers, row, self.codebook_size)
        state = self.start(len(numbers))
        for step in range(self.length):
            if step % row == 0:
                ahead = _send(torch.stack([noise.next() for _ in range(row)]), device)  # (row, B, codebook)
            logits = self.next_logits(state, flat[:, step - 1] if step else None)
            winners, is_doubtful[:, step] = race(logits, ahead[step % row], settings)
            flat[:, step] = torch.where(is_given[:, step], flat[:, step], winners)
            is_finite[:, step] = logits.isfinite().all(dim=1)
            if on_token:
                on_token(step + 1, tokens.cpu())
        require_finite(bool(is_finite.all()))
        tokens, again = tokens.cpu(), (is_doubtful & ~is_given).any(dim=1).nonzero().flatten().tolist()
        if again and self.inner.start_vector.dtype == torch.float32:
            seeds = [seed[i] for i in again] if isinstance(seed, Sequence) else seed
            tokens[again] = sample(self, [numbers[i] for i in again], seed=seeds, settings=settings, given=given[again])
        return tokens

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode, whatever the mode: dropout would be captured."""
        return super().train(False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Let go of buffers and graphs, for weights that move or are converted have other addresses."""
        self._idle = {}
        return super()._apply(fn, recurse)  # type: ignore[no-untyped-call]

    def __deepcopy__(self, memo: dict[int, Any]) -> GraphedPrior:
        """Return a copy with no buffers and graphs, which cannot be copied."""
        return GraphedPrior(self.inner, self.inner.start_vector.dtype)


class Buffers:
    """What a batch's steps read and write, at fixed addresses, and for each reach of the cache what runs a step."""

    def __init__(self, prior: RasterPrior, batch: int) -> None:
        like, width = prior.start_vector, prior.config.transformer.width
        self.cache = StaticCache(prior.config.transformer, batch, prior.length, like)
        self.places = like.new_empty(prior.length, width)
        self.last = torch.zeros(batch, dtype=torch.int64, device=like.device)
        self.tokens = prior.unknown(batch)
        self.logits = _at_least_float32(like.new_empty(batch, prior.codebook_size))
        self.replays: dict[int, Callable[[], None]] = {}
        is_cuda = like.device.type == "cuda"
        self.stream = torch.cuda.Stream(like.device) if is_cuda else None
        self.pool = torch.cuda.graph_pool_handle() if is_cuda else None  # its graphs never run at once: one pool

    def clear(self, prior: RasterPrior) -> None:
        """Make ready for a first step."""
        self.cache.clear()
        self.places.copy_(prior.places())


@dataclass(frozen=True, eq=False)
class GraphedState:
    """The buffers that a batch at work uses; when it is gone, they are free for the next."""

    buffers: Buffers
    idle: dict[int, list[Buffers]]
    """The idle buffers of the prior as it was when this state was made."""


def captured(work: Callable[[], None], stream: torch.cuda.Stream | None, pool: Any) -> Callable[[], None]:
    """Capture the kernels that `work` launches into a graph, on `stream`, and return what launches them all at once.

    `work` runs a few times before, and must bear that. Without a stream, it is its own replay.
    """
    if stream is None:
        return work
    with torch.cuda.device(stream.device):
        here = torch.cuda.current_stream()
        stream.wait_stream(here)
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP_STEPS):
                work()
        here.wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=pool, stream=stream):
            work()
    return graph.replay


def _at_least_float32(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _send(x: Tensor, device: torch.device) -> Tensor:
    """Copy to a device; to a GPU without waiting for what it is doing."""
    return x.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else x.to(device)
