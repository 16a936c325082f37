"""What a run does beside its steps: average the weights, save its state, stop when asked, draw, and report.

Of several processes, the first alone writes files, draws and reports.
"""

from __future__ import annotations

import math
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from types import FrameType
from typing import Any

import lightning as L
import numpy as np
from lightning.pytorch.callbacks import Callback, Checkpoint, WeightAveraging
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor, nn

from bisquit.atomic import atomic_file
from bisquit.errors import RunError, RunStopped
from bisquit.processes import largest, own_part
from bisquit.training.modules import StageModule
from bisquit.training.sharding import shard, whole

STATE_FILE = "last.ckpt"


class AveragedWeights(WeightAveraging):
    """Keeps an exponential moving average of the weights, which is what is validated, shown and saved.

    The average of the first steps is a shorter one, (1 + n) / (10 + n), so that the first weights are soon forgotten.
    """

    def __init__(self, decay: float, sharded: bool = False) -> None:
        """sharded: whether each process keeps a part of the average, as of the weights."""

        def average(averaged: Sequence[Tensor], current: Sequence[Tensor], n: Tensor | int) -> None:
            share = 1 - min(decay, (1 + float(n)) / (10 + float(n)))
            for ours, theirs in zip(averaged, current, strict=True):
                ours.lerp_(theirs, share)

        super().__init__(multi_avg_fn=average, use_buffers=False)  # buffers are taken as they are
        self._sharded = sharded

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert self._average_model is not None
        self._average_model.to(pl_module.device)  # it was made before the module was moved there
        if self._sharded:
            shard(self._average_model.module)

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(trainer, pl_module, checkpoint)
        checkpoint["state_dict"] = whole(checkpoint["state_dict"])

    @property
    def model(self) -> nn.Module:
        """The model with the averaged weights, of which this process may have but a part."""
        assert self._average_model is not None
        module = self._average_model.module
        assert isinstance(module, StageModule)
        return module.model


class RunState(Checkpoint):
    """Saves the run's state every few minutes, after each epoch, and on SIGINT or SIGTERM, which stop it.

    Of the models of all epochs, the one with the lowest valid loss is kept, and those after `snapshot_epochs` in
    folders of their own. The state is never saved between the last step of an epoch and its validation; a request to
    stop waits for that.
    """

    def __init__(
        self,
        folder: Path,
        save_model: Callable[[nn.Module, Path], None],
        interval_minutes: float,
        snapshot_epochs: tuple[int, ...],
        shown: Callable[[], nn.Module],
    ) -> None:
        """shown: returns the model that is to be saved; all processes must call it."""
        self._folder, self._save_model, self._shown = folder, save_model, shown
        self._interval_s = 60 * interval_minutes
        self._snapshot_epochs = snapshot_epochs
        self._best_loss = float("inf")
        self._should_stop = False
        self._saved_at = time.monotonic()
        self._signal: int | None = None
        self._handlers: dict[int, Any] = {}

    def state_dict(self) -> dict[str, Any]:
        return {"best_loss": self._best_loss, "should_stop": self._should_stop}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._best_loss, self._should_stop = state_dict["best_loss"], state_dict["should_stop"]

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._saved_at = time.monotonic()
        trainer.should_stop = self._should_stop
        if threading.current_thread() is threading.main_thread():
            self._handlers = {
                number: signal.signal(number, self._ask_to_stop) for number in (signal.SIGINT, signal.SIGTERM)
            }

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._restore_handlers()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self._restore_handlers()

    def _restore_handlers(self) -> None:
        """Before Lightning's own teardown, which puts back the handlers that it found."""
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers = {}

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            return
        is_due = self._signal is not None or time.monotonic() - self._saved_at >= self._interval_s
        if largest(int(is_due)):
            self._save(trainer)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        loss = float(trainer.callback_metrics["valid/loss"])
        if not math.isfinite(loss):
            raise RunError(
                f"the valid loss is {loss} after epoch {trainer.current_epoch + 1}: "
                "try a lower --learning-rate in another --out"
            )

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        model = self._shown()
        loss = float(trainer.callback_metrics["valid/loss"])
        if loss < self._best_loss:
            self._best_loss = loss
            if trainer.is_global_zero:
                self._save_model(model, self._folder)
        self._should_stop = trainer.should_stop
        epoch = trainer.current_epoch + 1
        if epoch in self._snapshot_epochs and trainer.is_global_zero:
            self._save_model(model, self._folder / f"epoch-{epoch:02d}")
        self._save(trainer)

    def _ask_to_stop(self, number: int, frame: FrameType | None) -> None:
        if self._signal is not None:
            raise RunStopped(
                "stopped at once; the same command with --resume goes on from the last saved state", number
            )
        self._signal = number
        if own_part().index == 0:
            sys.stderr.write("\nstopping after this step; once more stops at once\n")

    def _save(self, trainer: L.Trainer) -> None:
        state = self._folder / STATE_FILE
        with atomic_file(state) if trainer.is_global_zero else nullcontext(state) as partial:
            trainer.save_checkpoint(partial)
        self._saved_at = time.monotonic()
        if signal_number := largest(self._signal or 0):  # that any of the processes was sent
            steps = int(trainer.estimated_stepping_batches)
            message = f"stopped after step {trainer.global_step} of {steps}; the same command with --resume goes on"
            raise RunStopped(message, signal_number)


class Pictures(Callback):
    """Logs a picture of what the model makes after each epoch."""

    def __init__(self, name: str, draw: Callable[[nn.Module], np.ndarray], shown: Callable[[], nn.Module]) -> None:
        """shown: returns the model that is to draw; all processes must call it."""
        self._name, self._draw, self._shown = name, draw, shown

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        model = self._shown()
        if not trainer.is_global_zero:
            return
        was_training = model.training
        picture = self._draw(model.eval())
        model.train(was_training)
        if isinstance(trainer.logger, TensorBoardLogger):
            trainer.logger.experiment.add_image(self._name, picture, trainer.global_step, dataformats="HWC")


class Progress(Callback):
    """Logs the rate and the frames a second, and now and then says on standard error how far the run is."""

    def __init__(self, batch_size: int, interval_s: float = 20.0) -> None:
        self._batch_size, self._interval_s = batch_size, interval_s
        self._since, self._since_step, self._printed_at = 0.0, 0, 0.0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._since, self._since_step = time.monotonic(), trainer.global_step  # an epoch that is resumed does not start

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._since, self._since_step = time.monotonic(), trainer.global_step  # leaves validation out of the speed

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        now = time.monotonic()
        steps_per_s = (trainer.global_step - self._since_step) / max(now - self._since, 1e-9)
        assert isinstance(pl_module, StageModule)
        if pl_module.keeps_figures(trainer.global_step - 1):
            pl_module.log("train/frames_per_s", steps_per_s * self._batch_size)
            pl_module.log("train/learning_rate", trainer.optimizers[0].param_groups[0]["lr"])
        if now - self._printed_at >= self._interval_s:
            self._printed_at = now
            total = int(trainer.estimated_stepping_batches)
            left_s = (total - trainer.global_step) / steps_per_s
            self._print(trainer, f"{steps_per_s * self._batch_size:.0f} frames/s, {left_s / 60:.1f} min left")

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._print(trainer, "validated")

    def _print(self, trainer: L.Trainer, remark: str) -> None:
        if not trainer.is_global_zero:
            return
        metrics = ", ".join(
            f"{name} {float(value):.4g}" for name, value in sorted(trainer.progress_bar_metrics.items())
        )
        step = f"step {trainer.global_step}/{int(trainer.estimated_stepping_batches)}"
        sys.stderr.write(f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}, {step}: {metrics}; {remark}\n")
