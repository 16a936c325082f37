"""The pipeline: a tokenizer and a prior over its tokens, from nothing to frames, and from frames to tokens and back.

sample:   seed ──prior──> tokens ──tokenizer──> frames
call:     the same by the arguments of Diffusers' pipelines
encode:   frames ──tokenizer──> tokens
decode:   tokens ──tokenizer──> frames

Models are loaded here too, alone or, to compress pictures, as a codec.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from importlib.resources import as_file, files
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, NamedTuple, Self, get_args

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from bisquit.asking import Asked, OutputType, PipelineOutput, repeated, seeds_of
from bisquit.atomic import atomic_folder
from bisquit.checkpoint import (
    CARD_FILE,
    FEATURES_FILE,
    PRIOR_FILE,
    TOKENIZER_FILE,
    SavedPrior,
    load_features,
    load_prior,
    load_tokenizer,
    save_prior,
    save_tokenizer,
)
from bisquit.conditioning import Conditions
from bisquit.config import require
from bisquit.engine import Backend, Precision
from bisquit.errors import ConditionError, ModelError, ShapeError
from bisquit.features import FeatureNetwork
from bisquit.hub import HUB_SCHEME, HubId, download, upload
from bisquit.painting import Painter
from bisquit.priors import Prior, RasterPrior
from bisquit.progress import Progress, share_of
from bisquit.sampling import SamplingConfig
from bisquit.shipped import require_as_shipped
from bisquit.tokenizer import Tokenizer

if TYPE_CHECKING:
    from bisquit.codec import Codec, CodecModel

Preview = Callable[[np.ndarray], None]
"""Called with the partial pictures, uint8 (B, H, W, 3), after each row of tokens, scale, round or step.

What is not painted yet is grey, or as coarse as the scales so far have it.
"""

LADDER = {"low": 0, "best": 40, "fine": 48}
"""The models that ship with which pictures are compressed, coarse to fine, and from which quality on each is."""
EDITS = "edit"
"""The model that ships with which pictures are edited."""
SHARED_TOKENIZERS = {"edit": "best"}
"""The models that ship with a prior alone, and whose tokenizer each is over."""

_WEIGHTS = files("bisquit") / "weights"


class Painting(NamedTuple):
    """Pictures that were painted, before they are decoded."""

    tokens: np.ndarray
    """int64 (n, h, w)."""
    bits: np.ndarray
    """float64 (n,), what each costs under the model, told what it was asked for."""


class Pipeline:
    """A tokenizer and, where there is one, a prior over its tokens.

    Arrays in and out are NumPy's, wherever the model is. Frames go through the tokenizer one at a time, for in another
    batch convolutions round differently, and then the same frame could give another token.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        prior: Prior | None = None,
        frame_size: tuple[int, int] | None = None,
        conditions: Conditions | None = None,
        card: str = "",
    ) -> None:
        """Pair a tokenizer with a prior.

        frame_size: (H, W) of the frames to paint; by default whole patches. conditions: what the prior can be asked
        for. card: Markdown that goes with the model wherever it is saved.
        """
        if prior is not None and prior.bits != tokenizer.bits:
            raise ModelError(f"the prior is over tokens of {prior.bits} bits, the tokenizer's have {tokenizer.bits}")
        self.tokenizer = tokenizer.eval()
        self.prior = prior.eval() if prior is not None else None
        self.frame_size = frame_size
        self.conditions = conditions or Conditions()
        self.card = card

    @staticmethod
    def from_pretrained(model: str | os.PathLike[str]) -> Pipeline:
        """Load a model as `load` does; a name owner/name[@revision] that is no folder here is one of the Hub's."""
        name = os.fspath(model)
        is_here = name in shipped_models() or Path(name).is_dir()
        return load(name if is_here or HubId.parse(name) is None else HUB_SCHEME + name.removeprefix(HUB_SCHEME))

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Save the model and its card to a folder, which must be new or empty, whole or not at all.

        `load` gives the same model again. Raises ModelError if the folder is not empty or cannot be written, or if the
        size of the frames is not known.
        """
        folder = Path(folder)
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ModelError(f"{folder} is not empty: name a new folder")
        with atomic_folder(folder) as partial:
            save_tokenizer(self.tokenizer, partial / TOKENIZER_FILE)
            if self.prior is not None:
                if self.frame_size is None:
                    raise ModelError("the model does not say the size of its frames: pass frame_size to Pipeline")
                saved = SavedPrior(self.prior, self.frame_size, self.tokenizer.fingerprint(), self.conditions)
                save_prior(saved, partial / PRIOR_FILE)
            if self.card:
                (partial / CARD_FILE).write_text(self.card, encoding="utf-8")

    def push_to_hub(self, name: str, *, private: bool = False, message: str | None = None) -> str:
        """Save the model to the Hugging Face Hub as owner/name[@branch], as one commit; return its address.

        private: whether a repository is made private, if there is none yet. message: the commit's. Raises ModelError
        for another name, for a model without a card, and as `save_pretrained` and the Hub do.
        """
        hub_id = HubId.parse(name)
        if hub_id is None:
            raise ModelError(f"{name} is no name on the Hugging Face Hub: write owner/name, or owner/name@branch")
        if not self.card:
            raise ModelError("the model has no card: set its `card`, or push the folder of its run with `bisquit push`")
        with TemporaryDirectory() as scratch:
            self.save_pretrained(Path(scratch) / "model")
            return upload(Path(scratch) / "model", hub_id, private=private, message=message)

    def to(self, device: str | torch.device) -> Self:
        """Move the model to a device, such as "cuda"."""
        self.tokenizer.to(device)
        if self.prior is not None:
            self.prior.to(device)
        return self

    def encode(self, frames: np.ndarray) -> np.ndarray:
        """Turn frames, uint8 (B, H, W, 3), into tokens, int64 (B, h, w). Raises ShapeError on other arrays."""
        if frames.dtype != np.uint8 or frames.ndim != 4:
            raise ShapeError(f"frames are {frames.dtype} {frames.shape}: they must be uint8 (B, H, W, 3)")
        one_by_one = torch.from_numpy(np.array(frames)).split(1)
        return np.concatenate([self.tokenizer.encode(frame).cpu().numpy() for frame in one_by_one])

    def decode(self, tokens: np.ndarray, size: tuple[int, int] | None = None) -> np.ndarray:
        """Turn tokens, integers (B, h, w), into frames, uint8 (B, H, W, 3), cropped to size (H, W) where given.

        Raises ShapeError on other arrays and TokenError on tokens outside of the codebook.
        """
        if tokens.dtype.kind not in "iu" or tokens.ndim != 3:
            raise ShapeError(f"tokens are {tokens.dtype} {tokens.shape}: they must be integers (B, h, w)")
        return self._decode(torch.from_numpy(tokens.astype(np.int64)), size)

    def sample(
        self,
        n: int,
        *,
        seed: int = 0,
        settings: SamplingConfig | None = None,
        class_name: Asked = None,
        prompt: Asked = None,
        batch_size: int = 64,
        backend: Backend = "auto",
        precision: Precision = "float32",
        progress: Progress | None = None,
        preview: Preview | None = None,
    ) -> np.ndarray:
        """Paint n new frames, uint8 (n, H, W, 3): pictures 0 to n - 1 of the seed, the same ones for any batch_size.

        class_name, prompt: what they are to show, all the same or each its own; at most one of the two.

        backend, precision: see `bisquit.engine.prepare`; backends paint the same frames, precisions do not. progress:
        called with tokens done and to do. preview: called with the partial pictures of the batch at hand. Raises
        ModelError if the model has no prior, ConditionError as `condition` does.
        """
        painter = Painter(self.painting_prior(), backend, precision)
        condition = self.condition(class_name, prompt)
        batches = self._batches(painter, range(n), seed, settings, condition, batch_size, progress, preview)
        return np.concatenate([self._decode(tokens, self.frame_size) for tokens, _ in batches])

    def __call__(
        self,
        prompt: Asked = None,
        class_label: Asked = None,
        *,
        num_images_per_prompt: int = 1,
        guidance_scale: float | None = None,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        seed: int | None = None,
        output_type: OutputType = "pil",
        callback: Progress | None = None,
        settings: SamplingConfig | None = None,
        batch_size: int = 64,
        backend: Backend = "auto",
        precision: Precision = "float32",
    ) -> PipelineOutput:
        """Paint new pictures, asked for as Diffusers' pipelines are: those of `sample`, one prompt's after another's.

        prompt, class_label: what `sample` calls prompt and class_name; of several, each gets so many pictures.
        guidance_scale: goes before that of the settings. seed: pictures 0 to n - 1 of it, by default of 0; a generator
        draws the seed. Of a list of generators, one for each picture, each draws the seed of its own, whose picture 0
        is painted, one after another. callback: called with tokens done and to do. The other arguments are those of
        `sample`. Raises ConfigError for an unknown output type, for a seed beside a generator, and for another number
        of generators than of pictures; and what `sample` raises.
        """
        require(output_type in get_args(OutputType), "output_type", output_type, " or ".join(get_args(OutputType)))
        require(num_images_per_prompt >= 1, "num_images_per_prompt", num_images_per_prompt, "at least 1")
        if guidance_scale is not None:
            settings = (settings or SamplingConfig()).replace(guidance=guidance_scale)
        prompts, classes = (repeated(asked, num_images_per_prompt) for asked in (prompt, class_label))
        several = next((asked for asked in (prompts, classes) if not isinstance(asked, str | None)), None)
        count = num_images_per_prompt if several is None else len(several)
        condition = self.condition(classes, prompts)
        painter = Painter(self.painting_prior(), backend, precision)
        tokens, runs = [], seeds_of(seed, generator, count)
        for done, (own_seed, numbers) in enumerate(runs):
            told = condition if len(runs) == 1 or condition is None or condition.ndim == 1 else condition[[done]]
            progress = share_of(callback, done, 1, len(runs))
            batches = self._batches(painter, numbers, own_seed, settings, told, batch_size, progress)
            tokens += [batch for batch, _ in batches]
        return PipelineOutput(
            self._shown(torch.cat(tokens), output_type),
            [own_seed for own_seed, numbers in runs for _ in numbers],
            [number for _, numbers in runs for number in numbers],
        )

    def paint(
        self,
        numbers: range,
        *,
        seed: int = 0,
        settings: SamplingConfig | None = None,
        class_name: Asked = None,
        prompt: Asked = None,
        batch_size: int = 64,
        backend: Backend = "auto",
        precision: Precision = "float32",
        progress: Progress | None = None,
    ) -> Painting:
        """Paint the tokens of pictures of a seed, and measure what each picture costs. Arguments are those of `sample`.

        numbers: which pictures of the seed. Raises ModelError if the prior has no exact likelihood, too.
        """
        painter = Painter(self.painting_prior(), backend, precision)
        condition = self.condition(class_name, prompt)
        tokens, bits = [], []
        for batch, told in self._batches(painter, numbers, seed, settings, condition, batch_size, progress):
            tokens.append(batch)
            bits.append(painter.bits(batch, told).double().sum(dim=(1, 2)))
        return Painting(torch.cat(tokens).numpy(), torch.cat(bits).numpy())

    def _batches(
        self,
        painter: Painter,
        numbers: range,
        seed: int,
        settings: SamplingConfig | None,
        condition: Tensor | None,
        batch_size: int,
        progress: Progress | None = None,
        preview: Preview | None = None,
    ) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Yield the tokens of pictures of a seed, painted batch by batch, and what they were told. See `sample`."""
        check_asked(numbers, condition, batch_size)
        length = painter.prior.length
        for start in range(0, len(numbers), batch_size):
            part = slice(start, start + batch_size)
            batch = numbers[part]

            def on_tokens(done: int, tokens: Tensor, start: int = start, count: int = len(batch)) -> None:
                if progress:
                    progress(start * length + done * count, len(numbers) * length)
                if preview:
                    preview(self._partial(tokens))

            told = told_part(condition, part)
            yield painter.paint(batch, seed=seed, settings=settings, condition=told, on_tokens=on_tokens), told

    def painting_prior(self) -> Prior:
        """Return the prior. Raises ModelError if there is none to paint with."""
        if self.prior is None:
            raise ModelError("this model has no prior to paint with: train one with `bisquit train prior`")
        return self.prior

    def condition(self, class_name: Asked = None, prompt: Asked = None) -> Tensor | None:
        """Return the condition of a class or a prompt, (size,), or of one each, (n, size); None for neither.

        Raises ConditionError if both are given, or if the model does not know them.
        """
        if class_name is not None and prompt is not None:
            raise ConditionError("pass either a class or a prompt: a picture is asked for in one way")
        asked, of = (class_name, self.conditions.of_class) if prompt is None else (prompt, self.conditions.of_prompt)
        if asked is None or isinstance(asked, str):
            return None if asked is None else of(asked)
        if not len(asked):
            raise ConditionError("nothing is asked for: name one class or prompt for all pictures, or one for each")
        found = {one: of(one) for one in dict.fromkeys(asked)}
        return torch.stack([found[one] for one in asked])

    def _shown(self, tokens: Tensor, output_type: OutputType) -> list[Image.Image] | np.ndarray:
        """Return painted tokens (n, h, w) in the form that was asked for."""
        if output_type == "tokens":
            return tokens.numpy()
        frames = self._decode(tokens, self.frame_size)
        return frames if output_type == "np" else [Image.fromarray(frame) for frame in frames]

    def _decode(self, tokens: Tensor, size: tuple[int, int] | None) -> np.ndarray:
        return np.concatenate([self.tokenizer.decode(part, size).cpu().numpy() for part in tokens.split(1)])

    def _partial(self, tokens: Tensor) -> np.ndarray:
        """Return the frames of tokens of which those are -1 that are not painted yet."""
        partial = [self.tokenizer.decode_partial(some, self.frame_size) for some in tokens.split(1)]
        return np.concatenate([frames.cpu().numpy() for frames in partial])


def check_asked(numbers: range, condition: Tensor | None, batch_size: int) -> None:
    """Raise ConfigError unless there are pictures to paint, ConditionError unless each is told what to show, or all."""
    require(len(numbers) >= 1, "the number of pictures", len(numbers), "at least 1")
    require(batch_size >= 1, "batch_size", batch_size, "at least 1")
    if condition is not None and condition.ndim == 2 and len(condition) != len(numbers):
        raise ConditionError(f"{len(condition)} pictures are asked for, and {len(numbers)} are to be painted")


def told_part(condition: Tensor | None, part: slice) -> Tensor | None:
    """Return what some of the pictures are told: all the same, (size,), or each its own, (n, size)."""
    return condition if condition is None or condition.ndim == 1 else condition[part]


def load(model: str | os.PathLike[str]) -> Pipeline:
    """Load a model: one that ships, by its name; a folder that training made; or hf://owner/name[@revision].

    The last is one of the Hugging Face Hub's, and is downloaded unless it was before; nothing else needs a network.
    Raises ModelError if there is no such model, if a file is damaged or of another version, or not the one that ships,
    or if its prior belongs to another tokenizer.
    """
    name = os.fspath(model)
    if name.startswith(HUB_SCHEME):
        hub_id = HubId.parse(name)
        if hub_id is None:
            raise ModelError(f"{name} is no name on the Hugging Face Hub: write {HUB_SCHEME}owner/name[@revision]")
        folder = download(hub_id)
        return _load_folder(folder, folder)
    if name in shipped_models() and not Path(name).is_dir():
        owner = SHARED_TOKENIZERS.get(name, name)
        require_as_shipped(_WEIGHTS, f"{owner}/{TOKENIZER_FILE}")
        if (_WEIGHTS / name / PRIOR_FILE).is_file():
            require_as_shipped(_WEIGHTS, f"{name}/{PRIOR_FILE}")
        with as_file(_WEIGHTS / name) as folder, as_file(_WEIGHTS / owner) as tokenizer_folder:
            return _load_folder(folder, tokenizer_folder)
    return _load_folder(Path(name), Path(name))


def _load_folder(folder: Path, tokenizer_folder: Path) -> Pipeline:
    if not folder.is_dir():
        raise ModelError(
            f"{folder} is neither a folder nor a model that ships with bisquit: {', '.join(shipped_models()) or 'none'}"
        )
    tokenizer, card = load_tokenizer(tokenizer_folder / TOKENIZER_FILE), _read_card(folder)
    if not (folder / PRIOR_FILE).exists():
        return Pipeline(tokenizer, card=card)
    saved = load_prior(folder / PRIOR_FILE)
    if saved.tokenizer != tokenizer.fingerprint():
        raise ModelError(
            f"{folder}: its prior is over the tokens of tokenizer {saved.tokenizer}, "
            f"not of {tokenizer.fingerprint()}, which lies beside it"
        )
    if tokenizer.grid(*saved.frame_size) != saved.prior.grid:
        raise ModelError(f"{folder}: frames of {saved.frame_size} have no grid {saved.prior.grid} of tokens")
    return Pipeline(tokenizer, saved.prior, saved.frame_size, saved.conditions, card)


def _read_card(folder: Path) -> str:
    """Return the card of a model; empty if there is none that can be read, for a model is of use without."""
    try:
        return (folder / CARD_FILE).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""


def shipped_models() -> list[str]:
    """Return the names of the models that ship with bisquit."""
    entries = _WEIGHTS.iterdir() if _WEIGHTS.is_dir() else ()
    files = (TOKENIZER_FILE, PRIOR_FILE)
    return sorted(entry.name for entry in entries if any((entry / file).is_file() for file in files))


def load_codec(model: str | os.PathLike[str] | None = None, device: str | torch.device = "cpu") -> Codec:
    """Load a model that compresses, or by default all that ship: those of the ladder write, and all read.

    Raises ModelError as `load` does, and if the model has no raster prior.
    """
    from bisquit.codec import Codec, Rung  # which few need

    if model is not None:
        return Codec([Rung(_codec_model(model, device))])
    rungs = [Rung(_codec_model(name, device), quality) for name, quality in LADDER.items()]
    others = (load(name) for name in shipped_models() if name not in LADDER)
    readers = (pipeline for pipeline in others if isinstance(pipeline.prior, RasterPrior))
    return Codec(rungs, readers=(_codec_of(pipeline.to(device)) for pipeline in readers))


def _codec_model(model: str | os.PathLike[str], device: str | torch.device) -> CodecModel:
    return _codec_of(load(model).to(device))


def _codec_of(pipeline: Pipeline) -> CodecModel:
    from bisquit.codec import CodecModel

    return CodecModel(pipeline.tokenizer, pipeline.prior, pipeline.frame_size)


def load_feature_network(source: str | os.PathLike[str] | None = None) -> FeatureNetwork:
    """Load a feature network: a file, the folder of a run that trained one, or by default the one that ships.

    Raises ModelError if there is none, or if it is damaged or of another version.
    """
    if source is not None:
        path = Path(source)
        return load_features(path / FEATURES_FILE if path.is_dir() else path)
    shipped = _WEIGHTS / "features" / FEATURES_FILE
    if not shipped.is_file():
        raise ModelError(
            "no feature network ships with this bisquit: train one with `bisquit train features`, and name its folder "
            "with --features"
        )
    require_as_shipped(_WEIGHTS, f"features/{FEATURES_FILE}")
    with as_file(shipped) as path:
        return load_features(path)
