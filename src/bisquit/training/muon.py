"""Muon for the matrices inside of a network, AdamW for all else, as one optimiser.

Muon takes the momentum of a matrix's gradient and steps by the orthogonal matrix nearest to it, so that every direction
of the matrix learns at one rate, where AdamW's steps go mostly along a few. Jordan et al. 2024,
https://kellerjordan.github.io/posts/muon/; steps as large as AdamW's and weight decay after Liu et al. 2025,
arXiv:2502.16982. PyTorch's own `torch.optim.Muon` takes matrices alone: neither kernels of convolutions, nor stacks of
matrices, nor the parameters that remain.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from bisquit.training.sharding import like_whole

MOMENTUM = 0.95
QUINTIC = 3.4445, -4.7750, 2.0315  # steepest at 0 of those that keep singular values near 1
ROUNDS = 5
STEP_RMS = 0.2  # of a usual step of AdamW, in units of its rate


class MuonAdamW(torch.optim.AdamW):
    """AdamW, but for the groups of parameters that say `"muon": True`."""

    def __init__(self, groups: Iterable[dict[str, Any]], *, dtype: torch.dtype = torch.float32, **adamw: Any) -> None:
        """groups: as for AdamW. A parameter of a Muon group is (rows, columns) or (outputs, inputs, height, width), and
        n matrices on top of one another where the group says `"stacked": n`. dtype: of the products that make a step
        orthogonal, which bear bfloat16.
        """
        super().__init__([{"muon": False, "stacked": 1, **group} for group in groups], **adamw)
        self._dtype = dtype

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Take a step of both."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        matrices = [(group, p, p.grad) for group in self.param_groups if group["muon"] for p in group["params"]]
        for _, parameter, _ in matrices:
            parameter.grad = None  # AdamW passes over it
        super().step()
        for group, parameter, grad in matrices:
            parameter.grad = grad
            if grad is not None:
                self._muon_step(parameter, grad, group)
        return loss

    def _muon_step(self, parameter: nn.Parameter, grad: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(grad)
            state["step"] = torch.zeros(())  # AdamW looks for it in every state that it loads
        state["step"] += 1
        state["momentum"].lerp_(grad, 1 - MOMENTUM)
        ahead = grad.lerp(state["momentum"], MOMENTUM)  # Nesterov's

        def step_of(ahead: Tensor) -> Tensor:
            matrices = ahead.flatten(1).unflatten(0, (group["stacked"], -1))
            return orthogonal(matrices.to(self._dtype)).to(parameter.dtype).reshape(parameter.shape)

        longest = max(parameter.shape[0] // group["stacked"], parameter.shape[1:].numel())
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.add_(like_whole(step_of, ahead), alpha=-group["lr"] * STEP_RMS * math.sqrt(longest))


def orthogonal(x: Tensor) -> Tensor:
    """Return matrices (..., rows, columns) with the singular vectors of x and singular values of 0.7 to 1.2.

    Those below a thousandth of the largest may stay smaller. Five Newton-Schulz rounds of a quintic.
    """
    a, b, c = QUINTIC
    is_tall = x.shape[-2] > x.shape[-1]
    x = x.mT if is_tall else x
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp_min(1e-7)
    for _ in range(ROUNDS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if is_tall else x
