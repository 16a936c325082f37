"""What requests ask for and what answers hold, as the OpenAPI document describes them."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from fastapi import UploadFile
from pydantic import BaseModel, ConfigDict, Field

from bisquit.codec import RateConfig
from bisquit.conditioning import LONGEST_PROMPT
from bisquit.editing import EditConfig
from bisquit.generate import EDITS
from bisquit.sampling import SamplingConfig
from bisquit.studio.limits import LONGEST_NAME, MOST_ADDED_PX, MOST_EDITS, MOST_PICTURES, MOST_SEED

Name = Annotated[str, Field(min_length=1, max_length=LONGEST_NAME)]
Answer = Literal["auto", "png", "json", "zip"]
ModelName = Annotated[Name, Field(description="The name of a model, of those that /api/v1/models lists.")]
Side = Annotated[int, Field(ge=0, le=MOST_ADDED_PX)]
Picture = Annotated[UploadFile, Field(description="A JPEG, PNG or WebP picture.")]

_SAMPLING, _EDIT, _RATE = SamplingConfig(), EditConfig(), RateConfig()
_SAID = {**SamplingConfig.descriptions(), **EditConfig.descriptions(), **RateConfig.descriptions()}


class Problem(BaseModel):
    """Why a request was refused."""

    error: str


class Asked(BaseModel):
    """What all that is painted is asked for with."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    model: ModelName = EDITS
    seed: int = Field(0, ge=0, le=MOST_SEED, description="Picture i of a seed is always the same picture.")
    class_name: Name | None = Field(None, alias="class", description="The class that pictures are to show.")
    prompt: Annotated[str, Field(max_length=LONGEST_PROMPT)] | None = Field(
        None, description="What pictures are to show, in words; at most one of class and prompt."
    )
    temperature: float = Field(_SAMPLING.temperature, ge=0, description=_SAID["temperature"])
    top_k: int = Field(_SAMPLING.top_k, ge=0, le=MOST_SEED, description=_SAID["top_k"])
    top_p: float = Field(_SAMPLING.top_p, gt=0, le=1, description=_SAID["top_p"])
    min_p: float = Field(_SAMPLING.min_p, ge=0, le=1, description=_SAID["min_p"])
    guidance: float = Field(_SAMPLING.guidance, ge=0, le=1000, description=_SAID["guidance"])
    guidance_schedule: Literal["constant", "linear", "cosine"] = Field(
        _SAMPLING.guidance_schedule, description=_SAID["guidance_schedule"]
    )
    steps: int = Field(_SAMPLING.steps, ge=0, le=1000, description=_SAID["steps"])
    precision: Literal["float32", "int8"] = Field("float32", description="int8 is faster, and paints other pictures.")
    keep: bool = Field(False, description="Whether the pictures go into the gallery.")

    @property
    def settings(self) -> SamplingConfig:
        """How tokens are chosen."""
        names = ("temperature", "top_k", "top_p", "min_p", "guidance", "guidance_schedule", "steps")
        return SamplingConfig(**{name: getattr(self, name) for name in names})


class SampleRequest(Asked):
    """New pictures."""

    model_config = ConfigDict(strict=True)

    n: int = Field(1, ge=1, le=MOST_PICTURES, description="How many: pictures 0 to n - 1 of the seed.")
    answer: Answer = Field("auto", description="auto is a PNG for one picture, and a ZIP of PNGs for several.")


class StreamRequest(Asked):
    """A new picture that is watched as it is painted."""

    model_config = ConfigDict(strict=True)

    every: int = Field(1, ge=1, le=1_000_000, description="Fewest tokens between two partial pictures.")


class Edit(Asked):
    """What all edits are asked for with; the pictures themselves are not in it."""

    inputs: ClassVar[tuple[str, ...]] = ("picture",)
    """The names of the pictures that it takes."""

    n: int = Field(1, ge=1, le=MOST_EDITS, description="How many.")
    candidates: int = Field(_EDIT.candidates, ge=1, le=64, description=_SAID["candidates"])
    answer: Answer = Field("auto", description="auto is a PNG for one picture, and a ZIP of PNGs for several.")


class Inpaint(Edit):
    """A hole that is filled."""

    inputs = ("picture", "mask")


class Extend(Edit):
    """A picture that is extended beyond its sides, by pixels."""

    left: Side = 0
    right: Side = 0
    top: Side = 0
    bottom: Side = 0


class Vary(Edit):
    """A picture of which a share of the tokens stays."""

    share: float = Field(0.5, ge=0, le=1, description="The share of the picture's tokens that stay, scattered.")


class Blend(Edit):
    """The left half of the first picture joined to the right half of the second."""

    inputs = ("first", "second")

    band: int = Field(20, ge=0, le=2048, description="Pixels painted to each side of the middle.")


class InpaintForm(Inpaint):
    """A hole that is filled, and the picture around it."""

    picture: Picture
    mask: Annotated[UploadFile, Field(description="A picture of the same size, white where to paint.")]


class ExtendForm(Extend):
    """A picture that is extended beyond its sides, by pixels."""

    picture: Picture


class VaryForm(Vary):
    """A picture of which a share of the tokens stays."""

    picture: Picture


class BlendForm(Blend):
    """The left half of the first picture joined to the right half of the second, of one size."""

    first: Picture
    second: Picture


class _Form(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class PictureForm(_Form):
    """A picture, and the model that is to look at it."""

    picture: Picture
    model: ModelName = EDITS


class CompressForm(_Form):
    """A picture that is to become a few hundred bytes."""

    picture: Picture
    model: Annotated[Name, Field(description="By default those that ship, each where it is best.")] | None = None
    quality: int = Field(_RATE.quality, ge=0, le=100, description=_SAID["quality"])
    target_bytes: Annotated[int, Field(gt=0, le=10**9)] | None = Field(None, description=_SAID["target_bytes"])
    target_psnr: Annotated[float, Field(gt=0, le=200)] | None = Field(None, description=_SAID["target_psnr"])
    effort: int = Field(_RATE.effort, ge=0, le=9, description=_SAID["effort"])


class DecompressForm(_Form):
    """A compressed picture."""

    file: Annotated[UploadFile, Field(description="What compress gave, or `bisquit compress` of a single picture.")]
    model: Annotated[Name, Field(description="By default those that ship.")] | None = None


Grid = Annotated[list[list[int]], Field(min_length=1, max_length=4096, description="Tokens, row by row.")]


Length = Annotated[int, Field(ge=1, le=65_536)]


class TokensRequest(BaseModel):
    """Tokens that are to become a picture."""

    model_config = ConfigDict(extra="forbid", strict=True)

    model: ModelName = EDITS
    tokens: Grid
    size: Annotated[list[Length], Field(min_length=2, max_length=2)] | None = Field(
        None, description="Height and width, to which the picture is cropped; by default whole patches."
    )


class BitsRequest(TokensRequest):
    """A token whose bits are to be flipped, one after another."""

    row: int = Field(ge=0, le=4096)
    column: int = Field(ge=0, le=4096)


class Painted(BaseModel):
    """A picture that was painted."""

    png: str = Field(description="The picture, a PNG in base64.")
    recipe: dict[str, Any] = Field(description="What paints it again, to the bit.")
    id: str | None = Field(description="Its name in the gallery, if it is kept there.")
    tokens: list[list[int]] | None = Field(None, description="Its tokens, where it was made of nothing else.")


class PaintedAnswer(BaseModel):
    """Pictures that were painted."""

    pictures: list[Painted]


class TokensAnswer(BaseModel):
    """A picture's tokens."""

    model: str
    tokens: list[list[int]]
    bits: int = Field(description="Bits a token.")
    size: list[int] = Field(description="Height and width of the picture.")


class Flip(BaseModel):
    """What a picture is with one bit of one token flipped."""

    bit: int = Field(description="Which bit, 0 the least significant.")
    token: int = Field(description="The token that it makes.")
    mean_change: float = Field(description="Mean absolute change of the picture, in levels of 255.")
    png: str


class BitsAnswer(BaseModel):
    """What each bit of a token does."""

    token: int
    png: str
    flips: list[Flip]


class LikelihoodAnswer(BaseModel):
    """What each token of a picture costs."""

    model: str
    bits: list[list[float]] = Field(description="Bits that each token costs, given those that the model knew.")
    total_bits: float
    tokens: list[list[int]]
    png: str = Field(description="The bits as colours, and under them the scale.")


class ModelAnswer(BaseModel):
    """A model that can be asked."""

    name: str
    paints: bool
    prior: str | None = Field(description="The family of its prior.")
    classes: list[str]
    reads_words: bool
    size: list[int] | None = Field(description="Height and width of its pictures.")
    grid: list[int] | None = Field(description="Rows and columns of its tokens.")
    bits: int = Field(description="Bits a token.")
    patch_size: int
    fingerprint: str


class ModelsAnswer(BaseModel):
    """All models."""

    models: list[ModelAnswer]


class Kept(BaseModel):
    """A picture of the gallery."""

    id: str
    created: float = Field(description="Seconds since 1970.")
    height: int
    width: int
    recipe: dict[str, Any]


class GalleryAnswer(BaseModel):
    """A page of the gallery, the latest picture first."""

    pictures: list[Kept]
    next: str | None = Field(description="What `before` must be for the next page; null on the last.")
    total: int


class RunSummary(BaseModel):
    """A training run."""

    name: str = Field(description="Its folder, below that of all runs.")
    stage: str
    preset: str | None
    finished: bool
    changed: float = Field(description="When something in it last changed, in seconds since 1970.")


class RunsAnswer(BaseModel):
    """All runs, the latest first."""

    runs: list[RunSummary]


class Point(BaseModel):
    """A point of a curve."""

    step: int
    time: float
    value: float | None = Field(description="null where it is not finite.")


class RunAnswer(RunSummary):
    """A run with its curves."""

    recipe: dict[str, Any]
    curves: dict[str, list[Point]]
    pictures: list[str] = Field(description="Tags of the pictures that it drew; `picture` gives the latest of each.")
