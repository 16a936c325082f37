"""Causal priors in integers: int8 weights and activations, the same logits to the last bit on every machine.

The weights of any trained causal prior are rounded as they are, without calibration: every row of a matrix to int8 with
a step of its own, and so, as they come, the rows that it is multiplied with. This module is the reference, plain
PyTorch on any device; the native engine computes the same faster.

    x (B, T, width) ──norm──> int8 ──qkv──> q, k, v, each head of each step in int8 ──attention──> int8 ──out──> + x
                    ──norm──> int8 ──up──> gelu ──> int8 ──down──> + x                                      x n_layers
                    ──norm──> int8 ──head──> logits
"""

from __future__ import annotations

import math
from decimal import Decimal, localcontext
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bisquit.engine import arithmetic
from bisquit.engine.arithmetic import LOG2_E, Codes, to_codes
from bisquit.engine.frequencies import Choose, frequencies, intervals
from bisquit.errors import ModelError, ShapeError
from bisquit.priors import CausalPrior, Path, SequentialPrior
from bisquit.priors.base import to_steps
from bisquit.priors.causal import CausalConfig, around_steps
from bisquit.sampling import all_finite, require_finite
from bisquit.transformer import Block, turn_pairs

MOST_STEPS = 32767  # sums of chances stay below 2**31


class IntegerPrior(SequentialPrior):
    """A causal prior rounded to integers. Its logits are float32, equal to the last bit wherever they are computed.

    It takes the paths that the prior makes, whose places it adds as they are.
    """

    config: CausalConfig
    embedding: Tensor
    start_vector: Tensor
    neighbours: Tensor | None
    around: Tensor
    place: Tensor
    turn: Tensor | None

    def __init__(self, prior: CausalPrior) -> None:
        """Round a prior; it is left as it is. Raises ModelError if a weight is not finite or a picture too long."""
        super().__init__()
        if not all(parameter.isfinite().all() for parameter in prior.parameters()):
            raise ModelError("the prior has weights that are not finite: it is damaged, or its training diverged")
        if prior.length > MOST_STEPS:
            raise ModelError(f"pictures of {prior.length} tokens are too long in int8: {MOST_STEPS} is the most")
        self.config = prior.config
        self.bits = prior.bits
        self.grid = prior.grid
        transformer = prior.transformer
        self.register_buffer("embedding", _float(prior.embedding.weight))
        self.register_buffer("start_vector", _float(prior.start_vector))
        tables = [_float(table) for table in prior.neighbours.parameters()]  # each (codebook + 1, width)
        self.register_buffer("neighbours", torch.stack(tables) if tables else None)
        self.register_buffer("around", prior.around.clone())
        self.register_buffer("place", _float(prior.places()))
        self.register_buffer("turn", None if prior.angles is None else turn_table(prior))
        self.blocks = nn.ModuleList(
            IntegerBlock(block, prior.config.transformer.n_heads) for block in transformer.blocks
        )
        self.norm = IntegerNorm(transformer.norm)
        self.head = IntegerLinear(prior.head)

    def logits(self, tokens: Tensor, path: Path | None = None) -> Tensor:
        """Return the logits (B, h w, codebook) of each token of (B, h, w) given those before it, in one pass."""
        self.check(tokens)
        steps = to_steps(tokens, path)
        known = F.pad(steps, (0, 1), value=self.codebook_size)
        before = self.embedding[steps[:, :-1]]  # (B, h w - 1, width)
        x = torch.cat((self.start_vector.expand(len(tokens), 1, -1), before), dim=1)
        x = self._placed(x, known, path, 0)
        past = torch.ones(self.length, self.length, dtype=torch.bool, device=x.device).tril()
        for block in self.blocks:
            x, _ = block(x, self.turn, None, past)
        logits: Tensor = self.head(self.norm(x))
        return logits

    @torch.no_grad()
    def intervals(self, tokens: Tensor) -> np.ndarray:
        """Return where tokens (B, h, w) lie among their frequencies, int64 (B, h w, 2): `frequencies.intervals`.

        Raises ModelError if logits are not finite.
        """
        found = np.empty((len(tokens), self.length, 2), dtype=np.int64)
        for number, one in enumerate(tokens):  # a picture at a time: all logits together are too many
            logits = self.logits(one[None])[0]
            require_finite(all_finite(logits))
            found[number] = intervals(logits, one.flatten())
        return found

    @torch.no_grad()
    def decode(self, batch: int, choose: Choose) -> Tensor:
        """Return tokens, int64 (B, h, w), each chosen by its frequencies. Raises ModelError as `intervals` does."""
        state, last = self.start(batch), None
        steps = []
        for _ in range(self.length):
            logits = self.next_logits(state, last)
            require_finite(all_finite(logits))
            last = torch.from_numpy(choose(0, frequencies(logits))).to(logits.device)
            steps.append(last)
        return torch.stack(steps, dim=1).view(batch, *self.grid)

    def _placed(self, x: Tensor, known: Tensor, path: Path | None, first: int) -> Tensor:
        """Add what neighbours among tokens (B, h w + 1), and places, add to inputs x (B, T, width) from a step on."""
        end = first + x.shape[1]
        around, places = (self.around, self.place) if path is None else (path.around, path.places)
        if self.neighbours is not None:
            for table, codes in zip(self.neighbours, around_steps(known, around, first, end).unbind(-1), strict=True):
                x = x + table[codes]  # one after another: every order has its own rounding
        return x + places[..., first:end, :]

    def exact(self) -> IntegerPrior:
        """Return this prior: its logits are the same everywhere."""
        return self

    def start(self, batch: int, path: Path | None = None) -> IntegerState:
        """Return an empty state for `batch` sequences."""
        unknown = torch.full((batch, self.length + 1), self.codebook_size, device=self.place.device)
        return IntegerState(unknown, path)

    def next_logits(self, state: IntegerState, last: Tensor | None) -> Tensor:
        """Return the logits (B, codebook) of the next token given the last, (B,) int64 or None at the first step."""
        step = state.length
        if step >= state.capacity:
            raise ShapeError(f"a picture has {state.capacity} tokens, and all are there")
        if last is None:
            x = self.start_vector.expand(len(state.tokens), -1)
        else:
            state.tokens[:, step - 1] = last
            x = self.embedding[last]
        x = self._placed(x.unsqueeze(1), state.tokens, state.path, step)
        turn = None if self.turn is None else self.turn[:, step : step + 1]
        for layer, block in enumerate(self.blocks):
            x, seen = block(x, turn, state.seen[layer] if step else None, None)
            state.seen[layer : layer + 1] = [seen]
        state.length += 1
        logits: Tensor = self.head(self.norm(x))[:, 0]
        return logits


class Seen(NamedTuple):
    """The keys and values of one layer for the steps so far, each (B, n_heads, T, ...)."""

    k: Codes
    v: Codes


class IntegerState:
    """What the steps so far leave behind: their tokens, and keys and values for each layer."""

    def __init__(self, tokens: Tensor, path: Path | None) -> None:
        """Take tokens (B, h w + 1) int64, none known, as `CausalPrior.unknown` returns them, and their way."""
        self.tokens, self.path = tokens, path
        self.capacity, self.length = tokens.shape[1] - 1, 0
        self.seen: list[Seen] = []


class IntegerNorm(nn.Module):
    """Layer norm by exact sums."""

    weight: Tensor
    bias: Tensor

    def __init__(self, norm: nn.LayerNorm) -> None:
        super().__init__()
        self.epsilon = norm.eps
        self.register_buffer("weight", _float(norm.weight))
        self.register_buffer("bias", _float(norm.bias))

    def forward(self, x: Tensor) -> Tensor:
        return arithmetic.layer_norm(x, self.weight, self.bias, self.epsilon)


class IntegerLinear(nn.Module):
    """A linear map of int8 rows by an int8 matrix."""

    codes: Tensor
    step: Tensor
    bias: Tensor

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        assert isinstance(layer, nn.Linear)
        rounded = to_codes(_float(layer.weight))
        self.register_buffer("codes", rounded.codes)
        self.register_buffer("step", rounded.step)
        self.register_buffer("bias", _float(layer.bias))

    def forward(self, x: Tensor) -> Tensor:
        return arithmetic.linear(x, Codes(self.codes, self.step), self.bias)


class IntegerBlock(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)), in integers."""

    def __init__(self, block: nn.Module, n_heads: int) -> None:
        super().__init__()
        assert isinstance(block, Block)
        self.n_heads = n_heads
        self.attention_norm, self.mlp_norm = IntegerNorm(block.attention_norm), IntegerNorm(block.mlp_norm)
        self.qkv, self.out = IntegerLinear(block.attention.qkv), IntegerLinear(block.attention.out)
        self.up, self.down = IntegerLinear(block.mlp[0]), IntegerLinear(block.mlp[2])

    def forward(self, x: Tensor, turn: Tensor | None, seen: Seen | None, mask: Tensor | None) -> tuple[Tensor, Seen]:
        """Map x (B, T, width); return also the keys and values seen so far, those of these T steps among them."""
        q, k, v = self.qkv(self.attention_norm(x)).unflatten(2, (3, self.n_heads, -1)).permute(2, 0, 3, 1, 4)
        if turn is not None:
            q, k = turn_pairs(q, *turn), turn_pairs(k, *turn)
        now = Seen(to_codes(k), to_codes(v))
        if seen is not None:
            now = Seen(_join(seen.k, now.k), _join(seen.v, now.v))
        mixed = arithmetic.attention(to_codes(q), now.k, now.v, score_unit(q.shape[-1]), mask)
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        return x + self.down(arithmetic.gelu(self.up(self.mlp_norm(x)))), now


def score_unit(head_width: int) -> float:
    """Return what a product of a query and a key counts in a score that is an exponent of two."""
    return LOG2_E / math.sqrt(head_width)


def turn_table(prior: CausalPrior) -> Tensor:
    """Return the cosines and sines of rotary positions, (2, h w, head_width / 2) float32: the same on every machine.

    The angles are those of `bisquit.priors.raster.axial_angles`. They are made with decimals, which no machine's
    library of functions can change.
    """
    (height, width), pairs = prior.grid, prior.config.transformer.head_width // 4
    with localcontext(prec=30):
        frequencies = [Decimal(100) ** (-Decimal(i) / pairs) for i in range(pairs)]
        rows_or_columns = range(max(height, width))
        turns = torch.tensor(
            [[_turn(n * f) for f in frequencies] for n in rows_or_columns], dtype=torch.float32
        )  # (n, pairs, 2)
    rows = turns[:height, None].expand(height, width, pairs, 2)
    columns = turns[None, :width].expand(height, width, pairs, 2)
    return torch.cat((rows, columns), dim=2).flatten(0, 1).permute(2, 0, 1).contiguous()


def _turn(angle: Decimal) -> tuple[float, float]:
    """Return the cosine and sine of an angle in radians, by their series in decimals."""
    full = 2 * Decimal("3.14159265358979323846264338327950288")
    angle = angle % full
    cosine, sine, term, n = Decimal(0), Decimal(0), Decimal(1), 0
    while abs(term) > Decimal("1e-28"):
        cosine, sine = (cosine + term, sine) if n % 2 == 0 else (cosine, sine + term)
        n += 1
        term *= angle / n * (-1 if n % 2 == 0 else 1)
    return float(cosine), float(sine)


def _join(before: Codes, now: Codes) -> Codes:
    return Codes(torch.cat((before.codes, now.codes), dim=2), torch.cat((before.step, now.step), dim=2))


def _float(x: Tensor) -> Tensor:
    """Return a copy of weights in float32, outside of any gradient."""
    return x.detach().float().clone()
