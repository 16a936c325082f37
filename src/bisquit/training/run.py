"""A run: one folder in which one model is trained, can be stopped and resumed, and is left ready to load.

run.json                     the recipe, the data and the versions that made it
tokenizer.safetensors        the model after the epoch with the lowest valid loss
prior.safetensors            likewise, where the run trains a prior; its tokenizer is then copied beside it
features.safetensors         likewise, where the run trains a feature network
epoch-01/ ...                the model after the epochs that `snapshot_epochs` names
last.ckpt                    the state from which `--resume` goes on
.lock, .lock-holder          held while a process trains, and by which
logs/                        TensorBoard's curves and pictures
"""

from __future__ import annotations

import copy
import logging
import os
import platform
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import lightning as L
import numpy as np
import torch
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch.callbacks import Callback, EarlyStopping
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.strategies import DDPStrategy
from torch import nn

from bisquit.config import Settings
from bisquit.errors import RunError
from bisquit.locks import held
from bisquit.processes import on_first, own_part
from bisquit.record import RunRecord
from bisquit.training.callbacks import STATE_FILE, AveragedWeights, Pictures, Progress, RunState
from bisquit.training.data import Batches
from bisquit.training.denormals import denormals_dropped
from bisquit.training.determinism import deterministic
from bisquit.training.memory import freed_memory_kept
from bisquit.training.modules import StageModule
from bisquit.training.recipes import FeaturesRecipe, PriorRecipe, TokenizerRecipe
from bisquit.training.settings import TrainingConfig
from bisquit.training.sharding import ShardedStrategy, filled
from bisquit.training.spikes import LossSpikes


def fit(
    module: StageModule,
    batches: Batches,
    record: RunRecord,
    out: Path,
    *,
    save: Callable[[nn.Module, Path], None],
    pictured: str = "",
    draw: Callable[[nn.Module], np.ndarray] | None = None,
) -> None:
    """Train a module from the state in `out`, if there is one, to the end, and mark the run as finished.

    Raises RunError if another process trains in that folder.
    """
    settings = module.settings
    is_sharded = settings.sharded and own_part().count > 1
    averaged = AveragedWeights(settings.ema_decay, is_sharded) if settings.ema_decay else None
    blank = copy.deepcopy(module.model) if is_sharded else None

    def shown() -> nn.Module:
        model = averaged.model if averaged else module.model
        return filled(blank, model) if blank else model

    patience = settings.early_stopping_epochs
    callbacks: Sequence[Callback | None] = (
        averaged,
        LossSpikes(),
        Progress(batches.batch_size),
        Pictures(pictured, draw, shown) if draw else None,
        EarlyStopping("valid/loss", patience=patience) if patience else None,
        RunState(out, save, settings.checkpoint_minutes, settings.snapshot_epochs, shown),
    )
    state = out / STATE_FILE
    with ExitStack() as stack, _quiet_lightning(), deterministic(settings.deterministic):
        stack.enter_context(freed_memory_kept())
        stack.enter_context(denormals_dropped())
        on_first(lambda: stack.enter_context(held(out)))
        step = on_first(lambda: _saved_step(state))
        trainer = L.Trainer(
            max_epochs=settings.epochs,
            accelerator="cuda" if torch.cuda.is_available() else "cpu",
            **_processes(is_sharded),
            precision="bf16-mixed" if record.precision == "bf16" else "32-true",
            callbacks=[callback for callback in callbacks if callback is not None],
            logger=TensorBoardLogger(out, name="logs", version="", purge_step=step),
            log_every_n_steps=min(10, batches.steps_per_epoch),
            num_sanity_val_steps=0,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(module, batches, ckpt_path=None if step is None else state, weights_only=True)
        on_first(lambda: record.replace(finished=True).save(out))


def _processes(is_sharded: bool) -> dict[str, Any]:
    """Return what tells Lightning of the processes that train together, which are there already."""
    count = own_part().count
    if count == 1:
        return {"devices": 1}
    on_this_machine = int(os.environ["LOCAL_WORLD_SIZE"])
    environment = TorchElasticEnvironment()
    strategy = (
        ShardedStrategy(cluster_environment=environment)
        if is_sharded
        else DDPStrategy(cluster_environment=environment, broadcast_buffers=False)  # all work out the same ones
    )
    return {"devices": on_this_machine, "num_nodes": count // on_this_machine, "strategy": strategy}


def _saved_step(state: Path) -> int | None:
    """Return the step that a state was saved after, None if there is no state. Raises RunError if it is damaged."""
    if not state.exists():
        return None
    try:
        return int(torch.load(state, map_location="cpu", weights_only=True)["global_step"])
    except Exception as error:  # a damaged file fails in as many ways as there are bytes
        raise RunError(f"{state} cannot be read, cut or damaged: start anew in another folder") from error


def _precision(settings: TrainingConfig) -> Literal["float32", "bf16"]:
    """Return what the setting means on this machine: "auto" is bf16 where the processor has instructions for it."""
    if settings.precision != "auto":
        return settings.precision
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    capabilities = torch.cpu.get_capabilities()
    return "bf16" if any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16")) else "float32"


def describe_run(
    stage: Literal["tokenizer", "prior", "features"],
    recipe: TokenizerRecipe | PriorRecipe | FeaturesRecipe,
    data: dict[str, Any],
    preset: str | None,
    sources: Mapping[str, str] | None,
) -> RunRecord:
    """Return the record of a run that is to be made, on this machine and by these versions."""
    return RunRecord(
        stage=stage,
        preset=preset,
        recipe=recipe.to_dict(),
        data=data,
        precision=_precision(recipe.training),
        versions={"bisquit": version("bisquit"), "torch": torch.__version__, "python": platform.python_version()},
        sources=dict(sources or {}),
    )


def open_run(wanted: RunRecord, out: Path, resume: bool, recipe: Settings) -> RunRecord:
    """Open a run. Only once its model is built: one that cannot be leaves no run behind."""
    return on_first(lambda: wanted.open(out, resume, defaults=recipe.defaults().to_dict()))


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
            "`broadcast_buffers` is deprecated",  # its successor is newer than the oldest PyTorch that ours may be
            "You're resuming from a checkpoint that ended before the epoch ended",  # which ours are made for
        ):
            warnings.filterwarnings("ignore", message=message)
        try:
            yield
        finally:
            logger.setLevel(level)
