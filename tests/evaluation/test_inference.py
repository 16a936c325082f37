"""Measuring a model leaves it as it was."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from bisquit.evaluation.inference import measured


def test_every_part_is_in_evaluation_mode_inside_and_in_its_own_mode_after():
    model = nn.Sequential(nn.Dropout(), nn.Linear(1, 1)).train()
    model[0].eval()
    with measured(model):
        assert not any(part.training for part in model.modules())
    assert [part.training for part in model.modules()] == [True, False, True]


def test_modes_come_back_after_an_error():
    model = nn.Linear(1, 1).train()
    with pytest.raises(KeyError), measured(model):
        raise KeyError
    assert model.training


def test_no_gradient_is_recorded():
    model = nn.Linear(1, 1)
    with measured(model) as device:
        assert not model(torch.ones(1, 1, device=device)).requires_grad


def test_a_model_without_parameters_is_measured_on_the_cpu():
    with measured(nn.Identity()) as device:
        assert device == torch.device("cpu")
