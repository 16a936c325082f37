"""What `scaling.py` trains: sizes by pictures, and what each run costs, in parameters, tokens and FLOPs.

    N  parameters that multiply: 12 width^2 a layer (queries, keys, values and output 4, feed-forward 8), and the head,
       width x codebook. Embedding tables and positions are looked up; biases and norms are next to nothing.
    P  products a token takes forward: N, and in each layer's attention 2 width for each key it sees (one to score it,
       one to mix it in); of h w steps the mean sees (h w + 1) / 2.
    D  tokens trained on.
    C  training FLOPs, 6 P D: a product is two FLOPs, a backward pass two forward ones.

Attention is small beside N in a language model, where 6 N D is the custom; here it is up to half as much again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bisquit.transformer import TransformerConfig

FLOPS_PER_S = 154e9
"""Of training on two cores: 45 pictures a second of 3 layers of width 128; measured pictures go three times as fast."""
WARM_UP = 0.1
"""Share of a run's steps over which its rate grows; the preset's 200 steps are the most."""
AVERAGED = 0.05
"""Horizon of the weights' moving average, as a share of a run's steps; the preset's decay is the slowest."""
HALVINGS = 4


@dataclass(frozen=True)
class Size:
    """The size of a prior; its feed-forward part is four times as wide as it is."""

    width: int
    layers: int
    heads: int

    @classmethod
    def of(cls, text: str) -> Size:
        """Read what `str` writes, such as 128x4x4. Raises ValueError on anything else, ConfigError on odd numbers."""
        width, layers, heads = map(int, text.split("x"))
        TransformerConfig(width=width, n_layers=layers, n_heads=heads, feed_forward=4 * width)
        return cls(width, layers, heads)

    def __str__(self) -> str:
        return f"{self.width}x{self.layers}x{self.heads}"

    @property
    def transformer(self) -> TransformerConfig:
        """Its configuration."""
        return TransformerConfig(
            width=self.width, n_layers=self.layers, n_heads=self.heads, feed_forward=4 * self.width
        )


SIZES = (Size(64, 2, 2), Size(96, 3, 3), Size(128, 4, 4), Size(192, 4, 4))


@dataclass(frozen=True)
class Run:
    """A size, trained on so many pictures, each once."""

    size: Size
    pictures: int

    @property
    def name(self) -> str:
        """The name of its folder."""
        return f"prior-{self.size}-pictures-{self.pictures}"

    def steps(self, batch: int) -> int:
        """Return its steps; pictures that fill no whole batch sit out."""
        return max(1, self.pictures // batch)


@dataclass(frozen=True)
class Scale:
    """What all runs share, and with it what each costs."""

    grid: tuple[int, int]
    bits: int
    batch: int
    longest_warm_up: int
    slowest_decay: float
    frames: int
    valid_frames: int

    @property
    def picture_tokens(self) -> int:
        """Tokens of a picture."""
        return self.grid[0] * self.grid[1]

    def tokens(self, run: Run) -> int:
        """Return D, the tokens that a run trains on."""
        return run.steps(self.batch) * min(self.batch, run.pictures) * self.picture_tokens

    def parameters(self, size: Size) -> int:
        """Return N, the parameters of a size that multiply."""
        return parameters(size.transformer, self.bits)

    def products(self, size: Size) -> int:
        """Return P, the products that a token takes forward."""
        return products(size.transformer, self.bits, self.grid)

    def flops(self, run: Run) -> float:
        """Return C, the FLOPs of a run's training."""
        return 6.0 * self.products(run.size) * self.tokens(run)

    def seconds(self, run: Run) -> float:
        """Return about how long a run takes on two cores, its measuring included."""
        measured = 6.0 * self.products(run.size) * self.valid_frames * self.picture_tokens / 3
        return (self.flops(run) + measured) / FLOPS_PER_S

    def flags(self, run: Run) -> tuple[str, ...]:
        """Return what is said of a run to `bisquit train prior --preset best`: size, one pass, times to suit its steps.

        Tokens are fixed: they cannot be flipped or shifted.
        """
        size = run.size.transformer
        return (
            *("--no-flip", "--shift-px", "0", "--epochs", "1"),
            *("--width", str(size.width), "--n-layers", str(size.n_layers), "--n-heads", str(size.n_heads)),
            *("--feed-forward", str(size.feed_forward)),
            *suited(run.steps(self.batch), self.longest_warm_up, self.slowest_decay),
        )

    def plan(self, sizes: Sequence[Size], largest: int) -> list[Run]:
        """Return a run of each size on `largest` pictures and on halves of them, cheapest first."""
        pictures = {max(1, largest >> halving) for halving in range(HALVINGS + 1)}
        return sorted((Run(size, count) for size in sizes for count in pictures), key=lambda run: self.flops(run))


def suited(steps: int, longest_warm_up: int, slowest_decay: float) -> tuple[str, ...]:
    """Return what is said of warm-up and averaging so that they suit a run of so many steps."""
    warm_up = min(longest_warm_up, round(WARM_UP * steps))
    decay = min(slowest_decay, max(0.0, 1 - 1 / max(1.0, AVERAGED * steps)))
    return "--warmup-steps", str(warm_up), "--ema-decay", f"{decay:.4f}"


def parameters(transformer: TransformerConfig, bits: int) -> int:
    """Return the parameters that multiply: matrices of the blocks, and the head over 2**bits codes."""
    width = transformer.width
    return transformer.n_layers * (4 * width**2 + 2 * width * transformer.feed_forward) + width * 2**bits


def products(transformer: TransformerConfig, bits: int, grid: tuple[int, int]) -> int:
    """Return the products that a token of a grid (h, w) takes forward, causal attention's included."""
    attention = transformer.n_layers * transformer.width * (grid[0] * grid[1] + 1)
    return parameters(transformer, bits) + attention
