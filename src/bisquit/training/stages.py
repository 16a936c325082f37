"""The stages: what each trains, on what, and what it leaves in the folder of its run."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bisquit.autoencoder import patch_grid
from bisquit.captions import Captions
from bisquit.checkpoint import (
    FEATURES_FILE,
    PRIOR_FILE,
    TOKENIZER_FILE,
    SavedPrior,
    load_features,
    load_prior,
    load_tokenizer,
    save_features,
    save_prior,
    save_tokenizer,
)
from bisquit.conditioning import Conditions
from bisquit.errors import ConfigError, FrameError, TokenError
from bisquit.features import FeatureNetwork
from bisquit.frames import FrameSet, contact_sheet, relabelled, spread
from bisquit.frames.augment import Augmentation
from bisquit.generate import Pipeline
from bisquit.priors import FlowConfig, Prior, PriorConfig, PyramidConfig, build_prior
from bisquit.priors.base import FIRST_STD
from bisquit.quantizers import FSQConfig, PyramidBSQ
from bisquit.seeds import derive_seed
from bisquit.streaming import StreamedTokens
from bisquit.text import TEXT_ENCODER, learn_to_read
from bisquit.tokenizer import Tokenizer
from bisquit.tokens import FreshTokens, TokenSet, prepared_encode, prepared_projection
from bisquit.training.conditions import Teller
from bisquit.training.data import Batches, Fetch, Labelled, balancing_weights
from bisquit.training.modules import Encode, FeaturesModule, PriorModule, TokenizerModule, rarity_weights
from bisquit.training.recipes import FeaturesRecipe, PriorRecipe, TokenizerRecipe
from bisquit.training.run import describe_run, fit, open_run
from bisquit.training.settings import TrainingConfig

PICTURED = 8  # frames in a logged picture
AnyTokens = TokenSet | FreshTokens | StreamedTokens

_log = logging.getLogger("bisquit")


def train_tokenizer(
    recipe: TokenizerRecipe,
    frames: FrameSet,
    valid: FrameSet,
    out: Path,
    *,
    resume: bool = False,
    preset: str | None = None,
    sources: Mapping[str, str] | None = None,
    start: Tokenizer | None = None,
    network: FeatureNetwork | None = None,
) -> Tokenizer:
    """Train a tokenizer on frames in the folder `out`, and return it.

    resume: go on with the run in `out` if there is one. preset, sources: the recipe's name, and where the frames come
    from, for the record. start: a tokenizer to start from, with its weights wherever they fit. network: in whose
    activations frames are compared, where the recipe does so. Raises ConfigError if `start` or `network` do not fit the
    recipe; RunError if `out` holds another run, or one that is not to be resumed; RunStopped on SIGINT or SIGTERM, the
    state saved.
    """
    data: dict[str, Any] = {"frames": _describe_frames(frames), "valid_frames": _describe_frames(valid)}
    if start is not None:
        data["start"] = start.fingerprint()
    wanted = describe_run("tokenizer", recipe, data, preset, sources)
    torch.manual_seed(derive_seed(recipe.training.seed, "weights"))
    module = TokenizerModule(_tokenizer_to_train(recipe, start), recipe, network)
    record = open_run(wanted, out, resume, recipe)
    if record.finished:
        return load_tokenizer(out / TOKENIZER_FILE)
    batches = Batches(
        train=(len(frames), _fetch(frames)),
        valid=(len(valid), _fetch(valid)),
        batch_size=recipe.training.batch_size,
        seed=recipe.training.seed,
        weights=_weights(recipe.training, frames.labels),
    )
    shown = torch.from_numpy(valid[spread(PICTURED, len(valid))])

    def draw(model: nn.Module) -> np.ndarray:
        assert isinstance(model, Tokenizer)
        remade = model.decode(model.encode(shown), (valid.height, valid.width))
        return contact_sheet(torch.cat((shown, remade.cpu())).numpy(), columns=len(shown))

    def save(model: nn.Module, folder: Path) -> None:
        assert isinstance(model, Tokenizer)
        save_tokenizer(model, folder / TOKENIZER_FILE)

    fit(module, batches, record, out, save=save, pictured="reconstructions", draw=draw)
    return load_tokenizer(out / TOKENIZER_FILE)


def _tokenizer_to_train(recipe: TokenizerRecipe, start: Tokenizer | None) -> Tokenizer:
    tokenizer = Tokenizer(recipe.tokenizer)
    if recipe.decoder_only and start is None:
        raise ConfigError("a decoder is trained alone on the tokens of a trained encoder: say which to start from")
    if start is not None:
        if recipe.decoder_only and start.config != recipe.tokenizer:
            raise ConfigError(f"the tokenizer to start from is {start.config}, the recipe's {recipe.tokenizer}")
        _transfer(tokenizer, start)
    if recipe.decoder_only:
        tokenizer.autoencoder.encoder.requires_grad_(False)
        tokenizer.quantizer.freeze_encoding()
    return tokenizer


def train_prior(
    recipe: PriorRecipe,
    tokens: AnyTokens,
    valid: TokenSet | StreamedTokens,
    out: Path,
    *,
    resume: bool = False,
    preset: str | None = None,
    sources: Mapping[str, str] | None = None,
    start: Prior | None = None,
    start_conditions: Conditions | None = None,
    captions: Captions | None = None,
) -> Prior:
    """Train a prior on tokens in the folder `out`, and return it; the tokens' tokenizer is saved beside it.

    resume, preset, sources: as for `train_tokenizer`. start: a prior to start from, with its weights wherever they fit.
    start_conditions: what that one knows, by which what it has learnt of classes finds its place. captions:
    sentences about classes, for a prior that is told of those. Raises TokenError if the two sets of tokens are of
    different tokenizers or grids, if a recipe that changes frames at random is given tokens, or if one that tells
    classes is given tokens without; ConfigError if the recipe's prior takes a condition and is told nothing; it,
    RunError and RunStopped as `train_tokenizer` does.
    """
    _check_tokens(recipe, tokens, valid)
    tokenizer, fingerprint = tokens.tokenizer, tokens.tokenizer.fingerprint()
    data = {"tokenizer": fingerprint, "tokens": _describe_tokens(tokens), "valid_tokens": _describe_tokens(valid)}
    if start is not None:
        data["start"] = start.fingerprint()
    teller = _teller(recipe, tokens.classes, captions)
    if teller is not None:
        data["classes"] = list(teller.conditions.classes)
    recipe = recipe.replace(prior=_fitted(recipe.prior, tokens, teller))
    if captions is not None:
        data["captions"] = captions.fingerprint()
    wanted = describe_run("prior", recipe, data, preset, sources)
    torch.manual_seed(derive_seed(recipe.training.seed, "weights"))
    prior = build_prior(recipe.prior, tokenizer.bits, tokens.grid)
    if recipe.from_bits:
        prior.start_from_bits()
    if start is not None:
        _transfer(prior, start)
        _transfer_conditions(prior, teller.conditions if teller else Conditions(), start, start_conditions)
    encode = _encode(tokenizer, recipe.flipped) if isinstance(tokens, FreshTokens) else None
    module = PriorModule(prior, recipe.training, encode, recipe.augmentation, teller)
    record = open_run(wanted, out, resume, recipe)
    if record.finished:
        return load_prior(out / PRIOR_FILE).prior
    batches = Batches(
        train=(len(tokens), _fetch_tokens(tokens, tokens.classes) if teller else tokens.batch),
        valid=(len(valid), _fetch_tokens(valid, tokens.classes) if teller else valid.batch),
        batch_size=recipe.training.batch_size,
        seed=recipe.training.seed,
        valid_batch_size=32,
        weights=None if isinstance(tokens, StreamedTokens) else _weights(recipe.training, tokens.labels),
        order=tokens.order(recipe.training.seed) if isinstance(tokens, StreamedTokens) else None,
    )

    def draw(model: nn.Module) -> np.ndarray:
        assert isinstance(model, Prior)
        return contact_sheet(
            Pipeline(tokenizer, model, tokens.frame_size).sample(PICTURED, seed=0), columns=PICTURED // 2
        )

    def save(model: nn.Module, folder: Path) -> None:
        assert isinstance(model, Prior)
        save_tokenizer(tokenizer, folder / TOKENIZER_FILE)
        saved = SavedPrior(model, tokens.frame_size, fingerprint, teller.conditions if teller else Conditions())
        save_prior(saved, folder / PRIOR_FILE)

    fit(module, batches, record, out, save=save, pictured="samples", draw=draw)
    return load_prior(out / PRIOR_FILE).prior


def _encode(tokenizer: Tokenizer, flipped: float) -> Encode:
    """Return what makes of frames what a prior learns from."""
    if not flipped:
        return prepared_encode(tokenizer)
    quantizer, project = tokenizer.quantizer, prepared_projection(tokenizer)
    assert isinstance(quantizer, PyramidBSQ)  # for only its tokens have the scales of a pyramid prior
    return lambda frames: quantizer.flawed(project(frames), flipped)


def _teller(recipe: PriorRecipe, classes: tuple[str, ...], captions: Captions | None) -> Teller | None:
    """Return what tells a prior of pictures of these classes, None if it is told nothing."""
    if not recipe.classes:
        if captions is not None:
            raise ConfigError("captions are sentences about classes: pass --classes too")
        if getattr(recipe.prior, "condition_size", 0):
            raise ConfigError("a prior takes the conditions that it is told of: pass --classes, not their size")
        return None
    if not classes:
        raise TokenError("none of the pictures to train on has a class, of which the prior could be told")
    if captions is None:
        return Teller(Conditions(classes), recipe.unsaid)
    sentences = [captions.of(name) for name in classes]
    return Teller(Conditions(classes, learn_to_read(TEXT_ENCODER, sentences)), recipe.unsaid, sentences)


def _fitted(config: PriorConfig, tokens: AnyTokens, teller: Teller | None) -> PriorConfig:
    """Return a prior's configuration with what the data say: how large conditions are, which scales or levels."""
    if teller is not None:
        config = config.replace(condition_size=teller.conditions.size)
    quantizer = tokens.tokenizer.config.quantizer
    if isinstance(config, FlowConfig) and isinstance(quantizer, FSQConfig) and len(set(quantizer.widths)) == 1:
        config = config.replace(digit_bits=quantizer.widths[0])
    return config.replace(scales=_scales(tokens)) if isinstance(config, PyramidConfig) else config


def _scales(tokens: AnyTokens) -> tuple[tuple[int, int], ...]:
    """Return the scales of tokens. Raises ConfigError if their tokenizer makes none."""
    tokenizer, (height, width) = tokens.tokenizer, tokens.frame_size
    if not isinstance(tokenizer.quantizer, PyramidBSQ):
        raise ConfigError(
            "a pyramid prior paints scale after scale, and these tokens have none: train a tokenizer with "
            "--quantizer pyramid"
        )
    return tokenizer.quantizer.scale_grids(patch_grid(height, width, tokenizer.patch_size))


def _fetch(frames: FrameSet) -> Callable[[np.ndarray], Tensor]:
    """Return a function that fetches frames."""
    return lambda indices: torch.from_numpy(frames[indices])


def _with_labels(fetch: Callable[[np.ndarray], Tensor], labels: np.ndarray) -> Fetch:
    """Return a function that fetches pictures and their labels."""
    return lambda indices: Labelled(fetch(indices), torch.from_numpy(labels[indices]))


def _fetch_tokens(tokens: AnyTokens, classes: Sequence[str]) -> Fetch:
    """Return a function that fetches pictures, with labels that index these classes."""

    def fetch(indices: np.ndarray) -> Labelled:
        labels = tokens.labels_of(indices) if isinstance(tokens, StreamedTokens) else tokens.labels[indices]
        return Labelled(tokens.batch(indices), torch.from_numpy(relabelled(labels, tokens.classes, classes)))

    return fetch


def _check_tokens(recipe: PriorRecipe, tokens: AnyTokens, valid: TokenSet | StreamedTokens) -> None:
    is_fresh = isinstance(tokens, FreshTokens)
    if not is_fresh and recipe.augmentation != Augmentation():
        raise TokenError("tokens cannot be flipped or shifted: train on frames and their tokenizer, or without")
    if not is_fresh and recipe.flipped:
        raise TokenError("tokens do not tell what would mend them: train on frames and their tokenizer, or --flipped 0")
    if isinstance(tokens, StreamedTokens) and recipe.training.balance_classes:
        raise ConfigError("balance_classes is True: shards are streamed, each picture once an epoch; leave it out")
    fingerprint, valid_fingerprint = tokens.tokenizer.fingerprint(), valid.tokenizer.fingerprint()
    if valid_fingerprint != fingerprint:
        raise TokenError(
            f"the tokens are of tokenizer {fingerprint}, the valid tokens of {valid_fingerprint}: "
            "tokenize both sets with the same one"
        )
    if valid.grid != tokens.grid:
        raise TokenError(
            f"the tokens' grid is {tokens.grid}, the valid tokens' {valid.grid}: they must be of frames of one size"
        )


def _transfer(model: Tokenizer | Prior, start: Tokenizer | Prior) -> None:
    """Give a model another's weights where they are of the same name and shape; the others begin anew.

    For tokens of more bits, what stands for them grows from the other's; in a quantizer of another kind, no weight
    means what it meant. Warns if the two differ in any way. Raises ConfigError if nothing fits.
    """
    own, others = model.state_dict(), start.state_dict()
    taken = {name: array for name, array in others.items() if name in own and own[name].shape == array.shape}
    if len({type(each.quantizer) for each in (model, start) if isinstance(each, Tokenizer)}) > 1:
        taken = {name: array for name, array in taken.items() if not name.startswith("quantizer.")}
    if not taken:
        raise ConfigError("the model to start from has no weights of the same names and shapes as the one to train")
    model.load_state_dict(own | taken)
    if isinstance(model, Tokenizer):
        is_grown = isinstance(start, Tokenizer) and model.quantizer.grow_from(start.quantizer)
    else:
        is_grown = isinstance(start, Prior) and model.grow_from(start)
    grown = f"; its {model.bits} bits begin with the other's {start.bits}" if is_grown else ""
    wanted, found = _shape_of(model), _shape_of(start)
    if found != wanted:
        _log.warning(
            "the model to start from is %s, the one to train %s: %d of its %d arrays begin anew, and %d of the other's "
            "are left out%s",
            *(found, wanted, len(own) - len(taken), len(own), len(others) - len(taken), grown),
        )


def _transfer_conditions(model: Prior, conditions: Conditions, start: Prior, known: Conditions | None) -> None:
    """Give a model what another has learnt of the classes that both know; of others, it knows nothing yet."""
    name = "condition.weight"
    ours, theirs = model.state_dict().get(name), start.state_dict().get(name)
    if ours is None or theirs is None:
        return
    nn.init.normal_(ours, std=FIRST_STD)
    if len(ours) == len(theirs):
        own, others = conditions.shared_with(known or Conditions())
        ours[:, own] = theirs[:, others]


def _shape_of(model: Tokenizer | Prior) -> tuple[object, ...]:
    """Return all that says what a model's weights mean."""
    return (model.config,) if isinstance(model, Tokenizer) else (model.config, model.bits, model.grid)


def train_features(
    recipe: FeaturesRecipe,
    frames: FrameSet,
    valid: FrameSet,
    out: Path,
    *,
    resume: bool = False,
    preset: str | None = None,
    sources: Mapping[str, str] | None = None,
) -> FeatureNetwork:
    """Train a feature network on the frames that have a class, in the folder `out`, and return it.

    The labels of both sets must index the same classes, as those of `load_splits` do; a class that none of `frames` has
    is left out. resume, preset, sources: as for `train_tokenizer`. Raises FrameError if frames have fewer than two
    classes, or valid frames none of them, and RunError and RunStopped as `train_tokenizer` does.
    """
    classes = tuple(name for i, name in enumerate(frames.classes) if (frames.labels == i).any())
    if len(classes) < 2:
        raise FrameError(
            f"the frames have {len(classes)} classes, and two at least are needed to tell apart: "
            "name classes by sub-folders, a metadata.csv, or a column `track`"
        )
    frames, valid = _of_classes(frames, classes), _of_classes(valid, classes)
    if not len(valid):
        raise FrameError("no valid frame has a class that the frames have: pass others as --valid-frames")
    data = {
        "frames": _describe_frames(frames),
        "valid_frames": _describe_frames(valid),
        "classes": list(classes),
    }
    wanted = describe_run("features", recipe, data, preset, sources)
    torch.manual_seed(derive_seed(recipe.training.seed, "weights"))
    weights = rarity_weights(frames.labels, len(classes))
    network = FeatureNetwork(recipe.network, classes)
    module = FeaturesModule(network, weights, recipe.augmentation, recipe.training)
    record = open_run(wanted, out, resume, recipe)
    if record.finished:
        return load_features(out / FEATURES_FILE)
    batches = Batches(
        train=(len(frames), _with_labels(_fetch(frames), frames.labels)),
        valid=(len(valid), _with_labels(_fetch(valid), valid.labels)),
        batch_size=recipe.training.batch_size,
        seed=recipe.training.seed,
        weights=_weights(recipe.training, frames.labels),
    )

    def save(model: nn.Module, folder: Path) -> None:
        assert isinstance(model, FeatureNetwork)
        save_features(model, folder / FEATURES_FILE)

    fit(module, batches, record, out, save=save)
    return load_features(out / FEATURES_FILE)


def _of_classes(frames: FrameSet, classes: tuple[str, ...]) -> FrameSet:
    """Return those of the frames that have one of these classes, with labels that index them."""
    labels = relabelled(frames.labels, frames.classes, classes)
    chosen = np.flatnonzero(labels >= 0)
    return replace(frames.subset(chosen), classes=classes, labels=labels[chosen])


def _weights(settings: TrainingConfig, labels: np.ndarray) -> np.ndarray | None:
    return balancing_weights(labels) if settings.balance_classes else None


def _describe_frames(frames: FrameSet) -> dict[str, Any]:
    return {
        "frames": len(frames),
        "size": [frames.height, frames.width],
        "first": frames.names[0],
        "last": frames.names[-1],
    }


def _describe_tokens(tokens: AnyTokens) -> dict[str, Any]:
    said = {"pictures": len(tokens), "grid": list(tokens.grid), "frame_size": list(tokens.frame_size)}
    return said | ({"block_pictures": tokens.block_pictures} if isinstance(tokens, StreamedTokens) else {})
