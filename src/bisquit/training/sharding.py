"""Weights, their gradients and averages, and what the optimiser keeps, divided among the processes that train together.

Each process keeps a part of every array. The blocks of a transformer are put together one after another as a pass comes
to them, all else for the whole of a pass. This is PyTorch's `fully_shard`; Rajbhandari et al. 2020, arXiv:1910.02054,
stage 3. What is saved is whole, as if one process had made it.
"""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer

from bisquit.processes import own_part
from bisquit.transformer import Block


class ShardedStrategy(DDPStrategy):
    """Lightning's strategy of several processes, with a part of the weights in each in place of all."""

    def configure_ddp(self) -> None:
        """Divide the weights, where the one above would have each process keep all."""
        assert self.lightning_module is not None
        shard(self.lightning_module)

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Return the whole weights. It communicates."""
        state: dict[str, Any] = whole(super().lightning_module_state_dict())
        return state

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """Return the whole of what the optimiser keeps. It communicates."""
        state: dict[str, Any] = whole(super().optimizer_state(optimizer))
        return state

    def load_optimizer_state_dict(self, checkpoint: Any) -> None:
        """Have each process keep its part of what the optimiser kept."""
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            kept = {
                number: {name: _part_like(value, parameters[number]) for name, value in of_one.items()}
                for number, of_one in state["state"].items()
            }
            optimizer.load_state_dict({**state, "state": kept})


def shard(module: nn.Module) -> None:
    """Divide a stage's weights among the processes; its steps put together what they need."""
    for parameter in module.parameters():
        parameter.data = parameter.data.contiguous()  # others cannot be divided
    mesh = init_device_mesh(next(module.parameters()).device.type, (own_part().count,))
    for block in module.modules():
        if isinstance(block, Block):
            fully_shard(block, mesh=mesh)
    fully_shard(module, mesh=mesh, reshard_after_forward=True)
    for step in ("training_step", "validation_step"):
        register_fsdp_forward_method(module, step)


def whole(kept: Any) -> Any:
    """Return nested plain data with all arrays whole that are divided. It communicates."""
    if isinstance(kept, DTensor):
        return kept.full_tensor()
    if isinstance(kept, dict):
        return {name: whole(value) for name, value in kept.items()}
    return [whole(value) for value in kept] if isinstance(kept, list) else kept


def like_whole(change: Any, x: Tensor) -> Tensor:
    """Return what a function makes of the whole of an array, divided as the array is. It communicates."""
    if not isinstance(x, DTensor):
        changed: Tensor = change(x)
        return changed
    return _part_like(change(x.full_tensor()), x)


def _part_like(value: Any, like: Tensor) -> Any:
    """Return a whole array divided as `like` is, if it is of that shape; other values as they are."""
    if not isinstance(like, DTensor) or not isinstance(value, Tensor) or value.shape != like.shape:
        return value
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


@torch.no_grad()
def filled(blank: nn.Module, model: nn.Module) -> nn.Module:
    """Give a model the weights of another whose weights are divided, and return it. It communicates."""
    blank.load_state_dict(whole(model.state_dict()))
    return blank
