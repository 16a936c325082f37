"""What `compare_priors.py` trains and measures, of which nothing is done twice.

    families    tokenizer ──> prior of each family and size ──> its new frames, by each way to paint
                                                                (of the first size with more layers, by the usual one)
                                                            ──> times of all families of a size, in alternation
    codebooks   tokenizer of each number of bits ──> priors that differ in their heads
                tokenizers of each quantizer, and of most bits, that learn from scratch, all as long

All priors of a size have the same transformer and see the same pictures as often; a family says only in what else it
is unlike the raster prior.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from scaling_plan import Size

from bisquit.autoencoder import patch_grid
from bisquit.presets import get_preset
from bisquit.pyramids import scale_grids
from bisquit.quantizers import FSQConfig, PyramidBSQConfig, default_quantizer
from bisquit.sampling import SamplingConfig

PRESET = "best"
"""Whose recipes all runs take, but for what is said of them here."""
GROWN_RATES = 0.25
"""Share of the recipe's rates at which a tokenizer learns that grows from one of fewer bits: little of it is new."""
BITS = 10
"""Bits of a token where families are compared."""
MANY_BITS = 16
"""Bits of a token that frames are to come back from better."""
LEVELS_BITS = 30
"""Bits of a token that stands for continuous latents: ten numbers of eight levels, where others have ten signs."""
QUANTIZERS = ("bsq", "lfq", "fsq", "vq")
HEAD_BITS = (10, 12)
"""For which bits of a token all heads are compared; one softmax over more is too dear."""
VARIANTS = ("parts", "mending pyramid", "flow of levels")
"""Families that are others but for one thing, and are compared at the first size alone."""
DEEPER = ("raster", "any-order", "pyramid", "masked", "flow")
"""Families that are also tried with more layers."""
PARTS = ("families", "codebooks")

BitsAre = Literal["exact", "exact for raster order", "a bound", "not known"]


@dataclass(frozen=True)
class Family:
    """A kind of prior, and in what its recipe differs from the preset's but for that."""

    kind: str
    """What `--prior` calls it."""
    bits_are: BitsAre = "exact"
    """What is known of the bits of a frame."""
    preset: str = PRESET
    flags: tuple[str, ...] = ()
    quantizer: str = "bsq"
    """What makes the tokens that it is over."""
    bits: int | None = None
    """Bits of those tokens, where they are not as many as others'."""
    has_engine: bool = False
    drops_tokens: bool = True
    """Whether it hears top-p."""

    def tokenizer(self, bits: int = BITS) -> TokenizerRun:
        """Return what makes the tokens that it is over, where others' have so many bits."""
        return TokenizerRun(self.quantizer, self.bits or bits)


FAMILIES = {
    "raster": Family("raster", has_engine=True),
    "any-order": Family("any-order", "exact for raster order", preset="edit", has_engine=True),
    "parts": Family("parts"),
    "pyramid": Family("pyramid", quantizer="pyramid"),
    "mending pyramid": Family("pyramid", quantizer="pyramid", flags=("--flipped", "0.2")),
    "masked": Family("masked", "a bound", flags=("--neighbours", "12")),
    "flow": Family("flow", "not known", drops_tokens=False),
    "flow of levels": Family("flow", "not known", quantizer="fsq", bits=LEVELS_BITS, drops_tokens=False),
}


@dataclass(frozen=True)
class Way:
    """How a prior paints."""

    label: str = ""
    """What a row of a table says of it: "" where there is but one way."""
    steps: int = 0
    solver: Literal["euler", "heun"] = "euler"
    confidence_noise: float | None = None
    """Of a masked prior's rounds, where it is not that of the budget."""

    @property
    def key(self) -> str:
        """Its name among the figures of a run."""
        return self.label or "as it is"


@dataclass(frozen=True)
class TokenizerRun:
    """The preset's tokenizer with another quantizer."""

    quantizer: str = "bsq"
    bits: int = BITS
    is_from_scratch: bool = False
    """Whether it learns from scratch, where others may begin with a finished one, and is there to be compared alone."""

    @property
    def name(self) -> str:
        """The name of its folder."""
        return f"tokenizer-{'scratch-' * self.is_from_scratch}{self.quantizer}-{self.bits}-bits"

    @property
    def numbers(self) -> int:
        """How many numbers a flow takes a token for."""
        config = default_quantizer(self.quantizer, self.bits)
        return len(config.levels) if isinstance(config, FSQConfig) else config.bits

    @property
    def flags(self) -> tuple[str, ...]:
        """What is said of it to `bisquit train tokenizer`."""
        return "--quantizer", self.quantizer, "--bits", str(self.bits)


@dataclass(frozen=True)
class PriorRun:
    """A prior of a family and a size, over the tokens of a tokenizer."""

    family: str
    size: Size
    bits: int = BITS
    parts: int = 2
    """In how many parts a token is predicted, in the family of that name."""
    independent: bool = False
    """Whether those parts are taken as independent of one another."""

    @property
    def tokenizer(self) -> TokenizerRun:
        """The tokenizer that it is over."""
        return FAMILIES[self.family].tokenizer(self.bits)

    @property
    def kind(self) -> str:
        """What `--prior` calls it."""
        return FAMILIES[self.family].kind

    @property
    def name(self) -> str:
        """The name of its folder."""
        family = self.family.replace(" ", "-")
        if self.kind == "parts":
            family = f"{self.parts}-{'independent-' * self.independent}parts"
        return f"{family}-{self.size}-{self.tokenizer.bits}-bits"

    @property
    def flags(self) -> tuple[str, ...]:
        """What is said of its kind and shape to `bisquit train prior`."""
        family, shape = FAMILIES[self.family], self.size.transformer
        parts = ("--parts", str(self.parts), *(("--independent",) if self.independent else ()))
        return (
            *("--preset", family.preset, "--prior", family.kind, *family.flags),
            *(parts if family.kind == "parts" else ()),
            *("--width", str(shape.width), "--n-layers", str(shape.n_layers), "--n-heads", str(shape.n_heads)),
            *("--feed-forward", str(shape.feed_forward)),
        )


@dataclass(frozen=True)
class Painting:
    """New frames of a prior, judged."""

    prior: PriorRun
    is_usual_alone: bool = False
    """Whether they are painted by the usual way of its family alone."""

    @property
    def name(self) -> str:
        """The name of its folder."""
        return f"painted-{self.prior.name}"


@dataclass(frozen=True)
class Timing:
    """The seconds that priors of one size take to paint, each by all ways and on all paths."""

    size: Size
    priors: tuple[PriorRun, ...]
    is_usual_alone: bool = False
    """Whether each paints by the usual way of its family alone."""

    @property
    def name(self) -> str:
        """The name of its folder."""
        return f"times-{self.size}"


Run = TokenizerRun | PriorRun | Painting | Timing


@dataclass(frozen=True)
class Budget:
    """What all runs share: data, how long they train, and how they are measured."""

    frames: int
    valid_frames: int
    height: int
    width: int
    pictures: int
    """Training pictures of a prior."""
    epochs: int
    """How often it sees them."""
    tokenizer_epochs: int
    start: str
    """A model whose tokenizer all tokenizers begin with, "" for none."""
    taken: dict[str, str]
    """Finished models by the names of the runs in whose place they are taken."""
    samples: int
    top_p: float
    masks: int
    """Of each valid picture, for the bound of the masked family."""
    masked_steps: tuple[int, ...]
    euler_steps: tuple[int, ...]
    heun_steps: tuple[int, ...]
    masked_noises: tuple[float, ...] = ()
    """With which the middle number of rounds is tried too."""
    confidence_noise: float = SamplingConfig().confidence_noise
    """Of all other rounds of the masked family."""
    judge: str = ""
    """Fingerprint of the network that judges new frames, "" for the one that ships."""
    scratch_epochs: int = 2
    """Epochs of those tokenizers that learn from scratch to be compared."""

    def tokenizer_epochs_of(self, run: TokenizerRun) -> int:
        """Return how often a tokenizer sees the frames."""
        return self.scratch_epochs if run.is_from_scratch else self.tokenizer_epochs

    @property
    def grid(self) -> tuple[int, int]:
        """The grid (h, w) of patches of a frame."""
        patch_size = get_preset(PRESET).tokenizer.tokenizer.autoencoder.patch_size
        return patch_grid(self.height, self.width, patch_size)

    def scales(self, family: str) -> tuple[int, ...]:
        """Return how many tokens a picture has at each scale of a family: but in pyramids, there is one scale."""
        if FAMILIES[family].quantizer != "pyramid":
            return (math.prod(self.grid),)
        return tuple(map(math.prod, scale_grids(PyramidBSQConfig().scales, self.grid)))

    def ways(self, family: str, is_usual_alone: bool = False) -> tuple[Way, ...]:
        """Return the ways in which a family's priors paint."""
        if is_usual_alone:
            return (self.usual_way(family),)
        kind = FAMILIES[family].kind
        if kind == "masked":
            ways = tuple(Way(f"{steps} rounds", steps) for steps in self.masked_steps)
            middle = self.masked_steps[len(self.masked_steps) // 2]
            return ways + tuple(
                Way(f"{middle} rounds, noise {noise:g}", middle, confidence_noise=noise) for noise in self.masked_noises
            )
        if kind == "flow":
            euler = tuple(Way(f"{steps} steps, Euler", steps) for steps in self.euler_steps)
            return euler + tuple(Way(f"{steps} steps, Heun", steps, "heun") for steps in self.heun_steps)
        return (Way(),)

    def distinct_ways(self, family: str, is_usual_alone: bool = False) -> list[Way]:
        """Return those ways that take other times than one another: the noise of rounds hardly tells."""
        return [way for way in self.ways(family, is_usual_alone) if way.confidence_noise is None]

    def usual_way(self, family: str) -> Way:
        """Return the way that stands for a family where one must: the middle one."""
        ways = self.distinct_ways(family)
        return ways[len(ways) // 2]

    def sampling(self, family: str, way: Way) -> SamplingConfig:
        """Return how a family's priors sample in one of its ways; one without a choice among tokens takes no top-p."""
        noise = self.confidence_noise if way.confidence_noise is None else way.confidence_noise
        top_p = self.top_p if FAMILIES[family].drops_tokens else 1.0
        return SamplingConfig(top_p=top_p, steps=way.steps, solver=way.solver, confidence_noise=noise)

    def passes(self, family: str, way: Way) -> int:
        """Return how often a picture goes through the network."""
        scales, kind = self.scales(family), FAMILIES[family].kind
        if kind == "masked":
            return way.steps
        if kind == "flow":
            return 2 * way.steps - 1 if way.solver == "heun" else way.steps  # the last step is Euler's
        return len(scales) if kind == "pyramid" else sum(scales)

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data, as it comes back from JSON."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}


def tokenizers_of_families() -> list[TokenizerRun]:
    """Return what makes the tokens of those families that are over others than raster, each once."""
    runs = dict.fromkeys(family.tokenizer() for family in FAMILIES.values())
    return [run for run in runs if run != TokenizerRun()]


def is_deeper(size: Size, first: Size) -> bool:
    """Whether a size is the first one but for its layers."""
    return size != first and (size.width, size.heads) == (first.width, first.heads)


def families_of(size: Size, first: Size) -> list[str]:
    """Return the families that are compared at a size."""
    if is_deeper(size, first):
        return list(DEEPER)
    return [family for family in FAMILIES if size == first or family not in VARIANTS]


def plan(
    parts: Sequence[str],
    families: Sequence[str],
    sizes: Sequence[Size],
    bits: Sequence[int],
) -> list[Run]:
    """Return all runs of some parts, each once, what others need before them; sizes one after another.

    The raster prior, against which all are held, is in every part. bits: of the tokens of the codebooks part, whose
    priors are of the first size.
    """
    runs: list[Run] = []
    if "families" in parts:
        compared = list(dict.fromkeys(("raster", *families)))
        for size in sizes:
            families_there = [family for family in families_of(size, sizes[0]) if family in compared]
            priors, is_deep = tuple(PriorRun(family, size) for family in families_there), is_deeper(size, sizes[0])
            for prior in priors:
                runs += [prior.tokenizer, prior, Painting(prior, is_usual_alone=is_deep)]
            runs.append(Timing(size, priors, is_usual_alone=is_deep))
    if "codebooks" in parts:
        runs += from_scratch(bits)
        runs += [TokenizerRun("bsq", count) for count in bits]
        for count in bits:
            runs += [run for prior in heads(count, sizes[0]) for run in (prior.tokenizer, prior)]
    return list(dict.fromkeys(runs))


def from_scratch(bits: Sequence[int]) -> list[TokenizerRun]:
    """Return the tokenizers that learn from scratch: of each quantizer, and of two of them with the most of these bits.

    Those two spend bits in two ways: on signs of as many directions, and on levels of few.
    """
    runs = [TokenizerRun(kind, BITS, is_from_scratch=True) for kind in QUANTIZERS]
    runs += [TokenizerRun(kind, max(bits), is_from_scratch=True) for kind in ("bsq", "fsq")]
    return list(dict.fromkeys(runs))


def heads(bits: int, size: Size) -> list[PriorRun]:
    """Return the priors over tokens of so many bits that differ in how they predict a token's bits.

    One softmax over all, two parts, bit after bit, and bits that are independent; two parts alone for large codebooks.
    """
    in_parts = [PriorRun("parts", size, bits)] if bits % 2 == 0 else []
    if bits not in HEAD_BITS:
        return in_parts
    by_bits = [PriorRun("parts", size, bits, parts=bits, independent=alone) for alone in (False, True)]
    return [PriorRun("raster", size, bits), *in_parts, *by_bits]
