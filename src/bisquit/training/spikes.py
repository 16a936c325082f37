"""Spikes of the loss: steps whose loss is far above that of the steps before, of which a run tells as it goes on.

Nothing that is trained is changed by it. What is not finite is no spike: it stops the run, or is left out.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from statistics import median
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from bisquit.processes import whole_mean
from bisquit.training.modules import StageModule

WINDOW = 64
"""The last losses that a loss is compared with; before there are as many, nothing is a spike."""
DEVIATIONS = 10.0
"""How far above their median it is then, in deviations, which neither noise nor a falling loss comes near."""
LEAST_DEVIATION = 0.01
"""A deviation is this share of their median at least: losses may all be alike."""

_log = logging.getLogger("bisquit")


class LossSpikes(Callback):
    """Warns at the first step of each spike, with the pictures of its batch, and counts the spikes of the run.

    A deviation is 1.4826 times the median distance from the median, which of normal losses is their standard deviation
    and which the spikes themselves hardly move.
    """

    def __init__(self) -> None:
        self.count = 0
        """How many spikes the run has had, also before it was resumed."""
        self._losses: deque[float] = deque(maxlen=WINDOW)
        self._is_in_spike = False

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count, "losses": [*self._losses], "is_in_spike": self._is_in_spike}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.count, self._is_in_spike = state_dict["count"], state_dict["is_in_spike"]
        self._losses.extend(state_dict["losses"])

    def begins(self, loss: float) -> bool:
        """Take the loss of the next step, and return whether a spike begins with it."""
        if not math.isfinite(loss):
            return False
        was_in_spike = self._is_in_spike
        self._is_in_spike = len(self._losses) == WINDOW and loss > self._highest()
        self._losses.append(loss)
        self.count += self._is_in_spike and not was_in_spike
        return self._is_in_spike and not was_in_spike

    def _highest(self) -> float:
        """Return the highest loss that is no spike."""
        middle = median(self._losses)
        deviation = 1.4826 * median(abs(loss - middle) for loss in self._losses)
        return middle + DEVIATIONS * max(deviation, LEAST_DEVIATION * abs(middle))

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, StageModule)
        loss, step = float(whole_mean(outputs["loss"])), trainer.global_step - 1
        if self.begins(loss) and trainer.is_global_zero:
            usual, pictures = median(self._losses), pl_module.pictures_of(step)
            _log.warning("the loss is %.4g at step %d, of %s: %.4g is usual", loss, step + 1, pictures, usual)
        if self.count and pl_module.keeps_figures(step):
            pl_module.log("train/loss_spikes", float(self.count))
