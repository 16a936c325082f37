"""A run: one folder in which one model is trained, can be stopped and resumed, and is left ready to load.

run.json                     the recipe, the data and the versions that made it
tokenizer.safetensors        the model after the epoch with the lowest valid loss
prior.safetensors            likewise, where the run trains a prior; its tokenizer is then copied beside it
epoch-01/ ...                the model after the epochs that `snapshot_epochs` names
last.ckpt                    the state from which `--resume` goes on
logs/                        TensorBoard's curves and pictures
"""

from __future__ import annotations

import json
import logging
import platform
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping
from lightning.pytorch.loggers import TensorBoardLogger
from torch import nn

from bisquit.atomic import atomic_file
from bisquit.checkpoint import (
    PRIOR_FILE,
    TOKENIZER_FILE,
    SavedPrior,
    load_prior,
    load_tokenizer,
    save_prior,
    save_tokenizer,
)
from bisquit.errors import BisquitError, RunError, TokenError
from bisquit.frames import FrameSet, contact_sheet
from bisquit.generate import Pipeline
from bisquit.priors import Prior, SequentialPrior, build_prior
from bisquit.seeds import derive_seed
from bisquit.tokenizer import Tokenizer
from bisquit.tokens import TokenSet
from bisquit.training.callbacks import STATE_FILE, AveragedWeights, Pictures, RunState, Speed
from bisquit.training.data import Batches
from bisquit.training.modules import PriorModule, StageModule, TokenizerModule
from bisquit.training.recipes import PriorRecipe, TokenizerRecipe
from bisquit.training.settings import TrainingConfig

RECORD_FILE = "run.json"
PICTURED = 8  # frames in a logged picture


def train_tokenizer(
    recipe: TokenizerRecipe,
    frames: FrameSet,
    valid: FrameSet,
    out: Path,
    *,
    resume: bool = False,
    preset: str | None = None,
) -> Tokenizer:
    """Train a tokenizer on frames in the folder `out`, and return it.

    resume: go on from the state in `out` if there is one. preset: the recipe's name, for the record. Raises RunError if
    `out` holds another run, or one that is not to be resumed; RunStopped on SIGINT or SIGTERM, the state saved.
    """
    data = {"frames": _describe_frames(frames), "valid_frames": _describe_frames(valid)}
    record = _open_run(
        out, {"stage": "tokenizer", "preset": preset, "recipe": recipe.to_dict(), "data": data}, recipe.training, resume
    )
    if record["finished"]:
        return load_tokenizer(out / TOKENIZER_FILE)
    torch.manual_seed(derive_seed(recipe.training.seed, "weights"))
    module = TokenizerModule(Tokenizer(recipe.tokenizer), recipe.augmentation, recipe.training)
    batches = Batches(
        train=(len(frames), lambda indices: torch.from_numpy(frames[indices])),
        valid=(len(valid), lambda indices: torch.from_numpy(valid[indices])),
        batch_size=recipe.training.batch_size,
        seed=recipe.training.seed,
    )
    shown = torch.from_numpy(valid[np.linspace(0, len(valid) - 1, min(PICTURED, len(valid))).astype(np.int64)])

    def draw(model: nn.Module) -> np.ndarray:
        assert isinstance(model, Tokenizer)
        remade = model.decode(model.encode(shown), (valid.height, valid.width))
        return contact_sheet(torch.cat((shown, remade.cpu())).numpy(), columns=len(shown))

    def save(model: nn.Module, folder: Path) -> None:
        assert isinstance(model, Tokenizer)
        save_tokenizer(model, folder / TOKENIZER_FILE)

    _fit(module, batches, recipe.training, record, out, save, "reconstructions", draw)
    return load_tokenizer(out / TOKENIZER_FILE)


def train_prior(
    recipe: PriorRecipe,
    tokens: TokenSet,
    valid: TokenSet,
    out: Path,
    *,
    resume: bool = False,
    preset: str | None = None,
) -> Prior:
    """Train a prior on tokens in the folder `out`, and return it; the tokens' tokenizer is saved beside it.

    resume, preset: as for `train_tokenizer`. Raises TokenError if the two sets of tokens are of different tokenizers or
    grids, and RunError and RunStopped as `train_tokenizer` does.
    """
    tokenizer, fingerprint = tokens.tokenizer, tokens.tokenizer.fingerprint()
    if valid.tokenizer.fingerprint() != fingerprint:
        raise TokenError(
            f"the tokens are of tokenizer {fingerprint}, the valid tokens of {valid.tokenizer.fingerprint()}: "
            "tokenize both sets with the same one"
        )
    if valid.grid != tokens.grid:
        raise TokenError(
            f"the tokens' grid is {tokens.grid}, the valid tokens' {valid.grid}: they must be of frames of one size"
        )
    data = {"tokenizer": fingerprint, "tokens": _describe_tokens(tokens), "valid_tokens": _describe_tokens(valid)}
    record = _open_run(
        out, {"stage": "prior", "preset": preset, "recipe": recipe.to_dict(), "data": data}, recipe.training, resume
    )
    if record["finished"]:
        return load_prior(out / PRIOR_FILE).prior
    torch.manual_seed(derive_seed(recipe.training.seed, "weights"))
    module = PriorModule(build_prior(recipe.prior, tokens.bits, tokens.grid), recipe.training)
    batches = Batches(
        train=(len(tokens), tokens.batch),
        valid=(len(valid), valid.batch),
        batch_size=recipe.training.batch_size,
        seed=recipe.training.seed,
        valid_batch_size=32,
    )

    def draw(model: nn.Module) -> np.ndarray:
        assert isinstance(model, SequentialPrior)
        return contact_sheet(
            Pipeline(tokenizer, model, tokens.frame_size).sample(PICTURED, seed=0), columns=PICTURED // 2
        )

    def save(model: nn.Module, folder: Path) -> None:
        assert isinstance(model, Prior)
        save_tokenizer(tokenizer, folder / TOKENIZER_FILE)
        save_prior(SavedPrior(model, tokens.frame_size, fingerprint), folder / PRIOR_FILE)

    _fit(module, batches, recipe.training, record, out, save, "samples", draw)
    return load_prior(out / PRIOR_FILE).prior


def _fit(
    module: StageModule,
    batches: Batches,
    settings: TrainingConfig,
    record: dict[str, Any],
    out: Path,
    save: Callable[[nn.Module, Path], None],
    pictured: str,
    draw: Callable[[nn.Module], np.ndarray],
) -> None:
    """Train a module from the state in `out`, if there is one, to the end, and mark the run as finished."""
    averaged = AveragedWeights(settings.ema_decay) if settings.ema_decay else None
    callbacks: Sequence[Callback | None] = (
        averaged,
        Speed(batches.batch_size),
        Pictures(pictured, draw, averaged),
        EarlyStopping("valid/loss", patience=settings.early_stopping_epochs)
        if settings.early_stopping_epochs
        else None,
        RunState(out, save, settings.checkpoint_minutes, settings.snapshot_epochs, averaged),
    )
    with _quiet_lightning():
        trainer = L.Trainer(
            max_epochs=settings.epochs,
            accelerator="auto",
            devices=1,
            precision="bf16-mixed" if record["precision"] == "bf16" else "32-true",
            gradient_clip_val=settings.gradient_clip or None,
            callbacks=[callback for callback in callbacks if callback is not None],
            logger=TensorBoardLogger(out, name="logs", version=""),
            log_every_n_steps=min(10, batches.steps_per_epoch),
            num_sanity_val_steps=0,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        state = out / STATE_FILE
        going_on = state.exists()
        try:
            trainer.fit(module, batches, ckpt_path=state if going_on else None, weights_only=True)
        except Exception as error:  # a damaged file fails in as many ways as there are bytes
            if isinstance(error, BisquitError) or trainer.global_step or not going_on:
                raise
            raise RunError(f"{state} cannot be read, cut or damaged: start anew in another folder") from error
    _write_record(out, {**record, "finished": True})


def _open_run(out: Path, wanted: dict[str, Any], settings: TrainingConfig, resume: bool) -> dict[str, Any]:
    """Return the record of the run in `out`, made now if there is none. Raises RunError if that one does not fit.

    wanted: the stage, preset, recipe and data of the run; all but the preset's name must be those of the run in `out`.
    """
    path = out / RECORD_FILE
    if not path.exists():
        (out / STATE_FILE).unlink(missing_ok=True)  # of a run whose record was removed
        versions = {"bisquit": version("bisquit"), "torch": torch.__version__, "python": platform.python_version()}
        record = {**wanted, "precision": _precision(settings), "versions": versions, "finished": False}
        _write_record(out, record)
        return record
    if not resume:
        raise RunError(f"{out} holds a run already: pass --resume to go on with it, or another --out")
    try:
        record = dict(json.loads(path.read_text()))
        differences = [_difference(record[key], wanted[key], key) for key in ("stage", "recipe", "data")]
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path} is not the record of a run: pass another --out") from error
    if difference := next(filter(None, differences), None):
        raise RunError(f"{out} holds a run with {difference}: resume it with the same, or pass another --out")
    return record


def _difference(found: Any, wanted: Any, path: str) -> str:
    """Say where two pieces of plain data first differ, such as "recipe.training.epochs = 5, not 6"; "" if nowhere."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        keys = [*wanted, *(key for key in found if key not in wanted)]
        parts = (_difference(found.get(key), wanted.get(key), f"{path}.{key}") for key in keys)
        return next(filter(None, parts), "")
    return "" if found == wanted else f"{path} = {found}, not {wanted}"


def _write_record(out: Path, record: Mapping[str, Any]) -> None:
    with atomic_file(out / RECORD_FILE) as partial:
        partial.write_text(json.dumps(record, indent=2) + "\n")


def _precision(settings: TrainingConfig) -> str:
    """Return "bf16" or "float32": what "auto" means on this machine."""
    if settings.precision != "auto":
        return settings.precision
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    capabilities = torch.cpu.get_capabilities()
    return "bf16" if any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16")) else "float32"


def _describe_frames(frames: FrameSet) -> dict[str, Any]:
    return {
        "frames": len(frames),
        "size": [frames.height, frames.width],
        "first": frames.names[0],
        "last": frames.names[-1],
    }


def _describe_tokens(tokens: TokenSet) -> dict[str, Any]:
    return {"pictures": len(tokens), "grid": list(tokens.grid), "frame_size": list(tokens.frame_size)}


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Keep Lightning's notes on hardware, and its warnings that do not concern our runs, off the screen."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.WARNING)
    with warnings.catch_warnings():
        for message in (
            "`isinstance.treespec, LeafSpec.` is deprecated",  # its own use of PyTorch's trees
            "The '.*_dataloader' does not have many workers",  # ours fetch ahead by themselves
            "You're resuming from a checkpoint that ended before the epoch ended",  # which ours are made for
        ):
            warnings.filterwarnings("ignore", message=message)
        yield
    logger.setLevel(level)
