"""A model as it is measured: in evaluation mode, without gradients, on the device where it lies."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain

import torch
from torch import nn


@contextmanager
def measured(model: nn.Module) -> Iterator[torch.device]:
    """Hold `model` in evaluation mode without gradients, and yield its device (the CPU's if it has no weights).

    Every part of the model is in its earlier mode again when the block ends, so that it can be measured while in
    training.
    """
    modes = [(part, part.training) for part in model.modules()]
    first = next(chain(model.parameters(), model.buffers()), None)
    model.eval()
    try:
        with torch.inference_mode():
            yield first.device if first is not None else torch.device("cpu")
    finally:
        for part, mode in modes:
            part.training = mode
