from __future__ import annotations

import pytest
import torch
from torch import nn

from bisquit.priors import RasterConfig, RasterPrior
from bisquit.tokenizer import Tokenizer, TokenizerConfig
from bisquit.training.modules import inner_matrices
from bisquit.training.muon import STEP_RMS, MuonAdamW, orthogonal


def parameter(*shape: int, seed: int = 0) -> nn.Parameter:
    generator = torch.Generator().manual_seed(seed)
    made = nn.Parameter(torch.randn(shape, generator=generator))
    made.grad = torch.randn(shape, generator=generator)
    return made


def stepped(groups: list[dict], steps: int = 3) -> list[torch.Tensor]:
    optimizer = MuonAdamW(groups, lr=0.1, weight_decay=0.1)
    for _ in range(steps):
        optimizer.step()
    return [p.detach() for group in groups for p in group["params"]]


@pytest.mark.parametrize("shape", [(8, 8), (6, 20), (20, 6), (3, 8, 5)])
def test_orthogonal_matrices_have_singular_values_near_one(shape):
    x = parameter(*shape).detach()
    values = torch.linalg.svdvals(orthogonal(x))
    assert values.min() > 0.5
    assert values.max() < 1.3


def test_orthogonal_keeps_the_singular_vectors():
    x = parameter(6, 9).detach()
    u, _, v = torch.linalg.svd(x, full_matrices=False)
    core = u.T @ orthogonal(x) @ v.T
    torch.testing.assert_close(core, torch.diag(core.diagonal()), atol=1e-5, rtol=0)


def test_a_step_is_that_of_torch_on_matrices():
    ours, theirs = parameter(6, 20), parameter(6, 20)
    optimizer = torch.optim.Muon([theirs], lr=0.1, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    mine = MuonAdamW([{"params": [ours], "muon": True}], dtype=torch.bfloat16, lr=0.1, weight_decay=0.1)
    before = ours.detach().clone()
    for _ in range(3):
        optimizer.step()
        mine.step()
    moved, wanted = (x.detach() - before for x in (ours, theirs))
    assert (moved - wanted).norm() < 0.1 * wanted.norm()  # bfloat16, rounded at other places


def test_other_groups_are_left_to_adamw():
    ours, theirs = parameter(4, 5), parameter(4, 5)
    stepped([{"params": [ours]}, {"params": [parameter(6, 6)], "muon": True}])
    optimizer = torch.optim.AdamW([theirs], lr=0.1, weight_decay=0.1)
    for _ in range(3):
        optimizer.step()
    assert torch.equal(ours, theirs)


def test_a_kernel_steps_as_the_matrix_of_its_outputs():
    kernel, matrix = parameter(6, 4, 3, 3), parameter(6, 36)
    matrix.data, matrix.grad = kernel.detach().flatten(1).clone(), kernel.grad.flatten(1).clone()
    stepped([{"params": [kernel], "muon": True}])
    stepped([{"params": [matrix], "muon": True}])
    torch.testing.assert_close(kernel.flatten(1), matrix)


def test_stacked_matrices_step_each_by_itself():
    stack = parameter(12, 4)
    singles = [nn.Parameter(part.clone()) for part in stack.detach().chunk(3)]
    for single, grad in zip(singles, stack.grad.chunk(3), strict=True):
        single.grad = grad.clone()
    stepped([{"params": [stack], "muon": True, "stacked": 3}])
    stepped([{"params": singles, "muon": True}])
    torch.testing.assert_close(stack, torch.cat(singles))


def test_a_step_is_about_as_large_as_one_of_adamw():
    before = parameter(32, 96)
    (after,) = stepped([{"params": [parameter(32, 96)], "muon": True, "weight_decay": 0.0}], steps=1)
    rms = (after - before).detach().square().mean().sqrt()
    assert rms == pytest.approx(0.1 * STEP_RMS, rel=0.25)


def test_matrices_without_a_gradient_stay():
    still = parameter(4, 4)
    still.grad = None
    before = still.detach().clone()
    stepped([{"params": [still], "muon": True}])
    assert torch.equal(still, before)


def test_gradients_are_there_after_a_step():
    taken = parameter(4, 4)
    grad = taken.grad
    stepped([{"params": [taken], "muon": True}])
    assert taken.grad is grad


def test_the_first_and_the_last_layers_are_not_inner():
    prior = RasterPrior(RasterConfig(), bits=4, grid=(2, 3))
    inner = {id(p) for matrices in inner_matrices(prior).values() for p in matrices}
    outer = {name for name, p in prior.named_parameters() if p.ndim == 2 and id(p) not in inner}
    assert outer == {"embedding.weight", "head.weight", "positions.place"}


def test_the_inner_kernels_of_a_tokenizer_are_those_of_its_blocks():
    tokenizer = Tokenizer(TokenizerConfig())
    inner = {id(p) for matrices in inner_matrices(tokenizer).values() for p in matrices}
    kernels = {name for name, p in tokenizer.named_parameters() if id(p) in inner}
    assert kernels == {name for name, p in tokenizer.named_parameters() if p.ndim == 4 and p.shape[2] == 3}
